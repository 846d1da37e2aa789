//! Whole models in diffusers' layout: the parts that a stage gives, and the rest of the model that they belong to.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use serde_json::Value;

use super::{CliError, files::Exporter, model::CONFIG, write_file};
use crate::{
    artifact::{Item, Manifest, file_name},
    models::{FilePlace, LoadError, ModelRef, ModelSource},
    store::{copy_aside, link_aside},
};

/// What is asked for beside the parts of a stage.
pub(super) struct Whole {
    /// The model whose other parts are taken; else the one that the stage names.
    pub base: Option<ModelRef>,
    /// Whether its files are linked to, not copied.
    pub link: bool,
}

/// Writes the parts of an artifact and those that it lacks, each into its folder. Nothing is written of a model that is
/// not whole.
pub(super) fn export(
    exporter: &Exporter<'_>,
    whole: &Whole,
    index: usize,
    manifest: &Manifest,
    folder: &Path,
) -> Result<(), CliError> {
    let base = base(exporter, whole, index)?;
    let source = base.resolve().map_err(|error| lacking(base, &error))?;
    let given: Vec<&str> = manifest.items.iter().map(|item| item.name.as_str()).collect();
    let beside = source.files_beside(&given).map_err(|error| lacking(base, &error))?;
    refuse_itself(&source, folder)?;
    for item in &manifest.items {
        let class = source.class_by_index(&item.name).map_err(|error| lacking(base, &error))?;
        refuse_class(exporter, item, (base, class))?;
    }
    let own = manifest.items.iter().flat_map(|item| {
        item.files.keys().map(|file| format!("{}/{}", item.name, file_name(file)))
    });
    refuse_others(folder, own.chain(beside.iter().map(|(file, _)| file.clone())))?;
    for item in &manifest.items {
        for file in item.files.keys() {
            exporter.put(item, file, &folder.join(&item.name).join(file_name(file)))?;
        }
    }
    for (file, place) in &beside {
        put(place, &folder.join(file), whole.link)?;
    }
    exporter.beside.borrow_mut().push(told(base, whole.link, &beside));
    Ok(())
}

fn base<'a>(
    exporter: &'a Exporter<'_>,
    whole: &'a Whole,
    index: usize,
) -> Result<&'a ModelRef, CliError> {
    let instance = &exporter.pipeline.instances[index];
    let own = || instance.work.weights().map(|(model, _)| model);
    whole.base.as_ref().or_else(own).ok_or_else(|| {
        let message =
            format!("`{instance}` names no model from which the other parts could be taken");
        CliError::usage(message).with_help("name one with `--base MODEL`")
    })
}

/// A base that is not whole here.
fn lacking(base: &ModelRef, error: &LoadError) -> CliError {
    let message = format!("the rest of the model cannot be taken from `{}`: {error}", base.0);
    let help = match base.repository() {
        Some(id) => format!(
            "a run fetches only what its stages read; `hf download {id}` fetches all, or name a whole model with \
             `--base`"
        ),
        None => match error.help().filter(|help| !help.is_empty()) {
            Some(help) => format!("{help}; or name a whole model with `--base`"),
            None => "name a whole model with `--base`".to_owned(),
        },
    };
    CliError::environment(message).with_help(help)
}

/// Refuses a part that diffusers would load as another class than it is of.
fn refuse_class(
    exporter: &Exporter<'_>,
    item: &Item,
    (base, wanted): (&ModelRef, Option<String>),
) -> Result<(), CliError> {
    let config = serde_json::from_slice::<Value>(&exporter.read(item, CONFIG)?).unwrap_or_default();
    let class = config.get("_class_name").and_then(Value::as_str);
    let (Some(class), Some(wanted)) = (class, wanted) else { return Ok(()) };
    if class == wanted {
        return Ok(());
    }
    let (name, base) = (&item.name, &base.0);
    let message = format!("`{name}` is of the class `{class}`, but that of `{base}` is `{wanted}`");
    Err(CliError::usage(message).with_help("name a model of its family with `--base MODEL`"))
}

/// The parts of a model do not go into its own folder, where they would replace what they were made of.
fn refuse_itself(source: &ModelSource, folder: &Path) -> Result<(), CliError> {
    let ModelSource::Folder(root) = source else { return Ok(()) };
    let is_same = match (root.canonicalize(), folder.canonicalize()) {
        (Ok(root), Ok(folder)) => root == folder,
        _ => false,
    };
    if !is_same {
        return Ok(());
    }
    let message = format!("`{}` is the model itself that the other parts are of", folder.display());
    Err(CliError::usage(message).with_help("name another folder with `--to DIR`"))
}

/// Refuses folders with weights that are none of those that are written: they could be read in their place.
fn refuse_others(folder: &Path, files: impl Iterator<Item = String>) -> Result<(), CliError> {
    let mut parts: BTreeMap<String, HashSet<String>> = BTreeMap::new();
    for file in files {
        if let Some((part, name)) = file.split_once('/') {
            parts.entry(part.to_owned()).or_default().insert(name.to_owned());
        }
    }
    for (part, names) in parts {
        let there = std::fs::read_dir(folder.join(&part)).into_iter().flatten().flatten();
        let there = there.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let is_other = |name: &String| name.contains(".safetensors") && !names.contains(name);
        if let Some(other) = there.filter(is_other).min() {
            let shown = folder.join(&part);
            let message = format!("`{}` holds other weights, `{other}`", shown.display());
            let help = "export to a new folder, or remove them first";
            return Err(CliError::usage(message).with_help(help));
        }
    }
    Ok(())
}

fn put(place: &FilePlace<'_>, path: &Path, link: bool) -> Result<(), CliError> {
    let written = match place {
        FilePlace::Memory(bytes) => return write_file(path, bytes),
        FilePlace::Disk(from) if link => from.canonicalize().and_then(|to| link_aside(&to, path)),
        FilePlace::Disk(from) => copy_aside(from, path).map(drop),
    };
    written.map_err(|error| CliError::file("write", path, &error))
}

/// `scheduler, text_encoder, tokenizer and vae of `hf:org/repo`, as copies`.
fn told(base: &ModelRef, link: bool, beside: &[(String, FilePlace<'_>)]) -> String {
    let mut parts: Vec<&str> =
        beside.iter().filter_map(|(file, _)| Some(file.split_once('/')?.0)).collect();
    parts.dedup();
    let on_disk = beside.iter().any(|(_, place)| matches!(place, FilePlace::Disk(_)));
    let how = if link && on_disk { "as links to its files" } else { "as copies" };
    format!("with the parts of `{}` beside it, {how}: {}", base.0, parts.join(", "))
}
