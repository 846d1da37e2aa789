//! Scores of predicted images.

pub mod arc;
pub mod image;
pub mod miou;
pub mod pose;

use std::collections::BTreeMap;

/// The scores of one image, by name.
pub type Score = BTreeMap<String, f64>;

/// A score from pairs of name and value.
pub fn score<const N: usize>(values: [(&str, f64); N]) -> Score {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The mean of each score over images.
pub fn means(scores: &BTreeMap<String, Score>) -> Score {
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (name, value) in scores.values().flatten() {
        let (sum, count) = sums.entry(name.clone()).or_default();
        *sum += value;
        *count += 1.0;
    }
    sums.into_iter().map(|(name, (sum, count))| (name, sum / count)).collect()
}
