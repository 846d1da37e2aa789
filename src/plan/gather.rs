//! The ingredients of an instance's key, gathered from its parameters, inputs and model.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::Path,
    sync::{Arc, Mutex},
};

use schemars::SchemaGenerator;
use serde_json::{Map, Value};

use crate::{
    config::Instance,
    models::{LoadError, ModelRef, ModelSource, PartRead},
    stages::{MODEL_PARAMS, StageEntry, WeightsUsed},
    store::{Digest, Ingredients, Store},
    sync::Unpoisoned,
    units::bytes,
};

/// Bytes of weights whose hashing is worth a word.
const LONG: u64 = 1 << 30;

/// How far the hashing of a model's weights is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashing<'a> {
    /// The model, as the file names it.
    pub model: &'a str,
    /// The file that comes next.
    pub file: &'a str,
    /// Bytes that are hashed.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

impl fmt::Display for Hashing<'_> {
    /// `4.6 GiB of 18.6 GiB of hf:org/model, transformer/...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, file, done, total } = self;
        write!(f, "{} of {} of `{model}`, {file}", bytes(*done), bytes(*total))
    }
}

/// Gathers ingredients; hashes each model and reads each kind's schema once.
pub struct Gatherer<'a> {
    store: &'a Store,
    schemas: Mutex<HashMap<&'static str, Option<Arc<PathSchema>>>>,
    weights: Mutex<HashMap<(String, Vec<&'static str>), Digest>>,
}

impl<'a> Gatherer<'a> {
    /// A gatherer that knows nothing yet; the store remembers the content of weights.
    pub fn new(store: &'a Store) -> Self {
        Self { store, schemas: Mutex::default(), weights: Mutex::default() }
    }

    /// The ingredients of an instance whose inputs have this content; files from outside are left
    /// to the caller. The model's parts in `given` come from an input, whose digest counts already.
    pub fn gather(
        &self,
        instance: &Instance,
        inputs: BTreeMap<String, Digest>,
        given: &[String],
    ) -> Result<Ingredients, LoadError> {
        let weights = match instance.work.weights() {
            Some(WeightsUsed { model, parts }) => {
                let parts = own_parts(parts, given);
                if parts.is_empty() { None } else { Some(self.weights(model, parts)?) }
            }
            None => None,
        };
        let output = instance.output();
        Ok(Ingredients {
            kind: instance.entry.kind.to_owned(),
            version: instance.version(),
            output_format: output.format_version(),
            params: self.params(instance),
            inputs,
            weights,
            sources: BTreeMap::new(),
        })
    }

    /// The parameters of an instance as they enter its key.
    pub fn params(&self, instance: &Instance) -> Map<String, Value> {
        let mut params = (*instance.params).clone();
        if let Some(schema) = self.path_schema(instance.entry) {
            schema.take_paths(&mut params);
        }
        for (name, standing) in instance.work.params_without_effect() {
            if let Some(value) = params.get_mut(*name) {
                *value = Value::from(*standing);
            }
        }
        if let Some(model) = instance.work.model() {
            // Its content counts, not its name.
            for name in MODEL_PARAMS {
                if params.get(name).and_then(Value::as_str) == Some(model.0.as_str()) {
                    params.remove(name);
                }
            }
        }
        params
    }

    /// Hashes those files of an instance's own weights that no one knows the hash of, where that
    /// takes long, and tells of each before. What is wrong is told by who wants the key.
    pub fn hash_weights(
        &self,
        instance: &Instance,
        given: &[String],
        tell: &mut dyn FnMut(Hashing<'_>),
    ) {
        let Some(WeightsUsed { model, parts }) = instance.work.weights() else { return };
        let case = (model.0.clone(), own_parts(parts, given));
        if self.weights.lock().unpoisoned().contains_key(&case) {
            return;
        }
        let Ok(source) = model.resolve() else { return };
        hash_files(&model.0, (&source, &case.1), self.store, LONG, tell);
    }

    /// Has all models hashed again.
    pub fn forget_weights(&self) {
        self.weights.lock().unpoisoned().clear();
    }

    fn weights(&self, model: &ModelRef, parts: Vec<&'static str>) -> Result<Digest, LoadError> {
        self.weights_by(model, parts, |source, parts| digest_of(model, (source, parts), self.store))
    }

    /// The content of an instance's own weights, if there are such and it takes no time to say: a
    /// plan needs not wait until those are hashed that nobody has used yet.
    pub fn weights_at_hand(&self, instance: &Instance, given: &[String]) -> Option<Digest> {
        let WeightsUsed { model, parts } = instance.work.weights()?;
        let hash = |path: &Path| self.store.digest_file_at_hand(path).map(Into::into);
        let digest =
            |source: &ModelSource, parts: &[&str]| Ok(source.digest_by(parts, &hash)?.into());
        self.weights_by(model, own_parts(parts, given), digest).ok()
    }

    /// The content of a model's parts, by `digest` unless it is known.
    fn weights_by(
        &self,
        model: &ModelRef,
        parts: Vec<&'static str>,
        digest: impl FnOnce(&ModelSource, &[&str]) -> Result<Digest, LoadError>,
    ) -> Result<Digest, LoadError> {
        let mut known = self.weights.lock().unpoisoned();
        let key = (model.0.clone(), parts);
        if let Some(digest) = known.get(&key) {
            return Ok(*digest);
        }
        let digest = digest(&model.resolve()?, &key.1)?;
        known.insert(key, digest);
        Ok(digest)
    }

    fn path_schema(&self, entry: &StageEntry) -> Option<Arc<PathSchema>> {
        let mut schemas = self.schemas.lock().unpoisoned();
        schemas.entry(entry.kind).or_insert_with(|| PathSchema::of(entry).map(Arc::new)).clone()
    }
}

/// The names of what a stage reads of its model and that does not come from an input, which
/// replaces the whole part.
pub(super) fn own_parts(parts: &[PartRead], given: &[String]) -> Vec<&'static str> {
    let is_given = |part: &PartRead| given.iter().any(|name| name == part.folder());
    parts.iter().filter(|part| !is_given(part)).map(|part| part.name()).collect()
}

/// Hashes the files of a model's parts that no one knows the hash of, if they have `least` bytes or
/// more.
fn hash_files(
    model: &str,
    (source, parts): (&ModelSource, &[&str]),
    store: &Store,
    least: u64,
    tell: &mut dyn FnMut(Hashing<'_>),
) {
    let at_hand = |path: &Path| store.digest_file_at_hand(path).is_ok();
    let Ok(files) = source.unhashed(parts, at_hand) else { return };
    let total = files.iter().map(|(_, bytes)| bytes).sum();
    if total < least {
        return;
    }
    let hash = |path: &Path| store.digest_file(path).map(Into::into);
    let mut done = 0;
    for (file, bytes) in files {
        tell(Hashing { model, file: &file, done, total });
        if source.hash(&file, &hash).is_err() {
            return;
        }
        done += bytes;
    }
}

/// The content of a model's parts; the store remembers that of files, and tells of the hashing of
/// those that take long.
pub(super) fn digest_of(
    model: &ModelRef,
    (source, parts): (&ModelSource, &[&str]),
    store: &Store,
) -> Result<Digest, LoadError> {
    hash_files(&model.0, (source, parts), store, LONG, &mut |hashing| {
        store.tell(&format!("hashing {hashing}"));
    });
    let hash = |path: &Path| store.digest_file(path).map(Into::into);
    Ok(source.digest_by(parts, &hash)?.into())
}

/// The parameter of an instance that is this path, such as `source.root`.
pub fn path_param(instance: &Instance, path: &Path) -> Option<String> {
    let taken = PathSchema::of(instance.entry)?.take_paths(&mut (*instance.params).clone());
    let is_it = |value: &Value| value.as_str().is_some_and(|text| Path::new(text) == path);
    taken.into_iter().find(|(_, value)| is_it(value)).map(|(param, _)| param)
}

/// The schema of a kind that has path parameters.
struct PathSchema {
    root: Value,
    definitions: Map<String, Value>,
}

impl PathSchema {
    fn of(entry: &StageEntry) -> Option<Self> {
        let mut generator = SchemaGenerator::default();
        let root = (entry.schema)(&mut generator).to_value();
        let definitions = generator.take_definitions(false);
        let has_path = |value: &Value| value.to_string().contains(r#""format":"path""#);
        (has_path(&root) || definitions.values().any(has_path))
            .then_some(Self { root, definitions })
    }

    /// Removes the path parameters and returns them.
    fn take_paths(&self, params: &mut Map<String, Value>) -> Vec<(String, Value)> {
        let mut value = Value::Object(std::mem::take(params));
        let mut taken = Vec::new();
        self.visit(&mut value, &self.root, "", &mut taken);
        if let Value::Object(rest) = value {
            *params = rest;
        }
        taken
    }

    /// Returns whether `value` itself is a path; removes the paths inside it.
    fn visit(
        &self,
        value: &mut Value,
        schema: &Value,
        at: &str,
        taken: &mut Vec<(String, Value)>,
    ) -> bool {
        if schema.get("format").and_then(Value::as_str) == Some("path") {
            return true;
        }
        let reference = schema.get("$ref").and_then(Value::as_str);
        if let Some(name) = reference.and_then(|name| name.rsplit('/').next())
            && let Some(schema) = self.definitions.get(name)
            && self.visit(value, schema, at, taken)
        {
            return true;
        }
        for choice in ["oneOf", "anyOf", "allOf"] {
            for schema in schema.get(choice).and_then(Value::as_array).into_iter().flatten() {
                if self.visit(value, schema, at, taken) {
                    return true;
                }
            }
        }
        match value {
            Value::Object(map) => {
                let properties = schema.get("properties").and_then(Value::as_object);
                for (name, schema) in properties.into_iter().flatten() {
                    let inner = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                    let is_path =
                        map.get_mut(name).is_some_and(|v| self.visit(v, schema, &inner, taken));
                    if is_path {
                        taken.extend(map.remove(name).map(|value| (inner, value)));
                    }
                }
            }
            Value::Array(values) => {
                if let Some(schema) = schema.get("items") {
                    values.retain_mut(|value| {
                        let is_path = self.visit(value, schema, at, taken);
                        if is_path {
                            taken.push((at.to_owned(), value.take()));
                        }
                        !is_path
                    });
                }
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_given_replaces_its_files() {
        let parts = [PartRead::Transformer, PartRead::Scheduler, PartRead::VaeConfig];
        let all = PartRead::names(&parts);
        let own = |given: &[&str]| {
            own_parts(&parts, &given.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(own(&[]), all);
        assert_eq!(own(&["vae"]), ["transformer", "scheduler"]);
        assert_eq!(own(&["transformer", "vae"]), ["scheduler"]);
        assert_eq!(own(&["va"]), all);
    }

    #[test]
    fn weights_are_told_of_file_by_file_and_hashed_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("model");
        std::fs::create_dir_all(root.join("vae")).unwrap();
        let index = r#"{"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}"#;
        let files = [
            ("config.json", "{}".to_owned()),
            ("diffusion_pytorch_model.safetensors.index.json", index.to_owned()),
            ("x-1.safetensors", "1".repeat(2 << 20)),
            ("x-2.safetensors", "2".repeat(3 << 20)),
        ];
        for (file, text) in files {
            std::fs::write(root.join("vae").join(file), text).unwrap();
        }
        let store = Store::open(&folder.path().join("cache")).unwrap();
        let source = ModelSource::Folder(root);
        let told = |least| {
            let mut told = Vec::new();
            hash_files("m", (&source, &["vae"]), &store, least, &mut |hashing| {
                told.push(format!("{} {} of {}", hashing.file, hashing.done, hashing.total));
            });
            told
        };
        assert_eq!(told((5 << 20) + 1), [""; 0], "it takes no time");
        assert_eq!(
            told(5 << 20),
            ["vae/x-1.safetensors 0 of 5242880", "vae/x-2.safetensors 2097152 of 5242880"]
        );
        assert_eq!(told(1), [""; 0], "they are known");
    }
}
