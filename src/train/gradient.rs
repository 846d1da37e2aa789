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
/// Attention never keeps its scores, so there is nothing between a block and nothing but the number
/// of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`recompute` must be `none`, `block` or a number of blocks")]
pub enum Recompute {
    /// Of all blocks alike.
    Rule(RecomputeRule),
    /// The first so many blocks, or all: between the two rules in time and in memory.
    Blocks(#[schemars(range(min = 1))] u32),
}

/// What is computed again of every block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecomputeRule {
    /// Nothing: fastest.
    None,
    /// All of it: its input alone is kept, one more forward pass is paid.
    Block,
}

impl Default for Recompute {
    fn default() -> Self {
        Self::NONE
    }
}

impl Recompute {
    /// Nothing.
    pub const NONE: Self = Self::Rule(RecomputeRule::None);
    /// Every block.
    pub const BLOCK: Self = Self::Rule(RecomputeRule::Block);

    /// Blocks that are computed again, of so many.
    pub fn blocks(self, of: usize) -> usize {
        match self {
            Self::Rule(RecomputeRule::None) => 0,
            Self::Rule(RecomputeRule::Block) => of,
            Self::Blocks(blocks) => of.min(blocks as usize),
        }
    }

    /// The next that needs less memory, a quarter of the blocks on; nothing where all are computed
    /// again.
    pub fn more(self, of: usize) -> Option<Self> {
        let now = self.blocks(of);
        let next = now + of.div_ceil(4).max(1);
        (now < of || of == 0 && self == Self::NONE).then(|| match u32::try_from(next) {
            Ok(blocks) if next < of => Self::Blocks(blocks),
            _ => Self::BLOCK,
        })
    }
}

impl std::fmt::Display for Recompute {
    /// As in a pipeline file.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rule(RecomputeRule::None) => f.write_str("\"none\""),
            Self::Rule(RecomputeRule::Block) => f.write_str("\"block\""),
            Self::Blocks(blocks) => write!(f, "{blocks}"),
        }
    }
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
    if recompute == Recompute::NONE {
        return of_loss(params, |leaves| {
            Ok(denoiser_loss(build(leaves)?.forward(&batch.input), batch))
        });
    }
    by_block(build, params, batch, recompute)
}

/// Forward without a tape through the blocks that are computed again, keeping their inputs, and on
/// a tape through the others; then backward from block to block, each computed again on a tape of
/// its own that ends in the gradient of its output.
fn by_block(
    build: &Build<'_>,
    params: &Params,
    batch: &Batch,
    recompute: Recompute,
) -> Result<Gradients, LoadError> {
    let input = &batch.input;
    let plain = build(params)?;
    let mut inputs = vec![plain.begin(input)];
    let again = recompute.blocks(plain.num_blocks());
    for index in 0..again {
        let hidden = inputs[index].clone();
        inputs.push(plain.block(index, hidden, input));
        release(&inputs[index + 1]);
    }
    drop(plain);

    let leaves = leaves(params);
    let model = build(&leaves)?;
    let begun = model.begin(input);
    // Blocks change the first alone, so the others want a gradient only if something made them that
    // is trained: with an adapter of the blocks nothing did.
    let wanted: Vec<bool> =
        begun.iter().enumerate().map(|(i, x)| i == 0 || x.is_tracked()).collect();
    // Without a tape there is nothing to come back for.
    let begun = if begun.iter().any(Tensor::is_tracked) { begun } else { Vec::new() };
    let mut gradients = Gradients::default();

    let hidden = on_tape(inputs.pop().expect("begin gave one"), &wanted);
    let kept = (again..model.num_blocks())
        .fold(hidden.clone(), |hidden, index| model.block(index, hidden, input));
    let loss = denoiser_loss(model.end(kept, input), batch);
    let mut tape = loss.backward();
    gradients.loss = loss.inner().into_scalar::<f32>();
    let mut upstream = take(&hidden, &mut tape);
    gradients.collect(&leaves, &mut tape);
    drop(tape);

    for index in (0..again).rev() {
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

/// Has a GPU begin all work that was queued: until then the queue holds a block's tensors in
/// memory.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn recomputation_is_a_rule_or_a_number_of_blocks() {
        for (value, shown) in
            [(json!("none"), "\"none\""), (json!("block"), "\"block\""), (json!(7), "7")]
        {
            let recompute: Recompute = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(recompute.to_string(), shown);
            assert_eq!(serde_json::to_value(recompute).unwrap(), value);
        }
        let error = serde_json::from_value::<Recompute>(json!("blocks")).unwrap_err();
        assert!(error.to_string().contains("`none`, `block` or a number of blocks"), "{error}");
    }

    #[test]
    fn less_and_less_is_kept_until_nothing_is() {
        let steps = |of| -> Vec<String> {
            let next = |recompute: &Recompute| recompute.more(of);
            std::iter::successors(Some(Recompute::NONE), next).map(|r| r.to_string()).collect()
        };
        assert_eq!(steps(42), ["\"none\"", "11", "22", "33", "\"block\""]);
        assert_eq!(steps(2), ["\"none\"", "1", "\"block\""]);
        assert_eq!(steps(0), ["\"none\"", "\"block\""], "where their number is not known");
        assert_eq!(Recompute::Blocks(50).more(42), None);
    }
}
