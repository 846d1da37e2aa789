//! What is wrong with a model's files, as far as their configurations and the headers of their
//! weights tell: no tensor is read, so the largest model is examined in a moment, before anything
//! runs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{LazyLock, Mutex},
};

use serde_json::Value;

use super::{
    FileState, LoadError, ModelSource, ParamReader, family,
    params::{Problem, Problems, TensorFile},
    source::INDEX,
    t5::{T5Encoder, T5Tokenizer, TokenizerFiles, tie_shapes},
};
use crate::sync::Unpoisoned;

/// Something that keeps a model from being used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// What was wanted and what was found.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl From<LoadError> for FileError {
    fn from(error: LoadError) -> Self {
        let help = error.help().filter(|help| !help.is_empty()).map(str::to_owned);
        Self { message: error.to_string(), help }
    }
}

/// What decides a finding: the part, the family, and the states of all files that are looked at.
type Case = (String, &'static str, Vec<FileState>);

impl ModelSource {
    /// What is wrong with a part, if something is. The files of a folder are looked at once while
    /// the program runs, as long as they stay as they are.
    pub fn file_error(&self, part: &str) -> Option<FileError> {
        static KNOWN: LazyLock<Mutex<HashMap<Case, Option<FileError>>>> =
            LazyLock::new(Mutex::default);
        let known = || KNOWN.lock().unpoisoned();
        let examined = || self.examine(part).err().map(FileError::from);
        // A part that is not whole has no state.
        let Ok(case) = self.case(part) else { return examined() };
        if let Some(error) = known().get(&case) {
            return error.clone();
        }
        let error = examined();
        known().insert(case, error.clone());
        error
    }

    fn case(&self, part: &str) -> Result<Case, LoadError> {
        let mut states = self.states(&[part])?;
        states.extend(self.states(&[INDEX]).unwrap_or_default());
        let class = if ALONE.contains(&part) { "" } else { family(self)?.class_name() };
        Ok((part.to_owned(), class, states))
    }

    /// Looks at a part: its files, their classes and settings, and that its weights are those that
    /// the configuration asks for.
    fn examine(&self, part: &str) -> Result<(), LoadError> {
        if !ALONE.contains(&part) {
            family(self)?;
        }
        self.check(&[part])?;
        match part {
            "tokenizer" => {
                let file = self.tokenizer_file()?;
                T5Tokenizer::new(TokenizerFiles::by_name(file, &self.read(file)?)).map(drop)
            }
            "scheduler" => {
                let family = family(self)?;
                family.scheduler(&self.config(part)?, family.samplers()[0]).map(drop)
            }
            "vae" | "transformer" | "text_encoder" => {
                let wanted = self.wanted(part)?;
                compare(wanted, part, &self.tensor_files(part)?)
            }
            "vae/config.json" => self.wanted("vae").map(drop),
            "transformer/config.json" => self.wanted("transformer").map(drop),
            _ => Ok(()),
        }?;
        self.check_index(part)
    }

    /// The names and shapes of the weights that a part's configuration asks for.
    pub fn wanted(&self, part: &str) -> Result<Shapes, LoadError> {
        let (config, reader) = (self.config(part)?, ParamReader::shapes());
        match part {
            "vae" => family(self)?.vae(&config, &reader).map(drop)?,
            "transformer" => family(self)?.denoiser(&config, &reader).map(drop)?,
            _ => T5Encoder::new(&config, &reader).map(drop)?,
        }
        Ok(reader.into_shapes())
    }

    /// What `model_index.json`, if there is one, says of a part: it names the class of each.
    fn check_index(&self, part: &str) -> Result<(), LoadError> {
        let part = part.split('/').next().unwrap_or(part);
        if !self.has(INDEX) {
            return Ok(());
        }
        let error = |message| LoadError::Config { file: INDEX.to_owned(), message };
        let index: Value = serde_json::from_slice(&self.read(INDEX)?)
            .map_err(|e| error(format!("must be JSON: {e}")))?;
        if !index.is_object() {
            return Err(error("must be a JSON object".to_owned()));
        }
        let named = index.get(part).and_then(|entry| entry.get(1)).and_then(Value::as_str);
        let Some(named) = named else { return Ok(()) };
        let own;
        let known = match part {
            // Their own files name the same class, by which their family is known.
            "vae" | "transformer" => {
                own = self.config(part)?;
                own.get("_class_name").and_then(Value::as_str).into_iter().collect()
            }
            "text_encoder" => TEXT_ENCODERS.to_vec(),
            "tokenizer" => TOKENIZERS.to_vec(),
            _ => Vec::new(),
        };
        if known.is_empty() || known.contains(&named) {
            return Ok(());
        }
        let known = known.join("` or `");
        Err(error(format!("`{part}` must be of the class `{known}`, but is of `{named}`")))
    }
}

/// Parts that are the same in all families.
const ALONE: [&str; 2] = ["text_encoder", "tokenizer"];
const TEXT_ENCODERS: &[&str] = &["T5EncoderModel", "T5ForConditionalGeneration"];
const TOKENIZERS: &[&str] = &["T5Tokenizer", "T5TokenizerFast"];

/// Shapes of tensors by name.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// Compares weights with what is wanted, in both directions.
fn compare(wanted: Shapes, part: &str, files: &[TensorFile<'_>]) -> Result<(), LoadError> {
    let tensors = files.iter().flat_map(TensorFile::tensors);
    let mut found: Shapes = tensors.map(|(name, info)| (name, info.shape.clone())).collect();
    let name = match part {
        "vae" => "vae",
        "transformer" => "transformer",
        _ => {
            tie_shapes(&mut found);
            "text_encoder"
        }
    };
    let mut problems = Vec::new();
    for (name, wanted) in wanted {
        match found.remove(&name) {
            None => problems.push(Problem::Missing { name, shape: wanted }),
            Some(found) if found != wanted => {
                problems.push(Problem::Shape { name, wanted, found });
            }
            Some(_) => {}
        }
    }
    problems.extend(found.into_keys().map(|name| Problem::Unused { name }));
    if problems.is_empty() {
        return Ok(());
    }
    Err(LoadError::PartMismatch { part: name, problems: Problems(problems) })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde_json::json;

    use super::*;
    use crate::models::builtin::BUILTIN_TINY;

    const PARTS: [&str; 7] = [
        "vae",
        "transformer",
        "text_encoder",
        "tokenizer",
        "scheduler",
        "vae/config.json",
        "transformer/config.json",
    ];

    /// The built-in model as a folder.
    fn folder() -> (tempfile::TempDir, ModelSource) {
        let folder = tempfile::tempdir().unwrap();
        for (file, bytes) in BUILTIN_TINY {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let source = ModelSource::Folder(folder.path().to_owned());
        (folder, source)
    }

    fn configure(folder: &Path, file: &str, key: &str, value: Value) {
        let path = folder.join(file);
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config[key] = value;
        fs::write(path, config.to_string()).unwrap();
    }

    #[test]
    fn a_model_that_is_right_has_no_error_and_is_looked_at_again_when_it_changes() {
        let (folder, source) = folder();
        for source in [&source, &ModelSource::Builtin(BUILTIN_TINY)] {
            assert_eq!(PARTS.map(|part| source.file_error(part)), [const { None }; 7]);
        }
        let weights = folder.path().join("vae/diffusion_pytorch_model.safetensors");
        let whole = fs::read(&weights).unwrap();
        fs::write(&weights, &whole[..whole.len() - 1]).unwrap();
        let error = source.file_error("vae").unwrap();
        assert!(error.message.contains("is not a whole safetensors file"), "{error:?}");
        assert!(source.file_error("vae").is_some() && source.file_error("transformer").is_none());
        fs::write(&weights, &whole).unwrap();
        assert_eq!(source.file_error("vae"), None);
    }

    #[test]
    fn what_the_index_says_otherwise_than_the_parts_is_an_error() {
        let (folder, source) = folder();
        let mut told = Vec::new();
        for (part, class) in [
            ("vae", "AutoencoderKLWan"),
            ("text_encoder", "UMT5EncoderModel"),
            ("tokenizer", "CLIPTokenizer"),
        ] {
            configure(folder.path(), INDEX, part, json!(["x", class]));
            told.push(source.file_error(part).unwrap().message);
        }
        insta::assert_snapshot!(told.join("\n"), @"
        `model_index.json`: `vae` must be of the class `AutoencoderKLCogVideoX`, but is of `AutoencoderKLWan`
        `model_index.json`: `text_encoder` must be of the class `T5EncoderModel` or `T5ForConditionalGeneration`, but is of `UMT5EncoderModel`
        `model_index.json`: `tokenizer` must be of the class `T5Tokenizer` or `T5TokenizerFast`, but is of `CLIPTokenizer`
        ");
        fs::write(folder.path().join(INDEX), "[]").unwrap();
        assert_eq!(
            source.file_error("transformer").unwrap().message,
            "`model_index.json`: must be a JSON object"
        );
    }

    #[test]
    fn a_file_too_long_to_be_read_whole_is_not_read() {
        let (folder, source) = folder();
        for (file, part) in [
            ("vae/config.json", "vae"),
            ("transformer/config.json", "transformer"),
            ("scheduler/scheduler_config.json", "scheduler"),
            ("tokenizer/tokenizer.json", "tokenizer"),
            (INDEX, "vae"),
        ] {
            let path = folder.path().join(file);
            let whole = fs::read(&path).unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_len(50 << 30).unwrap();
            let error = source.file_error(part).unwrap();
            assert!(
                error.message.contains(file) && error.message.contains("51200 MiB"),
                "{error:?}"
            );
            assert!(error.help.unwrap().contains("not what its name says"));
            if file != INDEX {
                assert!(source.check(&[part]).is_err(), "nothing may hash it");
            }
            fs::write(path, whole).unwrap();
        }
    }
}
