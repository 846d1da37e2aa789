//! Where a model's files come from.

mod digest;
mod likeness;
mod part_read;
mod reference;
mod suggest;
mod weights;
mod whole;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;

use super::{LoadError, params::StoredFile};
use crate::regular_file;

use reference::KINDS;
pub(super) use reference::{REQUIRED, Refused};
pub(super) use weights::{index_of, single_of, stem_of};

pub use digest::FileState;
pub use likeness::{Likeness, PartLook};
pub use part_read::PartRead;
pub use reference::ModelRef;
pub use suggest::is_no_path;
pub use weights::INDEX_ENDING;
pub use whole::FilePlace;

/// The file that names the classes of a model's parts. It need not be there.
pub const INDEX: &str = "model_index.json";

/// Most bytes of a configuration or an index, which are read whole; published ones have up to 200
/// thousand.
pub const MAX_CONFIG: u64 = 16 << 20;
/// Most bytes of a tokenizer; published ones have up to 3 million.
const MAX_TOKENIZER: u64 = 64 << 20;

/// The files a tokenizer is read from, the first of them that is there.
pub(super) const TOKENIZERS: [&str; 2] = ["tokenizer/tokenizer.json", "tokenizer/spiece.model"];

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
    if let Some(to) = regular_file::leads_nowhere(&path) {
        return Some(missing(
            format!("`{file}` is a link to nothing: there is no `{}`", to.display()),
            "put there what it leads to, or the file itself in its place",
        ));
    }
    let kind = path.metadata().ok()?.file_type();
    regular_file::check(kind).err().map(|source| io(&path, source))
}

/// What is said of the training of the transformer in a model's folder: the log of an exported
/// model.
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

    /// The same where there may be no base, or no file. That there is neither is an error.
    pub fn of_parts<F: Into<PartFile>>(
        base: Option<Self>,
        files: BTreeMap<String, F>,
    ) -> Result<Self, LoadError> {
        match base {
            Some(base) if files.is_empty() => Ok(base),
            Some(base) => Ok(Self::with_artifact(base, files)),
            None if files.is_empty() => Err(missing("no model is named", KINDS)),
            None => {
                let files = files.into_iter().map(|(path, file)| (path, file.into())).collect();
                Ok(Self::Files { files: Arc::new(files), base: None })
            }
        }
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

    /// The bytes of a file such as `vae/config.json`; one that is far longer than any such file is
    /// an error.
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
                let read = regular_file::read_at_most(&file, most_bytes(path));
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

    /// What is in the place of a file that is none.
    fn odd(&self, file: &str) -> Option<LoadError> {
        match self.holder(file) {
            Self::Folder(root) => odd(root, file),
            _ => None,
        }
    }

    /// Checks that all files of these parts are there, and that none that is read whole is too long
    /// for that, without reading the weights.
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
            let checked = regular_file::check(metadata.file_type()).and_then(|()| {
                let is_whole = !file.ends_with(".safetensors");
                regular_file::check_len(
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
        TOKENIZERS.into_iter().find(|file| self.has(file)).ok_or_else(|| {
            TOKENIZERS.iter().find_map(|file| self.odd(file)).unwrap_or_else(|| {
                missing(
                    "the model has no tokenizer",
                    "`tokenizer` must hold `tokenizer.json` or `spiece.model`",
                )
            })
        })
    }
}

/// The configuration of a part.
pub(super) fn config_file(part: &str) -> String {
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
    use super::*;

    pub fn write(root: &Path, files: &[(&str, &[u8])]) {
        for (path, bytes) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    pub fn model_folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &REQUIRED.map(|path| (path, &b"{}"[..])));
        write(folder.path(), files);
        folder
    }

    /// A safetensors file with one f32 tensor.
    pub fn weights(name: &str, values: &[f32]) -> Vec<u8> {
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
