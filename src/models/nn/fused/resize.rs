//! Nearest-neighbour upsampling and the mean over what it repeats, each the other's gradient up to
//! a factor.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, tensor::FloatTensor,
    },
    tensor::{Tensor, TensorData},
};
use rayon::prelude::*;

use super::{
    kernels::{Values, slice},
    simd::vectorized,
    tape::record,
    upsampling::Upsampling,
};

/// What is done between the small and the large size of clips.
#[derive(Clone, Copy, Debug)]
pub struct Resize {
    sizes: Upsampling,
    direction: Direction,
    /// Whether values are divided by the number of copies.
    mean: bool,
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    Repeat,
    AddUp,
}

impl Resize {
    fn transposed(self) -> Self {
        let direction = match self.direction {
            Direction::Repeat => Direction::AddUp,
            Direction::AddUp => Direction::Repeat,
        };
        Self { direction, ..self }
    }
}

/// `[B, C, f, h, w]` repeated to these frames, rows and columns, see [`Upsampling`].
pub fn upsample(x: Tensor<5>, to: [usize; 3]) -> Tensor<5> {
    let [_, _, f, h, w] = x.dims();
    let sizes = Upsampling::new([f, h, w], to);
    resize(x, Resize { sizes, direction: Direction::Repeat, mean: false })
}

/// `[B, C, T, H, W]` to the means over the places that [`upsample`] would make from one.
pub fn downsample(x: Tensor<5>, to: [usize; 3]) -> Tensor<5> {
    let [_, _, t, h, w] = x.dims();
    let sizes = Upsampling::new(to, [t, h, w]);
    resize(x, Resize { sizes, direction: Direction::AddUp, mean: true })
}

fn resize(x: Tensor<5>, how: Resize) -> Tensor<5> {
    Tensor::from_dispatch(Dispatch::fused_resize(x.into_dispatch(), how))
}

/// The operation as Burn dispatches it.
#[backend_extension(Autodiff, Flex)]
pub trait Resizing: Backend {
    /// See [`upsample`] and [`downsample`].
    fn fused_resize(x: FloatTensor<Self>, how: Resize) -> FloatTensor<Self>;
}

impl Resizing for Flex {
    fn fused_resize(x: Values, how: Resize) -> Values {
        let x = x.to_contiguous();
        let Resize { sizes, direction, mean } = how;
        let (from, to, [t, h, w]) = match direction {
            Direction::Repeat => (sizes.before(), sizes.after(), sizes.to()),
            Direction::AddUp => (sizes.after(), sizes.before(), sizes.from()),
        };
        let shape = x.shape();
        let mut out = vec![0.0; shape[0] * shape[1] * to];
        out.par_chunks_mut(to).zip(slice(&x).par_chunks(from)).for_each(
            |(out, x)| match direction {
                Direction::Repeat => repeat(x, out, sizes, mean),
                Direction::AddUp => add_up(x, out, sizes, mean),
            },
        );
        Values::from_data(TensorData::new(out, [shape[0], shape[1], t, h, w]))
    }
}

fn repeat(x: &[f32], out: &mut [f32], sizes: Upsampling, mean: bool) {
    for block in sizes.blocks() {
        let factor = if mean { 1.0 / sizes.copies(&block) as f32 } else { 1.0 };
        let x = x[sizes.source(&block)].iter().map(|x| x * factor);
        let mut targets = sizes.targets(&block);
        let Some(first) = targets.next() else { continue };
        vectorized!(|| sizes.spread(x, &mut out[first.clone()]));
        for target in targets {
            out.copy_within(first.clone(), target.start);
        }
    }
}

fn add_up(x: &[f32], out: &mut [f32], sizes: Upsampling, mean: bool) {
    let mut sums = vec![0.0; sizes.max_len()];
    for block in sizes.blocks() {
        let sums = &mut sums[..sizes.len(&block)];
        let out = &mut out[sizes.source(&block)];
        let factor = if mean { 1.0 / sizes.copies(&block) as f32 } else { 1.0 };
        vectorized!(|| {
            sums.fill(0.0);
            for target in sizes.targets(&block) {
                for (sum, x) in sums.iter_mut().zip(&x[target]) {
                    *sum += factor * x;
                }
            }
            sizes.gather(sums, out);
        });
    }
}

impl<B: Resizing, C: CheckpointStrategy> Resizing for Autodiff<B, C> {
    fn fused_resize(x: FloatTensor<Self>, how: Resize) -> FloatTensor<Self> {
        let y = B::fused_resize(x.primitive().clone(), how);
        record::<B, C, _, _>([&x], y, move |grad, _| {
            [Some(B::fused_resize(grad, how.transposed()))]
        })
    }
}
