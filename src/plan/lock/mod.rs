//! `<pipeline>.lock`: what a whole run of a pipeline was made from and what it gave, for version
//! control. A locked run refuses to deviate from it.

mod deviations;
mod error;

pub use deviations::{Deviation, DeviationKind, Locked};
pub use error::LockError;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Freshness, Plan};
use crate::{
    config::Pipeline,
    store::{Digest, Fingerprint, Ingredients, Record, check_aside, write_aside},
};

/// The version of the file's form.
///
/// 1: first. 2: with the key of each stage; those of version 1 are still read.
pub const LOCK_VERSION: u32 = 2;

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
    /// Its key in the cache, which is made from all that follows but the output and the device;
    /// locks of version 1 have none.
    #[serde(default)]
    pub key: Option<Fingerprint>,
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
    /// What the driver's tool calls the card that it is, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<String>,
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

    /// Reads the lock of a pipeline.
    pub fn read(pipeline: &Pipeline) -> Result<Self, LockError> {
        let path = Self::path_of(pipeline);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(LockError::Io { path, source }),
        };
        check_owner(&path, &bytes, pipeline)?;
        Self::parse(&path, &bytes)
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

    /// Refuses to write the lock of a pipeline in the place of something else. One of ours may be
    /// damaged, or newer, but not of another pipeline or profile: two names may lead to one file.
    /// Nor where nobody may write, which is better told before a run than after it.
    pub fn check_place(pipeline: &Pipeline) -> Result<(), LockError> {
        const OURS: &[u8] = b"\"lock_version\"";
        let path = Self::path_of(pipeline);
        match fs::read(&path) {
            Ok(bytes) if bytes.is_empty() || bytes.windows(OURS.len()).any(|part| part == OURS) => {
                check_owner(&path, &bytes, pipeline)?;
            }
            Ok(_) => return Err(LockError::Foreign { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(LockError::Io { path, source }),
        }
        check_aside(&path).map_err(|source| LockError::NotWritten { path, source })
    }

    /// Writes the lock of a pipeline, in one step; says where.
    pub fn write(&self, pipeline: &Pipeline) -> Result<PathBuf, LockError> {
        Self::check_place(pipeline)?;
        let path = Self::path_of(pipeline);
        let text = format!("{:#}\n", serde_json::json!(self));
        match write_aside(&path, text.as_bytes()) {
            Ok(()) => Ok(path),
            Err(source) => Err(LockError::NotWritten { path, source }),
        }
    }
}

/// Whose a lock is, whatever else it says.
#[derive(Deserialize)]
struct OwnerOf {
    pipeline: String,
    profile: Option<String>,
}

/// Refuses the lock of another pipeline or profile. What cannot be read is nobody's.
fn check_owner(path: &Path, bytes: &[u8], pipeline: &Pipeline) -> Result<(), LockError> {
    let Ok(owner) = serde_json::from_slice::<OwnerOf>(bytes) else { return Ok(()) };
    if (&owner.pipeline, &owner.profile) == (&pipeline.name, &pipeline.profile) {
        return Ok(());
    }
    Err(LockError::Other {
        path: path.to_owned(),
        found: described(&owner.pipeline, owner.profile.as_deref()),
        wanted: described(&pipeline.name, pipeline.profile.as_deref()),
    })
}

/// A pipeline in a sentence: `` `pose` with the profile `paper` ``.
pub(crate) fn described(pipeline: &str, profile: Option<&str>) -> String {
    match profile {
        Some(profile) => format!("`{pipeline}` with the profile `{profile}`"),
        None => format!("`{pipeline}` without a profile"),
    }
}

impl LockedModel {
    /// The models of a pipeline.
    pub(crate) fn of(pipeline: &Pipeline) -> BTreeMap<String, Self> {
        let models = pipeline.instances.iter().filter_map(|instance| instance.work.model());
        let models = models.map(|model| {
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
            key: Some(record.fingerprint),
            sources: hash_of(&sources),
            output: record.output,
            device: record.device.clone(),
            card: record.card.clone(),
            kind,
            version,
            output_format,
            params,
            inputs,
            weights,
        }
    }
}

/// The hash of outside files, with their paths.
fn hash_of(sources: &BTreeMap<String, Digest>) -> Option<Digest> {
    let json = serde_json::to_vec(sources).expect("a map of strings is valid JSON");
    (!sources.is_empty()).then(|| Digest::of(&json))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{LoadOptions, load_with},
        stages::STAGES,
    };

    fn pipeline(file: &Path, name: &str, profile: Option<&str>) -> Pipeline {
        let text = format!(
            "name = \"{name}\"\n[profiles.paper]\n[profiles.'a b']\n[profiles.a_b]\n\
             [stages.one]\nkind = \"command\"\ncommand = \"true\"\noutputs = [\"f\"]\n"
        );
        let options = LoadOptions { profile: profile.map(str::to_owned), ..LoadOptions::default() };
        let loaded = load_with(STAGES, file, &options, &|_| Ok(text.clone()));
        loaded.unwrap_or_else(|errors| panic!("{}", errors.errors[0].message))
    }

    fn lock_of(pipeline: &Pipeline) -> Lock {
        Lock {
            lock_version: LOCK_VERSION,
            pipe_version: "0".into(),
            pipeline: pipeline.name.clone(),
            profile: pipeline.profile.clone(),
            models: BTreeMap::new(),
            stages: BTreeMap::new(),
        }
    }

    #[test]
    fn a_lock_is_read_back_as_written_and_a_newer_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("toy.lock");
        let toy = pipeline(&dir.path().join("toy.toml"), "toy", None);
        let lock = lock_of(&toy);
        assert_eq!(lock.write(&toy).unwrap(), path);
        assert_eq!(Lock::read(&toy).unwrap(), lock);
        let newer = LOCK_VERSION + 1;
        Lock { lock_version: newer, ..lock }.write(&toy).unwrap();
        assert!(matches!(Lock::read(&toy), Err(LockError::Newer { found, .. }) if found == newer));
        fs::write(&path, "{\"lock_version\": 1").unwrap();
        assert!(matches!(Lock::read(&toy), Err(LockError::Form { .. })));
        // What is damaged is written anew, but not what is none of ours.
        for (text, ours) in [("{\"lock_version\": 1", true), ("", true), ("version = 1\n", false)] {
            fs::write(&path, text).unwrap();
            assert_eq!(Lock::check_place(&toy).is_ok(), ours, "{text}");
        }
    }

    #[test]
    fn where_no_lock_can_be_written_is_told_before_a_run_and_without_a_scratch_file() {
        let dir = tempfile::tempdir().unwrap();
        let toy = pipeline(&dir.path().join("nowhere/toy.toml"), "toy", None);
        let error = Lock::check_place(&toy).unwrap_err();
        assert!(matches!(error, LockError::NotWritten { .. }), "{error}");
        assert!(error.to_string().ends_with("toy.lock`: entity not found"), "{error}");
        assert!(error.help().contains("a copy of the file"));
    }

    #[test]
    fn a_lock_of_another_pipeline_or_profile_is_not_taken_for_this_ones() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let same_place = [
            (("pose.toml", "pose", Some("paper")), ("pose.paper.toml", "pose", None)),
            (("pose.toml", "pose", Some("a b")), ("pose.toml", "pose", Some("a_b"))),
            (("x.toml", "one", None), ("x.yaml", "two", None)),
        ];
        for (first, second) in same_place {
            let [first, second] =
                [first, second].map(|(path, name, profile)| pipeline(&file(path), name, profile));
            let path = lock_of(&first).write(&first).unwrap();
            assert_eq!(path, Lock::path_of(&second));
            let refused = [
                Lock::check_place(&second).err(),
                lock_of(&second).write(&second).err(),
                Lock::read(&second).err(),
            ];
            for error in refused {
                assert!(matches!(error, Some(LockError::Other { .. })), "{error:?}");
            }
            assert_eq!(Lock::read(&first).unwrap(), lock_of(&first));
        }
    }

    #[test]
    fn a_lock_of_version_1_has_no_keys() {
        let digest = Digest::of(b"x");
        let text = format!(
            "{{\"lock_version\": 1, \"pipe_version\": \"0\", \"pipeline\": \"toy\", \"profile\": null, \
             \"models\": {{}}, \"stages\": {{\"a\": {{\"kind\": \"toy\", \"version\": 1, \"output_format\": 1, \
             \"params\": {{}}, \"inputs\": {{}}, \"weights\": null, \"sources\": null, \
             \"output\": \"{digest}\", \"device\": \"cpu\"}}}}}}"
        );
        let lock = Lock::parse(Path::new("toy.lock"), text.as_bytes()).unwrap();
        assert_eq!(lock.stages["a"].key, None);
        assert_eq!(lock.locked()["a"], Locked { output: digest, key: None });
    }
}
