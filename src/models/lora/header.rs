//! A look at the header of an adapter file: it tells what is none before the file is read, which
//! may be larger than the memory, and what an adapter is for before anything runs.

use std::{collections::BTreeMap, fs::File, path::Path};

use super::{
    super::{
        params::{LoadError, TensorFile},
        source::MAX_CONFIG,
    },
    Adapter, error, no_part,
    read::outline,
    settings::Settings,
};
use crate::regular_file;

/// The name of peft's file, which needs the settings beside it.
pub const PEFT_WEIGHTS: &str = "adapter_model.safetensors";
/// The settings.
pub const PEFT_CONFIG: &str = "adapter_config.json";

/// Why a file of this name is not read as an adapter, as in "`x` is a pickle file".
pub fn refused_name(file: &str) -> Option<&'static str> {
    let ending = Path::new(file).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending.to_ascii_lowercase().as_str() {
        "safetensors" => None,
        "gguf" => Some("is a GGUF file, whose quantised weights are not supported"),
        "bin" | "ckpt" | "pt" | "pth" => {
            Some("is a pickle file, which can run code when it is read")
        }
        _ => Some("must be a safetensors file"),
    }
}

/// What an adapter file on disk cannot be used for, by its header and peft's settings beside it:
/// whether it is an adapter, and for linear layers of a model whose tensors are `model`. Errors
/// call it `file`.
pub fn check_outline(
    path: &Path,
    file: &str,
    model: Option<&BTreeMap<String, Vec<usize>>>,
) -> Result<(), LoadError> {
    let adapter = outlined(path, file)?;
    let Some(model) = model else { return Ok(()) };
    let fits = adapter.check_shapes(model.iter().map(|(name, shape)| (name.as_str(), &shape[..])));
    fits.map_err(|error| error.of_file(file))
}

/// What an adapter file on disk states of itself, in its header or in peft's settings beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Whether it says how strong it is, there or by its alphas. If not, its scale is taken to be
    /// 1, as diffusers does.
    pub scale: bool,
    /// The model that it was trained on: a name on the hub, or a folder somewhere.
    pub base: Option<String>,
}

impl Statement {
    /// Reads the head of an adapter file.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let (head, settings) = opened(path, &path.display().to_string())?;
        let is_alpha = |name: &str| name.to_ascii_lowercase().ends_with("alpha");
        let has_alphas = head.tensors().any(|(name, _)| is_alpha(&name));
        let settings = settings?;
        let base = settings.base().map(str::to_owned);
        Ok(Self { scale: has_alphas || settings.is_stated(), base })
    }

    /// Whether the base is another model of the hub than this one there. Owners of repositories
    /// change, and there are copies, so the names alone are compared.
    pub fn is_for_another(&self, repository: &str) -> bool {
        let name = |id: &str| match id.split('/').collect::<Vec<_>>()[..] {
            [owner, name] if !owner.is_empty() && !owner.starts_with(['.', '~']) => {
                Some(name.to_ascii_lowercase())
            }
            _ => None,
        };
        let base = self.base.as_deref().and_then(name);
        base.zip(name(repository)).is_some_and(|(base, other)| base != other)
    }
}

/// The bytes of an adapter file's factors once they are read: in f32, all at the highest rank.
pub fn size_of_factors(path: &Path) -> Result<u64, LoadError> {
    let adapter = outlined(path, &path.display().to_string())?;
    let layer = |module| {
        let (a, b) = adapter.factors(module)?;
        Some(a.shape[1] as u64 + b.shape[0] as u64)
    };
    let layers: u64 = adapter.modules().into_iter().filter_map(layer).sum();
    Ok((layers * adapter.rank as u64).saturating_mul(size_of::<f32>() as u64))
}

/// The adapter of a file on disk without its values.
fn outlined(path: &Path, file: &str) -> Result<Adapter, LoadError> {
    let (head, settings) = opened(path, file)?;
    let shapes = head.tensors().map(|(name, info)| (name, info.shape.clone()));
    let adapter = settings.and_then(|settings| outline(shapes, &settings));
    adapter.map_err(|error| error.of_file(file))
}

/// The header of an adapter file on disk, and its settings, wherever they stand.
fn opened(
    path: &Path,
    file: &str,
) -> Result<(TensorFile<'static>, Result<Settings, LoadError>), LoadError> {
    let io = |path: &Path, source| LoadError::Io { path: path.display().to_string(), source };
    let opened = regular_file::open(path).map_err(|source| io(path, source))?;
    let head = checked(opened, file)?;
    let settings = if path.file_name().is_some_and(|name| name == PEFT_WEIGHTS) {
        let config = path.with_file_name(PEFT_CONFIG);
        let read = regular_file::read_at_most(&config, MAX_CONFIG);
        Settings::of_peft(&read.map_err(|source| io(&config, source))?)
    } else {
        Settings::of_entries(head.entries())
    };
    Ok((head, settings))
}

/// Refuses what is no file of a low-rank adapter by its header, which errors call `file`.
pub fn check_head(opened: File, file: &str) -> Result<(), LoadError> {
    checked(opened, file).map(drop)
}

fn checked(opened: File, file: &str) -> Result<TensorFile<'static>, LoadError> {
    let head = TensorFile::of_file(opened, (Path::new(file), file))?;
    if let Some((name, _)) = head.tensors().find(|(name, _)| !may_be_part(name)) {
        return Err(no_part(&name).of_file(file));
    }
    if head.tensors().next().is_none() {
        return Err(error("holds no tensors, so no adapter").of_file(file));
    }
    Ok(head)
}

/// Whether a tensor may be a factor or its scale in some program's names; which names are known
/// shows when the file is read.
fn may_be_part(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("lora") || name.ends_with("alpha")
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    /// A file of this header and so many bytes, which take no space on the disk.
    fn checked(header: &str, len: u64) -> Result<(), String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.set_len(8 + header.len() as u64 + len).unwrap();
        file.rewind().unwrap();
        check_head(file, "a.safetensors").map_err(|error| error.to_string())
    }

    #[test]
    fn scale_and_base_are_stated_by_the_header_or_by_alphas() {
        use super::super::read::tests::file;
        let factors = [("b.to_q.lora_A.weight", &[2, 4][..]), ("b.to_q.lora_B.weight", &[6, 2])];
        let folder = tempfile::tempdir().unwrap();
        let stated = |bytes: Vec<u8>| {
            let path = folder.path().join("a.safetensors");
            std::fs::write(&path, bytes).unwrap();
            Statement::read(&path).unwrap()
        };
        assert_eq!(stated(file(&factors, None)), Statement { scale: false, base: None });
        assert!(stated(file(&factors, Some(r#"{"r": 2, "lora_alpha": 4}"#))).scale);
        let [a, b] = factors;
        assert!(stated(file(&[a, b, ("b.to_q.alpha", &[])], None)).scale);
        let of = |base: &str| {
            let settings =
                format!(r#"{{"r": 2, "lora_alpha": 4, "base_model_name_or_path": {base}}}"#);
            stated(file(&factors, Some(&settings)))
        };
        let cog = of(r#""THUDM/CogVideoX-5b-I2V""#);
        assert_eq!(cog.base.as_deref(), Some("THUDM/CogVideoX-5b-I2V"));
        assert!(cog.is_for_another("THUDM/CogVideoX1.5-5B-I2V"));
        assert!(!cog.is_for_another("zai-org/CogVideoX-5B-I2V"), "owners change");
        for unknown in ["null", r#""""#, r#""/models/cog""#, r#""./cog""#] {
            assert!(!of(unknown).is_for_another("THUDM/CogVideoX1.5-5B-I2V"), "{unknown}");
        }
        // Where the settings are wrong, nothing is known.
        std::fs::write(folder.path().join("a.safetensors"), file(&factors, Some("{}"))).unwrap();
        assert!(Statement::read(&folder.path().join("a.safetensors")).is_err());
    }

    #[test]
    fn a_file_of_a_terabyte_is_refused_by_its_header() {
        let values = 1_u64 << 38;
        let one = |name: &str, dtype: &str| {
            let end = values * 4;
            format!(
                r#"{{"{name}": {{"dtype": "{dtype}", "shape": [{values}], "data_offsets": [0, {end}]}}}}"#
            )
        };
        let refused = |name, dtype| checked(&one(name, dtype), values * 4).unwrap_err();
        insta::assert_snapshot!(refused("blocks.0.attn1.to_q.weight", "F32"), @"`a.safetensors`: `blocks.0.attn1.to_q.weight` is not part of a low-rank adapter");
        insta::assert_snapshot!(refused("blocks.0.lora_A.weight", "I32"), @"tensor `blocks.0.lora_A.weight` of `a.safetensors` is I32, but weights must be F32, F16 or BF16");
        assert!(checked(&one("lora_A", "F32"), 7).unwrap_err().contains("not a whole"));
        assert!(checked("{}", 0).unwrap_err().contains("holds no tensors"));
        for name in ["lora_unet_x.lora_down.weight", "x.lora_A.weight", "x.alpha"] {
            checked(&one(name, "F32"), values * 4).unwrap();
        }
    }
}
