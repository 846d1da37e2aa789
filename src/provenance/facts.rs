//! What is known of a run: files, models, and the record of every stage.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    config::{Instance, Pipeline},
    models::lora::Statement,
    plan::{Freshness, Plan},
    regular_file,
    store::{Digest, Record},
};

/// A pipeline of which every result is in the cache.
pub struct Facts<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// Its file, then the bases that it extends.
    pub files: Vec<PipelineFile>,
    /// Every instance, inputs before their users.
    pub executed: Vec<Executed<'a>>,
    /// The models whose weights were read, by name.
    pub models: BTreeMap<String, ModelFact>,
}

/// A pipeline file.
pub struct PipelineFile {
    /// Its path below the folder that holds all of them, with `/`.
    pub path: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// An instance and the record of its execution.
pub struct Executed<'a> {
    /// The instance.
    pub instance: &'a Instance,
    /// What was made, from what.
    pub record: &'a Record,
    /// Whether no other instance takes its output.
    pub is_result: bool,
}

/// A model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFact {
    /// The repository on the hub, if it is in one.
    pub repository: Option<String>,
    /// The commit of the snapshot, for a model from a hub.
    pub commit: Option<String>,
    /// The content of the parts that were read, by stage.
    pub weights: BTreeSet<Digest>,
}

/// The outside files that a stage read, as a document.
#[derive(Debug, Serialize)]
pub struct InputList {
    /// Each with its content; one whose path ends in `/` is the list of names in that folder.
    pub files: Vec<InputFile>,
}

/// An outside file.
#[derive(Debug, Serialize)]
pub struct InputFile {
    /// Below the source's root.
    pub path: String,
    /// Its content when it was read.
    pub blake3: Digest,
    /// Its length now, if it is still there.
    pub size: Option<u64>,
    /// Of an adapter that is still there as it was read, the model that it states to have been
    /// trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
}

impl InputFile {
    fn of(path: &str, digest: Digest, root: &Path, is_adapter: bool) -> Self {
        let full = root.join(path);
        let found = fs::metadata(&full).ok().filter(fs::Metadata::is_file);
        let stated = || Statement::read(&full).ok()?.base.filter(|_| holds(&full, digest));
        let base_model = if is_adapter { stated() } else { None };
        Self {
            path: path.to_owned(),
            blake3: digest,
            size: found.map(|found| found.len()),
            base_model,
        }
    }
}

/// Whether a file has this content.
fn holds(path: &Path, digest: Digest) -> bool {
    let mut hasher = blake3::Hasher::new();
    let read = regular_file::open(path).and_then(|file| hasher.update_reader(file).map(drop));
    read.is_ok() && Digest::from(hasher.finalize()) == digest
}

/// Why nothing can be said of a pipeline's results.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// A result is not in the cache.
    #[error("`{stage}` is not up to date in the cache{broken}")]
    Stale {
        /// The instance.
        stage: String,
        /// What is not whole, if that is why.
        broken: String,
    },
    /// A pipeline file is no longer there.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl<'a> Facts<'a> {
    /// Gathers them from a plan in which everything is fresh.
    pub fn gather(plan: &'a Plan<'_>) -> Result<Self, FactsError> {
        let pipeline = plan.pipeline;
        let used: BTreeSet<usize> = pipeline
            .instances
            .iter()
            .flat_map(|instance| instance.inputs.values().copied())
            .collect();
        let mut executed = Vec::with_capacity(plan.nodes.len());
        let mut models: BTreeMap<String, ModelFact> = BTreeMap::new();
        for (index, (node, instance)) in plan.nodes.iter().zip(&pipeline.instances).enumerate() {
            let Freshness::Fresh(record) = &node.freshness else {
                let (stage, broken) = (instance.to_string(), plan.damage_note(index));
                return Err(FactsError::Stale { stage, broken });
            };
            if let Some(model) = instance.work.model() {
                let fact = models.entry(model.0.clone()).or_default();
                fact.repository = model.repository().map(str::to_owned);
                fact.commit = model.resolve().ok().and_then(|source| source.commit());
                fact.weights.extend(record.ingredients.weights);
            }
            executed.push(Executed { instance, record, is_result: !used.contains(&index) });
        }
        Ok(Self { pipeline, files: PipelineFile::all_of(pipeline)?, executed, models })
    }

    /// The versions of the program that executed stages, as in `0.1.0, 0.2.0`.
    pub fn versions(&self) -> String {
        let executed = self.executed.iter();
        let versions: BTreeSet<_> =
            executed.map(|executed| &*executed.record.pipe_version).collect();
        versions.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// When the first stage began and the last one ended.
    pub fn span(&self) -> Option<(jiff::Timestamp, jiff::Timestamp)> {
        let start = self.executed.iter().filter_map(Executed::start).min()?;
        let end = self.executed.iter().filter_map(Executed::end).max()?;
        Some((start, end))
    }
}

impl PipelineFile {
    /// The file of a pipeline, then the bases that it extends.
    pub fn all_of(pipeline: &Pipeline) -> Result<Vec<Self>, FactsError> {
        read_files(&pipeline.files)
    }
}

impl Executed<'_> {
    /// When it began.
    pub fn start(&self) -> Option<jiff::Timestamp> {
        self.record.started.parse().ok()
    }

    /// When it ended.
    pub fn end(&self) -> Option<jiff::Timestamp> {
        let took = jiff::SignedDuration::try_from_secs_f64(self.record.wall_secs).ok()?;
        self.start()?.checked_add(took).ok()
    }

    /// The outside files that it read; none if it read none.
    pub fn inputs(&self) -> Option<InputList> {
        let sources = &self.record.ingredients.sources;
        let root = self.instance.work.source_root().filter(|_| !sources.is_empty())?;
        let adapters = self.instance.work.adapter_files().map_or(&[][..], |(_, files)| files);
        let files = sources
            .iter()
            .map(|(path, digest)| InputFile::of(path, *digest, root, adapters.contains(path)));
        Some(InputList { files: files.collect() })
    }
}

/// Reads files and names them below the deepest folder that holds all of them.
fn read_files(paths: &[PathBuf]) -> Result<Vec<PipelineFile>, FactsError> {
    let failed = |path: &Path, source| FactsError::Io { path: path.to_owned(), source };
    let full = paths.iter().map(|path| fs::canonicalize(path).map_err(|e| failed(path, e)));
    let full: Vec<PathBuf> = full.collect::<Result<_, _>>()?;
    let mut folder = full.first().and_then(|path| path.parent()).unwrap_or(Path::new(""));
    while !full.iter().all(|path| path.starts_with(folder)) {
        folder = folder.parent().unwrap_or(Path::new(""));
    }
    let read = full.iter().map(|path| {
        let below = path.strip_prefix(folder).unwrap_or(path);
        let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
        let bytes = fs::read(path).map_err(|e| failed(path, e))?;
        Ok(PipelineFile { path: parts.join("/"), bytes })
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_below_the_folder_that_holds_all() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for file in ["a/b/one.toml", "a/base.toml"] {
            fs::write(dir.path().join(file), file).unwrap();
        }
        let names = |files: &[&str]| -> Vec<String> {
            let paths: Vec<_> = files.iter().map(|file| dir.path().join(file)).collect();
            read_files(&paths).unwrap().into_iter().map(|file| file.path).collect()
        };
        assert_eq!(names(&["a/b/one.toml"]), ["one.toml"]);
        assert_eq!(names(&["a/b/one.toml", "a/b/../base.toml"]), ["b/one.toml", "base.toml"]);
        assert!(read_files(&[dir.path().join("gone.toml")]).is_err());
    }
}
