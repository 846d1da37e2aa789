//! One way to put an operation with its own backward pass on the tape.

use std::{fmt, marker::PhantomData};

use burn::backend::{
    Autodiff, Backend,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};

/// The gradients with respect to an operation's inputs, for those that are wanted.
pub type InputGradients<B, const N: usize> = [Option<FloatTensor<B>>; N];

/// Puts `output` on the tape as made from `inputs`. `gradients` is called with the gradient with
/// respect to the output, and with which inputs want theirs; it may give more than wanted.
pub fn record<B, C, F, const N: usize>(
    inputs: [&FloatTensor<Autodiff<B, C>>; N],
    output: FloatTensor<B>,
    gradients: F,
) -> FloatTensor<Autodiff<B, C>>
where
    B: Backend,
    C: CheckpointStrategy,
    F: FnOnce(FloatTensor<B>, [bool; N]) -> InputGradients<B, N> + Clone + Send + 'static,
{
    let nodes = inputs.map(<FloatTensor<Autodiff<B, C>>>::node);
    let record = Record(PhantomData::<fn() -> F>);
    match Backward::<B, N>::prepare::<C>(record, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(Pass(gradients), output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}

struct Record<F>(PhantomData<fn() -> F>);

/// The backward pass with what it keeps.
#[derive(Clone)]
struct Pass<F>(F);

impl<F> fmt::Debug for Record<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<F>())
    }
}

impl<F> fmt::Debug for Pass<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<F>())
    }
}

impl<B, F, const N: usize> Backward<B, N> for Record<F>
where
    B: Backend,
    F: FnOnce(FloatTensor<B>, [bool; N]) -> InputGradients<B, N> + Clone + Send + 'static,
{
    type State = Pass<F>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let Pass(gradients) = ops.state;
        let results = gradients(grad, ops.parents.each_ref().map(Option::is_some));
        for (parent, result) in ops.parents.into_iter().zip(results) {
            if let (Some(parent), Some(result)) = (parent, result) {
                grads.register::<B>(parent.id, result);
            }
        }
    }
}
