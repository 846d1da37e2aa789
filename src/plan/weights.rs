//! The weights of a stage, which must stay those of its key until it has read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Decider, Key, Lack, PlanError,
    gather::{Hashing, digest_of, own_parts},
};
use crate::{
    models::{FileState, LoadError, ModelSource},
    stages::{Stage, WeightsUsed},
    store::{Digest, StoreError},
};

/// The files of weights as they were when a stage began.
pub(crate) struct Weights {
    source: ModelSource,
    parts: Vec<&'static str>,
    states: Vec<FileState>,
}

/// A file of weights, for another process: its state when the stage began, and its hash where that
/// is known, so that it need not be hashed there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WeightFile {
    state: FileState,
    digest: Option<Digest>,
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
    /// Hashes the weights of an instance whose inputs have this content, where that takes long, and
    /// tells how far it is: its key then takes no time. Without this the store tells of it.
    pub(crate) fn hash_weights(
        &self,
        index: usize,
        inputs: &BTreeMap<String, Digest>,
        tell: &mut dyn FnMut(Hashing<'_>),
    ) {
        let Ok(given) = self.given_parts(inputs) else { return };
        self.gatherer.hash_weights(&self.pipeline.instances[index], &given, tell);
    }

    /// Looks at the weights of an instance that is about to run.
    pub(crate) fn watch(&self, index: usize, key: &Key) -> Result<Watch, PlanError> {
        let instance = &self.pipeline.instances[index];
        let (Some(expected), Some(WeightsUsed { model, parts })) =
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
            let digest = digest_of(model, (&source, &parts), self.store)?;
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
    /// The files, for another process.
    pub(crate) fn files(&self) -> Vec<WeightFile> {
        let file = |state: &FileState| WeightFile {
            digest: state.digest().map(Digest::from),
            state: state.clone(),
        };
        self.states.iter().map(file).collect()
    }

    /// The weights of a stage whose files another process has looked at; `given` are the parts on
    /// its port `model`.
    pub(crate) fn of_files(
        work: &dyn Stage,
        given: &[String],
        files: Vec<WeightFile>,
    ) -> Result<Option<Self>, LoadError> {
        let Some(WeightsUsed { model, parts }) = work.weights() else { return Ok(None) };
        for WeightFile { state, digest } in &files {
            if let Some(digest) = digest {
                state.remember((*digest).into());
            }
        }
        let states = files.into_iter().map(|file| file.state).collect();
        Ok(Some(Self { source: model.resolve()?, parts: own_parts(parts, given), states }))
    }

    /// Whether nobody has touched them since. What cannot be looked at was touched.
    pub(crate) fn hold(&self) -> bool {
        self.source.states(&self.parts).is_ok_and(|states| states == self.states)
    }
}
