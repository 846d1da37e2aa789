//! 3-D convolution as one matrix product per clip, with its own backward pass.
//!
//! Burn's CPU backend computes the gradients of a convolution as convolutions with kernels as large
//! as the image, which costs several times the forward pass. Here the window of each output
//! place is a column: `y = W col(x)`, `dW = dy col(x)^T`, `dx = fold(W^T dy)`.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        ops::FloatTensorOps,
        tensor::FloatTensor,
    },
    tensor::{Tensor, TensorData},
};
use rayon::prelude::*;

use super::{
    kernels::{Values, slice},
    register,
};

/// Bytes of columns per clip up to which this is used: larger layers would be mostly copying.
const MAX_COLUMNS: usize = 256 << 20;

/// Stride and zero padding, the same in height and width; none in time.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Stride in space.
    pub stride: usize,
    /// Padding in space.
    pub padding: usize,
}

/// Whether the columns of this convolution are small enough.
pub fn applies(x: [usize; 5], weight: [usize; 5], window: Window) -> bool {
    let geometry = Geometry::new(x, weight, window);
    geometry.rows() * geometry.places() * size_of::<f32>() <= MAX_COLUMNS
}

/// `[B, in, T, H, W]` with `[out, in, t, h, w]` to `[B, out, T', H', W']`, without bias.
pub fn conv3d(x: Tensor<5>, weight: Tensor<5>, window: Window) -> Tensor<5> {
    Tensor::from_dispatch(<Dispatch as Conv>::fused_conv3d(
        x.into_dispatch(),
        weight.into_dispatch(),
        window,
    ))
}

/// The operation as Burn dispatches it.
#[backend_extension(Autodiff, Flex)]
pub trait Conv: Backend {
    /// See [`conv3d`].
    fn fused_conv3d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        window: Window,
    ) -> FloatTensor<Self>;
}

/// The backward pass, which only the tape calls.
pub trait ConvGrad: Conv {
    /// The gradients with respect to `x`, if wanted, and `weight`.
    fn conv3d_grad(
        inputs: [FloatTensor<Self>; 2],
        window: Window,
        grad: FloatTensor<Self>,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<Self>>; 2];
}

/// All sizes of one convolution.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    batch: usize,
    input: usize,
    output: usize,
    kernel: [usize; 3],
    from: [usize; 3],
    to: [usize; 3],
    window: Window,
}

impl Geometry {
    fn new(x: [usize; 5], weight: [usize; 5], window: Window) -> Self {
        let [batch, input, t, h, w] = x;
        let [output, _, kt, kh, kw] = weight;
        let space = |len: usize, k: usize| (len + 2 * window.padding - k) / window.stride + 1;
        let to = [t - kt + 1, space(h, kh), space(w, kw)];
        Self { batch, input, output, kernel: [kt, kh, kw], from: [t, h, w], to, window }
    }

    /// Values of one window.
    fn rows(&self) -> usize {
        self.input * self.kernel.iter().product::<usize>()
    }

    /// Windows of one clip.
    fn places(&self) -> usize {
        self.to.iter().product()
    }

    /// Values of one channel of the input.
    fn channel(&self) -> usize {
        self.from.iter().product()
    }

    /// For each output row of tap `(kt, kh, kw)`: where it starts in the output and, if it is not all
    /// padding, where its row starts in the input channel.
    fn lines(&self, [kt, kh]: [usize; 2]) -> impl Iterator<Item = (usize, Option<usize>)> + '_ {
        let [out_t, out_h, out_w] = self.to;
        let [_, height, width] = self.from;
        (0..out_t * out_h).map(move |line| {
            let (t, y) = (line / out_h + kt, (line % out_h) * self.window.stride + kh);
            let inside = y.checked_sub(self.window.padding).filter(|y| *y < height);
            (line * out_w, inside.map(|y| (t * height + y) * width))
        })
    }

    /// The outputs `from..to` of a line whose tap at column `kw` lies in the image, and the input
    /// column of the first.
    fn span(&self, kw: usize) -> (usize, usize, usize) {
        let (stride, padding, width) = (self.window.stride, self.window.padding, self.from[2]);
        let first = padding.saturating_sub(kw).div_ceil(stride);
        let last = ((width + padding).saturating_sub(kw)).div_ceil(stride).min(self.to[2]);
        (first.min(last), last, first * stride + kw - padding.min(first * stride + kw))
    }

    fn tap(&self, row: usize) -> (usize, [usize; 3]) {
        let [kt, kh, kw] = self.kernel;
        (row / (kt * kh * kw), [row / (kh * kw) % kt, row / kw % kh, row % kw])
    }

    /// The windows of one clip as columns `[rows, places]`.
    fn columns(&self, x: &[f32]) -> Values {
        let mut columns = vec![0.0; self.rows() * self.places()];
        columns.par_chunks_mut(self.places()).enumerate().for_each(|(row, out)| {
            let (channel, [kt, kh, kw]) = self.tap(row);
            let x = &x[channel * self.channel()..][..self.channel()];
            let (first, last, column) = self.span(kw);
            for (start, line) in self.lines([kt, kh]) {
                let Some(line) = line else { continue };
                let out = &mut out[start + first..start + last];
                if self.window.stride == 1 {
                    out.copy_from_slice(&x[line + column..][..last - first]);
                } else {
                    for (out, x) in
                        out.iter_mut().zip(x[line + column..].iter().step_by(self.window.stride))
                    {
                        *out = *x;
                    }
                }
            }
        });
        matrix(columns, self.rows(), self.places())
    }

    /// Adds columns back to the places they were taken from.
    fn fold(&self, columns: &[f32], dx: &mut [f32]) {
        let taps: usize = self.kernel.iter().product();
        dx.par_chunks_mut(self.channel()).enumerate().for_each(|(channel, dx)| {
            for row in channel * taps..(channel + 1) * taps {
                let (_, [kt, kh, kw]) = self.tap(row);
                let columns = &columns[row * self.places()..][..self.places()];
                let (first, last, column) = self.span(kw);
                for (start, line) in self.lines([kt, kh]) {
                    let Some(line) = line else { continue };
                    let columns = &columns[start + first..start + last];
                    let dx = dx[line + column..].iter_mut().step_by(self.window.stride);
                    for (dx, value) in dx.zip(columns) {
                        *dx += value;
                    }
                }
            }
        });
    }
}

fn matrix(values: Vec<f32>, rows: usize, columns: usize) -> Values {
    Values::from_data(TensorData::new(values, [rows, columns]))
}

fn dims(x: &Values) -> [usize; 5] {
    let shape = x.shape();
    [0, 1, 2, 3, 4].map(|axis| shape[axis])
}

fn reshaped(weight: &Values, geometry: &Geometry) -> Values {
    matrix(slice(weight).to_vec(), geometry.output, geometry.rows())
}

impl Conv for Flex {
    fn fused_conv3d(x: Values, weight: Values, window: Window) -> Values {
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        let geometry = Geometry::new(dims(&x), dims(&weight), window);
        let weight = reshaped(&weight, &geometry);
        let clip = geometry.input * geometry.channel();
        let mut out = Vec::with_capacity(geometry.batch * geometry.output * geometry.places());
        for x in slice(&x).chunks(clip) {
            let y = Self::float_matmul(weight.clone(), geometry.columns(x)).to_contiguous();
            out.extend_from_slice(slice(&y));
        }
        let [t, h, w] = geometry.to;
        Values::from_data(TensorData::new(out, [geometry.batch, geometry.output, t, h, w]))
    }
}

impl ConvGrad for Flex {
    fn conv3d_grad(
        [x, weight]: [Values; 2],
        window: Window,
        grad: Values,
        [wants_x, wants_weight]: [bool; 2],
    ) -> [Option<Values>; 2] {
        let [x, weight, grad] = [x, weight, grad].map(|tensor| tensor.to_contiguous());
        let geometry = Geometry::new(dims(&x), dims(&weight), window);
        let transposed = Self::float_transpose(reshaped(&weight, &geometry));
        let clip = geometry.input * geometry.channel();
        let mut dx = vec![0.0; if wants_x { slice(&x).len() } else { 0 }];
        let mut dw: Option<Values> = None;
        let grads = slice(&grad).chunks(geometry.output * geometry.places());
        for (index, (x, grad)) in slice(&x).chunks(clip).zip(grads).enumerate() {
            let grad = matrix(grad.to_vec(), geometry.output, geometry.places());
            if wants_weight {
                let columns = Self::float_transpose(geometry.columns(x));
                let part = Self::float_matmul(grad.clone(), columns);
                dw = Some(match dw {
                    Some(dw) => Self::float_add(dw, part),
                    None => part,
                });
            }
            if wants_x {
                let columns = Self::float_matmul(transposed.clone(), grad).to_contiguous();
                geometry.fold(slice(&columns), &mut dx[index * clip..][..clip]);
            }
        }
        let dx = wants_x.then(|| super::kernels::tensor(dx, &x));
        [dx, dw.map(|dw| super::kernels::tensor(slice(&dw.to_contiguous()).to_vec(), &weight))]
    }
}

impl<B: ConvGrad, C: CheckpointStrategy> Conv for Autodiff<B, C> {
    fn fused_conv3d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        window: Window,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Convolve;
        impl<B: ConvGrad> Backward<B, 2> for Convolve {
            type State = ([FloatTensor<B>; 2], Window);

            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let grad = grads.consume::<B>(&ops.node);
                let parents = ops.parents.map(|parent| parent.map(|node| node.id));
                let (inputs, window) = ops.state;
                let wanted = parents.map(|parent| parent.is_some());
                let results = B::conv3d_grad(inputs, window, grad, wanted);
                for (parent, result) in parents.into_iter().zip(results) {
                    if let Some(result) = result {
                        register::<B, 1>(grads, [parent], [result]);
                    }
                }
            }
        }
        let inputs = [x.primitive().clone(), weight.primitive().clone()];
        let [input, kernel] = inputs.clone();
        let y = B::fused_conv3d(input, kernel, window);
        match Convolve.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((inputs, window), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, module, ops::ConvOptions};

    use super::*;

    fn random(shape: [usize; 5]) -> Tensor<5> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn far(a: Tensor<5>, b: Tensor<5>) -> f32 {
        ((a - b.clone()).abs().max() / b.abs().max()).into_scalar::<f32>()
    }

    #[test]
    fn values_and_gradients_are_those_of_the_backend() {
        let cases = [
            ([2, 3, 5, 6, 8], [4, 3, 3, 3, 3], Window { stride: 1, padding: 1 }),
            ([1, 4, 3, 7, 5], [2, 4, 1, 1, 1], Window { stride: 1, padding: 0 }),
            ([2, 3, 2, 9, 7], [5, 3, 1, 3, 3], Window { stride: 2, padding: 0 }),
            ([1, 2, 3, 4, 4], [3, 2, 2, 3, 3], Window { stride: 2, padding: 1 }),
        ];
        for (x, weight, window) in cases {
            let (x, weight) = (random(x), random(weight));
            let run = |fused: bool| {
                let x = x.clone().autodiff().require_grad();
                let weight = weight.clone().autodiff().require_grad();
                let y = if fused {
                    conv3d(x.clone(), weight.clone(), window)
                } else {
                    let Window { stride: s, padding: p } = window;
                    let options = ConvOptions::new([1, s, s], [0, p, p], [1; 3], 1);
                    module::conv3d(x.clone(), weight.clone(), None, options)
                };
                let grads = (y.clone() * y.clone()).sum().backward();
                [y.without_autodiff(), x.grad(&grads).unwrap(), weight.grad(&grads).unwrap()]
            };
            let (ours, theirs) = (run(true), run(false));
            for (ours, theirs) in ours.into_iter().zip(theirs) {
                assert_eq!(ours.dims(), theirs.dims());
                assert!(far(ours, theirs) < 1e-5, "{window:?}");
            }
        }
    }
}
