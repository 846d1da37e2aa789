//! The in-toto statement of a pipeline's results: SLSA provenance 1.0.
//!
//! Subjects are the files of the artifacts that no other stage takes, each with SHA-256, which any
//! tool can check, and blake3, which is its address in the cache. Materials are the pipeline file
//! and its bases, the models' parts, and the outside files that were read. What every other stage
//! gave is a byproduct.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Executed, Facts, PipelineFile, sha256};
use crate::store::{Digest, Fingerprint, Store, StoreError};

/// `_type` of a statement.
pub const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// `predicateType` of the provenance.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// What our `externalParameters` mean.
const BUILD_TYPE: &str = "urn:pipe:run:1";

/// Digests by algorithm: `sha256`, `blake3`, `gitCommit`.
pub type Digests = BTreeMap<String, String>;

/// A statement about results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// [`STATEMENT`].
    #[serde(rename = "_type")]
    pub form: String,
    /// The files that it is about.
    pub subject: Vec<Resource>,
    /// [`PROVENANCE`].
    pub predicate_type: String,
    /// How they were made.
    pub predicate: Predicate,
}

/// A file, or something else with a digest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// Its name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Its content.
    #[serde(default, skip_serializing_if = "Digests::is_empty")]
    pub digest: Digests,
}

/// SLSA provenance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Predicate {
    /// What was asked for, and what went in.
    pub build_definition: BuildDefinition,
    /// Who did it, and when.
    pub run_details: RunDetails,
}

/// What was asked for, and what went in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildDefinition {
    /// What the parameters mean.
    pub build_type: String,
    /// Pipeline, profile and params.
    pub external_parameters: Map<String, Value>,
    /// The key of every stage.
    pub internal_parameters: Map<String, Value>,
    /// What went in.
    pub resolved_dependencies: Vec<Resource>,
}

/// Who did it, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunDetails {
    /// The program.
    pub builder: Builder,
    /// When.
    pub metadata: RunMetadata,
    /// What each stage gave, by instance; the digest is that of the artifact in the cache.
    pub byproducts: Vec<Resource>,
}

/// The program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Builder {
    /// Its name.
    pub id: String,
    /// Its version.
    pub version: BTreeMap<String, String>,
}

/// When the first stage began and the last one ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunMetadata {
    /// RFC 3339.
    pub started_on: String,
    /// RFC 3339.
    pub finished_on: String,
}

impl Statement {
    /// The statement about the results of a pipeline.
    pub fn new(facts: &Facts<'_>, store: &Store) -> Result<Self, StoreError> {
        let mut subject = Vec::new();
        for executed in facts.executed.iter().filter(|executed| executed.is_result) {
            subject.extend(files_of(executed, store)?);
        }
        let pipeline = facts.pipeline;
        let external = json!({
            "pipeline": pipeline.name,
            "file": facts.files.first().map(|file| &file.path),
            "profile": pipeline.profile,
            "set": pipeline.set,
            "params": pipeline.params(),
            "seed": pipeline.seed,
        });
        let keys = facts.executed.iter().map(|executed| {
            (executed.instance.to_string(), executed.record.fingerprint.to_string().into())
        });
        let span = facts.span().map(|(start, end)| (start.to_string(), end.to_string()));
        let (started_on, finished_on) = span.unwrap_or_default();
        Ok(Self {
            form: STATEMENT.to_owned(),
            subject,
            predicate_type: PROVENANCE.to_owned(),
            predicate: Predicate {
                build_definition: BuildDefinition {
                    build_type: BUILD_TYPE.to_owned(),
                    external_parameters: external.as_object().cloned().unwrap_or_default(),
                    internal_parameters: Map::from_iter([(
                        "keys".to_owned(),
                        Value::Object(keys.collect()),
                    )]),
                    resolved_dependencies: materials(facts),
                },
                run_details: RunDetails {
                    builder: Builder {
                        id: "urn:pipe:local".to_owned(),
                        version: BTreeMap::from([("pipe".to_owned(), facts.versions())]),
                    },
                    metadata: RunMetadata { started_on, finished_on },
                    byproducts: facts.executed.iter().map(output_of).collect(),
                },
            },
        })
    }

    /// Reads a statement of this form.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let statement: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match (&*statement.form, &*statement.predicate_type) {
            (STATEMENT, PROVENANCE) => Ok(statement),
            (form, predicate) => Err(format!("it is a `{form}` with a `{predicate}`")),
        }
    }

    /// The pipeline and the profile that it is about.
    pub fn pipeline(&self) -> Option<(&str, Option<&str>)> {
        let asked = &self.predicate.build_definition.external_parameters;
        Some((asked.get("pipeline")?.as_str()?, asked.get("profile").and_then(Value::as_str)))
    }

    /// What is stated of each stage's key, by instance.
    pub fn keys(&self) -> BTreeMap<&str, Option<Fingerprint>> {
        let keys = self.predicate.build_definition.internal_parameters.get("keys");
        let keys = keys.and_then(Value::as_object).into_iter().flatten();
        keys.map(|(stage, key)| (stage.as_str(), key.as_str().and_then(|key| key.parse().ok())))
            .collect()
    }

    /// What went into the results by this statement, and not by the other; the file of a pipeline
    /// by another name is the same.
    pub fn materials_not_in(&self, others: &[Resource]) -> Vec<&Resource> {
        without(&self.predicate.build_definition.resolved_dependencies, others)
    }

    /// What is among these materials, and not in this statement.
    pub fn materials_beyond<'a>(&self, others: &'a [Resource]) -> Vec<&'a Resource> {
        without(others, &self.predicate.build_definition.resolved_dependencies)
    }

    /// How many materials it states.
    pub fn num_materials(&self) -> usize {
        self.predicate.build_definition.resolved_dependencies.len()
    }

    /// What is stated of each stage's output, by instance.
    pub fn outputs(&self) -> BTreeMap<&str, Option<Digest>> {
        let byproducts = self.predicate.run_details.byproducts.iter();
        byproducts
            .filter_map(|resource| Some((resource.name.as_deref()?, resource.blake3())))
            .collect()
    }
}

impl Resource {
    /// Its blake3, if it has one.
    pub fn blake3(&self) -> Option<Digest> {
        self.digest.get("blake3")?.parse().ok()
    }

    /// Its content, by each algorithm. The commit of a model says where it came from.
    fn contents(&self) -> impl Iterator<Item = (&str, &str)> {
        let content = self.digest.iter().filter(|(algorithm, _)| *algorithm != "gitCommit");
        content.map(|(algorithm, digest)| (algorithm.as_str(), digest.as_str()))
    }
}

/// Those of the resources whose content is not all among the others'.
fn without<'a>(resources: &'a [Resource], others: &[Resource]) -> Vec<&'a Resource> {
    let known: HashSet<_> = others.iter().flat_map(Resource::contents).collect();
    let is_known = |resource: &&Resource| {
        let mut contents = resource.contents().peekable();
        contents.peek().is_some() && contents.all(|content| known.contains(&content))
    };
    resources.iter().filter(|resource| !is_known(resource)).collect()
}

/// What a subject turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// The cache holds exactly this.
    Whole,
    /// The cache does not hold it.
    Missing,
    /// What the cache holds of it is damaged.
    Damaged,
    /// The cache holds it by blake3, but another digest differs.
    Differs,
    /// The statement gives no digest that the cache knows.
    Unknown,
}

/// Whether the cache holds a subject, with every digest that is stated and known here.
pub fn check(subject: &Resource, store: &Store) -> Result<Held, StoreError> {
    let Some(digest) = subject.blake3() else { return Ok(Held::Unknown) };
    let bytes = match store.read_object(digest) {
        Ok(bytes) => bytes,
        Err(StoreError::Damaged { .. }) if store.is_there(digest) => return Ok(Held::Damaged),
        Err(StoreError::Damaged { .. }) => return Ok(Held::Missing),
        Err(error) => return Err(error),
    };
    let stated = subject.digest.get("sha256");
    let equal = stated.is_none_or(|stated| *stated == sha256(&bytes));
    Ok(if equal { Held::Whole } else { Held::Differs })
}

/// `score[n=10]/summary/metrics.json`, with its digests.
fn files_of(executed: &Executed<'_>, store: &Store) -> Result<Vec<Resource>, StoreError> {
    let manifest = store.manifest(executed.record.output)?;
    let mut files = Vec::new();
    for item in &manifest.items {
        for (name, file) in &item.files {
            let sha256 = sha256(&store.read(file)?);
            files.push(Resource {
                name: Some(format!("{}/{}/{name}", executed.instance, item.name)),
                digest: digests([("sha256", sha256), ("blake3", file.digest.to_string())]),
                ..Resource::default()
            });
        }
    }
    Ok(files)
}

fn output_of(executed: &Executed<'_>) -> Resource {
    Resource {
        name: Some(executed.instance.to_string()),
        digest: digests([("blake3", executed.record.output.to_string())]),
        ..Resource::default()
    }
}

/// The pipeline file and its bases, the models' parts, and the outside files of each data set.
pub fn materials(facts: &Facts<'_>) -> Vec<Resource> {
    let models = facts.models.iter().flat_map(|(name, model)| {
        model.weights.iter().map(move |parts| {
            let commit = model.commit.clone().map(|commit| ("gitCommit", commit));
            let repository = model.repository.as_deref();
            Resource {
                name: Some(name.clone()),
                uri: repository.map(|id| format!("https://huggingface.co/{id}")),
                digest: digests(commit.into_iter().chain([("blake3", parts.to_string())])),
            }
        })
    });
    let data = facts.executed.iter().flat_map(|executed| {
        let files = executed.inputs().map(|list| list.files).unwrap_or_default();
        let stage = executed.instance.to_string();
        files.into_iter().map(move |file| Resource {
            name: Some(format!("{stage}: {}", file.path)),
            digest: digests([("blake3", file.blake3.to_string())]),
            ..Resource::default()
        })
    });
    let files = files_as_materials(&facts.files);
    files.into_iter().chain(models).chain(data).collect()
}

/// The pipeline file and its bases as materials.
pub fn files_as_materials(files: &[PipelineFile]) -> Vec<Resource> {
    let files = files.iter().map(|file| Resource {
        name: Some(file.path.clone()),
        digest: digests([
            ("sha256", sha256(&file.bytes)),
            ("blake3", Digest::of(&file.bytes).to_string()),
        ]),
        ..Resource::default()
    });
    files.collect()
}

fn digests(of: impl IntoIterator<Item = (&'static str, String)>) -> Digests {
    of.into_iter().map(|(algorithm, digest)| (algorithm.to_owned(), digest)).collect()
}
