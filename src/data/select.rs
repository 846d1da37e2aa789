//! Which images of a data set a stage takes: by seed, never by chance.

use crate::train::rng::TorchRng;

/// More images were asked for than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "subset {subset} of {count} needs {} images, but the data has {available}",
    (subset + 1) * count
)]
pub struct SelectError {
    /// Images per subset.
    pub count: usize,
    /// The subset asked for, from 0.
    pub subset: usize,
    /// Images there are.
    pub available: usize,
}

/// The indices of `count` of `available` images: block number `subset` of one shuffle by `seed`.
///
/// Subsets of one count are disjoint; subset 0 of a smaller count is the beginning of subset 0 of
/// a larger one.
pub fn select(
    available: usize,
    count: usize,
    subset: usize,
    seed: u64,
) -> Result<Vec<usize>, SelectError> {
    let error = SelectError { count, subset, available };
    let end = subset.checked_add(1).and_then(|n| n.checked_mul(count)).ok_or(error)?;
    if end > available {
        return Err(error);
    }
    let keys = TorchRng::new(seed).uniform(available);
    let mut order: Vec<usize> = (0..available).collect();
    order.sort_by(|a, b| keys[*a].total_cmp(&keys[*b]).then(a.cmp(b)));
    Ok(order[subset * count..end].to_vec())
}
