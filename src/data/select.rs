//! Which images of a data set a stage takes: by seed, never by chance.

use crate::rng::TorchRng;

/// More images were asked for than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "subset {subset} of {count} needs {} images, but the data has {available}",
    subset.saturating_add(1).saturating_mul(*count)
)]
pub struct SelectError {
    /// Images per subset.
    pub count: usize,
    /// The subset asked for, from 0.
    pub subset: usize,
    /// Images there are.
    pub available: usize,
}

/// The indices of `count` of `available` images: block number `subset` of one shuffle:
/// `torch.randperm(available)` with the generator seeded by `seed`.
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
    Ok(TorchRng::new(seed).randperm(available)[subset * count..end].to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn subsets_are_disjoint(count in 1usize..20, subsets in 1usize..5, seed: u64) {
            let mut seen = std::collections::BTreeSet::new();
            for subset in 0..subsets {
                for index in select(count * subsets, count, subset, seed).unwrap() {
                    prop_assert!(seen.insert(index), "{} twice", index);
                }
            }
            prop_assert_eq!(seen.len(), count * subsets);
        }

        #[test]
        fn a_smaller_first_subset_begins_the_larger_one(seed: u64) {
            let (three, ten) = (select(50, 3, 0, seed).unwrap(), select(50, 10, 0, seed).unwrap());
            prop_assert_eq!(&three[..], &ten[..3]);
        }
    }

    #[test]
    fn more_than_there_is_names_both_numbers() {
        let error = select(28, 10, 2, 1).unwrap_err();
        insta::assert_snapshot!(error, @"subset 2 of 10 needs 30 images, but the data has 28");
        assert!(select(28, usize::MAX, 1, 1).is_err());
    }
}
