//! Operations that would cost many passes over memory one by one, done in one on the CPU.
//!
//! Burn's CPU backend runs one elementwise operation at a time and most of them on one thread; in a
//! small transformer they cost more than the matrix products. Each operation here has its own
//! backward pass. Other devices, and other types than f32, compose them from Burn's operations,
//! which their compilers fuse.

mod kernels;

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
        let sum =
            B::fused_gated_add(x.primitive().clone(), y.clone(), chunks.clone(), text_len);
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
