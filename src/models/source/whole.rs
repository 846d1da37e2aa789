//! All files of a model as a pipeline of diffusers, for who puts one together.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{INDEX, ModelSource, io, missing, odd, reference::Refused};
use crate::models::LoadError;

/// The parts that are read here, of which the files are known.
const PARTS: [&str; 4] = ["scheduler", "text_encoder", "transformer", "vae"];

/// Where a file of a model is.
pub enum FilePlace<'a> {
    /// In memory.
    Memory(Cow<'a, [u8]>),
    /// On disk.
    Disk(PathBuf),
}

impl ModelSource {
    /// The index of this model and the files of the parts that it names but for those `given`, by
    /// path: what diffusers loads a pipeline from, together with the parts given. Of the parts that
    /// are read here, no other precision and format.
    pub fn files_beside(&self, given: &[&str]) -> Result<Vec<(String, FilePlace<'_>)>, LoadError> {
        let mut files = vec![INDEX.to_owned()];
        for part in self.parts_of_index()? {
            if !given.contains(&part.as_str()) {
                files.extend(self.all_files_of(&part)?);
            }
        }
        files.into_iter().map(|file| Ok((file.clone(), self.place(&file)?))).collect()
    }

    /// The class of a part by the index, if it names the part.
    pub fn class_by_index(&self, part: &str) -> Result<Option<String>, LoadError> {
        let class =
            self.index()?.get(part).and_then(|value| value.get(1)?.as_str().map(str::to_owned));
        Ok(class)
    }

    fn index(&self) -> Result<Map<String, Value>, LoadError> {
        if !self.has(INDEX) {
            let message = format!("the model has no `{INDEX}`, by which diffusers loads it");
            return Err(missing(message, "put that of the published model there"));
        }
        let parsed = serde_json::from_slice(&self.read(INDEX)?);
        match parsed.map_err(|error| wrong_index(&format!("must be JSON: {error}")))? {
            Value::Object(entries) => Ok(entries),
            _ => Err(wrong_index("must be a table")),
        }
    }

    /// The parts that the index names: those with a library and a class. Names that are no folder
    /// beside it are wrong.
    fn parts_of_index(&self) -> Result<Vec<String>, LoadError> {
        let index = self.index()?;
        let is_part =
            |value: &Value| value.as_array().is_some_and(|of| of.iter().all(Value::is_string));
        let parts: Vec<String> =
            index.into_iter().filter(|(_, value)| is_part(value)).map(|(name, _)| name).collect();
        if parts.iter().any(|part| Path::new(part).file_name() != Some(part.as_ref())) {
            return Err(wrong_index("names a part that is no folder beside it"));
        }
        Ok(parts)
    }

    fn all_files_of(&self, part: &str) -> Result<BTreeSet<String>, LoadError> {
        if PARTS.contains(&part) {
            self.check(&[part])?;
            return Ok(self.part_files(part)?.into_iter().collect());
        }
        if part == "tokenizer" {
            self.check(&[part])?;
        }
        // Whatever a tokenizer, or a part that is not read here, is made of.
        let files = self.listing(part)?;
        if files.is_empty() {
            let message = format!("the model has no folder `{part}`, which its `{INDEX}` names");
            return Err(missing(message, "the model must be complete, in diffusers' layout"));
        }
        Ok(files)
    }

    /// The files in the folder of a part, but for pickles and the like.
    fn listing(&self, part: &str) -> Result<BTreeSet<String>, LoadError> {
        let below = |files: &mut dyn Iterator<Item = &str>| {
            let start = format!("{part}/");
            files.filter(|file| file.starts_with(&start)).map(str::to_owned).collect()
        };
        let Self::Folder(root) = self else {
            return Ok(match self {
                Self::Builtin(files) => below(&mut files.iter().map(|(name, _)| *name)),
                Self::Files { files, .. } => below(&mut files.keys().map(String::as_str)),
                Self::Folder(_) => BTreeSet::new(),
            });
        };
        let folder = root.join(part);
        let mut files = BTreeSet::new();
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.map_err(|e| io(&folder, e))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(name) = name.filter(|_| path.is_file() && Refused::of(&path).is_none()) {
                files.insert(format!("{part}/{name}"));
            }
        }
        Ok(files)
    }

    fn place(&self, file: &str) -> Result<FilePlace<'_>, LoadError> {
        match self.holder(file) {
            Self::Folder(root) => match odd(root, file) {
                Some(error) => Err(error),
                None => Ok(FilePlace::Disk(root.join(file))),
            },
            holder => holder.read(file).map(FilePlace::Memory),
        }
    }
}

fn wrong_index(message: &str) -> LoadError {
    LoadError::Config { file: INDEX.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::model_folder, *};

    const INDEX_TEXT: &[u8] =
        br#"{"_class_name": "X", "_version": "1", "tokenizer": ["transformers", "T5Tokenizer"],
        "vae": ["diffusers", "A"], "extra": ["own", "E"], "none": [null, null]}"#;

    fn names(source: &ModelSource, given: &[&str]) -> Result<Vec<String>, String> {
        let files = source.files_beside(given).map_err(|error| error.to_string())?;
        Ok(files.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn what_diffusers_loads_is_the_index_and_the_parts_that_it_names() {
        let folder = model_folder(&[
            (INDEX, INDEX_TEXT),
            ("tokenizer/spiece.model", b"1"),
            ("tokenizer/special_tokens_map.json", b"{}"),
            ("tokenizer/old.bin", b"1"),
            ("vae/diffusion_pytorch_model.safetensors", b"1"),
            ("vae/diffusion_pytorch_model.fp16.safetensors", b"1"),
            ("extra/a.json", b"{}"),
        ]);
        let source = ModelSource::Folder(folder.path().to_owned());
        let tokenizer = ["tokenizer/special_tokens_map.json", "tokenizer/spiece.model"];
        let vae = ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"];
        let rest = [&["extra/a.json"][..], &tokenizer].concat();
        assert_eq!(names(&source, &["vae"]).unwrap(), [&[INDEX][..], &rest].concat());
        assert_eq!(names(&source, &[]).unwrap(), [&[INDEX][..], &rest, &vae].concat());

        std::fs::remove_file(folder.path().join("extra/a.json")).unwrap();
        let error = names(&source, &[]).unwrap_err();
        assert!(error.contains("no folder `extra`"), "{error}");
        std::fs::remove_file(folder.path().join(vae[1])).unwrap();
        std::fs::write(folder.path().join(INDEX), r#"{"vae": ["diffusers", "A"]}"#).unwrap();
        let error = names(&source, &[]).unwrap_err();
        assert!(error.contains("no weights `vae/"), "{error}");
        assert_eq!(names(&source, &["vae"]).unwrap(), [INDEX]);

        for (text, wanted) in [
            (r#"{"../x": ["a", "b"]}"#, "no folder beside it"),
            ("[]", "must be a table"),
            ("{", "must be JSON"),
        ] {
            std::fs::write(folder.path().join(INDEX), text).unwrap();
            let error = names(&source, &[]).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        std::fs::remove_file(folder.path().join(INDEX)).unwrap();
        let error = names(&source, &[]).unwrap_err();
        assert!(error.contains("by which diffusers loads it"), "{error}");
    }

    #[test]
    fn the_built_in_model_is_whole() {
        let source = crate::models::ModelRef("builtin:tiny".to_owned()).resolve().unwrap();
        let files = names(&source, &["transformer", "vae"]).unwrap();
        let wanted = [
            INDEX,
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
            "tokenizer/tokenizer.json",
        ];
        assert_eq!(files, wanted);
    }
}
