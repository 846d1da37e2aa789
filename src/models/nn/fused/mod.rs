//! Operations that would cost many passes over memory one by one, done in one on the CPU.
//!
//! Burn's CPU backend runs one elementwise operation at a time and most of them on one thread; in a
//! small transformer they cost more than the matrix products. Each operation here has its own
//! backward pass. Other devices, and other types than f32, compose them from Burn's operations,
//! which their compilers fuse.

mod attention;
mod columns;
pub mod conv;
mod direct;
pub mod group_norm;
mod group_norm_kernels;
mod kernels;
pub mod resize;
mod simd;
mod upsampling;

pub use attention::MAX_SCORES;

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex,
        autodiff::{
            NodeId,
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        tensor::FloatTensor,
    },
    tensor::{DType, Device, Tensor},
};

/// Whether the operations of this module apply to `x`.
pub fn applies<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device().without_autodiff() == Device::flex()
}

/// The tanh form of GELU.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Fused>::fused_gelu(x.into_dispatch()))
}

/// Layer norm of `[B, S, D]`, then scale and shift of each token by its stream's.
pub fn norm_modulate(
    x: Tensor<3>,
    [gamma, beta]: [Tensor<1>; 2],
    chunks: Tensor<3>,
    text_len: usize,
    eps: f64,
) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Fused>::fused_norm_modulate(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        chunks.into_dispatch(),
        text_len,
        eps,
    ))
}

/// `x + gate * y` of `[B, S, D]`, each token by its stream's gate.
pub fn gated_add(x: Tensor<3>, y: Tensor<3>, chunks: Tensor<3>, text_len: usize) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Fused>::fused_gated_add(
        x.into_dispatch(),
        y.into_dispatch(),
        chunks.into_dispatch(),
        text_len,
    ))
}

/// Layer norm over the head of `[B, S, heads, D]`, then rotation of its pairs, as
/// `[B, heads, S, D]`. `sin` is negative at even places.
pub fn norm_rotate(
    x: Tensor<4>,
    [gamma, beta]: [Tensor<1>; 2],
    [cos, sin]: [Tensor<4>; 2],
    eps: f64,
) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as Fused>::fused_norm_rotate(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        eps,
    ))
}

/// Scaled dot-product attention of `[B, heads, S, D]`.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as Fused>::fused_attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
    ))
}

/// The operations as Burn dispatches them.
#[backend_extension(Autodiff, Flex)]
pub trait Fused: Backend {
    /// See [`gelu_tanh`].
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// See [`norm_modulate`].
    fn fused_norm_modulate(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        chunks: FloatTensor<Self>,
        text_len: usize,
        eps: f64,
    ) -> FloatTensor<Self>;
    /// See [`gated_add`].
    fn fused_gated_add(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        chunks: FloatTensor<Self>,
        text_len: usize,
    ) -> FloatTensor<Self>;
    /// See [`norm_rotate`].
    fn fused_norm_rotate(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self>;
    /// See [`attention`].
    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl Fused for Flex {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        kernels::gelu(&x)
    }

    fn fused_norm_modulate(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        chunks: FloatTensor<Self>,
        text_len: usize,
        eps: f64,
    ) -> FloatTensor<Self> {
        kernels::norm_modulate([&x, &gamma, &beta, &chunks], text_len, eps as f32)
    }

    fn fused_gated_add(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        chunks: FloatTensor<Self>,
        text_len: usize,
    ) -> FloatTensor<Self> {
        kernels::gated_add([&x, &y, &chunks], text_len)
    }

    fn fused_norm_rotate(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        kernels::norm_rotate([&x, &gamma, &beta, &cos, &sin], eps as f32)
    }

    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        attention::forward(&q, &k, &v).output
    }
}

/// The backward passes, which only the tape calls.
pub trait FusedGrad: Fused {
    /// The gradient with respect to `x`.
    fn gelu_grad(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self>;
    /// The gradients with respect to `x`, `gamma`, `beta` and `chunks`.
    fn norm_modulate_grad(
        inputs: [FloatTensor<Self>; 4],
        text_len: usize,
        eps: f64,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 4];
    /// The gradients with respect to `y` and `chunks`; that of `x` is `grad`.
    fn gated_add_grad(
        inputs: [FloatTensor<Self>; 2],
        text_len: usize,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];
    /// The gradients with respect to `x`, `gamma` and `beta`.
    fn norm_rotate_grad(
        inputs: [FloatTensor<Self>; 5],
        eps: f64,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3];
    /// Attention that keeps what its backward pass wants.
    fn attention_kept(inputs: [FloatTensor<Self>; 3]) -> Attended<Self>;
    /// The gradients with respect to `q`, `k` and `v`.
    fn attention_grad(
        inputs: [FloatTensor<Self>; 3],
        kept: Attended<Self>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3];
}

/// The result of attention, with its probabilities `[B, heads, S, S]` where they are small.
#[derive(Clone, Debug)]
pub struct Attended<B: Backend> {
    output: FloatTensor<B>,
    probabilities: Option<FloatTensor<B>>,
}

impl FusedGrad for Flex {
    fn gelu_grad(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        kernels::gelu_grad(&x, &grad)
    }

    fn norm_modulate_grad(
        inputs: [FloatTensor<Self>; 4],
        text_len: usize,
        eps: f64,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 4] {
        kernels::norm_modulate_grad(inputs.each_ref(), text_len, eps as f32, &grad)
    }

    fn gated_add_grad(
        inputs: [FloatTensor<Self>; 2],
        text_len: usize,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2] {
        kernels::gated_add_grad(inputs.each_ref(), text_len, &grad)
    }

    fn norm_rotate_grad(
        inputs: [FloatTensor<Self>; 5],
        eps: f64,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        kernels::norm_rotate_grad(inputs.each_ref(), eps as f32, &grad)
    }

    fn attention_kept([q, k, v]: [FloatTensor<Self>; 3]) -> Attended<Self> {
        attention::forward(&q, &k, &v)
    }

    fn attention_grad(
        inputs: [FloatTensor<Self>; 3],
        kept: Attended<Self>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        attention::backward(inputs.each_ref(), &kept, &grad)
    }
}

impl<B: FusedGrad, C: CheckpointStrategy> Fused for Autodiff<B, C> {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Gelu;
        impl<B: FusedGrad> Backward<B, 1> for Gelu {
            type State = FloatTensor<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let grad = grads.consume::<B>(&ops.node);
                let parents = ops.parents.map(|parent| parent.map(|node| node.id));
                register::<B, 1>(grads, parents, [B::gelu_grad(ops.state, grad)]);
            }
        }
        let y = B::fused_gelu(x.primitive().clone());
        match Gelu.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(x.primitive().clone(), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn fused_norm_modulate(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        chunks: FloatTensor<Self>,
        text_len: usize,
        eps: f64,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct NormModulate;
        impl<B: FusedGrad> Backward<B, 4> for NormModulate {
            type State = ([FloatTensor<B>; 4], usize, f64);

            fn backward(
                self,
                ops: Ops<Self::State, 4>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let grad = grads.consume::<B>(&ops.node);
                let parents = ops.parents.map(|parent| parent.map(|node| node.id));
                let (inputs, text_len, eps) = ops.state;
                let results = B::norm_modulate_grad(inputs, text_len, eps, grad);
                register::<B, 4>(grads, parents, results);
            }
        }
        let nodes = [x.node(), gamma.node(), beta.node(), chunks.node()];
        let inputs = [&x, &gamma, &beta, &chunks].map(|tensor| tensor.primitive().clone());
        let [x, gamma, beta, chunks] = inputs.clone();
        let y = B::fused_norm_modulate(x, gamma, beta, chunks, text_len, eps);
        match NormModulate.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((inputs, text_len, eps), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn fused_gated_add(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        chunks: FloatTensor<Self>,
        text_len: usize,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct GatedAdd;
        impl<B: FusedGrad> Backward<B, 3> for GatedAdd {
            type State = ([FloatTensor<B>; 2], usize);

            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let grad = grads.consume::<B>(&ops.node);
                let parents = ops.parents.map(|parent| parent.map(|node| node.id));
                let (inputs, text_len) = ops.state;
                let [y, chunks] = B::gated_add_grad(inputs, text_len, grad.clone());
                register::<B, 3>(grads, parents, [grad, y, chunks]);
            }
        }
        let nodes = [x.node(), y.node(), chunks.node()];
        let [y, chunks] = [&y, &chunks].map(|tensor| tensor.primitive().clone());
        let sum = B::fused_gated_add(x.primitive().clone(), y.clone(), chunks.clone(), text_len);
        match GatedAdd.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(([y, chunks], text_len), sum),
            OpsKind::UnTracked(prep) => prep.finish(sum),
        }
    }

    fn fused_norm_rotate(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct NormRotate;
        impl<B: FusedGrad> Backward<B, 3> for NormRotate {
            type State = ([FloatTensor<B>; 5], f64);

            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let grad = grads.consume::<B>(&ops.node);
                let parents = ops.parents.map(|parent| parent.map(|node| node.id));
                let (inputs, eps) = ops.state;
                register::<B, 3>(grads, parents, B::norm_rotate_grad(inputs, eps, grad));
            }
        }
        let nodes = [x.node(), gamma.node(), beta.node()];
        let inputs = [&x, &gamma, &beta, &cos, &sin].map(|tensor| tensor.primitive().clone());
        let [x, gamma, beta, cos, sin] = inputs.clone();
        let y = B::fused_norm_rotate(x, gamma, beta, cos, sin, eps);
        match NormRotate.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((inputs, eps), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Attention;
        impl<B: FusedGrad> Backward<B, 3> for Attention {
            type State = ([FloatTensor<B>; 3], Attended<B>);

            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let grad = grads.consume::<B>(&ops.node);
                let parents = ops.parents.map(|parent| parent.map(|node| node.id));
                let (inputs, kept) = ops.state;
                register::<B, 3>(grads, parents, B::attention_grad(inputs, kept, grad));
            }
        }
        let inputs = [&q, &k, &v].map(|tensor| tensor.primitive().clone());
        let nodes = [q.node(), k.node(), v.node()];
        match Attention.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let kept = B::attention_kept(inputs.clone());
                let output = kept.output.clone();
                prep.finish((inputs, kept), output)
            }
            OpsKind::UnTracked(prep) => {
                let [q, k, v] = inputs;
                prep.finish(B::fused_attention(q, k, v))
            }
        }
    }
}

fn register<B: Backend, const N: usize>(
    grads: &mut Gradients,
    parents: [Option<NodeId>; N],
    results: [FloatTensor<B>; N],
) {
    for (parent, result) in parents.into_iter().zip(results) {
        if let Some(parent) = parent {
            grads.register::<B>(parent, result);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, module, ops::AttentionModuleOptions};

    use super::*;
    use crate::models::nn::{LayerNorm, StreamModulation};

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn assert_close<const D: usize>(what: &str, found: &Tensor<D>, wanted: &Tensor<D>) {
        let scale = wanted.clone().abs().max().into_scalar::<f32>();
        let error = (found.clone() - wanted.clone()).abs().max().into_scalar::<f32>();
        assert!(error <= 2e-6 * scale.max(1.0), "{what}: {error} of {scale}");
    }

    /// Compares value and gradients of the fused operation with those of the composed one.
    fn agree<const N: usize, const D: usize>(
        inputs: &[Tensor<1>; N],
        fused: impl Fn([Tensor<1>; N]) -> Tensor<D>,
        composed: impl Fn([Tensor<1>; N]) -> Tensor<D>,
    ) {
        let run = |f: &dyn Fn([Tensor<1>; N]) -> Tensor<D>, weight: Option<&Tensor<D>>| {
            let leaves = inputs.clone().map(|x| x.autodiff().require_grad());
            let y = f(leaves.clone());
            let weight = weight.cloned().unwrap_or_else(|| random(y.dims()));
            let grads = (y.clone() * weight.clone()).sum().backward();
            (y.inner(), leaves.map(|leaf| leaf.grad(&grads).unwrap()), weight)
        };
        let (wanted, wanted_grads, weight) = run(&composed, None);
        let (found, grads, _) = run(&fused, Some(&weight));
        assert_close("value", &found, &wanted);
        for (i, (found, wanted)) in grads.iter().zip(&wanted_grads).enumerate() {
            assert_close(&format!("gradient {i}"), found, wanted);
        }
        assert_close("value without tape", &fused(inputs.clone()), &wanted);
    }

    #[test]
    fn gelu_agrees_with_its_definition() {
        agree(
            &[random([999]) * 4.0],
            |[x]| gelu_tanh(x),
            |[x]| {
                let u = (x.clone() + x.clone() * x.clone() * x.clone() * 0.044_715) * 0.797_884_56;
                x * (u.tanh() + 1.0) * 0.5
            },
        );
    }

    #[test]
    fn modulation_agrees_with_its_parts() {
        let (b, s, d, text_len) = (2, 5, 24, 2);
        let inputs = [b * s * d, d, d, b * 6 * d].map(|len| random([len]));
        let modulation = move |chunks: Tensor<1>| StreamModulation {
            chunks: chunks.reshape([b, 6, d]),
            text_len,
        };
        agree(
            &inputs,
            |[x, gamma, beta, chunks]| {
                let chunks = chunks.reshape([b, 6, d]);
                norm_modulate(x.reshape([b, s, d]), [gamma, beta], chunks, text_len, 1e-5)
            },
            |[x, gamma, beta, chunks]| {
                let norm = LayerNorm { gamma, beta, eps: 1e-5 };
                modulation(chunks).norm_scale_shift_composed(&norm, x.reshape([b, s, d]))
            },
        );
        let [x, _, _, chunks] = inputs;
        agree(
            &[x.clone(), x.flip([0]), chunks],
            |[x, y, chunks]| {
                let [x, y] = [x, y].map(|x| x.reshape([b, s, d]));
                gated_add(x, y, chunks.reshape([b, 6, d]), text_len)
            },
            |[x, y, chunks]| {
                let [x, y] = [x, y].map(|x| x.reshape([b, s, d]));
                modulation(chunks).gated_add_composed(x, y)
            },
        );
    }

    #[test]
    fn rotation_agrees_with_its_parts() {
        let (b, s, h, d) = (2, 7, 3, 16);
        let [cos, sin] = [0, 1].map(|_| random([1, s, 1, d]));
        let tables = [cos.clone(), sin.clone()];
        agree(
            &[b * s * h * d, d, d].map(|len| random([len])),
            |[x, gamma, beta]| {
                norm_rotate(x.reshape([b, s, h, d]), [gamma, beta], tables.clone(), 1e-6)
            },
            |[x, gamma, beta]| {
                let norm = LayerNorm { gamma, beta, eps: 1e-6 };
                let x = norm.forward(x.reshape([b, s, h, d]));
                let partners = x.clone().reshape([b, s, h, d / 2, 2]).flip([4]);
                let y = x * cos.clone() + partners.reshape([b, s, h, d]) * sin.clone();
                y.swap_dims(1, 2)
            },
        );
    }

    #[test]
    fn attention_agrees_with_its_definition() {
        let dims = [2, 3, 37, 16];
        let shaped = |x: [Tensor<1>; 3]| x.map(|x| x.reshape(dims));
        agree(
            &[(); 3].map(|()| random([dims.iter().product()])),
            |x| {
                let [q, k, v] = shaped(x);
                attention(q, k, v)
            },
            |x| {
                let [q, k, v] = shaped(x);
                module::attention(q, k, v, None, None, AttentionModuleOptions::default())
            },
        );
    }
}
