//! A step of `AdamW` in one pass over memory on a GPU; a parameter at a time, because there are hundreds.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, tensor::FloatTensor,
    },
    tensor::Tensor,
};

use super::term::Term;

/// The numbers of one step, the same for all parameters.
#[derive(Clone, Copy, Debug)]
pub struct AdamNumbers {
    /// What gradients are multiplied by first.
    pub gradient_factor: f32,
    /// What parameters are multiplied by.
    pub shrink: f32,
    /// By how much the mean of gradients moves.
    pub first_share: f32,
    /// How much of the mean of squares stays.
    pub beta2: f32,
    /// By how much the mean of squares moves.
    pub second_share: f32,
    /// What the root of the mean of squares is divided by.
    pub root_correction: f32,
    /// Added to that root.
    pub eps: f32,
    /// The step along the mean of gradients.
    pub rate: f32,
}

/// Parameter, gradient and both moments in f32 to parameter and both moments.
pub fn adam_step(tensors: [Tensor<1>; 4], numbers: AdamNumbers) -> [Tensor<1>; 3] {
    let [param, gradient, first, second] = tensors.map(Tensor::into_dispatch);
    let (param, first, second) = Dispatch::adam_step(param, gradient, first, second, numbers);
    [param, first, second].map(Tensor::from_dispatch)
}

/// The operation as Burn dispatches it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cuda"), Fusion: cfg(feature = "cuda"))]
pub trait Adam: Backend {
    /// See [`adam_step`].
    #[fusion(meta = |param, _, first, second, _| (param.clone(), first.clone(), second.clone()))]
    fn adam_step(
        param: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        numbers: AdamNumbers,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        stepped::<Self>([&param, &gradient, &first, &second], numbers)
    }
}

impl Adam for Flex {}

impl<B: Adam, C: CheckpointStrategy> Adam for Autodiff<B, C> {}

/// The same by a backend's own operations.
pub(super) fn stepped<B: Backend>(
    tensors: [&FloatTensor<B>; 4],
    numbers: AdamNumbers,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let [param, gradient, first, second] = tensors.map(Term::<B>::of);
    let gradient = gradient.times(numbers.gradient_factor.into());
    let first = first.clone() + (gradient.clone() - first).times(numbers.first_share.into());
    let squares = (gradient.clone() * gradient).times(numbers.second_share.into());
    let second = second.times(numbers.beta2.into()) + squares;
    let correction = second.clone().sqrt().over(numbers.root_correction.into());
    let slope = first.clone() * correction.plus(numbers.eps.into()).recip();
    let param = param.times(numbers.shrink.into()) - slope.times(numbers.rate.into());
    let [of_param, _, of_first, of_second] = tensors;
    (param.into_type_of(of_param), first.into_type_of(of_first), second.into_type_of(of_second))
}
