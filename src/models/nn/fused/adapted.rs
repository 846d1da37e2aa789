//! Linear layers with a low-rank branch, whose dense weight has no gradient.
//!
//! A layer is one operation on the tape. Views of its input and its factors, and their casts, would be operations of
//! their own: hundreds of layers with eight each cost the host more than the products cost a GPU.

#[cfg(feature = "cuda")]
use burn::backend::fusion::custom::TensorSpec;
use burn::{
    backend::{
        Autodiff, AutodiffBackend, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, tensor::FloatTensor,
    },
    tensor::{Shape, Tensor},
};

use super::{
    product::{Product, in_type},
    tape::record,
};

/// `x W^T + b + scale (x A^T) B^T` of `[.., in]`: a linear layer `[out, in]` with the factors `[rank, in]` and
/// `[out, rank]` of an adapter, which are flat and may be of another type than the rest.
pub fn adapted<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    [a, b]: [Tensor<1>; 2],
    scale: f64,
) -> Tensor<D> {
    let (y, _) = Dispatch::adapted(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        a.into_dispatch(),
        b.into_dispatch(),
        scale,
    );
    Tensor::from_dispatch(y)
}

/// The operations as Burn dispatches them.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cuda"), Fusion: cfg(feature = "cuda"))]
pub trait Adapted: Product {
    /// See [`adapted`]; with it `scale x A^T`, `[rows, rank]`.
    #[fusion(meta = |x, weight, _, a, _, _| adapted_specs(x, weight, a))]
    fn adapted(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        by_parts::<Self>([x, weight, bias, a, b], scale)
    }

    /// The gradients of [`adapted`] with respect to `x`, `a` and `b`; `low` came with it.
    #[fusion(meta = |x, _, a, b, _, _, _| (x.clone(), a.clone(), b.clone()))]
    fn adapted_grads(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        low: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (grad, shape) = (as_rows::<Self>(grad), x.shape());
        let [narrow, _] = matrices::<Self>(&x, [a.clone(), b.clone()]);
        let [of_low, da, db] = through_factors::<Self>(x, [a, b], low, grad.clone(), scale);
        let dx = Self::product_onto(Self::product(grad, weight), of_low, narrow);
        (Self::float_reshape(dx, shape), da, db)
    }

    /// The same with respect to `a` and `b` alone.
    #[fusion(meta = |_, a, b, _, _, _| (a.clone(), b.clone()))]
    fn factor_grads(
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        low: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let grad = as_rows::<Self>(grad);
        let [_, da, db] = through_factors::<Self>(x, [a, b], low, grad, scale);
        (da, db)
    }
}

/// A linear layer with an adapter by its products; with it `scale x A^T`.
fn by_parts<B: Product>(
    [x, weight, bias, a, b]: [FloatTensor<B>; 5],
    scale: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = adapted_shape(&x.shape(), &weight.shape());
    let [a, b] = matrices::<B>(&x, [a, b]);
    let x = as_rows::<B>(x);
    // The scale goes on the narrow side, where it costs least.
    let low = B::scaled_product(x.clone(), B::float_transpose(a), scale);
    let y = B::affine(x, weight, bias);
    let y = B::product_onto(y, low.clone(), B::float_transpose(b));
    (B::float_reshape(y, shape), low)
}

/// The gradients with respect to `x A^T`, in rows, and to the factors, as flat as they are.
fn through_factors<B: Product>(
    x: FloatTensor<B>,
    [a, b]: [FloatTensor<B>; 2],
    low: FloatTensor<B>,
    grad: FloatTensor<B>,
    scale: f64,
) -> [FloatTensor<B>; 3] {
    let like = |factor: &FloatTensor<B>, grad| {
        B::float_reshape(in_type::<B>(grad, factor.dtype()), factor.shape())
    };
    let [_, wide] = matrices::<B>(&x, [a.clone(), b.clone()]);
    let of_low = B::scaled_product(grad.clone(), wide, scale);
    let da = B::wide_product(B::float_transpose(of_low.clone()), as_rows::<B>(x));
    let db = B::wide_product(B::float_transpose(grad), low);
    [of_low, like(&a, da), like(&b, db)]
}

/// The factors as matrices `[rank, in]` and `[out, rank]` of the type of `x`, `[.., in]`.
fn matrices<B: Backend>(x: &FloatTensor<B>, [a, b]: [FloatTensor<B>; 2]) -> [FloatTensor<B>; 2] {
    let input = last(&x.shape());
    let rank = a.shape().num_elements() / input;
    let output = b.shape().num_elements() / rank;
    [(a, [rank, input]), (b, [output, rank])]
        .map(|(factor, shape)| B::float_reshape(in_type::<B>(factor, x.dtype()), shape.into()))
}

/// All axes but the last as one.
fn as_rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let columns = last(&x.shape());
    let rows = x.shape().num_elements() / columns;
    B::float_reshape(x, [rows, columns].into())
}

fn last(shape: &Shape) -> usize {
    shape[shape.num_dims() - 1]
}

/// The shape of an adapted layer's output.
fn adapted_shape(x: &Shape, weight: &Shape) -> Shape {
    let mut dims = x.to_vec();
    let axis = dims.len() - 1;
    dims[axis] = weight[0];
    dims.into()
}

/// What an adapted layer gives, and what comes with it.
#[cfg(feature = "cuda")]
fn adapted_specs(x: &TensorSpec, weight: &TensorSpec, a: &TensorSpec) -> (TensorSpec, TensorSpec) {
    let (input, shape) = (last(&x.shape), adapted_shape(&x.shape, &weight.shape));
    let low = [x.shape.num_elements() / input, a.shape.num_elements() / input];
    (TensorSpec::new(shape, x.dtype), TensorSpec::new(low.into(), x.dtype))
}

impl Adapted for Flex {}

impl<B: Adapted, C: CheckpointStrategy> Adapted for Autodiff<B, C> {
    fn adapted(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if weight.is_tracked() || bias.is_tracked() {
            // Nobody trains both, so this has no gradients of its own.
            return by_parts::<Self>([x, weight, bias, a, b], scale);
        }
        let recorded = [&x, &a, &b];
        let inputs = [&x, &weight, &a, &b].map(|tensor| tensor.primitive().clone());
        let (y, low) = {
            let [x, weight, a, b] = inputs.clone();
            B::adapted(x, weight, bias.primitive().clone(), a, b, scale)
        };
        let kept = low.clone();
        let y = record::<B, C, _, _>(recorded, y, move |grad, [of_x, ..]| {
            let [x, weight, a, b] = inputs;
            if !of_x {
                let (da, db) = B::factor_grads(x, a, b, kept, grad, scale);
                return [None, Some(da), Some(db)];
            }
            let (dx, da, db) = B::adapted_grads(x, weight, a, b, kept, grad, scale);
            [Some(dx), Some(da), Some(db)]
        });
        (y, <Self as AutodiffBackend>::from_inner(low))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, FloatDType};

    use super::{
        super::testing::{agree, random},
        *,
    };

    #[test]
    fn adapted_layers_agree_with_their_parts() {
        let (weight, bias): (Tensor<2>, _) = (random([5, 4]), random([5]));
        agree(
            &[random([6 * 4]), random([3 * 4]), random([5 * 3])],
            |[x, a, b]| {
                let x: Tensor<3> = x.reshape([2, 3, 4]);
                adapted(x, weight.clone(), bias.clone(), [a, b], 0.7).reshape::<2, _>([6, 5])
            },
            |[x, a, b]| {
                let (x, a, b): (Tensor<2>, Tensor<2>, Tensor<2>) =
                    (x.reshape([6, 4]), a.reshape([3, 4]), b.reshape([5, 3]));
                let low = x.clone().matmul(a.transpose()) * 0.7;
                x.matmul(weight.clone().transpose())
                    + bias.clone().reshape([1, 5])
                    + low.matmul(b.transpose())
            },
        );
    }

    /// The first layers of a model see what nothing is trained in.
    #[test]
    fn factors_have_the_same_gradients_where_the_input_wants_none() {
        let (x, weight, bias): (Tensor<2>, Tensor<2>, _) =
            (random([6, 4]), random([5, 4]), random([5]));
        let factors: [Tensor<1>; 2] = [random([3 * 4]), random([5 * 3])];
        let grads = |x: Tensor<2>| {
            let leaves = factors.clone().map(|factor| factor.autodiff().require_grad());
            let y = adapted(x, weight.clone(), bias.clone(), leaves.clone(), 0.7);
            let mut grads = (y.clone() * y).sum().backward();
            leaves.map(|leaf| leaf.grad_remove(&mut grads).unwrap().into_data())
        };
        assert_eq!(grads(x.clone()), grads(x.autodiff().require_grad()));
    }

    /// As in a model in bf16, whose factors stay in f32.
    #[test]
    fn gradients_are_of_their_factor_s_type() {
        let to_bf16 = |x: Tensor<2>| x.cast(FloatDType::BF16);
        let (x, weight) = (to_bf16(random([6, 4])), to_bf16(random([5, 4])));
        let bias = random::<1>([5]).cast(FloatDType::BF16);
        let factors =
            [random([3 * 4]), random([5 * 3])].map(|f: Tensor<1>| f.autodiff().require_grad());
        let y = adapted(x, weight, bias, factors.clone(), 0.7);
        assert_eq!(y.dtype(), DType::BF16);
        let mut grads = y.cast(FloatDType::F32).sum().backward();
        for factor in factors {
            let grad = factor.grad_remove(&mut grads).unwrap();
            assert_eq!((grad.dtype(), grad.dims()), (DType::F32, factor.dims()));
        }
    }
}
