//! Where a model's files come from.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    env,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::SystemTime,
};

use blake3::Hash;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    LoadError, Params,
    builtin::{BUILTINS, Files},
    cache::weight_dtype,
};

/// Files without which a folder is no model in diffusers' layout.
const REQUIRED: [&str; 3] =
    ["transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json"];

/// The value of `model` in a pipeline file: `builtin:tiny`, a folder in diffusers' layout, or
/// `hf:org/repo@revision`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct ModelRef(pub String);

impl ModelRef {
    /// Checks what can be known without looking for files: that a built-in model exists and that a
    /// repository's name has the form of one.
    pub fn check_name(&self) -> Result<(), LoadError> {
        if let Some(name) = self.0.strip_prefix("builtin:") {
            return builtin_files(name).map(drop);
        }
        match self.0.strip_prefix("hf:") {
            Some(repository) => hub_name(repository).map(drop),
            None => Ok(()),
        }
    }

    /// Finds the model's files; an unknown name or a folder that is not there is an error.
    pub fn resolve(&self) -> Result<ModelSource, LoadError> {
        if let Some(name) = self.0.strip_prefix("builtin:") {
            return builtin(name);
        }
        if let Some(repository) = self.0.strip_prefix("hf:") {
            return folder(&hub_snapshot(repository, &hub_cache())?);
        }
        folder(Path::new(&self.0))
    }
}

fn missing(message: impl Into<String>, help: impl Into<String>) -> LoadError {
    LoadError::Missing { message: message.into(), help: help.into() }
}

fn absent(path: &str) -> LoadError {
    missing(
        format!("the model has no file `{path}`"),
        "the model must be complete, in diffusers' layout",
    )
}

fn builtin(name: &str) -> Result<ModelSource, LoadError> {
    let files = builtin_files(name)?;
    if files.is_empty() {
        return Err(missing(
            format!("this build of pipe does not hold the built-in model `{name}`"),
            "build pipe from a checkout with its `assets` folder, or name a folder in diffusers' layout",
        ));
    }
    Ok(ModelSource::Builtin(files))
}

fn builtin_files(name: &str) -> Result<Files, LoadError> {
    if let Some((_, files)) = BUILTINS.iter().find(|(known, _)| *known == name) {
        return Ok(files);
    }
    let known = BUILTINS.iter().map(|(known, _)| *known);
    let nearest = known
        .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    let help = nearest.map(|known| format!("did you mean `builtin:{known}`?"));
    Err(missing(format!("there is no built-in model `{name}`"), help.unwrap_or_default()))
}

/// The folder of the Hugging Face cache: `HF_HUB_CACHE`, `HF_HOME/hub`, or `~/.cache/huggingface/hub`.
fn hub_cache() -> PathBuf {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("HF_HUB_CACHE")
        .or_else(|| variable("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
        .unwrap_or_else(|| env::home_dir().unwrap_or_default().join(".cache/huggingface/hub"))
}

/// Whether a text can be part of a path below the cache.
fn plain(text: &str) -> bool {
    !text.is_empty()
        && text.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

/// The repository and the revision of `org/repo@revision`; the revision is `main` by default.
fn hub_name(repository: &str) -> Result<(&str, &str), LoadError> {
    let (id, revision) = repository.split_once('@').unwrap_or((repository, "main"));
    if !plain(id) || !plain(revision) || id.split('/').count() != 2 {
        return Err(missing(
            format!("`hf:{repository}` must have the form `hf:org/repo` or `hf:org/repo@revision`"),
            "write the repository's name as on the hub, such as `hf:zai-org/CogVideoX1.5-5B-I2V`",
        ));
    }
    Ok((id, revision))
}

/// The folder of `org/repo@revision` in the Hugging Face cache.
fn hub_snapshot(repository: &str, cache: &Path) -> Result<PathBuf, LoadError> {
    let (id, revision) = hub_name(repository)?;
    let model = cache.join(format!("models--{}", id.replace('/', "--")));
    let commit = std::fs::read_to_string(model.join("refs").join(revision)).ok();
    let commit = commit.as_deref().map(str::trim).filter(|commit| plain(commit));
    let snapshot = model.join("snapshots").join(commit.unwrap_or(revision));
    if snapshot.is_dir() {
        return Ok(snapshot);
    }
    Err(missing(
        format!(
            "`{id}` at revision `{revision}` is not in the Hugging Face cache `{}`",
            cache.display()
        ),
        format!(
            "pipe does not download models yet: fetch it with `hf download {id} --revision {revision}`, \
             or name a local folder in diffusers' layout"
        ),
    ))
}

/// A folder in diffusers' layout, or why it is none.
fn folder(path: &Path) -> Result<ModelSource, LoadError> {
    let shown = path.display();
    if path.is_file() {
        let kind = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        return Err(match kind.to_ascii_lowercase().as_str() {
            "gguf" => missing(
                format!("`{shown}` is a GGUF file, whose quantised weights are not supported"),
                "name a folder with the model's original weights in diffusers' layout",
            ),
            "bin" | "ckpt" | "pt" | "pth" => missing(
                format!("`{shown}` is a pickle file, which can run code when it is read"),
                "convert it to safetensors in diffusers' layout and name that folder",
            ),
            _ => missing(
                format!("`{shown}` must be a folder in diffusers' layout, but is a file"),
                "name the folder that holds `model_index.json`",
            ),
        });
    }
    if !path.is_dir() {
        return Err(missing(
            format!("there is no model folder `{shown}`"),
            "name a folder in diffusers' layout, `hf:org/repo@revision`, or `builtin:tiny`",
        ));
    }
    match REQUIRED.iter().find(|file| !path.join(file).is_file()) {
        None => Ok(ModelSource::Folder(path.to_owned())),
        Some(file) => Err(missing(
            format!("`{shown}` is not a model in diffusers' layout: `{file}` is missing"),
            "name the folder that holds `model_index.json`, `transformer`, `vae` and `scheduler`",
        )),
    }
}

/// The files of a model in diffusers' layout (`vae/config.json`, ...), wherever they are.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// Embedded in the binary.
    Builtin(&'static [(&'static str, &'static [u8])]),
    /// A folder.
    Folder(PathBuf),
    /// In memory, such as a `Model` artifact made by `pretrain`.
    Memory {
        /// The files by path.
        files: Arc<BTreeMap<String, Vec<u8>>>,
        /// Where parts are read from that have no file in `files`, so that a new VAE can go with
        /// an old tokenizer.
        base: Option<Box<ModelSource>>,
    },
}

impl ModelSource {
    /// A model whose parts are those in `files` (`vae/config.json`, ...), and those of `base` for
    /// parts that have no file there.
    pub fn with_artifact(base: Self, files: BTreeMap<String, Vec<u8>>) -> Self {
        Self::Memory { files: Arc::new(files), base: Some(Box::new(base)) }
    }

    /// The commit of a snapshot in the Hugging Face cache.
    pub fn commit(&self) -> Option<String> {
        let Self::Folder(root) = self else { return None };
        let is_snapshot = root.parent()?.file_name()? == "snapshots";
        is_snapshot.then(|| root.file_name().map(|name| name.to_string_lossy().into_owned()))?
    }

    /// Where the part of the file `path` is: here, or in the base.
    fn holder(&self, path: &str) -> &Self {
        match self {
            Self::Memory { files, base: Some(base) } => {
                let part = path.split_once('/').map_or("", |(part, _)| part);
                let here = files.keys().any(|file| {
                    file == path || file.split_once('/').is_some_and(|(of, _)| of == part)
                });
                if here { self } else { base.holder(path) }
            }
            _ => self,
        }
    }

    /// Whether there is a file `path`.
    pub fn has(&self, path: &str) -> bool {
        match self.holder(path) {
            Self::Builtin(files) => files.iter().any(|(name, _)| *name == path),
            Self::Folder(root) => root.join(path).is_file(),
            Self::Memory { files, .. } => files.contains_key(path),
        }
    }

    /// The bytes of a file such as `vae/config.json`.
    pub fn read(&self, path: &str) -> Result<Cow<'_, [u8]>, LoadError> {
        let absent = || absent(path);
        match self.holder(path) {
            Self::Builtin(files) => files
                .iter()
                .find(|(name, _)| *name == path)
                .map(|(_, bytes)| Cow::Borrowed(*bytes))
                .ok_or_else(absent),
            Self::Memory { files, .. } => {
                files.get(path).map(|bytes| Cow::Borrowed(bytes.as_slice())).ok_or_else(absent)
            }
            Self::Folder(root) => {
                let file = root.join(path);
                std::fs::read(&file).map(Cow::Owned).map_err(|source| io(&file, source))
            }
        }
    }

    /// The parsed `<part>/config.json` (`scheduler/scheduler_config.json` for the scheduler).
    pub fn config(&self, part: &str) -> Result<Value, LoadError> {
        let file = config_file(part);
        serde_json::from_slice(&self.read(&file)?)
            .map_err(|e| LoadError::Config { file, message: format!("must be JSON: {e}") })
    }

    /// The parameters of a part: its single file, or all shards of its index.
    pub fn params(&self, part: &str, device: &Device) -> Result<Params, LoadError> {
        let dtype = weight_dtype(device);
        let mut params = Params::default();
        let (index, shards) = self.weight_files(part)?;
        for shard in shards {
            params.read_safetensors(&self.read(&shard)?, &shard, device, dtype)?;
        }
        if let Some((index, names)) = index
            && let Some(name) = names.iter().find(|name| !params.0.contains_key(*name))
        {
            let message = format!("names the tensor `{name}`, which is in none of its files");
            return Err(LoadError::Config { file: index, message });
        }
        Ok(params)
    }

    /// The weight files of a part, and with an index its path and the tensors it names.
    #[expect(clippy::type_complexity, reason = "two lists of names, used above only")]
    fn weight_files(
        &self,
        part: &str,
    ) -> Result<(Option<(String, Vec<String>)>, Vec<String>), LoadError> {
        let stem = if part == "text_encoder" { "model" } else { "diffusion_pytorch_model" };
        let single = format!("{part}/{stem}.safetensors");
        let index = format!("{single}.index.json");
        if !self.has(&index) {
            if !self.has(&single) {
                return Err(self.no_weights(part, stem, &single));
            }
            return Ok((None, vec![single]));
        }
        let error = |message: String| LoadError::Config { file: index.clone(), message };
        let parsed: Index =
            serde_json::from_slice(&self.read(&index)?).map_err(|e| error(e.to_string()))?;
        let shards: BTreeSet<&String> = parsed.weight_map.values().collect();
        let mut files = Vec::new();
        for shard in shards {
            if shard.contains(['/', '\\']) || !shard.ends_with(".safetensors") {
                return Err(error(format!(
                    "`{shard}` must be the name of a safetensors file beside it"
                )));
            }
            let file = format!("{part}/{shard}");
            if !self.has(&file) {
                return Err(missing(
                    format!("`{index}` names the shard `{shard}`, which is missing"),
                    "the download may have been interrupted: fetch the model again",
                ));
            }
            files.push(file);
        }
        let names = parsed.weight_map.into_keys().collect();
        Ok((Some((index, names)), files))
    }

    fn no_weights(&self, part: &str, stem: &str, wanted: &str) -> LoadError {
        let pickle = ["pytorch_model.bin", "diffusion_pytorch_model.bin"]
            .into_iter()
            .find(|file| self.has(&format!("{part}/{file}")));
        match pickle {
            Some(file) => missing(
                format!("`{part}/{file}` is a pickle file, which can run code when it is read"),
                format!("convert it to `{wanted}`"),
            ),
            None => missing(
                format!("the model has no weights `{wanted}`"),
                format!(
                    "`{part}` must hold `{stem}.safetensors`, or shards with `{stem}.safetensors.index.json`"
                ),
            ),
        }
    }

    /// The content of parts' files, as one hash that goes into keys.
    ///
    /// Hashed are, for each part in the order of names, the paths and contents of exactly those
    /// files that are read: its configuration and its weights, or the tokenizer's file. Instead of a
    /// part, one file can be named (`transformer/config.json`). Hashes of files in folders are
    /// remembered by path, size and time of change while the program runs.
    pub fn digest(&self, parts: &[&str]) -> Result<Hash, LoadError> {
        self.digest_by(parts, &hash_file)
    }

    /// The same, where `hash` hashes a file that is not remembered: somebody else may remember it
    /// for longer than the program runs.
    pub fn digest_by(&self, parts: &[&str], hash: HashFile<'_>) -> Result<Hash, LoadError> {
        let parts: BTreeSet<&str> = parts.iter().copied().collect();
        let mut files = BTreeMap::new();
        for part in parts {
            for file in self.part_files(part)? {
                let digest = self.file_digest(&file, hash)?;
                files.insert(file, digest.to_hex().to_string());
            }
        }
        Ok(blake3::hash(&serde_json::to_vec(&files).expect("a map of strings is valid JSON")))
    }

    /// Checks that all files of these parts are there, without reading the weights.
    pub fn check(&self, parts: &[&str]) -> Result<(), LoadError> {
        for part in parts {
            if let Some(file) = self.part_files(part)?.iter().find(|file| !self.has(file)) {
                return Err(absent(file));
            }
        }
        Ok(())
    }

    fn part_files(&self, part: &str) -> Result<Vec<String>, LoadError> {
        match part {
            "scheduler" => Ok(vec![config_file(part)]),
            "tokenizer" => Ok(vec![self.tokenizer_file()?.to_owned()]),
            file if file.contains('/') => Ok(vec![file.to_owned()]),
            _ => {
                let (index, mut files) = self.weight_files(part)?;
                files.extend(index.map(|(index, _)| index));
                files.push(config_file(part));
                Ok(files)
            }
        }
    }

    /// The file the tokenizer is read from: `tokenizer.json`, else `spiece.model`.
    pub fn tokenizer_file(&self) -> Result<&'static str, LoadError> {
        ["tokenizer/tokenizer.json", "tokenizer/spiece.model"]
            .into_iter()
            .find(|file| self.has(file))
            .ok_or_else(|| {
                missing(
                    "the model has no tokenizer",
                    "`tokenizer` must hold `tokenizer.json` or `spiece.model`",
                )
            })
    }

    fn file_digest(&self, path: &str, hash: HashFile<'_>) -> Result<Hash, LoadError> {
        match self.holder(path) {
            Self::Folder(root) => digest_on_disk(&root.join(path), hash),
            holder => Ok(blake3::hash(&holder.read(path)?)),
        }
    }
}

/// `*.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn config_file(part: &str) -> String {
    if part == "scheduler" {
        "scheduler/scheduler_config.json".to_owned()
    } else {
        format!("{part}/config.json")
    }
}

fn io(path: &Path, source: std::io::Error) -> LoadError {
    LoadError::Io { path: path.display().to_string(), source }
}

/// Hashes a file.
pub type HashFile<'a> = &'a dyn Fn(&Path) -> std::io::Result<Hash>;

fn hash_file(path: &Path) -> std::io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(std::fs::File::open(path)?)?;
    Ok(hasher.finalize())
}

/// What tells whether a file is the one that was hashed.
type FileState = (PathBuf, u64, SystemTime);

/// Hashes a file, unless it was hashed before and has the same size and time of change.
fn digest_on_disk(path: &Path, hash: HashFile<'_>) -> Result<Hash, LoadError> {
    static KNOWN: LazyLock<Mutex<HashMap<FileState, Hash>>> = LazyLock::new(Mutex::default);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let state = |path: &Path| {
        let metadata = path.metadata()?;
        Ok((path.to_owned(), metadata.len(), metadata.modified()?))
    };
    let key: FileState = state(path).map_err(|e| io(path, e))?;
    if let Some(digest) = known().get(&key) {
        return Ok(*digest);
    }
    let digest = hash(path).map_err(|e| io(path, e))?;
    known().insert(key, digest);
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &[u8])]) {
        for (path, bytes) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    fn model_folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &REQUIRED.map(|path| (path, &b"{}"[..])));
        write(folder.path(), files);
        folder
    }

    /// A safetensors file with one f32 tensor.
    fn weights(name: &str, values: &[f32]) -> Vec<u8> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let dtype = safetensors::Dtype::F32;
        let view = safetensors::tensor::TensorView::new(dtype, vec![values.len()], &bytes);
        safetensors::serialize([(name, view.unwrap())], None).unwrap()
    }

    fn refused(reference: &str) -> (String, String) {
        let error = ModelRef(reference.to_owned()).resolve().unwrap_err();
        (error.to_string(), error.help().unwrap_or_default().to_owned())
    }

    #[test]
    fn an_unknown_builtin_suggests_a_known_one() {
        let (message, help) = refused("builtin:tyni");
        assert!(message.contains("`tyni`") && help.contains("`builtin:tiny`"), "{message} {help}");
    }

    #[test]
    fn a_folder_must_be_whole_and_single_files_are_refused_with_a_remedy() {
        let folder = model_folder(&[("m.gguf", b""), ("m.CKPT", b""), ("m.safetensors", b"")]);
        let at = |name: &str| folder.path().join(name).display().to_string();
        assert!(ModelRef(at("")).resolve().is_ok());
        assert!(refused(&at("m.gguf")).0.contains("GGUF"));
        assert!(refused(&at("m.CKPT")).1.contains("safetensors"));
        assert!(refused(&at("m.safetensors")).0.contains("must be a folder"));
        assert!(refused(&at("nowhere")).0.contains("no model folder"));
        std::fs::remove_file(folder.path().join("vae/config.json")).unwrap();
        assert!(refused(&at("")).0.contains("`vae/config.json` is missing"));
    }

    #[test]
    fn the_hub_cache_is_read_by_branch_and_by_commit() {
        let cache = tempfile::tempdir().unwrap();
        let snapshot = "models--org--repo/snapshots/abc123/model_index.json";
        write(cache.path(), &[(snapshot, b"{}"), ("models--org--repo/refs/main", b"abc123\n")]);
        let wanted = cache.path().join("models--org--repo/snapshots/abc123");
        for name in ["org/repo", "org/repo@main", "org/repo@abc123"] {
            assert_eq!(hub_snapshot(name, cache.path()).unwrap(), wanted, "{name}");
        }
        let error = hub_snapshot("org/repo@v2", cache.path()).unwrap_err();
        assert!(error.help().unwrap().contains("local folder"));
        for bad in ["repo", "../../etc/x", "org/../repo", "a/b/c", "org/repo@../x", "org/repo@"] {
            let message = hub_snapshot(bad, cache.path()).unwrap_err().to_string();
            assert!(message.contains("must have the form"), "{message}");
        }
    }

    #[test]
    fn shards_are_joined_and_gaps_are_errors() {
        let index = br#"{"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}"#;
        let (a, b) = (weights("a", &[1.0]), weights("b", &[2.0, 3.0]));
        let folder = model_folder(&[
            ("vae/diffusion_pytorch_model.safetensors.index.json", index),
            ("vae/x-1.safetensors", &a),
            ("vae/x-2.safetensors", &b),
        ]);
        let source = ModelSource::Folder(folder.path().to_owned());
        let params = source.params("vae", &Device::flex()).unwrap();
        assert_eq!(params.0.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(params.num_values(), 3);

        std::fs::write(folder.path().join("vae/x-2.safetensors"), weights("c", &[2.0])).unwrap();
        let message = source.params("vae", &Device::flex()).unwrap_err().to_string();
        assert!(message.contains("the tensor `b`"), "{message}");
        std::fs::remove_file(folder.path().join("vae/x-2.safetensors")).unwrap();
        let message = source.params("vae", &Device::flex()).unwrap_err().to_string();
        assert!(message.contains("shard `x-2.safetensors`, which is missing"), "{message}");
        let escape = br#"{"weight_map": {"a": "../secret.safetensors"}}"#;
        write(folder.path(), &[("vae/diffusion_pytorch_model.safetensors.index.json", escape)]);
        let message = source.params("vae", &Device::flex()).unwrap_err().to_string();
        assert!(message.contains("beside it"), "{message}");
    }

    #[test]
    fn pickled_weights_are_refused_with_a_remedy() {
        let folder = model_folder(&[("text_encoder/pytorch_model.bin", b"")]);
        let source = ModelSource::Folder(folder.path().to_owned());
        let error = source.params("text_encoder", &Device::flex()).unwrap_err();
        assert!(error.to_string().contains("pickle"), "{error}");
        assert!(error.help().unwrap().contains("text_encoder/model.safetensors"));
    }

    #[test]
    fn the_digest_is_of_content_wherever_it_lies() {
        let vae = weights("a", &[1.0]);
        let file = "vae/diffusion_pytorch_model.safetensors";
        let folder = model_folder(&[(file, &vae), ("vae/notes.txt", b"no part of it")]);
        let on_disk = ModelSource::Folder(folder.path().to_owned());
        let files = [(file.to_owned(), vae), ("vae/config.json".to_owned(), b"{}".to_vec())];
        let in_memory = ModelSource::with_artifact(on_disk.clone(), files.into());
        let digest = on_disk.digest(&["vae"]).unwrap();
        assert_eq!(digest, in_memory.digest(&["vae", "vae"]).unwrap());
        assert_ne!(digest, on_disk.digest(&["vae", "scheduler"]).unwrap());
        write(folder.path(), &[(file, &weights("a", &[2.0, 2.0]))]);
        assert_ne!(digest, on_disk.digest(&["vae"]).unwrap());
        assert_eq!(digest, in_memory.digest(&["vae"]).unwrap());
    }

    #[test]
    fn a_part_in_memory_hides_the_whole_part_of_the_base() {
        let file = "vae/diffusion_pytorch_model.safetensors";
        let folder = model_folder(&[(file, &weights("a", &[1.0])), ("vae/extra", b"old")]);
        let base = ModelSource::Folder(folder.path().to_owned());
        let files = [("vae/config.json".to_owned(), br#"{"new": 1}"#.to_vec())];
        let source = ModelSource::with_artifact(base, files.into());
        assert_eq!(source.config("vae").unwrap()["new"], 1);
        assert!(!source.has("vae/extra") && !source.has(file));
        assert!(source.has("transformer/config.json"));
        assert!(source.read("vae/extra").is_err());
    }
}
