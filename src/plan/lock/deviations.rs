//! In what a pipeline deviates from its lock.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::{Lock, LockedStage, hash_of};
use crate::{
    config::{Instance, Pipeline},
    plan::{
        Decider, Found, Graph, PlanError, StaleReason, fingerprint::action_key,
        freshness::differences, with_sources,
    },
    store::{Digest, Fingerprint, Ingredients, Record, Store, StoreError},
};

/// A stage that is not as it was locked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Deviation {
    /// The instance.
    pub stage: String,
    /// What of it.
    pub what: DeviationKind,
}

/// In what a stage deviates.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviationKind {
    /// The pipeline has it, the lock does not.
    NotLocked,
    /// The lock has it, the pipeline does not.
    NotInPipeline,
    /// It would be made from something else.
    Changed(Vec<StaleReason>),
    /// The outside files that it reads are others.
    Sources,
    /// Nothing of the above, and yet it has another key.
    Key {
        /// The one that is locked.
        locked: Fingerprint,
        /// The one that it has.
        now: Fingerprint,
    },
}

impl std::fmt::Display for Deviation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`: ", self.stage)?;
        match &self.what {
            DeviationKind::NotLocked => write!(f, "not in the lock"),
            DeviationKind::NotInPipeline => write!(f, "locked, but not in the pipeline"),
            DeviationKind::Sources => write!(f, "the files it reads changed"),
            DeviationKind::Key { locked, now } => write!(
                f,
                "its key is {}, but {} is locked, though its parameters and inputs are alike: the lock was \
                 edited",
                now.short(),
                locked.short()
            ),
            DeviationKind::Changed(reasons) => {
                let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
                write!(f, "{}", reasons.join("; "))
            }
        }
    }
}

/// What a locked run must give for an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked {
    /// The output.
    pub output: Digest,
    /// The key; none in a lock of version 1.
    pub key: Option<Fingerprint>,
}

impl Locked {
    /// In what a result is not as it was locked, and what to do.
    pub fn deviation(&self, record: &Record) -> Option<(String, &'static str)> {
        let (output, key) = (record.output, record.fingerprint);
        if self.output != output {
            let (output, locked) = (output.short(), self.output.short());
            return Some((
                format!("its output is {output}, but {locked} is locked"),
                "`pipe verify` says how far they are apart; `pipe run --lock` accepts the new one",
            ));
        }
        let locked = self.key.filter(|locked| *locked != key)?;
        let (key, locked) = (key.short(), locked.short());
        Some((
            format!(
                "its output is as locked, but made otherwise: its key is {key}, but {locked} is locked"
            ),
            "the files that it reads are others; `pipe run --lock` accepts that",
        ))
    }
}

impl Lock {
    /// What a locked run must give, by instance.
    pub fn locked(&self) -> BTreeMap<String, Locked> {
        let locked = |stage: &LockedStage| Locked { output: stage.output, key: stage.key };
        self.stages.iter().map(|(name, stage)| (name.clone(), locked(stage))).collect()
    }

    /// In what a pipeline deviates from the lock, as far as can be told without running it. Each
    /// stage is compared on the inputs that were locked, so that a change is named where it is.
    pub fn deviations(
        &self,
        pipeline: &Pipeline,
        store: &Store,
    ) -> Result<Vec<Deviation>, PlanError> {
        let decider = Decider::new(pipeline, store)?;
        let graph = Graph::new(pipeline);
        let mut found = Vec::new();
        for &index in graph.order() {
            let instance = &pipeline.instances[index];
            let stage = instance.to_string();
            let what = match self.stages.get(&stage) {
                None => Some(DeviationKind::NotLocked),
                Some(locked) => self.deviation(locked, &decider, index)?,
            };
            found.extend(what.map(|what| Deviation { stage, what }));
        }
        let names: HashSet<String> = pipeline.instances.iter().map(ToString::to_string).collect();
        for stage in self.stages.keys().filter(|stage| !names.contains(*stage)) {
            found.push(Deviation { stage: stage.clone(), what: DeviationKind::NotInPipeline });
        }
        Ok(found)
    }

    fn deviation(
        &self,
        locked: &LockedStage,
        decider: &Decider<'_>,
        index: usize,
    ) -> Result<Option<DeviationKind>, PlanError> {
        let instance = &decider.pipeline.instances[index];
        let Some(inputs) = self.inputs_of(instance, decider.pipeline) else { return Ok(None) };
        let key = match decider.key(index, inputs) {
            // What is missing here is told by the run; parts of a model that is still to be
            // trained are compared when they are there.
            Err(PlanError::Lack { .. } | PlanError::Store(StoreError::Damaged { .. })) => {
                return Ok(None);
            }
            key => key?,
        };
        let reasons = differences(&locked.ingredients(), &key.ingredients, instance);
        if !reasons.is_empty() {
            return Ok(Some(DeviationKind::Changed(reasons)));
        }
        let now = match decider.find(index, &key)? {
            Found::Whole(record) => record.ingredients.sources,
            Found::Nothing { sources, .. } => sources,
            Found::Broken(_) => return Ok(None),
        };
        if !now.is_empty() && locked.sources != hash_of(&now) {
            return Ok(Some(DeviationKind::Sources));
        }
        // What is read from outside is part of the key, and not known before it was read once.
        if now.is_empty() && instance.work.source_root().is_some() {
            return Ok(None);
        }
        let now = action_key(&with_sources(&key, now));
        let locked = locked.key.filter(|locked| *locked != now);
        Ok(locked.map(|locked| DeviationKind::Key { locked, now }))
    }

    /// What the lock says that an instance's inputs are; `None` if one is not in it.
    fn inputs_of(
        &self,
        instance: &Instance,
        pipeline: &Pipeline,
    ) -> Option<BTreeMap<String, Digest>> {
        let inputs = instance.inputs.iter().map(|(port, input)| {
            let locked = self.stages.get(&pipeline.instances[*input].to_string())?;
            Some((port.clone(), locked.output))
        });
        inputs.collect()
    }
}

impl LockedStage {
    /// All but the outside files, of which only a hash is locked.
    fn ingredients(&self) -> Ingredients {
        Ingredients {
            kind: self.kind.clone(),
            version: self.version,
            output_format: self.output_format,
            params: self.params.clone(),
            inputs: self.inputs.clone(),
            weights: self.weights,
            sources: BTreeMap::new(),
        }
    }
}
