//! Scores of predicted images.
