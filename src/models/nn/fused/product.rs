//! Matrix products and convolutions of GPUs, whose kernels are chosen by the shapes alone.
//!
//! Burn runs some twenty kernels for every kind of product it meets, and ten more for every
//! elementwise operation that could be fused to one, and keeps the fastest. The CUDA compiler takes
//! 0.5 to 7 s for each: on an H100 even `text_encode` of `builtin:tiny` took 200 s, and 9 s without
//! the search (`benches/results/2026-11-26-h100.md`). So products go past it, and so do
//! convolutions that nothing is trained through.

#[cfg(any(test, feature = "cuda"))]
use burn::tensor::Shape;
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, ops::FloatTensorOps,
        tensor::FloatTensor,
    },
    tensor::{DType, FloatDType, Tensor, ops::ConvOptions},
};

use super::tape::record;

/// The matrix product over the last two axes; the others are equal.
pub fn product<const D: usize>(lhs: Tensor<D>, rhs: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::product(lhs.into_dispatch(), rhs.into_dispatch()))
}

/// `x W^T + b` of `[rows, in]` with a weight `[out, in]`: `[rows, out]`.
pub fn affine(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::affine(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ))
}

/// The operations as Burn dispatches them.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cuda"), Fusion: cfg(feature = "cuda"))]
pub trait Product: Backend {
    /// See [`product`].
    #[fusion(dtype = lhs, shape = product_shape(lhs, rhs))]
    fn product(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`affine`].
    #[fusion(dtype = x, shape = affine_shape(x, weight))]
    fn affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let bias = as_row::<Self>(bias);
        Self::float_add(Self::product(x, Self::float_transpose(weight)), bias)
    }

    /// `sum + lhs rhs` of matrices.
    #[fusion(dtype = sum, shape = sum)]
    fn product_onto(
        sum: FloatTensor<Self>,
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::float_add(sum, Self::product(lhs, rhs))
    }

    /// `factor lhs rhs` of matrices.
    #[fusion(dtype = lhs, shape = product_shape(lhs, rhs))]
    fn scaled_product(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        factor: f64,
    ) -> FloatTensor<Self> {
        Self::float_mul_scalar(Self::product(lhs, rhs), factor.into())
    }

    /// `lhs rhs` of matrices in f32, of whatever type they are.
    #[fusion(dtype = DType::F32, shape = product_shape(lhs, rhs))]
    fn wide_product(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>) -> FloatTensor<Self> {
        in_type::<Self>(Self::product(lhs, rhs), DType::F32)
    }

    /// A convolution of `[B, C, T, H, W]` by `[out, C, t, h, w]`, with strides in time and in
    /// space, and zero padding in space alone: Burn's own, unless the backend has a better one. On
    /// a tape it is Burn's, which also trains weights.
    #[fusion(dtype = x, shape = convolved_shape(x, weight, [*in_time, *in_space], *padding))]
    fn convolved(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        in_time: usize,
        in_space: usize,
        padding: usize,
    ) -> FloatTensor<Self> {
        Self::conv3d(x, weight, Some(bias), window([in_time, in_space], padding))
    }
}

/// The tensor in another type, if it is not of that already.
pub fn in_type<B: Backend>(x: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if x.dtype() == dtype { x } else { B::float_cast(x, FloatDType::from(dtype)) }
}

/// Strides in time and in space, and padding in space alone.
pub fn window([time, space]: [usize; 2], padding: usize) -> ConvOptions<3> {
    ConvOptions::new([time, space, space], [0, padding, padding], [1; 3], 1)
}

/// The shape of a product.
#[cfg(any(test, feature = "cuda"))]
fn product_shape(lhs: &Shape, rhs: &Shape) -> Shape {
    let mut dims = lhs.to_vec();
    let last = dims.len() - 1;
    dims[last] = rhs[last];
    dims.into()
}

/// The shape of a linear layer's output.
#[cfg(any(test, feature = "cuda"))]
fn affine_shape(x: &Shape, weight: &Shape) -> Shape {
    [x[0], weight[0]].into()
}

/// The shape that a convolution gives.
#[cfg(any(test, feature = "cuda"))]
pub fn convolved_shape(
    x: &Shape,
    weight: &Shape,
    [in_time, in_space]: [usize; 2],
    padding: usize,
) -> Shape {
    let frames = (x[2] - weight[2]) / in_time + 1;
    let space = |axis: usize| (x[axis] + 2 * padding - weight[axis]) / in_space + 1;
    [x[0], weight[0], frames, space(3), space(4)].into()
}

/// A vector `[D]` beside rows, `[1, D]`.
pub fn as_row<B: Backend>(vector: FloatTensor<B>) -> FloatTensor<B> {
    let len = vector.shape()[0];
    B::float_reshape(vector, [1, len].into())
}

impl Product for Flex {
    fn product(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(lhs, rhs)
    }
}

impl<B: Product, C: CheckpointStrategy> Product for Autodiff<B, C> {
    fn product(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>) -> FloatTensor<Self> {
        let [left, right] = [&lhs, &rhs].map(|tensor| tensor.primitive().clone());
        let y = B::product(left.clone(), right.clone());
        // What the gradient of a constant alone would need is not kept.
        let left = rhs.is_tracked().then_some(left);
        let right = lhs.is_tracked().then_some(right);
        record::<B, C, _, _>([&lhs, &rhs], y, move |grad, _| {
            [
                right.map(|rhs| B::product(grad.clone(), B::float_transpose(rhs))),
                left.map(|lhs| B::product(B::float_transpose(lhs), grad)),
            ]
        })
    }

    fn affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let recorded = [&x, &weight, &bias];
        let [of_x, of_weight, of_bias] = recorded.map(|tensor| tensor.primitive().clone());
        let y = B::affine(of_x.clone(), of_weight.clone(), of_bias);
        // As in a product.
        let left = weight.is_tracked().then_some(of_x);
        let right = x.is_tracked().then_some(of_weight);
        record::<B, C, _, _>(recorded, y, move |grad, [_, _, bias]| {
            let of_bias = bias.then(|| {
                let len = grad.shape()[1];
                B::float_reshape(B::float_sum_dim(grad.clone(), 0), [len].into())
            });
            [
                right.map(|weight| B::product(grad.clone(), weight)),
                left.map(|x| B::product(B::float_transpose(grad), x)),
                of_bias,
            ]
        })
    }

    fn product_onto(
        sum: FloatTensor<Self>,
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let recorded = [&sum, &lhs, &rhs];
        let [of_sum, of_lhs, of_rhs] = recorded.map(|tensor| tensor.primitive().clone());
        let y = B::product_onto(of_sum, of_lhs.clone(), of_rhs.clone());
        let left = rhs.is_tracked().then_some(of_lhs);
        let right = lhs.is_tracked().then_some(of_rhs);
        record::<B, C, _, _>(recorded, y, move |grad, _| {
            [
                Some(grad.clone()),
                right.map(|rhs| B::product(grad.clone(), B::float_transpose(rhs))),
                left.map(|lhs| B::product(B::float_transpose(lhs), grad)),
            ]
        })
    }
}

/// A convolution, see [`Product::convolved`].
pub fn convolved(
    x: Tensor<5>,
    weight: Tensor<5>,
    bias: Tensor<1>,
    [in_time, in_space]: [usize; 2],
    padding: usize,
) -> Tensor<5> {
    Tensor::from_dispatch(Dispatch::convolved(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        in_time,
        in_space,
        padding,
    ))
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{agree, random},
        *,
    };

    #[test]
    fn products_agree_with_burn_s_on_a_tape() {
        let shaped = |[a, b]: [Tensor<1>; 2]| (a.reshape([2, 3, 4]), b.reshape([2, 4, 5]));
        agree(
            &[random([24]), random([40])],
            |x| {
                let (a, b) = shaped(x);
                product(a, b)
            },
            |x| {
                let (a, b) = shaped(x);
                a.matmul(b)
            },
        );
    }

    #[test]
    fn linear_layers_agree_with_their_parts() {
        agree(
            &[random([6 * 4]), random([5 * 4]), random([5])],
            |[x, weight, bias]| affine(x.reshape([6, 4]), weight.reshape([5, 4]), bias),
            |[x, weight, bias]| {
                let weight: Tensor<2> = weight.reshape([5, 4]);
                x.reshape([6, 4]).matmul(weight.transpose()) + bias.reshape([1, 5])
            },
        );
    }

    #[test]
    fn shapes_are_known_beforehand() {
        let shape = product_shape(&[2, 3, 4].into(), &[2, 4, 5].into());
        assert_eq!(shape, [2, 3, 5].into());
        assert_eq!(affine_shape(&[6, 4].into(), &[5, 4].into()), [6, 5].into());
        let (x, weight) = (random([2, 3, 5, 8, 9]), random([4, 3, 3, 3, 3]));
        let y = convolved(x.clone(), weight.clone(), random([4]), [1, 2], 1);
        assert_eq!(convolved_shape(&x.shape(), &weight.shape(), [1, 2], 1), y.shape());
    }
}
