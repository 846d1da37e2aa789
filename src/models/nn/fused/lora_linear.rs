//! Linear layers with a low-rank branch, whose dense weight has no gradient.
//!
//! A layer is one operation on the tape. Views of its input and its factors, and their casts, would
//! be operations of their own: hundreds of layers with eight each cost the host more than the
//! products cost a GPU.

#[cfg(feature = "cuda")]
use burn::backend::fusion::custom::TensorSpec;
use burn::{
    backend::{
        Autodiff, AutodiffBackend, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, tensor::FloatTensor,
    },
    tensor::{DType, Shape, Tensor},
};

use super::{
    product::{Product, in_type},
    tape::record,
};

/// `x W^T + b + scale (x A^T) B^T` of `[.., in]`: a linear layer `[out, in]` with the factors
/// `[rank, in]` and `[out, rank]` of an adapter, which are flat and in f32, whatever the type of
/// the rest.
pub fn lora_linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    [a, b]: [Tensor<1>; 2],
    scale: f64,
) -> Tensor<D> {
    let (y, ..) = Dispatch::lora_linear(
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
pub trait LoraLinear: Product {
    /// See [`lora_linear`]; with it `scale x A^T`, `[rows, rank]`, and both factors behind each
    /// other in the type of `x`.
    #[fusion(meta = |x, weight, _, a, b, _| adapted_specs(x, weight, [a, b]))]
    fn lora_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        by_parts::<Self>([x, weight, bias, a, b], scale)
    }

    /// The gradients of [`lora_linear`] with respect to `x` and to the factors; `factors` and `low`
    /// came with it.
    #[fusion(meta = |x, _, _, low, grad, _| {
        let [da, db] = factor_specs(x, low, grad);
        (x.clone(), da, db)
    })]
    fn lora_linear_grads(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        factors: FloatTensor<Self>,
        low: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        grads_by_parts::<Self>([x, weight, factors, low, grad], scale)
    }

    /// The same with respect to the factors alone.
    #[fusion(meta = |x, _, low, grad, _| {
        let [da, db] = factor_specs(x, low, grad);
        (da, db)
    })]
    fn factor_grads(
        x: FloatTensor<Self>,
        factors: FloatTensor<Self>,
        low: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        factor_grads_by_parts::<Self>([x, factors, low, grad], scale)
    }
}

/// A linear layer with an adapter by its products, and what comes with it.
pub(super) fn by_parts<B: Product>(
    [x, weight, bias, a, b]: [FloatTensor<B>; 5],
    scale: f64,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let shape = adapted_shape(&x.shape(), &weight.shape());
    let rank = a.shape().num_elements() / last(&x.shape());
    let [a, b] = [a, b].map(|factor| in_type::<B>(factor, x.dtype()));
    let factors = B::float_cat(vec![a, b], 0);
    let [a, b] = matrices::<B>(&factors, [last(&x.shape()), weight.shape()[0], rank]);
    let x = as_rows::<B>(x);
    // The scale goes on the narrow side, where it costs least.
    let low = B::scaled_product(x.clone(), B::float_transpose(a), scale);
    let y = B::affine(x, weight, bias);
    let y = B::product_onto(y, low.clone(), B::float_transpose(b));
    (B::float_reshape(y, shape), low, factors)
}

/// The gradients of [`by_parts`] by their products.
pub(super) fn grads_by_parts<B: Product>(
    [x, weight, factors, low, grad]: [FloatTensor<B>; 5],
    scale: f64,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (grad, shape) = (as_rows::<B>(grad), x.shape());
    let (narrow, [of_low, da, db]) = through_factors::<B>([x, factors, low, grad.clone()], scale);
    let dx = B::product_onto(B::product(grad, weight), of_low, narrow);
    (B::float_reshape(dx, shape), da, db)
}

/// The same of the factors alone.
pub(super) fn factor_grads_by_parts<B: Product>(
    [x, factors, low, grad]: [FloatTensor<B>; 4],
    scale: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (_, [_, da, db]) = through_factors::<B>([x, factors, low, as_rows::<B>(grad)], scale);
    (da, db)
}

/// The first factor, and the gradients with respect to `x A^T`, in rows, and to the factors, flat
/// and in f32.
fn through_factors<B: Product>(
    [x, factors, low, grad]: [FloatTensor<B>; 4],
    scale: f64,
) -> (FloatTensor<B>, [FloatTensor<B>; 3]) {
    let flat = |x: FloatTensor<B>| {
        let len = x.shape().num_elements();
        B::float_reshape(in_type::<B>(x, DType::F32), [len].into())
    };
    let sizes = [last(&x.shape()), last(&grad.shape()), last(&low.shape())];
    let [narrow, wide] = matrices::<B>(&factors, sizes);
    let of_low = B::scaled_product(grad.clone(), wide, scale);
    let da = B::wide_product(B::float_transpose(of_low.clone()), as_rows::<B>(x));
    let db = B::wide_product(B::float_transpose(grad), low);
    (narrow, [of_low, flat(da), flat(db)])
}

/// Factors behind each other as matrices `[rank, input]` and `[output, rank]`.
fn matrices<B: Backend>(
    factors: &FloatTensor<B>,
    [input, output, rank]: [usize; 3],
) -> [FloatTensor<B>; 2] {
    let of_a = rank * input;
    [(0..of_a, [rank, input]), (of_a..of_a + output * rank, [output, rank])].map(
        |(range, shape)| {
            let factor = B::float_slice(factors.clone(), &[range.into()]);
            B::float_reshape(factor, shape.into())
        },
    )
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
fn adapted_specs(
    x: &TensorSpec,
    weight: &TensorSpec,
    factors: [&TensorSpec; 2],
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let (input, shape) = (last(&x.shape), adapted_shape(&x.shape, &weight.shape));
    let counts = factors.map(|factor| factor.shape.num_elements());
    let low = [x.shape.num_elements() / input, counts[0] / input];
    let of = |shape: Shape| TensorSpec::new(shape, x.dtype);
    (of(shape), of(low.into()), of([counts[0] + counts[1]].into()))
}

/// The gradients of the factors.
#[cfg(feature = "cuda")]
fn factor_specs(x: &TensorSpec, low: &TensorSpec, grad: &TensorSpec) -> [TensorSpec; 2] {
    let rank = last(&low.shape);
    [x, grad].map(|side| TensorSpec::new([rank * last(&side.shape)].into(), DType::F32))
}

impl LoraLinear for Flex {}

impl<B: LoraLinear, C: CheckpointStrategy> LoraLinear for Autodiff<B, C> {
    fn lora_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if weight.is_tracked() || bias.is_tracked() {
            // Nobody trains both, so this has no gradients of its own.
            return by_parts::<Self>([x, weight, bias, a, b], scale);
        }
        let recorded = [&x, &a, &b];
        let [of_x, of_weight, of_bias, of_a, of_b] =
            [&x, &weight, &bias, &a, &b].map(|tensor| tensor.primitive().clone());
        let (y, low, factors) =
            B::lora_linear(of_x.clone(), of_weight.clone(), of_bias, of_a, of_b, scale);
        let kept = [of_x, of_weight, factors.clone(), low.clone()];
        let y = record::<B, C, _, _>(recorded, y, move |grad, [is_wanted, ..]| {
            let [x, weight, factors, low] = kept;
            if !is_wanted {
                let (da, db) = B::factor_grads(x, factors, low, grad, scale);
                return [None, Some(da), Some(db)];
            }
            let (dx, da, db) = B::lora_linear_grads(x, weight, factors, low, grad, scale);
            [Some(dx), Some(da), Some(db)]
        });
        let [low, factors] = [low, factors].map(<Self as AutodiffBackend>::from_inner);
        (y, low, factors)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, FloatDType};

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
                lora_linear(x, weight.clone(), bias.clone(), [a, b], 0.7).reshape::<2, _>([6, 5])
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
            let y = lora_linear(x, weight.clone(), bias.clone(), leaves.clone(), 0.7);
            let mut grads = (y.clone() * y).sum().backward();
            leaves.map(|leaf| leaf.grad_remove(&mut grads).unwrap().into_data())
        };
        assert_eq!(grads(x.clone()), grads(x.autodiff().require_grad()));
    }

    /// On a GPU these are the libraries' products, of which the second factor begins anywhere
    /// behind the first.
    #[test]
    fn adapted_layers_in_bf16_agree_with_their_parts_in_f32() {
        let device = crate::device::testing::device();
        for [rows, input, output, rank] in [[6, 8, 16, 4], [40, 24, 8, 5], [7, 5, 3, 3]] {
            let [x, weight]: [Tensor<2>; 2] = [random([rows, input]), random([output, input])];
            let (bias, a, b): (Tensor<1>, Tensor<1>, Tensor<1>) =
                (random([output]), random([rank * input]), random([output * rank]));
            let grads = |device: &Device, dtype: FloatDType, tracked: bool| {
                let [x, weight] = [&x, &weight].map(|t| t.clone().to_device(device).cast(dtype));
                let bias = bias.clone().to_device(device).cast(dtype);
                let factors = [&a, &b].map(|factor| factor.clone().to_device(device));
                let leaves = factors.map(|factor| factor.autodiff().require_grad());
                let x = if tracked { x.autodiff().require_grad() } else { x };
                let y = lora_linear(x.clone(), weight, bias, leaves.clone(), 0.7);
                let mut tape = y.clone().cast(FloatDType::F32).powi_scalar(2).sum().backward();
                let host = |t: Tensor<1>| t.to_device(&Device::flex()).cast(FloatDType::F32);
                let mut found = vec![host(y.inner().reshape([rows * output]))];
                found.extend(leaves.map(|leaf| host(leaf.grad_remove(&mut tape).unwrap())));
                if tracked {
                    found.push(host(x.grad_remove(&mut tape).unwrap().reshape([rows * input])));
                }
                found
            };
            for tracked in [true, false] {
                let wanted = grads(&Device::flex(), FloatDType::F32, tracked);
                let found = grads(&device, FloatDType::BF16, tracked);
                for (i, (found, wanted)) in found.into_iter().zip(wanted).enumerate() {
                    let scale = wanted.clone().abs().max().into_scalar::<f32>();
                    let error = (found - wanted).abs().max().into_scalar::<f32>() / scale;
                    assert!(error < 3e-2, "{i} of {rows} rows, {tracked}: {error}");
                }
            }
        }
    }

    /// As in a model in bf16, whose factors stay in f32.
    #[test]
    fn gradients_are_of_their_factor_s_type() {
        let to_bf16 = |x: Tensor<2>| x.cast(FloatDType::BF16);
        let (x, weight) = (to_bf16(random([6, 4])), to_bf16(random([5, 4])));
        let bias = random::<1>([5]).cast(FloatDType::BF16);
        let factors =
            [random([3 * 4]), random([5 * 3])].map(|f: Tensor<1>| f.autodiff().require_grad());
        let y = lora_linear(x, weight, bias, factors.clone(), 0.7);
        assert_eq!(y.dtype(), DType::BF16);
        let mut grads = y.cast(FloatDType::F32).sum().backward();
        for factor in factors {
            let grad = factor.grad_remove(&mut grads).unwrap();
            assert_eq!((grad.dtype(), grad.dims()), (DType::F32, factor.dims()));
        }
    }
}
