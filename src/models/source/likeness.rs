//! Whether parts of two models are the same, told without reading all of them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

use blake3::{Hash, Hasher};
use safetensors::Dtype;
use serde_json::{Map, Value};

use super::{ModelSource, PartFile};
use crate::regular_file;

/// Longest tensor of which all bytes are looked at; of others, parts.
const WHOLE: u64 = 64 << 10;
/// Parts of a longer tensor that are looked at, and the bytes of each.
const WINDOWS: u64 = 4;
const WINDOW: u64 = 4 << 10;
/// Longest file of a tokenizer that is compared.
const LONGEST: usize = 64 << 20;
/// Keys of configurations that say nothing of what is computed, beside those that begin with `_`.
const IDLE: [&str; 5] =
    ["architectures", "dtype", "model_type", "torch_dtype", "transformers_version"];

/// What a part of a model is told by: its configuration, the names and shapes of its tensors, and
/// samples of their values, the same in one file and in shards.
#[derive(Clone, Debug)]
pub struct PartLook {
    config: Map<String, Value>,
    /// None where the weights are not here.
    weights: Option<Weights>,
    /// The name and content of the tokenizer's file, beside a text encoder.
    tokenizer: Option<(&'static str, Hash)>,
}

#[derive(Clone, Debug)]
struct Weights {
    shapes: BTreeMap<String, Vec<usize>>,
    types: BTreeMap<String, Dtype>,
    content: Hash,
}

/// How two parts compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// Nothing tells them apart.
    Same,
    /// They are not the same.
    Different,
    /// It cannot be known, and why.
    Unknown(&'static str),
}

impl PartLook {
    /// How two looks compare. A key that only one configuration states does not count: later
    /// versions state what was meant before.
    pub fn compare(&self, other: &Self) -> Likeness {
        let differs = |(key, value): (&String, &Value)| {
            other.config.get(key).is_some_and(|theirs| !is_equal(value, theirs))
        };
        if self.config.iter().any(differs) {
            return Likeness::Different;
        }
        let (Some(ours), Some(theirs)) = (&self.weights, &other.weights) else {
            return Likeness::Unknown("weights are not on this machine");
        };
        if ours.shapes != theirs.shapes {
            return Likeness::Different;
        }
        if ours.types != theirs.types {
            return Likeness::Unknown("the weights are of different types");
        }
        if ours.content != theirs.content {
            return Likeness::Different;
        }
        match (self.tokenizer, other.tokenizer) {
            (Some((a, _)), Some((b, _))) if a != b => {
                Likeness::Unknown("the tokenizers are files of different kinds")
            }
            (Some((_, a)), Some((_, b))) if a != b => {
                Likeness::Unknown("the files of the tokenizers differ")
            }
            _ => Likeness::Same,
        }
    }
}

/// Numbers are equal however they are written.
fn is_equal(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|a| b.as_f64().is_some_and(|b| a.to_bits() == b.to_bits()))
}

impl ModelSource {
    /// Looks at a part, or at nothing if its configuration cannot be read.
    pub fn look(&self, part: &str) -> Option<PartLook> {
        let Value::Object(mut config) = self.config(part).ok()? else { return None };
        config.retain(|key, _| {
            key == "_class_name" || !key.starts_with('_') && !IDLE.contains(&key.as_str())
        });
        let tokenizer = (part == "text_encoder").then(|| self.look_at_tokenizer()).flatten();
        Some(PartLook { config, weights: self.look_at_weights(part), tokenizer })
    }

    fn look_at_tokenizer(&self) -> Option<(&'static str, Hash)> {
        let file = self.tokenizer_file().ok()?;
        let bytes = self.data(file).ok()?.read(0, LONGEST as u64 + 1).ok()?;
        (bytes.len() <= LONGEST).then(|| (file, blake3::hash(&bytes)))
    }

    fn look_at_weights(&self, part: &str) -> Option<Weights> {
        let (mut shapes, mut types) = (BTreeMap::new(), BTreeMap::new());
        let mut samples = BTreeMap::new();
        for opened in self.tensor_files(part).ok()? {
            let mut data = self.data(opened.file()).ok()?;
            let length = data.read(0, 8).ok()?;
            let start = 8 + u64::from_le_bytes(length.try_into().ok()?);
            for (name, info) in opened.tensors() {
                let (from, to) = info.data_offsets;
                let sample = data.sample(start + from as u64, (to - from) as u64).ok()?;
                samples.insert(name.clone(), sample);
                shapes.insert(name.clone(), info.shape.clone());
                types.insert(name, info.dtype);
            }
        }
        let mut content = Hasher::new();
        for sample in samples.values() {
            content.update(sample.as_bytes());
        }
        Some(Weights { shapes, types, content: content.finalize() })
    }

    fn data(&self, path: &str) -> io::Result<Data<'_>> {
        let absent = || io::Error::from(io::ErrorKind::NotFound);
        Ok(match self.holder(path) {
            Self::Folder(root) => Data::File(regular_file::open(&root.join(path))?),
            Self::Files { files, .. } => match files.get(path).ok_or_else(absent)? {
                PartFile::Bytes(bytes) => Data::Bytes(bytes),
                PartFile::Stored(stored) => Data::File(File::open(&stored.path)?),
            },
            Self::Builtin(files) => {
                let file = files.iter().find(|(name, _)| *name == path);
                Data::Bytes(file.ok_or_else(absent)?.1)
            }
        })
    }
}

/// A file of which pieces are read.
enum Data<'a> {
    Bytes(&'a [u8]),
    File(File),
}

impl Data<'_> {
    /// What there is of `len` bytes from `start` on.
    fn read(&mut self, start: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut piece = Vec::new();
        match self {
            Self::Bytes(bytes) => {
                let rest = bytes.get(usize::try_from(start).unwrap_or(usize::MAX)..);
                rest.unwrap_or_default().take(len).read_to_end(&mut piece)?;
            }
            Self::File(file) => {
                file.seek(SeekFrom::Start(start))?;
                file.take(len).read_to_end(&mut piece)?;
            }
        }
        Ok(piece)
    }

    /// The hash of a piece, or of windows over it where it is long.
    fn sample(&mut self, start: u64, len: u64) -> io::Result<Hash> {
        if len <= WHOLE {
            return Ok(blake3::hash(&self.read(start, len)?));
        }
        let mut hasher = Hasher::new();
        for window in 0..WINDOWS {
            // The first window begins the piece, the last one ends it.
            let offset = (len - WINDOW) / (WINDOWS - 1) * window;
            hasher.update(&self.read(start + offset, WINDOW)?);
        }
        Ok(hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;
    use serde_json::json;

    use super::*;

    const CONFIG: &str = "vae/config.json";
    const WEIGHTS: &str = "vae/diffusion_pytorch_model.safetensors";

    fn tensor(dtype: Dtype, bytes: &[u8]) -> TensorView<'_> {
        let size = dtype.bitsize() / 8;
        TensorView::new(dtype, vec![bytes.len() / size], bytes).unwrap()
    }

    fn file(tensors: &[(&str, Dtype, &[u8])], metadata: &str) -> Vec<u8> {
        let views = tensors.iter().map(|(name, dtype, bytes)| (*name, tensor(*dtype, bytes)));
        let metadata = [("note".to_owned(), metadata.to_owned())].into();
        safetensors::serialize(views, Some(metadata)).unwrap()
    }

    fn look(config: &Value, files: &[(&str, Vec<u8>)]) -> PartLook {
        let mut all: BTreeMap<String, PartFile> = BTreeMap::new();
        all.insert(CONFIG.to_owned(), config.to_string().into_bytes().into());
        for (path, bytes) in files {
            all.insert((*path).to_owned(), bytes.clone().into());
        }
        ModelSource::Files { files: std::sync::Arc::new(all), base: None }.look("vae").unwrap()
    }

    #[test]
    fn a_part_is_told_by_its_settings_shapes_and_values() {
        let config =
            json!({ "latent_channels": 4, "scaling_factor": 1, "_diffusers_version": "1" });
        let long = vec![7_u8; 1 << 20];
        let short = [1_u8, 2, 3, 4];
        let tensors = |long: &[u8], short: &[u8]| {
            file(&[("a", Dtype::F32, long), ("b", Dtype::F32, short)], "x")
        };
        let one = |bytes: Vec<u8>| look(&config, &[(WEIGHTS, bytes)]);
        let first = one(tensors(&long, &short));
        let compare = |other: &PartLook| {
            assert_eq!(first.compare(other), other.compare(&first));
            first.compare(other)
        };

        // The same in shards, under another version, with a setting more.
        let index = json!({ "weight_map": { "a": "1.safetensors", "b": "2.safetensors" } });
        let sharded = look(
            &json!({
                "latent_channels": 4, "scaling_factor": 1.0, "_diffusers_version": "2", "new": false,
            }),
            &[
                ("vae/diffusion_pytorch_model.safetensors.index.json", index.to_string().into()),
                ("vae/1.safetensors", file(&[("a", Dtype::F32, &long)], "y")),
                ("vae/2.safetensors", file(&[("b", Dtype::F32, &short)], "z")),
            ],
        );
        assert_eq!(compare(&sharded), Likeness::Same);

        let (mut begins, mut ends) = (long.clone(), long.clone());
        (begins[0], ends[(1 << 20) - 1]) = (8, 8);
        for (long, short) in [(&begins, [1, 2, 3, 4]), (&ends, [1, 2, 3, 4]), (&long, [1, 2, 3, 5])]
        {
            assert_eq!(compare(&one(tensors(long, &short))), Likeness::Different);
        }
        assert_eq!(compare(&one(tensors(&long[4..], &short))), Likeness::Different, "a shape");
        let other = json!({ "latent_channels": 4, "scaling_factor": 0.7 });
        let scaled = look(&other, &[(WEIGHTS, tensors(&long, &short))]);
        assert_eq!(compare(&scaled), Likeness::Different);

        let half =
            file(&[("a", Dtype::BF16, &long[..1 << 19]), ("b", Dtype::BF16, &short[..2])], "");
        assert_eq!(compare(&one(half)), Likeness::Unknown("the weights are of different types"));
        let empty = look(&config, &[]);
        assert_eq!(compare(&empty), Likeness::Unknown("weights are not on this machine"));
        assert_eq!(scaled.compare(&look(&config, &[])), Likeness::Different);
    }

    #[test]
    fn a_copy_of_the_built_in_model_is_the_same_and_its_tokenizer_counts() {
        let source = super::super::ModelRef("builtin:tiny".to_owned()).resolve().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ModelSource::Builtin(files) = &source else { panic!("it is built in") };
        for (path, bytes) in *files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let copy = ModelSource::Folder(folder.path().to_owned());
        for part in ["vae", "transformer", "text_encoder"] {
            let compared = source.look(part).unwrap().compare(&copy.look(part).unwrap());
            assert_eq!(compared, Likeness::Same, "{part}");
        }
        let tokenizer = folder.path().join(source.tokenizer_file().unwrap());
        let mut bytes = std::fs::read(&tokenizer).unwrap();
        bytes.push(b'\n');
        std::fs::write(tokenizer, bytes).unwrap();
        let [ours, theirs] = [&source, &copy].map(|model| model.look("text_encoder").unwrap());
        let unknown = Likeness::Unknown("the files of the tokenizers differ");
        assert_eq!(ours.compare(&theirs), unknown);
        assert!(copy.look("scheduler").is_some() && copy.look("nothing").is_none());
    }
}
