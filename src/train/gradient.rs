//! The loss of a denoiser and its gradients with respect to the trained parameters.
//!
//! The trained parameters are flat tensors by name. They become leaves of a tape, and a model is
//! built from them; all other tensors of the model are constants, for which nothing is recorded.

use std::collections::BTreeMap;

use burn::tensor::{FloatDType, Gradients as Tape, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{batch::Batch, loss::denoiser_loss};
use crate::models::{Denoiser, LoadError, Params, params::Param};

/// What is computed again in the backward pass instead of being kept from the forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Nothing: fastest.
    #[default]
    None,
    /// Every block: its input alone is kept, one more forward pass is paid.
    Block,
}

/// Makes a denoiser from the trained parameters.
pub type Build<'a> = dyn Fn(&Params) -> Result<Box<dyn Denoiser>, LoadError> + Sync + 'a;

/// A loss and its gradients by parameter name; a parameter that had no part in it has none.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    /// The loss.
    pub loss: f32,
    /// The gradients, flat and in f32.
    pub by_name: BTreeMap<String, Tensor<1>>,
}

impl Gradients {
    /// Adds `share` of `other`, loss and gradients.
    pub fn add(&mut self, other: Self, share: f32) {
        self.loss += other.loss * share;
        for (name, gradient) in other.by_name {
            self.accumulate(name, gradient * share);
        }
    }

    fn accumulate(&mut self, name: String, gradient: Tensor<1>) {
        let sum = match self.by_name.remove(&name) {
            Some(before) => before + gradient,
            None => gradient,
        };
        self.by_name.insert(name, sum);
    }

    /// Takes the gradients of `leaves` out of a finished backward pass.
    fn collect(&mut self, leaves: &Params, tape: &mut Tape) {
        for (name, leaf) in &leaves.0 {
            if let Some(gradient) = leaf.flat.grad_remove(tape) {
                self.accumulate(name.clone(), gradient.cast(FloatDType::F32));
            }
        }
    }
}

/// The parameters as leaves of a new tape.
pub fn leaves(params: &Params) -> Params {
    let leaf = |param: &Param| Param {
        flat: param.flat.clone().autodiff().require_grad(),
        shape: param.shape.clone(),
    };
    Params(params.0.iter().map(|(name, param)| (name.clone(), leaf(param))).collect())
}

/// Runs any loss backward: `loss` sees the parameters as leaves.
pub fn of_loss<E>(
    params: &Params,
    loss: impl FnOnce(&Params) -> Result<Tensor<1>, E>,
) -> Result<Gradients, E> {
    let leaves = leaves(params);
    let loss = loss(&leaves)?;
    let mut gradients = Gradients::default();
    let mut tape = loss.backward();
    gradients.loss = loss.inner().into_scalar::<f32>();
    gradients.collect(&leaves, &mut tape);
    Ok(gradients)
}

/// The loss of a denoiser and its gradients.
pub fn denoiser_gradients(
    build: &Build<'_>,
    params: &Params,
    batch: &Batch,
    recompute: Recompute,
) -> Result<Gradients, LoadError> {
    match recompute {
        Recompute::None => {
            of_loss(params, |leaves| Ok(denoiser_loss(build(leaves)?.forward(&batch.input), batch)))
        }
        Recompute::Block => by_block(build, params, batch),
    }
}

/// Forward without a tape, keeping the blocks' inputs; then backward from block to block, each
/// computed again on a tape of its own that ends in the gradient of its output.
fn by_block(build: &Build<'_>, params: &Params, batch: &Batch) -> Result<Gradients, LoadError> {
    let input = &batch.input;
    let plain = build(params)?;
    let mut inputs = vec![plain.begin(input)];
    for index in 0..plain.num_blocks() {
        let hidden = inputs[index].clone();
        inputs.push(plain.block(index, hidden, input));
        release(&inputs[index + 1]);
    }
    drop(plain);

    let leaves = leaves(params);
    let model = build(&leaves)?;
    let begun = model.begin(input);
    // Blocks change the first alone, so the others want a gradient only if something made them that is
    // trained: with an adapter of the blocks nothing did.
    let wanted: Vec<bool> =
        begun.iter().enumerate().map(|(i, x)| i == 0 || x.is_tracked()).collect();
    // Without a tape there is nothing to come back for.
    let begun = if begun.iter().any(Tensor::is_tracked) { begun } else { Vec::new() };
    let mut gradients = Gradients::default();

    let hidden = on_tape(inputs.pop().expect("begin gave one"), &wanted);
    let loss = denoiser_loss(model.end(hidden.clone(), input), batch);
    let mut tape = loss.backward();
    gradients.loss = loss.inner().into_scalar::<f32>();
    let mut upstream = take(&hidden, &mut tape);
    gradients.collect(&leaves, &mut tape);
    drop(tape);

    for index in (0..model.num_blocks()).rev() {
        let hidden = on_tape(inputs.pop().expect("one input per block"), &wanted);
        let out = model.block(index, hidden.clone(), input);
        let kept = out.iter().zip(&wanted).all(|(x, wanted)| *wanted || !x.is_tracked());
        assert!(kept, "a block changes what its model says it takes as it is");
        let Some(mut tape) = pull(out, upstream) else { return Ok(gradients) };
        upstream = take(&hidden, &mut tape);
        gradients.collect(&leaves, &mut tape);
        drop(tape);
        release(&hidden);
    }
    if let Some(mut tape) = pull(begun, upstream) {
        gradients.collect(&leaves, &mut tape);
    }
    Ok(gradients)
}

fn on_tape(hidden: Vec<Tensor<3>>, wanted: &[bool]) -> Vec<Tensor<3>> {
    let parts = hidden.into_iter().zip(wanted);
    parts.map(|(x, wanted)| if *wanted { x.autodiff().require_grad() } else { x }).collect()
}

/// Has a GPU begin all work that was queued: until then the queue holds a block's tensors in memory.
fn release(hidden: &[Tensor<3>]) {
    if let Some(x) = hidden.first() {
        // What goes wrong on the device comes up again where the loss is read.
        let _ = x.device().without_autodiff().flush();
    }
}

fn take(hidden: &[Tensor<3>], tape: &mut Tape) -> Vec<Option<Tensor<3>>> {
    hidden.iter().map(|x| x.is_tracked().then(|| x.grad_remove(tape)).flatten()).collect()
}

/// Runs backward from `out` with these gradients of it; `None` if nothing in it is trained.
fn pull(out: Vec<Tensor<3>>, upstream: Vec<Option<Tensor<3>>>) -> Option<Tape> {
    let parts = out.into_iter().zip(upstream).filter_map(|(out, gradient)| {
        let gradient = gradient?;
        out.is_tracked().then(|| (out * gradient).cast(FloatDType::F32).sum())
    });
    parts.reduce(|a, b| a + b).map(|sum| sum.backward())
}
