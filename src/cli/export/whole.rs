//! Whole models in diffusers' layout: the parts that a stage gives, and the rest of the model that
//! they belong to.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

use super::{
    CliError,
    files::Exporter,
    replaced::{New, is_another, noted},
    write_file,
};
use crate::{
    artifact::{Item, Manifest, file_name},
    models::{FilePlace, LoadError, ModelRef, ModelSource, hub::Name},
    store::{copy_aside, link_aside},
};

const CONFIG: &str = "config.json";

/// What is asked for beside the parts of a stage.
pub(super) struct Whole {
    /// The model whose other parts are taken; else the one that the stage names.
    pub base: Option<ModelRef>,
    /// Whether its files are linked to, not copied.
    pub link: bool,
}

/// Writes the parts of an artifact and those that it lacks, each into its folder, and notes the
/// files that they replace. Nothing is written of a model that is not whole, nor over other
/// weights.
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
        let files = item.files.keys();
        files.map(|file| (format!("{}/{}", item.name, file_name(file)), New::Of(item, file)))
    });
    let rest = beside.iter().map(|(file, place)| (file.clone(), New::Beside(place)));
    let files = own.chain(rest).map(|(file, new)| {
        let is_another = is_another(exporter, new, &folder.join(&file))?;
        Ok((file, new, is_another))
    });
    let files = files.collect::<Result<Vec<_>, CliError>>()?;
    refuse_others(folder, &files)?;
    for (file, new, is_another) in files {
        let path = folder.join(file);
        noted(exporter, is_another, &path, || match new {
            New::Of(item, file) => exporter.put(item, file, &path),
            New::Beside(place) => put(place, &path, whole.link),
        })?;
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
    let own = || instance.work.model();
    whole.base.as_ref().or_else(own).ok_or_else(|| {
        let message =
            format!("`{instance}` names no model from which the other parts could be taken");
        CliError::usage(message).with_help("name one with `--base MODEL`")
    })
}

/// A base that is not whole here.
fn lacking(base: &ModelRef, error: &LoadError) -> CliError {
    let message = format!("the rest of the model cannot be taken from `{}`: {error}", base.0);
    let is_missing = matches!(error, LoadError::Missing { .. });
    let help = match base.on_hub().filter(|_| is_missing) {
        Some(Name { id, revision }) => {
            let revision = match revision {
                "main" => String::new(),
                other => format!(" --revision {other}"),
            };
            format!(
                "a run fetches only what its stages read; `hf download {id}{revision}` fetches all, or name a whole \
                 model with `--base`"
            )
        }
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

/// The parts of a model do not go into its own folder, where they would replace what they were made
/// of.
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

/// Refuses folders with weights that are none of those that are written: of another name, they
/// could be read in their place, and of the same name they would be lost.
fn refuse_others(folder: &Path, files: &[(String, New<'_>, bool)]) -> Result<(), CliError> {
    let parts: BTreeSet<&str> =
        files.iter().filter_map(|(file, ..)| Some(file.split_once('/')?.0)).collect();
    for part in parts {
        let there = std::fs::read_dir(folder.join(part)).into_iter().flatten().flatten();
        let names = there.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let weights: BTreeSet<String> =
            names.filter(|name| name.contains(".safetensors")).collect();
        for name in weights {
            let file = format!("{part}/{name}");
            let written = files.iter().find(|(written, ..)| *written == file);
            if written.is_none_or(|(.., is_another)| *is_another) {
                return Err(other_weights(&folder.join(part), &name));
            }
        }
    }
    Ok(())
}

fn other_weights(folder: &Path, name: &str) -> CliError {
    let message = format!("`{}` holds other weights, `{name}`", folder.display());
    CliError::usage(message).with_help("export to a new folder, or remove them first")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_of_a_base_of_the_hub_is_fetched_at_its_revision() {
        let told = |base: &str, error: &LoadError| {
            let CliError::Message { help, .. } = lacking(&ModelRef(base.to_owned()), error) else {
                panic!("no message");
            };
            help.unwrap()
        };
        let missing =
            LoadError::Missing { message: "no tokenizer".into(), help: "put it there".into() };
        assert!(told("hf:org/repo", &missing).contains("`hf download org/repo` fetches all"));
        let at = told("hf:org/repo@abc", &missing);
        assert!(at.contains("`hf download org/repo --revision abc` fetches all"), "{at}");
        assert_eq!(told("folder", &missing), "put it there; or name a whole model with `--base`");
        let wrong =
            LoadError::Config { file: "model_index.json".into(), message: "must be JSON".into() };
        let help = told("hf:org/repo", &wrong);
        assert!(help.starts_with("it must be the file that came with"), "{help}");
    }
}
