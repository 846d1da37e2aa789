//! Group norm, scale and shift by upsampled latents, and `SiLU`: one pass over memory for the
//! statistics and one for the rest, instead of a dozen, and as few in the backward pass.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        tensor::FloatTensor,
    },
    tensor::Tensor,
};

use super::{
    group_norm_kernels::{self as kernels, Statistics},
    kernels::Values,
};

/// What is no tensor.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many groups the channels form.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
}

/// `silu(norm(x) * scale + shift)` of `[B, C, T, H, W]`; scale and shift `[B, C, f, h, w]`, if any,
/// are repeated to the size of `x`, see [`Upsampling`](super::upsampling::Upsampling).
pub fn group_norm_silu(
    x: Tensor<5>,
    affine: [Tensor<1>; 2],
    modulation: Option<[Tensor<5>; 2]>,
    settings: Settings,
) -> Tensor<5> {
    let x = x.into_dispatch();
    let [gamma, beta] = affine.map(Tensor::into_dispatch);
    Tensor::from_dispatch(match modulation.map(|given| given.map(Tensor::into_dispatch)) {
        Some([scale, shift]) => {
            Dispatch::fused_spatial_norm_silu(x, gamma, beta, scale, shift, settings)
        }
        None => Dispatch::fused_group_norm_silu(x, gamma, beta, settings),
    })
}

/// The operations as Burn dispatches them.
#[backend_extension(Autodiff, Flex)]
pub trait NormSilu: Backend {
    /// See [`group_norm_silu`]; without scale and shift.
    fn fused_group_norm_silu(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self>;
    /// See [`group_norm_silu`].
    fn fused_spatial_norm_silu(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self>;
}

/// The passes that only the tape calls; `inputs` are the tensors of either operation.
pub trait NormSiluGrad: NormSilu {
    /// The result, with what the backward pass wants.
    fn norm_silu_kept(
        inputs: &[FloatTensor<Self>],
        settings: Settings,
    ) -> (FloatTensor<Self>, Vec<Statistics>);
    /// The gradients with respect to `inputs`.
    fn norm_silu_grad(
        inputs: &[FloatTensor<Self>],
        settings: Settings,
        statistics: &[Statistics],
        grad: &FloatTensor<Self>,
    ) -> Vec<FloatTensor<Self>>;
}

impl NormSilu for Flex {
    fn fused_group_norm_silu(x: Values, gamma: Values, beta: Values, settings: Settings) -> Values {
        kernels::forward(&[x, gamma, beta], settings).0
    }

    fn fused_spatial_norm_silu(
        x: Values,
        gamma: Values,
        beta: Values,
        scale: Values,
        shift: Values,
        settings: Settings,
    ) -> Values {
        kernels::forward(&[x, gamma, beta, scale, shift], settings).0
    }
}

impl NormSiluGrad for Flex {
    fn norm_silu_kept(inputs: &[Values], settings: Settings) -> (Values, Vec<Statistics>) {
        kernels::forward(inputs, settings)
    }

    fn norm_silu_grad(
        inputs: &[Values],
        settings: Settings,
        statistics: &[Statistics],
        grad: &Values,
    ) -> Vec<Values> {
        kernels::backward(inputs, settings, statistics, grad)
    }
}

impl<B: NormSiluGrad, C: CheckpointStrategy> NormSilu for Autodiff<B, C> {
    fn fused_group_norm_silu(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        record::<B, C, 3>([&x, &gamma, &beta], settings)
    }

    fn fused_spatial_norm_silu(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        record::<B, C, 5>([&x, &gamma, &beta, &scale, &shift], settings)
    }
}

/// Runs either operation and puts it on the tape.
fn record<B: NormSiluGrad, C: CheckpointStrategy, const N: usize>(
    inputs: [&FloatTensor<Autodiff<B, C>>; N],
    settings: Settings,
) -> FloatTensor<Autodiff<B, C>> {
    #[derive(Debug)]
    struct Record;
    impl<B: NormSiluGrad, const N: usize> Backward<B, N> for Record {
        type State = ([FloatTensor<B>; N], Settings, Vec<Statistics>);

        fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
            let grad = grads.consume::<B>(&ops.node);
            let (inputs, settings, statistics) = ops.state;
            let results = B::norm_silu_grad(&inputs, settings, &statistics, &grad);
            for (parent, result) in ops.parents.into_iter().zip(results) {
                if let Some(parent) = parent {
                    grads.register::<B>(parent.id, result);
                }
            }
        }
    }
    let nodes = inputs.map(<FloatTensor<Autodiff<B, C>>>::node);
    let inputs = inputs.map(|tensor| tensor.primitive().clone());
    let (y, statistics) = B::norm_silu_kept(&inputs, settings);
    match Backward::<B, N>::prepare::<C>(Record, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((inputs, settings, statistics), y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}
