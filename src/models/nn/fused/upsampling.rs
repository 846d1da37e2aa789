//! Which values of an upsampled channel are copies of which.
#![expect(clippy::inline_always, reason = "what is not inlined has no vector instructions")]

use std::ops::Range;

use super::simd::sum;

/// Values worked on at a time, so that their factors and sums stay in the first-level cache.
const BLOCK: usize = 2048;

/// Nearest-neighbour upsampling of a channel `[T, H, W]` by whole factors; the first of an odd
/// number of frames, more than one, stays one frame.
#[derive(Clone, Copy, Debug)]
pub struct Upsampling {
    from: [usize; 3],
    to: [usize; 3],
    /// Whether the first frame is not repeated, as a number.
    alone: usize,
    /// How often the other frames, the rows and the columns are.
    repeats: [usize; 3],
    /// Rows of `from` in a block.
    rows: usize,
}

/// Some rows of one frame before upsampling.
#[derive(Clone, Debug)]
pub struct Block {
    frame: usize,
    rows: Range<usize>,
}

impl Upsampling {
    /// From frames, rows and columns to those.
    ///
    /// # Panics
    ///
    /// If a size is no multiple of the one before.
    pub fn new(from: [usize; 3], to: [usize; 3]) -> Self {
        let alone = usize::from(to[0] > 1 && to[0] % 2 == 1);
        Self::with_alone(from, to, alone)
    }

    /// One value for all of a channel of `len`.
    pub fn constant(len: usize) -> Self {
        let block = (1..=BLOCK.min(len)).rev().find(|block| len.is_multiple_of(*block));
        let block = block.expect("one divides everything");
        Self::with_alone([1; 3], [len / block, 1, block], 0)
    }

    fn with_alone(from: [usize; 3], to: [usize; 3], alone: usize) -> Self {
        let [t, h, w] = to;
        let repeat = |to: usize, from: usize| {
            assert!(to.is_multiple_of(from), "{from} does not divide {to}");
            to.checked_div(from).unwrap_or(0)
        };
        let repeats = [repeat(t - alone, from[0] - alone), repeat(h, from[1]), repeat(w, from[2])];
        let rows = (BLOCK / (repeats[1] * w)).clamp(1, from[1]);
        Self { from, to, alone, repeats, rows }
    }

    /// Values of a channel before.
    pub fn before(&self) -> usize {
        self.from.iter().product()
    }

    /// Values of a channel after.
    pub fn after(&self) -> usize {
        self.to.iter().product()
    }

    /// Frames, rows and columns before.
    pub fn from(&self) -> [usize; 3] {
        self.from
    }

    /// Frames, rows and columns after.
    pub fn to(&self) -> [usize; 3] {
        self.to
    }

    /// How often each value of a block is repeated.
    pub fn copies(&self, block: &Block) -> usize {
        self.frames(block).len() * self.repeats[1] * self.repeats[2]
    }

    /// The most values that a block has in one frame.
    pub fn max_len(&self) -> usize {
        self.rows * self.repeats[1] * self.to[2]
    }

    /// Values of a block in one frame.
    pub fn len(&self, block: &Block) -> usize {
        block.rows.len() * self.repeats[1] * self.to[2]
    }

    /// All blocks, in order.
    pub fn blocks(self) -> impl Iterator<Item = Block> {
        (0..self.from[0]).flat_map(move |frame| {
            (0..self.from[1])
                .step_by(self.rows)
                .map(move |row| Block { frame, rows: row..(row + self.rows).min(self.from[1]) })
        })
    }

    /// Where the values of a block are before upsampling.
    pub fn source(&self, block: &Block) -> Range<usize> {
        let [_, rows, columns] = self.from;
        let start = block.frame * rows * columns;
        start + block.rows.start * columns..start + block.rows.end * columns
    }

    /// Where they are after it, a range for each frame they are repeated in.
    pub fn targets(self, block: &Block) -> impl Iterator<Item = Range<usize>> + use<> {
        let ([_, height, width], by_row) = (self.to, self.repeats[1]);
        let rows = block.rows.start * by_row..block.rows.end * by_row;
        self.frames(block)
            .map(move |t| (t * height + rows.start) * width..(t * height + rows.end) * width)
    }

    fn frames(&self, block: &Block) -> Range<usize> {
        let (alone, repeat) = (self.alone, self.repeats[0]);
        match block.frame.checked_sub(alone) {
            Some(frame) => alone + frame * repeat..alone + (frame + 1) * repeat,
            None => 0..1,
        }
    }

    /// Repeats the rows and columns of a block.
    #[inline(always)]
    pub fn spread(&self, mut source: impl Iterator<Item = f32>, target: &mut [f32]) {
        let ([_, by_row, by_column], [_, _, width]) = (self.repeats, self.to);
        for rows in target.chunks_mut(by_row * width) {
            let first = &mut rows[..width];
            match by_column {
                1 => repeat::<1>(&mut source, first),
                2 => repeat::<2>(&mut source, first),
                4 => repeat::<4>(&mut source, first),
                8 => repeat::<8>(&mut source, first),
                _ => {
                    for (out, value) in first.chunks_mut(by_column).zip(&mut source) {
                        out.fill(value);
                    }
                }
            }
            for row in 1..by_row {
                rows.copy_within(..width, row * width);
            }
        }
    }

    /// Adds up the copies of each value of a block; `target` is overwritten.
    #[inline(always)]
    pub fn gather(&self, target: &mut [f32], source: &mut [f32]) {
        let ([_, by_row, by_column], width) = (self.repeats, self.to[2]);
        let places = target.chunks_mut(by_row * width).zip(source.chunks_mut(self.from[2]));
        for (rows, source) in places {
            let (first, others) = rows.split_at_mut(width);
            for row in others.chunks(width) {
                for (sum, value) in first.iter_mut().zip(row) {
                    *sum += value;
                }
            }
            match by_column {
                1 => add_up::<1>(first, source),
                2 => add_up::<2>(first, source),
                4 => add_up::<4>(first, source),
                8 => add_up::<8>(first, source),
                _ => {
                    for (out, copies) in source.iter_mut().zip(first.chunks(by_column)) {
                        *out = sum(copies, |_, x| x);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn repeat<const N: usize>(source: &mut impl Iterator<Item = f32>, target: &mut [f32]) {
    for (out, value) in target.as_chunks_mut::<N>().0.iter_mut().zip(source) {
        *out = [value; N];
    }
}

#[inline(always)]
fn add_up<const N: usize>(target: &[f32], source: &mut [f32]) {
    for (out, copies) in source.iter_mut().zip(target.as_chunks::<N>().0) {
        *out = copies.iter().sum();
    }
}
