//! What an allocator on a GPU takes beside the tensors that are kept.
//!
//! `CubeCL` carves tensors from pages. A page is as large as the largest tensor so far and a mebibyte more, and
//! what is left of it after the last tensor that fits stays empty. Pages do not become smaller again while the
//! program runs: after a stage with larger tensors, the next stage has pages of that size. So a stage may take
//! up to two pages more than is planned of it, one for what its weights leave empty and one for the rest; on an
//! H100, T5-XXL took 12.8 GB for 9.5 GB of weights after an autoencoder with tensors of 1.6 GB
//! (`benches/results/2026-11-27-h100.md`).

const MIB: u64 = 1 << 20;
/// The size of the first page, at least.
const FIRST: u64 = 2 * MIB;
/// Smaller tensors have small pages of their own.
const SMALL: u64 = 64 << 10;

/// Bytes that pages of tensors of these sizes take beyond the tensors, loaded in this order by a program that
/// has made no larger ones.
pub(super) fn spare(sizes: impl IntoIterator<Item = u64>) -> u64 {
    Pages::of(FIRST, sizes).spare()
}

#[derive(Default)]
struct Pages {
    size: u64,
    /// What is empty of each page of the present size.
    empty: Vec<u64>,
    /// Bytes of all pages, and of what is on them.
    taken: u64,
    held: u64,
}

impl Pages {
    fn of(size: u64, tensors: impl IntoIterator<Item = u64>) -> Self {
        let mut pages = Self { size, ..Self::default() };
        for tensor in tensors.into_iter().filter(|tensor| *tensor > SMALL) {
            pages.add(tensor);
        }
        pages
    }

    fn add(&mut self, tensor: u64) {
        if tensor > self.size {
            // Smaller pages take nothing more.
            self.size = (tensor + MIB).next_multiple_of(MIB);
            self.empty.clear();
        }
        self.held += tensor;
        if let Some(empty) = self.empty.iter_mut().find(|empty| **empty >= tensor) {
            *empty -= tensor;
            return;
        }
        self.taken += self.size;
        self.empty.push(self.size - tensor);
    }

    fn spare(&self) -> u64 {
        self.taken - self.held
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// How many pages of `size` hold tensors of these sizes.
    pub fn number(size: u64, tensors: impl IntoIterator<Item = u64>) -> u64 {
        Pages::of(size, tensors).taken / size
    }

    #[test]
    fn pages_grow_with_the_largest_tensor_and_stay_partly_empty() {
        assert_eq!(spare([]), 0);
        assert_eq!(spare([1, SMALL]), 0, "small ones are elsewhere");
        assert_eq!(spare([MIB]), MIB);
        assert_eq!(spare([MIB, MIB]), 0);
        // A page of 2 MiB, then two of 6 MiB: 5 and the first 1 that comes after it, then 5 alone.
        assert_eq!(spare([MIB, 5 * MIB, 5 * MIB, MIB]), MIB + MIB);
        assert_eq!(number(16 * MIB, [5 * MIB; 4]), 2);
    }
}
