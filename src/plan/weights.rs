//! The weights of a stage, which must stay those of its key until it has read them.

use super::{
    Decider, Key, Lack, PlanError,
    gather::{digest_of, own_parts},
};
use crate::{
    models::{FileState, LoadError, ModelSource},
    store::{Digest, StoreError},
};

/// The files of weights as they were when a stage began.
pub(crate) struct Weights {
    source: ModelSource,
    parts: Vec<&'static str>,
    states: Vec<FileState>,
}

/// Weights beside a key.
pub(crate) enum Watch {
    /// The stage reads none.
    None,
    /// They are those of the key.
    Holds(Weights),
    /// They are others by now.
    Differs,
}

impl Decider<'_> {
    /// Looks at the weights of an instance that is about to run.
    pub(crate) fn watch(&self, index: usize, key: &Key) -> Result<Watch, PlanError> {
        let instance = &self.pipeline.instances[index];
        let (Some(expected), Some((model, parts))) =
            (key.ingredients.weights, instance.work.weights())
        else {
            return Ok(Watch::None);
        };
        let given = self.given_parts(&key.ingredients.inputs)?;
        let parts = own_parts(parts, &given);
        let look = || -> Result<(Weights, Digest), LoadError> {
            let source = model.resolve()?;
            // Before their content: what changes while it is read is seen by the next look.
            let states = source.states(&parts)?;
            let digest = digest_of(&source, &parts, self.store)?;
            Ok((Weights { source, parts: parts.clone(), states }, digest))
        };
        match look() {
            Ok((weights, digest)) if digest == expected => Ok(Watch::Holds(weights)),
            Ok(_) => Ok(Watch::Differs),
            Err(_) if self.store.is_stopped() => Err(StoreError::Cancelled.into()),
            Err(error) => Err(PlanError::Lack {
                stage: instance.to_string(),
                lack: Box::new(Lack::weights(model, &error)),
            }),
        }
    }
}

impl Weights {
    /// Whether nobody has touched them since. What cannot be looked at was touched.
    pub(crate) fn hold(&self) -> bool {
        self.source.states(&self.parts).is_ok_and(|states| states == self.states)
    }
}
