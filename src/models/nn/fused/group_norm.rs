//! Group norm, scale and shift by upsampled latents, and `SiLU`: one pass over memory for the
//! statistics and one for the rest, instead of a dozen, and as few in the backward pass.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, tensor::FloatTensor,
    },
    tensor::{DispatchTensor, Tensor},
};

use super::{
    group_norm_kernels::{self as kernels, Statistics},
    kernels::Values,
    tape::record,
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
    dispatched(
        (x, affine, modulation),
        |[x, gamma, beta]| Dispatch::fused_group_norm_silu(x, gamma, beta, settings),
        |[x, gamma, beta, scale, shift]| {
            Dispatch::fused_spatial_norm_silu(x, gamma, beta, scale, shift, settings)
        },
    )
}

/// Calls the operation for what there is: without scale and shift, or with them.
pub(super) fn dispatched(
    (x, affine, modulation): (Tensor<5>, [Tensor<1>; 2], Option<[Tensor<5>; 2]>),
    plain: impl FnOnce([DispatchTensor; 3]) -> DispatchTensor,
    spatial: impl FnOnce([DispatchTensor; 5]) -> DispatchTensor,
) -> Tensor<5> {
    let x = x.into_dispatch();
    let [gamma, beta] = affine.map(Tensor::into_dispatch);
    Tensor::from_dispatch(match modulation.map(|given| given.map(Tensor::into_dispatch)) {
        Some([scale, shift]) => spatial([x, gamma, beta, scale, shift]),
        None => plain([x, gamma, beta]),
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
        recorded::<B, C, _>([&x, &gamma, &beta], settings)
    }

    fn fused_spatial_norm_silu(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        recorded::<B, C, _>([&x, &gamma, &beta, &scale, &shift], settings)
    }
}

/// Runs either operation and puts it on the tape.
fn recorded<B: NormSiluGrad, C: CheckpointStrategy, const N: usize>(
    recorded: [&FloatTensor<Autodiff<B, C>>; N],
    settings: Settings,
) -> FloatTensor<Autodiff<B, C>> {
    let inputs = recorded.map(|tensor| tensor.primitive().clone());
    let (y, statistics) = B::norm_silu_kept(&inputs, settings);
    record::<B, C, _, _>(recorded, y, move |grad, _| {
        let mut results = B::norm_silu_grad(&inputs, settings, &statistics, &grad).into_iter();
        [(); N].map(|()| results.next())
    })
}
