//! The predictions that a metric scores: one per pair, or one per pair and checkpoint.

use std::collections::HashMap;

use image::RgbImage;

use super::{Inputs, StageError};
use crate::{
    artifact::{Item, Origins, frames, pairs},
    metrics::arc::{ArcRule, Start},
};

/// Predictions by pair, for each checkpoint that made them.
pub(super) struct Predictions<'a> {
    port: &'a str,
    /// The checkpoints in the order of their training; one without a name where there is only one.
    pub checkpoints: Vec<Option<&'a str>>,
    /// By checkpoint and pair.
    items: HashMap<(usize, &'a str), &'a Item>,
}

impl<'a> Predictions<'a> {
    /// The predictions on a port for these pairs.
    pub fn of(
        inputs: &'a Inputs<'_>,
        port: &'a str,
        pairs: &'a [Item],
    ) -> Result<Self, StageError> {
        let origins = Origins::new(pairs);
        let mut found = Self { port, checkpoints: Vec::new(), items: HashMap::new() };
        for item in inputs.items(port) {
            // Predictions for other pairs are left alone.
            let Some((checkpoint, pair)) = origins.of(&item.name) else { continue };
            let known = found.checkpoints.iter().rposition(|known| *known == checkpoint);
            let at = known.unwrap_or_else(|| {
                found.checkpoints.push(checkpoint);
                found.checkpoints.len() - 1
            });
            found.items.insert((at, pair.name.as_str()), item);
        }
        if found.checkpoints.is_empty() {
            found.checkpoints.push(None);
        }
        if found.checkpoints.len() > 1 && found.checkpoints.contains(&None) {
            return Err(StageError::failed(format!(
                "`{port}` mixes predictions of several checkpoints with others"
            )));
        }
        Ok(found)
    }

    /// Whether there are several checkpoints.
    pub fn several(&self) -> bool {
        self.checkpoints.len() > 1
    }

    /// What a checkpoint predicts for a pair, which must have the size of the target.
    pub fn image(
        &self,
        inputs: &Inputs<'_>,
        checkpoint: usize,
        pair: &Item,
        (width, height): (u32, u32),
    ) -> Result<RgbImage, StageError> {
        let item = self.items.get(&(checkpoint, pair.name.as_str())).ok_or_else(|| {
            StageError::failed(format!("`{}` has no prediction for this pair", self.port))
                .with_help("the predictions must come from the same pairs")
                .on_item(&pair.name)
        })?;
        let bytes = inputs.read(item, frames::PREDICTION)?;
        let image = pairs::decode(&bytes, frames::PREDICTION, item)?.into_rgb8();
        if image.dimensions() == (width, height) {
            return Ok(image);
        }
        Err(StageError::failed(format!(
            "the prediction is {}x{}, but its target is {width}x{height}",
            image.width(),
            image.height()
        ))
        .on_item(&item.name))
    }
}

/// Which checkpoints are tried: `count` successive ones from the first that was right on the
/// examples, or from the one after it, as many as there are; the last ones if none was right.
pub(super) fn checkpoints_to_try(right: &[bool], count: usize, rule: ArcRule) -> Vec<usize> {
    let len = right.len();
    let last = len.saturating_sub(1);
    let mut first = match (right.iter().position(|right| *right), rule.start) {
        (None, _) => len.saturating_sub(count),
        (Some(first), Start::First) => first,
        (Some(first), Start::After) => (first + 1).min(last),
    };
    if rule.fill {
        first = first.min(len.saturating_sub(count));
    }
    (first..len.min(first + count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_chosen_as_the_protocol_says() {
        let try_two =
            |right: [u8; 4], rule| checkpoints_to_try(&right.map(|right| right == 1), 2, rule);
        let rule = ArcRule::default();
        assert_eq!(try_two([0, 1, 0, 1], rule), [1, 2]);
        assert_eq!(try_two([0, 0, 0, 1], rule), [3], "only one is left");
        assert_eq!(try_two([0, 0, 0, 0], rule), [2, 3]);
        assert_eq!(checkpoints_to_try(&[false], 2, rule), [0]);
        // The other readings of the protocol.
        let fill = ArcRule { fill: true, ..rule };
        assert_eq!(try_two([0, 0, 0, 1], fill), [2, 3]);
        assert_eq!(try_two([0, 1, 0, 1], fill), [1, 2]);
        assert_eq!(checkpoints_to_try(&[true], 2, fill), [0]);
        let after = ArcRule { start: Start::After, ..rule };
        assert_eq!(try_two([0, 1, 0, 1], after), [2, 3]);
        assert_eq!(try_two([0, 0, 0, 1], after), [3], "there is none after it");
        assert_eq!(try_two([0, 0, 0, 0], after), [2, 3]);
    }
}
