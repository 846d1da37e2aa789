//! The names of models in pipeline files, and where each leads.

use std::{borrow::Cow, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    super::{
        LoadError,
        builtin::{BUILTINS, Files},
        hub,
    },
    ModelSource, is_no_path, missing, suggest,
};
use crate::regular_file;

/// Files without which a folder is no model in diffusers' layout.
pub const REQUIRED: [&str; 3] =
    ["transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json"];

/// What a model can be.
pub(super) const KINDS: &str =
    "name a folder in diffusers' layout, `hf:org/repo@revision`, or `builtin:tiny`";

/// The value of `model` in a pipeline file: `builtin:tiny`, a folder in diffusers' layout, meant
/// from the folder of the file, or `hf:org/repo@revision`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
#[schemars(extend("format" = "path", "pattern" = "\\S"))]
pub struct ModelRef(pub String);

impl ModelRef {
    /// Checks what can be known without looking for files: that something is named, and not in a
    /// way that leads nowhere, that a built-in model exists and that a repository's name has the
    /// form of one.
    pub fn check_name(&self) -> Result<(), LoadError> {
        if self.0.trim().is_empty() {
            return Err(missing("must name a model, but is empty", KINDS));
        }
        if let Some(error) = suggest::misspelt(&self.0) {
            return Err(error);
        }
        if let Some(name) = self.0.strip_prefix("builtin:") {
            return builtin_files(name).map(drop);
        }
        match self.0.strip_prefix("hf:") {
            Some(repository) => hub::Name::parse(repository).map(drop),
            None => Ok(()),
        }
    }

    /// The repository on the hub, if it is in one.
    pub fn repository(&self) -> Option<&str> {
        Some(self.on_hub()?.id)
    }

    /// The repository and its revision, if it is on the hub.
    pub fn on_hub(&self) -> Option<hub::Name<'_>> {
        hub::Name::parse(self.0.strip_prefix("hf:")?).ok()
    }

    /// The name as far as it says the same on every machine: of a folder, that without where it
    /// lies.
    pub fn short_name(&self) -> String {
        let folder = || Path::new(&self.0).file_name().map(|name| name.to_string_lossy());
        if is_no_path(&self.0) {
            return self.0.clone();
        }
        folder().map_or_else(|| self.0.clone(), Cow::into_owned)
    }

    /// Whether it is embedded in the binary.
    pub fn is_builtin(&self) -> bool {
        self.0.starts_with("builtin:")
    }

    /// Whether there is nothing of this name here, which may be elsewhere: a folder that is not
    /// there, or a repository that was not fetched. Where there is something, it can be wrong.
    pub fn is_elsewhere(&self) -> bool {
        match self.0.strip_prefix("hf:") {
            Some(_) => self.resolve().is_err(),
            None => !self.is_builtin() && !Path::new(&self.0).exists(),
        }
    }

    /// Finds the model's files; an unknown name or a folder that is not there is an error.
    pub fn resolve(&self) -> Result<ModelSource, LoadError> {
        self.check_name()?;
        if let Some(name) = self.0.strip_prefix("builtin:") {
            return builtin(name);
        }
        if let Some(repository) = self.0.strip_prefix("hf:") {
            let name = hub::Name::parse(repository)?;
            return folder(&hub::snapshot(&name, &hub::cache_folder())?);
        }
        folder(Path::new(&self.0))
    }
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

/// A folder in diffusers' layout, or why it is none.
fn folder(path: &Path) -> Result<ModelSource, LoadError> {
    let shown = path.display();
    if path.is_file() {
        return Err(match Refused::of(path) {
            Some(refused) => missing(format!("`{shown}` {}", refused.why()), refused.help()),
            None => missing(
                format!("`{shown}` must be a folder in diffusers' layout, but is a file"),
                "name the folder that holds `model_index.json`",
            ),
        });
    }
    if !path.is_dir() {
        return Err(missing(format!("there is no model folder `{shown}`"), suggest::help(path)));
    }
    match REQUIRED.iter().find(|file| !path.join(file).is_file()) {
        None => Ok(ModelSource::Folder(path.to_owned())),
        Some(file) => {
            let full = path.join(file);
            if let Err(source) = regular_file::open(&full)
                && source.kind() != io::ErrorKind::NotFound
            {
                return Err(LoadError::Io { path: full.display().to_string(), source });
            }
            let what =
                format!("`{shown}` is not a model in diffusers' layout: `{file}` is missing");
            Err(match Refused::within(path) {
                Some((name, refused)) => {
                    missing(format!("{what}, and `{name}` {}", refused.why()), refused.help())
                }
                None => missing(
                    what,
                    "name the folder that holds `model_index.json`, `transformer`, `vae` and `scheduler`",
                ),
            })
        }
    }
}

/// A format of weights that is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Gguf,
    Pickle,
}

impl Refused {
    /// The format of a file, by its ending.
    pub fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "gguf" => Some(Self::Gguf),
            "bin" | "ckpt" | "pt" | "pth" => Some(Self::Pickle),
            _ => None,
        }
    }

    /// The first file of a folder in such a format.
    pub fn within(folder: &Path) -> Option<(String, Self)> {
        let entries = std::fs::read_dir(folder).ok()?.flatten();
        let refused = entries.filter_map(|entry| {
            Some((entry.file_name().to_string_lossy().into_owned(), Self::of(&entry.path())?))
        });
        refused.min_by(|a, b| a.0.cmp(&b.0))
    }

    pub fn why(self) -> &'static str {
        match self {
            Self::Gguf => "is a GGUF file, whose quantised weights are not supported",
            Self::Pickle => "is a pickle file, which can run code when it is read",
        }
    }

    pub fn help(self) -> &'static str {
        match self {
            Self::Gguf => "name a folder with the model's original weights in diffusers' layout",
            Self::Pickle => "convert it to safetensors in diffusers' layout and name that folder",
        }
    }
}
