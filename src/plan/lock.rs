//! `<pipeline>.lock`: what a whole run of a pipeline was made from and what it gave, for version
//! control. A locked run refuses to deviate from it.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Decider, Found, Freshness, Graph, Plan, PlanError, StaleReason, freshness::differences,
};
use crate::{
    config::{Instance, Pipeline},
    store::{Digest, Ingredients, Record, Store, StoreError, write_aside},
};

/// The version of the file's form.
///
/// 1: first.
pub const LOCK_VERSION: u32 = 1;

/// A lock file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Lock {
    /// Version of this form.
    pub lock_version: u32,
    /// The version of `pipe` that wrote it.
    pub pipe_version: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The profile.
    pub profile: Option<String>,
    /// The models used, with the commit of those from a hub.
    pub models: BTreeMap<String, LockedModel>,
    /// The stages by instance, such as `lora[n=10]`.
    pub stages: BTreeMap<String, LockedStage>,
}

/// A model as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LockedModel {
    /// The commit of the snapshot, for a model from a hub.
    pub commit: Option<String>,
}

/// What one instance was made from, and its output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LockedStage {
    /// Stage kind.
    pub kind: String,
    /// The kind's `VERSION`.
    pub version: u32,
    /// The version of the files that the stage writes.
    pub output_format: u32,
    /// Parameters after defaults, as they enter the key.
    pub params: Map<String, Value>,
    /// Content on each port.
    pub inputs: BTreeMap<String, Digest>,
    /// Content of the model's parts.
    pub weights: Option<Digest>,
    /// The hash of the outside files it read, with their paths.
    pub sources: Option<Digest>,
    /// The output's content.
    pub output: Digest,
    /// The device it was computed on.
    pub device: String,
}

/// Why there is no lock to go by.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file could not be read or written.
    #[error("cannot access the lock file `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no lock file.
    #[error("`{}` is no lock file of `pipe`: {message}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A newer `pipe` wrote it.
    #[error("the lock file `{}` has version {found}, but this `pipe` knows versions up to {LOCK_VERSION}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Something else is where the lock would be written.
    #[error("`{}` is there already and is no lock file of `pipe`, so it is not overwritten", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A stage has no output that could be locked.
    #[error("`{stage}` is not up to date, so it cannot be locked")]
    Stale {
        /// The instance.
        stage: String,
    },
}

impl LockError {
    /// What to do.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Io { .. } => "`pipe run --lock` writes it beside the pipeline file",
            Self::Form { .. } => "restore it from version control, or write it anew with --lock",
            Self::Newer { .. } => "use the newer `pipe`, or write it anew with --lock",
            Self::Foreign { .. } => {
                "the lock of `x.toml` is `x.lock`: rename the pipeline file, or move the other file away"
            }
            Self::Stale { .. } => "`pipe run --lock` brings everything up to date first",
        }
    }
}

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
}

impl std::fmt::Display for Deviation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`: ", self.stage)?;
        match &self.what {
            DeviationKind::NotLocked => write!(f, "not in the lock"),
            DeviationKind::NotInPipeline => write!(f, "locked, but not in the pipeline"),
            DeviationKind::Sources => write!(f, "the files it reads changed"),
            DeviationKind::Changed(reasons) => {
                let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
                write!(f, "{}", reasons.join("; "))
            }
        }
    }
}

impl Lock {
    /// Where the lock of a pipeline file and profile lies: `pose.lock`, `pose.paper.lock`.
    pub fn path_of(pipeline: &Pipeline) -> PathBuf {
        let plain = |c: char| if c.is_alphanumeric() || "_-".contains(c) { c } else { '_' };
        match &pipeline.profile {
            None => pipeline.path.with_extension("lock"),
            Some(profile) => {
                let profile: String = profile.chars().map(plain).collect();
                pipeline.path.with_extension(format!("{profile}.lock"))
            }
        }
    }

    /// The lock of a plan in which everything is fresh.
    pub fn of_plan(plan: &Plan<'_>) -> Result<Self, LockError> {
        let pipeline = plan.pipeline;
        let mut stages = BTreeMap::new();
        for (node, instance) in plan.nodes.iter().zip(&pipeline.instances) {
            let Freshness::Fresh(record) = &node.freshness else {
                return Err(LockError::Stale { stage: instance.to_string() });
            };
            stages.insert(instance.to_string(), LockedStage::of(record));
        }
        Ok(Self {
            lock_version: LOCK_VERSION,
            pipe_version: env!("CARGO_PKG_VERSION").to_owned(),
            pipeline: pipeline.name.clone(),
            profile: pipeline.profile.clone(),
            models: LockedModel::of(pipeline),
            stages,
        })
    }

    /// Reads a lock file.
    pub fn read(path: &Path) -> Result<Self, LockError> {
        match fs::read(path) {
            Ok(bytes) => Self::parse(path, &bytes),
            Err(source) => Err(LockError::Io { path: path.to_owned(), source }),
        }
    }

    /// Reads the content of a lock file, such as it was in another revision.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, LockError> {
        #[derive(Deserialize)]
        struct Versioned {
            lock_version: u32,
        }
        let path = path.to_owned();
        match serde_json::from_slice::<Versioned>(bytes) {
            Ok(form) if form.lock_version > LOCK_VERSION => {
                Err(LockError::Newer { path, found: form.lock_version })
            }
            _ => serde_json::from_slice(bytes)
                .map_err(|error| LockError::Form { path, message: error.to_string() }),
        }
    }

    /// Refuses to write a lock in the place of something else. One of ours may be damaged, or newer.
    pub fn check_place(path: &Path) -> Result<(), LockError> {
        const OURS: &[u8] = b"\"lock_version\"";
        let path = path.to_owned();
        match fs::read(&path) {
            Ok(bytes) if bytes.is_empty() || bytes.windows(OURS.len()).any(|part| part == OURS) => {
                Ok(())
            }
            Ok(_) => Err(LockError::Foreign { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(LockError::Io { path, source }),
        }
    }

    /// Writes a lock file, in one step.
    pub fn write(&self, path: &Path) -> Result<(), LockError> {
        Self::check_place(path)?;
        let text = format!("{:#}\n", serde_json::json!(self));
        write_aside(path, text.as_bytes())
            .map_err(|source| LockError::Io { path: path.to_owned(), source })
    }

    /// The outputs that a locked run must give, by instance.
    pub fn outputs(&self) -> BTreeMap<String, Digest> {
        self.stages.iter().map(|(name, stage)| (name.clone(), stage.output)).collect()
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
        if !reasons.is_empty() || locked.kind != key.ingredients.kind {
            return Ok(Some(DeviationKind::Changed(reasons)));
        }
        let now = match decider.find(index, &key)? {
            Found::Whole(record) => record.ingredients.sources,
            Found::Nothing { sources, .. } => sources,
            Found::Broken(_) => return Ok(None),
        };
        let differs = !now.is_empty() && locked.sources != hash_of(&now);
        Ok(differs.then_some(DeviationKind::Sources))
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

impl LockedModel {
    /// The models of a pipeline.
    pub(crate) fn of(pipeline: &Pipeline) -> BTreeMap<String, Self> {
        let models = pipeline.instances.iter().filter_map(|instance| instance.work.weights());
        let models = models.map(|(model, _)| {
            let commit = model.resolve().ok().and_then(|source| source.commit());
            (model.0.clone(), Self { commit })
        });
        models.collect()
    }
}

impl LockedStage {
    /// What a stage was made from.
    pub(crate) fn of(record: &Record) -> Self {
        let Ingredients { kind, version, output_format, params, inputs, weights, sources } =
            record.ingredients.clone();
        Self {
            sources: hash_of(&sources),
            output: record.output,
            device: record.device.clone(),
            kind,
            version,
            output_format,
            params,
            inputs,
            weights,
        }
    }

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

fn hash_of(sources: &BTreeMap<String, Digest>) -> Option<Digest> {
    let json = serde_json::to_vec(sources).expect("a map of strings is valid JSON");
    (!sources.is_empty()).then(|| Digest::of(&json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_back_as_written_and_a_newer_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("toy.lock");
        let lock = Lock {
            lock_version: LOCK_VERSION,
            pipe_version: "0".into(),
            pipeline: "toy".into(),
            profile: None,
            models: BTreeMap::new(),
            stages: BTreeMap::new(),
        };
        lock.write(&path).unwrap();
        assert_eq!(Lock::read(&path).unwrap(), lock);
        Lock { lock_version: 2, ..lock }.write(&path).unwrap();
        assert!(matches!(Lock::read(&path), Err(LockError::Newer { found: 2, .. })));
        fs::write(&path, "{\"lock_version\": 1").unwrap();
        assert!(matches!(Lock::read(&path), Err(LockError::Form { .. })));
        // What is damaged is written anew, but not what is none of ours.
        for (text, ours) in [("{\"lock_version\": 1", true), ("", true), ("version = 1\n", false)] {
            fs::write(&path, text).unwrap();
            assert_eq!(Lock::check_place(&path).is_ok(), ours, "{text}");
        }
    }
}
