//! The weights of a part: one file of safetensors, or shards and an index that says which tensor is
//! in which.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Device;
use serde::Deserialize;

use super::{ModelSource, PartFile, absent, missing, reference::Refused};
use crate::models::{LoadError, Params, cache::weight_dtype, params::TensorFile};

impl ModelSource {
    /// The parameters of a part: its single file, or all shards of its index. The host holds one
    /// tensor at a time.
    pub fn params(&self, part: &str, device: &Device) -> Result<Params, LoadError> {
        let mut params = Params::default();
        for file in self.tensor_files(part)? {
            params.read(file, device, weight_dtype(device))?;
        }
        Ok(params)
    }

    /// The opened weight files of a part: their headers were read, and hold together what an index
    /// says, each tensor in the file that the index names.
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
    pub(super) fn weight_files(
        &self,
        part: &str,
    ) -> Result<(Option<NamedIndex>, Vec<String>), LoadError> {
        let (single, index) = (single_of(part), index_of(part));
        if !self.has(&index) {
            if !self.has(&single) {
                let odd = self.odd(&index).or_else(|| self.odd(&single));
                return Err(odd.unwrap_or_else(|| self.no_weights(part, &single)));
            }
            return Ok((None, vec![single]));
        }
        if self.has(&single) && self.commit().is_none() {
            return Err(two_sets(&single, &index));
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
    pub(in super::super) fn named_shards(
        &self,
        part: &str,
    ) -> Result<Option<Vec<String>>, LoadError> {
        let index = index_of(part);
        if !self.has(&index) {
            return Ok(None);
        }
        self.shards(part, &index).map(|(_, files)| Some(files))
    }

    fn no_weights(&self, part: &str, wanted: &str) -> LoadError {
        let stem = stem_of(part);
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
}

/// Weights beside the index of others, such as a merged model that was put into the folder of a
/// sharded one: of which the configuration and the log beside them are cannot be known. What one
/// commit of a repository holds was published together, and its index counts, as in diffusers.
fn two_sets(single: &str, index: &str) -> LoadError {
    let name = index.rsplit('/').next().unwrap_or(index);
    missing(
        format!("the model has two sets of weights: `{single}`, and shards by `{name}` beside it"),
        "remove those that are not meant: the one file, or the index with its shards",
    )
}

/// The name of a part's weights before their ending.
pub fn stem_of(part: &str) -> &'static str {
    if part == "text_encoder" { "model" } else { "diffusion_pytorch_model" }
}

/// The weights of a part that is not sharded.
pub fn single_of(part: &str) -> String {
    format!("{part}/{}.safetensors", stem_of(part))
}

/// What the name of an index has behind that of the file whose place its shards take.
pub const INDEX_ENDING: &str = ".index.json";

/// The index of a part's shards.
pub fn index_of(part: &str) -> String {
    format!("{}{INDEX_ENDING}", single_of(part))
}

/// An index with its path.
pub(super) type NamedIndex = (String, Index);

/// `*.safetensors.index.json`.
#[derive(Deserialize)]
pub(super) struct Index {
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

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::{
        super::tests::{model_folder, weights, write},
        *,
    };
    use crate::models::params::{Dtype, Param};

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
            write(folder.path(), &[(name, &all.to_safetensors(Dtype::F32, None))]);
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

    /// An exported merge beside the shards of the model that it was made of: the index would win in
    /// silence.
    #[test]
    fn one_file_beside_an_index_is_refused_but_in_a_snapshot() {
        let (index, single) = (index_of("vae"), single_of("vae"));
        let (a, b) = (weights("a", &[1.0]), weights("a", &[2.0]));
        let shards = br#"{"weight_map": {"a": "x-1.safetensors"}}"#;
        let files: [(&str, &[u8]); 3] =
            [(&index, shards), ("vae/x-1.safetensors", &a), (&single, &b)];
        let folder = model_folder(&files);
        let source = ModelSource::Folder(folder.path().to_owned());
        let error = source.check(&["vae"]).unwrap_err();
        let told = "`vae/diffusion_pytorch_model.safetensors`, and shards by \
                    `diffusion_pytorch_model.safetensors.index.json` beside it";
        assert!(error.to_string().contains(told), "{error}");
        assert!(error.help().unwrap().starts_with("remove those that are not meant"), "{error:?}");
        assert!(source.digest(&["vae"]).is_err() && source.tensor_files("vae").is_err());
        let snapshot = folder.path().join("snapshots/0123");
        write(&snapshot, &files);
        let source = ModelSource::Folder(snapshot);
        assert_eq!(source.tensor_files("vae").unwrap()[0].file(), "vae/x-1.safetensors");
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
}
