//! Optimisation: noise, losses, gradients, checkpoints.

pub mod rng;
