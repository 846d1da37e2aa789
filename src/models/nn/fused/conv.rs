//! 3-D convolution on the CPU with its own backward pass.
//!
//! Burn's CPU backend computes the gradients of a convolution as convolutions with kernels as large
//! as the image, which costs several times the forward pass. Here small kernels of stride 1 go
//! straight over the frames ([`direct`](super::direct)); what moves in larger steps is a
//! matrix product ([`columns`](super::columns)).

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, ops::FloatTensorOps,
        tensor::FloatTensor,
    },
    tensor::{Tensor, TensorData},
};
use rayon::prelude::*;

use super::{
    direct::{self, MAX_KERNEL, Packed, Planes},
    im2col::{self, Geometry, matrix},
    kernels::{self, Values, slice},
    tape::record,
};

/// Stride and zero padding, the same in height and width; none in time.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Stride in space.
    pub stride: usize,
    /// Padding in space.
    pub padding: usize,
}

/// Whether this convolution is done here.
pub fn applies(x: [usize; 5], weight: [usize; 5], window: Window) -> bool {
    let geometry = Geometry::new(x, weight, window);
    is_direct(&geometry) || geometry.fits()
}

fn is_direct(Geometry { kernel: [_, kh, kw], window, .. }: &Geometry) -> bool {
    window.stride == 1 && *kw <= MAX_KERNEL && window.padding < *kh.min(kw)
}

/// `[B, in, T, H, W]` with `[out, in, t, h, w]` and `[out]` to `[B, out, T', H', W']`.
pub fn conv3d(x: Tensor<5>, weight: Tensor<5>, bias: Tensor<1>, window: Window) -> Tensor<5> {
    Tensor::from_dispatch(<Dispatch as Conv>::fused_conv3d(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
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
        bias: FloatTensor<Self>,
        window: Window,
    ) -> FloatTensor<Self>;
}

/// The backward pass, which only the tape calls.
pub trait ConvGrad: Conv {
    /// The gradients with respect to `x`, the weight and the bias, those that are wanted.
    fn conv3d_grad(
        inputs: [FloatTensor<Self>; 2],
        window: Window,
        grad: FloatTensor<Self>,
        wanted: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3];
}

fn dims(x: &Values) -> [usize; 5] {
    let shape = x.shape();
    [0, 1, 2, 3, 4].map(|axis| shape[axis])
}

fn reshaped(weight: &Values, geometry: &Geometry) -> Values {
    matrix(slice(weight).to_vec(), geometry.output, geometry.rows())
}

impl Conv for Flex {
    fn fused_conv3d(x: Values, weight: Values, bias: Values, window: Window) -> Values {
        let [x, weight, bias] = [x, weight, bias].map(|tensor| tensor.to_contiguous());
        let geometry = Geometry::new(dims(&x), dims(&weight), window);
        let Geometry { batch, input, output, from, to: [t, h, w], .. } = geometry;
        let mut out = vec![0.0; batch * output * geometry.places()];
        let clips = out.chunks_mut(output * geometry.places());
        let clips = clips.zip(slice(&x).chunks(input * geometry.channel()));
        if is_direct(&geometry) {
            let packed = Packed::forward(slice(&weight), dims(&weight));
            for (out, x) in clips {
                let planes =
                    Planes::new(x, [input, from[0], from[1], from[2]], [window.padding; 4]);
                direct::convolve(&planes, &packed, Some(slice(&bias)), out);
            }
        } else {
            let weight = reshaped(&weight, &geometry);
            for (out, x) in clips {
                for (out, bias) in out.chunks_mut(geometry.places()).zip(slice(&bias)) {
                    out.fill(*bias);
                }
                im2col::forward(&geometry, x, &weight, out);
            }
        }
        Values::from_data(TensorData::new(out, [batch, output, t, h, w]))
    }
}

impl ConvGrad for Flex {
    fn conv3d_grad(
        [x, weight]: [Values; 2],
        window: Window,
        grad: Values,
        [wants_x, wants_weight, wants_bias]: [bool; 3],
    ) -> [Option<Values>; 3] {
        let [x, weight, grad] = [x, weight, grad].map(|tensor| tensor.to_contiguous());
        let geometry = Geometry::new(dims(&x), dims(&weight), window);
        let room =
            |tensor: &Values, is_wanted| vec![0.0; if is_wanted { slice(tensor).len() } else { 0 }];
        let (mut dx, mut dw) = (room(&x, wants_x), room(&weight, wants_weight));
        if wants_x || wants_weight {
            let tensors = [&x, &weight, &grad].map(slice);
            if is_direct(&geometry) {
                direct_gradients(&geometry, tensors, [&mut dx, &mut dw]);
            } else {
                let transposed = Self::float_transpose(reshaped(&weight, &geometry));
                let clip = geometry.input * geometry.channel();
                let grads = slice(&grad).chunks(geometry.output * geometry.places());
                for (index, (x, grad)) in slice(&x).chunks(clip).zip(grads).enumerate() {
                    let dx = if wants_x { &mut dx[index * clip..][..clip] } else { &mut [] };
                    im2col::backward(&geometry, [x, grad], &transposed, [dx, &mut dw]);
                }
            }
        }
        let db = wants_bias.then(|| {
            let db = bias_gradient(&geometry, slice(&grad));
            Values::from_data(TensorData::new(db, [geometry.output]))
        });
        let dx = wants_x.then(|| kernels::tensor(dx, &x));
        [dx, wants_weight.then(|| kernels::tensor(dw, &weight)), db]
    }
}

/// Adds the gradients to `dx` and `dw`, which are empty if not wanted.
fn direct_gradients(
    geometry: &Geometry,
    [x, weight, grad]: [&[f32]; 3],
    [dx, dw]: [&mut [f32]; 2],
) {
    let Geometry { input, output, kernel: [kt, kh, kw], from, to, window, .. } = *geometry;
    let clip = input * geometry.channel();
    let packed = Packed::backward(weight, [output, input, kt, kh, kw]);
    let grads = grad.chunks(output * geometry.places());
    for (index, (x, grad)) in x.chunks(clip).zip(grads).enumerate() {
        let size = [output, to[0], to[1], to[2]];
        if !dw.is_empty() {
            let x = Planes::new(x, [input, from[0], from[1], from[2]], [window.padding; 4]);
            let grad = Planes::new(grad, size, [0, 0, 0, kw - 1]);
            direct::weight_gradient(&x, &grad, geometry.kernel, dw);
        }
        if !dx.is_empty() {
            let [down, across] = [kh, kw].map(|k| k - 1 - window.padding);
            let grad = Planes::new(grad, size, [down, down, across, across]);
            direct::convolve(&grad, &packed, None, &mut dx[index * clip..][..clip]);
        }
    }
}

fn bias_gradient(geometry: &Geometry, grad: &[f32]) -> Vec<f32> {
    let (places, clip) = (geometry.places(), geometry.output * geometry.places());
    let of_channel = |channel: usize| {
        let clips = grad.chunks(clip).map(|grad| &grad[channel * places..][..places]);
        clips.map(|grad| super::simd::vectorized!(|| super::simd::sum(grad, |_, x| x))).sum()
    };
    (0..geometry.output).into_par_iter().map(of_channel).collect()
}

impl<B: ConvGrad, C: CheckpointStrategy> Conv for Autodiff<B, C> {
    fn fused_conv3d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        window: Window,
    ) -> FloatTensor<Self> {
        let inputs = [x.primitive().clone(), weight.primitive().clone()];
        let [input, kernel] = inputs.clone();
        let y = B::fused_conv3d(input, kernel, bias.primitive().clone(), window);
        record::<B, C, _, _>([&x, &weight, &bias], y, move |grad, wanted| {
            B::conv3d_grad(inputs, window, grad, wanted)
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{module, ops::ConvOptions};

    use super::{super::testing::random, *};

    fn far(a: Tensor<5>, b: Tensor<5>) -> f32 {
        ((a - b.clone()).abs().max() / b.abs().max()).into_scalar::<f32>()
    }

    #[test]
    fn values_and_gradients_are_those_of_the_backend() {
        let cases = [
            ([2, 3, 5, 6, 8], [4, 3, 3, 3, 3], Window { stride: 1, padding: 1 }),
            ([1, 5, 3, 17, 33], [11, 5, 3, 3, 3], Window { stride: 1, padding: 1 }),
            ([1, 2, 2, 40, 30], [9, 2, 1, 3, 3], Window { stride: 1, padding: 0 }),
            ([1, 2, 2, 7, 9], [3, 2, 2, 2, 2], Window { stride: 1, padding: 1 }),
            ([1, 4, 3, 7, 5], [2, 4, 1, 1, 1], Window { stride: 1, padding: 0 }),
            ([2, 3, 2, 9, 7], [5, 3, 1, 3, 3], Window { stride: 2, padding: 0 }),
            ([1, 2, 3, 4, 4], [3, 2, 2, 3, 3], Window { stride: 2, padding: 1 }),
        ];
        for (x, weight, window) in cases {
            let (x, weight) = (random(x), random(weight));
            let bias = random([1, 1, 1, 1, weight.dims()[0]]).reshape([-1]);
            let run = |fused: bool| {
                let x = x.clone().autodiff().require_grad();
                let weight = weight.clone().autodiff().require_grad();
                let bias: Tensor<1> = bias.clone().autodiff().require_grad();
                let y = if fused {
                    conv3d(x.clone(), weight.clone(), bias.clone(), window)
                } else {
                    let Window { stride: s, padding: p } = window;
                    let options = ConvOptions::new([1, s, s], [0, p, p], [1; 3], 1);
                    module::conv3d(x.clone(), weight.clone(), Some(bias.clone()), options)
                };
                let grads = (y.clone() * y.clone()).sum().backward();
                let bias = bias.grad(&grads).unwrap().reshape([1, 1, 1, 1, -1]);
                [y.without_autodiff(), x.grad(&grads).unwrap(), weight.grad(&grads).unwrap(), bias]
            };
            let (ours, theirs) = (run(true), run(false));
            for (ours, theirs) in ours.into_iter().zip(theirs) {
                assert_eq!(ours.dims(), theirs.dims());
                assert!(far(ours, theirs) < 1e-5, "{window:?}");
            }
        }
    }
}
