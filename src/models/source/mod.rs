//! Where a model's files come from.

mod digest;
mod look;
mod reference;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::tensor::Device;
use serde::Deserialize;
use serde_json::Value;

use super::{
    LoadError, Params,
    cache::weight_dtype,
    params::{StoredFile, TensorFile},
};
use crate::regular;

pub(super) use reference::{REQUIRED, Refused};

pub use digest::FileState;
pub use look::{Likeness, PartLook};
pub use reference::ModelRef;

/// The file that names the classes of a model's parts. It need not be there.
pub const INDEX: &str = "model_index.json";

/// Most bytes of a configuration or an index, which are read whole; published ones have up to 200 thousand.
pub const MAX_CONFIG: u64 = 16 << 20;
/// Most bytes of a tokenizer; published ones have up to 3 million.
const MAX_TOKENIZER: u64 = 64 << 20;

/// Most bytes of a file that is read whole.
fn most_bytes(path: &str) -> u64 {
    if path.starts_with("tokenizer/") { MAX_TOKENIZER } else { MAX_CONFIG }
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

/// What stands in a folder where a file should be and is none: a link to nothing, a FIFO.
fn odd(root: &Path, file: &str) -> Option<LoadError> {
    let path = root.join(file);
    if let Some(to) = regular::leads_nowhere(&path) {
        return Some(missing(
            format!("`{file}` is a link to nothing: there is no `{}`", to.display()),
            "put there what it leads to, or the file itself in its place",
        ));
    }
    let kind = path.metadata().ok()?.file_type();
    regular::check(kind).err().map(|source| io(&path, source))
}

/// What is said of the training of the transformer in a model's folder: the log of an exported model.
pub const TRANSFORMER_LOG: &str = "transformer/log.json";

/// The files of a model in diffusers' layout (`vae/config.json`, ...), wherever they are.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// Embedded in the binary.
    Builtin(&'static [(&'static str, &'static [u8])]),
    /// A folder.
    Folder(PathBuf),
    /// Single files, such as a `Model` artifact made by `pretrain`.
    Files {
        /// The files by path.
        files: Arc<BTreeMap<String, PartFile>>,
        /// Where parts are read from that have no file in `files`, so that a new VAE can go with
        /// an old tokenizer.
        base: Option<Box<ModelSource>>,
    },
}

/// A file of a part.
#[derive(Clone, Debug)]
pub enum PartFile {
    /// In memory.
    Bytes(Vec<u8>),
    /// On disk, with the hash of its content.
    Stored(StoredFile),
}

impl From<Vec<u8>> for PartFile {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl ModelSource {
    /// A model whose parts are those in `files` (`vae/config.json`, ...), and those of `base` for
    /// parts that have no file there.
    pub fn with_artifact<F: Into<PartFile>>(
        base: Self,
        files: impl IntoIterator<Item = (String, F)>,
    ) -> Self {
        let files = files.into_iter().map(|(path, file)| (path, file.into())).collect();
        Self::Files { files: Arc::new(files), base: Some(Box::new(base)) }
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
            Self::Files { files, base: Some(base) } => {
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
            Self::Files { files, .. } => files.contains_key(path),
        }
    }

    /// The bytes of a file such as `vae/config.json`; one that is far longer than any such file is an error.
    pub fn read(&self, path: &str) -> Result<Cow<'_, [u8]>, LoadError> {
        let absent = || absent(path);
        match self.holder(path) {
            Self::Builtin(files) => files
                .iter()
                .find(|(name, _)| *name == path)
                .map(|(_, bytes)| Cow::Borrowed(*bytes))
                .ok_or_else(absent),
            Self::Files { files, .. } => match files.get(path).ok_or_else(absent)? {
                PartFile::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
                PartFile::Stored(stored) => stored.read_at_most(most_bytes(path)).map(Cow::Owned),
            },
            Self::Folder(root) => {
                let file = root.join(path);
                let read = regular::read_at_most(&file, most_bytes(path));
                read.map(Cow::Owned).map_err(|source| io(&file, source))
            }
        }
    }

    /// The parsed `<part>/config.json` (`scheduler/scheduler_config.json` for the scheduler).
    pub fn config(&self, part: &str) -> Result<Value, LoadError> {
        let file = config_file(part);
        serde_json::from_slice(&self.read(&file)?)
            .map_err(|e| LoadError::Config { file, message: format!("must be JSON: {e}") })
    }

    /// The parameters of a part: its single file, or all shards of its index. The host holds one tensor
    /// at a time.
    pub fn params(&self, part: &str, device: &Device) -> Result<Params, LoadError> {
        let mut params = Params::default();
        for file in self.tensor_files(part)? {
            params.read(file, device, weight_dtype(device))?;
        }
        Ok(params)
    }

    /// The opened weight files of a part: their headers were read, and hold together what an index says,
    /// each tensor in the file that the index names.
    pub fn tensor_files(&self, part: &str) -> Result<Vec<TensorFile<'_>>, LoadError> {
        let (index, shards) = self.weight_files(part)?;
        let files = shards.iter().map(|shard| self.open(shard)).collect::<Result<Vec<_>, _>>()?;
        if let Some((file, index)) = index {
            let message = index.contradiction(&files);
            if let Some(message) = message {
                return Err(LoadError::Config { file, message });
            }
        }
        Ok(files)
    }

    fn open(&self, path: &str) -> Result<TensorFile<'_>, LoadError> {
        match self.holder(path) {
            Self::Folder(root) => TensorFile::open(&root.join(path), path),
            Self::Files { files, .. } => match files.get(path).ok_or_else(|| absent(path))? {
                PartFile::Bytes(bytes) => TensorFile::of_bytes(bytes, path),
                PartFile::Stored(stored) => TensorFile::open_stored(stored, path),
            },
            Self::Builtin(files) => {
                let file = files.iter().find(|(name, _)| *name == path);
                TensorFile::of_bytes(file.ok_or_else(|| absent(path))?.1, path)
            }
        }
    }

    /// The weight files of a part, and its index with the path, if it has one.
    fn weight_files(&self, part: &str) -> Result<(Option<NamedIndex>, Vec<String>), LoadError> {
        let stem = stem_of(part);
        let single = format!("{part}/{stem}.safetensors");
        let index = format!("{single}.index.json");
        if !self.has(&index) {
            if !self.has(&single) {
                let odd = self.odd(&index).or_else(|| self.odd(&single));
                return Err(odd.unwrap_or_else(|| self.no_weights(part, stem, &single)));
            }
            return Ok((None, vec![single]));
        }
        let (parsed, files) = self.shards(part, &index)?;
        if let Some(file) = files.iter().find(|file| !self.has(file)) {
            let shard = file.rsplit('/').next().unwrap_or_default();
            return Err(self.odd(file).unwrap_or_else(|| {
                missing(
                    format!("`{index}` names the shard `{shard}`, which is missing"),
                    "the download may have been interrupted: fetch the model again",
                )
            }));
        }
        Ok((Some((index, parsed)), files))
    }

    /// An index, and the paths of the shards that it names, which need not be there.
    fn shards(&self, part: &str, index: &str) -> Result<(Index, Vec<String>), LoadError> {
        let error = |message: String| LoadError::Config { file: index.to_owned(), message };
        let parsed: Index =
            serde_json::from_slice(&self.read(index)?).map_err(|e| error(e.to_string()))?;
        let shards: BTreeSet<&String> = parsed.weight_map.values().collect();
        let is_beside =
            |shard: &str| !shard.contains(['/', '\\']) && shard.ends_with(".safetensors");
        if let Some(shard) = shards.iter().find(|shard| !is_beside(shard)) {
            return Err(error(format!(
                "`{shard}` must be the name of a safetensors file beside it"
            )));
        }
        let files = shards.into_iter().map(|shard| format!("{part}/{shard}")).collect();
        Ok((parsed, files))
    }

    /// The paths of the shards of a part, if its index is here.
    pub(super) fn named_shards(&self, part: &str) -> Result<Option<Vec<String>>, LoadError> {
        let index = format!("{part}/{}.safetensors.index.json", stem_of(part));
        if !self.has(&index) {
            return Ok(None);
        }
        self.shards(part, &index).map(|(_, files)| Some(files))
    }

    /// What is in the place of a file that is none.
    fn odd(&self, file: &str) -> Option<LoadError> {
        match self.holder(file) {
            Self::Folder(root) => odd(root, file),
            _ => None,
        }
    }

    fn no_weights(&self, part: &str, stem: &str, wanted: &str) -> LoadError {
        let refused = match self.holder(wanted) {
            Self::Folder(root) => Refused::within(&root.join(part)),
            _ => None,
        };
        match refused {
            Some((file, refused)) => missing(
                format!("`{part}/{file}` {}", refused.why()),
                match refused {
                    Refused::Pickle => format!("convert it to `{wanted}`"),
                    Refused::Gguf => format!("take the original weights, `{wanted}`"),
                },
            ),
            None => missing(
                format!("the model has no weights `{wanted}`"),
                format!(
                    "`{part}` must hold `{stem}.safetensors`, or shards with `{stem}.safetensors.index.json`"
                ),
            ),
        }
    }

    /// Checks that all files of these parts are there, and that none that is read whole is too long for that,
    /// without reading the weights.
    pub fn check(&self, parts: &[&str]) -> Result<(), LoadError> {
        for part in parts {
            self.part_files(part)?.iter().try_for_each(|file| self.check_file(file))?;
        }
        Ok(())
    }

    fn check_file(&self, file: &str) -> Result<(), LoadError> {
        if let Self::Folder(root) = self.holder(file) {
            let path = root.join(file);
            let Ok(metadata) = path.metadata() else {
                return Err(odd(root, file).unwrap_or_else(|| absent(file)));
            };
            let checked = regular::check(metadata.file_type()).and_then(|()| {
                let is_whole = !file.ends_with(".safetensors");
                regular::check_len(
                    metadata.len(),
                    if is_whole { most_bytes(file) } else { u64::MAX },
                )
            });
            checked.map_err(|source| io(&path, source))?;
        }
        if self.has(file) { Ok(()) } else { Err(absent(file)) }
    }

    fn part_files(&self, part: &str) -> Result<Vec<String>, LoadError> {
        match part {
            "scheduler" => Ok(vec![config_file(part)]),
            "tokenizer" => Ok(vec![self.tokenizer_file()?.to_owned()]),
            file if file == INDEX || file.contains('/') => Ok(vec![file.to_owned()]),
            _ => {
                let (index, mut files) = self.weight_files(part)?;
                files.extend(index.map(|(index, _)| index));
                files.push(config_file(part));
                // It is read where the image's use is compared, and merges hand on what it says.
                let log =
                    (part == "transformer" && self.has(TRANSFORMER_LOG)).then_some(TRANSFORMER_LOG);
                files.extend(log.map(str::to_owned));
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
                let files = ["tokenizer/tokenizer.json", "tokenizer/spiece.model"];
                files.iter().find_map(|file| self.odd(file)).unwrap_or_else(|| {
                    missing(
                        "the model has no tokenizer",
                        "`tokenizer` must hold `tokenizer.json` or `spiece.model`",
                    )
                })
            })
    }
}

/// The name of a part's weights before their ending.
pub(super) fn stem_of(part: &str) -> &'static str {
    if part == "text_encoder" { "model" } else { "diffusion_pytorch_model" }
}

/// An index with its path.
type NamedIndex = (String, Index);

/// `*.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

impl Index {
    /// What it says otherwise than its files.
    fn contradiction(&self, files: &[TensorFile<'_>]) -> Option<String> {
        let shard = |file: &str| file.rsplit('/').next().unwrap_or_default().to_owned();
        let found: Vec<(String, String)> = files
            .iter()
            .flat_map(|file| file.tensors().map(|(name, _)| (name, shard(file.file()))))
            .collect();
        let names: BTreeSet<&String> = found.iter().map(|(name, _)| name).collect();
        if let Some(name) = self.weight_map.keys().find(|name| !names.contains(name)) {
            return Some(format!("names the tensor `{name}`, which is in none of its files"));
        }
        found.iter().find_map(|(name, shard)| match self.weight_map.get(name) {
            Some(wanted) if wanted == shard => None,
            Some(wanted) => Some(format!(
                "names `{wanted}` as the file of the tensor `{name}`, but `{shard}` holds it"
            )),
            None => Some(format!("does not name the tensor `{name}`, which `{shard}` holds")),
        })
    }
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

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::{super::params::Param, *};

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
        let refused = || source.params("vae", &Device::flex()).unwrap_err().to_string();
        let message = refused();
        assert!(message.contains("the tensor `b`"), "{message}");
        let shard = |name, values: &[(&str, &[f32])]| {
            let mut all = Params::default();
            for (name, values) in values {
                let flat = Tensor::<1>::from_floats(*values, &Device::flex());
                let shape = vec![values.len()];
                all.0.insert((*name).to_owned(), Param { flat, shape });
            }
            write(folder.path(), &[(name, &all.to_safetensors(false, None))]);
        };
        shard("vae/x-2.safetensors", &[("a", &[9.0]), ("b", &[2.0, 3.0])]);
        let message = refused();
        let wanted = "names `x-1.safetensors` as the file of the tensor `a`, but `x-2.safetensors`";
        assert!(message.contains(wanted), "{message}");
        shard("vae/x-2.safetensors", &[("b", &[2.0, 3.0]), ("c", &[1.0])]);
        let message = refused();
        let wanted = "does not name the tensor `c`, which `x-2.safetensors` holds";
        assert!(message.contains(wanted), "{message}");
        std::fs::remove_file(folder.path().join("vae/x-2.safetensors")).unwrap();
        let message = source.params("vae", &Device::flex()).unwrap_err().to_string();
        assert!(message.contains("shard `x-2.safetensors`, which is missing"), "{message}");
        let escape = br#"{"weight_map": {"a": "../secret.safetensors"}}"#;
        write(folder.path(), &[("vae/diffusion_pytorch_model.safetensors.index.json", escape)]);
        let message = source.params("vae", &Device::flex()).unwrap_err().to_string();
        assert!(message.contains("beside it"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_in_the_place_of_weights_is_told() {
        let folder = model_folder(&[("vae/notes.txt", b"")]);
        let source = ModelSource::Folder(folder.path().to_owned());
        let (single, index) = (
            "vae/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.safetensors.index.json",
        );
        let told = || {
            let told = [source.check(&["vae"]), source.tensor_files("vae").map(drop)];
            let [told, read] = told.map(|result| result.unwrap_err().to_string());
            assert_eq!(told, read);
            told.replace(&folder.path().display().to_string(), "[FOLDER]")
        };
        std::os::unix::fs::symlink("../blobs/123", folder.path().join(single)).unwrap();
        assert_eq!(told(), format!("`{single}` is a link to nothing: there is no `../blobs/123`"));
        std::fs::remove_file(folder.path().join(single)).unwrap();
        nix::unistd::mkfifo(&folder.path().join(single), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let fifo = "is a FIFO, not a regular file";
        assert_eq!(told(), format!("cannot read `[FOLDER]/{single}`: it {fifo}"));
        std::fs::remove_file(folder.path().join(single)).unwrap();
        write(folder.path(), &[(index, br#"{"weight_map": {"a": "x.safetensors"}}"#)]);
        assert!(told().contains("shard `x.safetensors`, which is missing"));
        std::os::unix::fs::symlink("nothing", folder.path().join("vae/x.safetensors")).unwrap();
        assert_eq!(told(), "`vae/x.safetensors` is a link to nothing: there is no `nothing`");
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
        let in_memory = ModelSource::with_artifact(on_disk.clone(), files);
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
        let source = ModelSource::with_artifact(base, files);
        assert_eq!(source.config("vae").unwrap()["new"], 1);
        assert!(!source.has("vae/extra") && !source.has(file));
        assert!(source.has("transformer/config.json"));
        assert!(source.read("vae/extra").is_err());
    }
}
