//! Which files an artifact of each kind becomes.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use image::RgbImage;
use serde_json::Value;

use super::{
    CliError,
    adapter::{self, Family, Program},
    exit, model, pictures,
    whole::{self, Whole},
    write_file,
};
use crate::{
    artifact::{
        ArtifactKind, FileNames, FileRef, Item, Manifest,
        adapter::TRAIN,
        file_name, frames,
        model::LOG,
        pairs::{INPUT, MASK, TARGET},
        videos::{self, Clip},
    },
    config::Pipeline,
    plan::Plan,
    report::{clip, provenance, results::Outputs, sheet},
    store::{Digest, Store, Transfer},
};

/// Longer side of enlarged images.
const MIN_SIZE: u32 = 128;
/// Items on the sheet of an export; more are written, each to its files, but not drawn again.
const MOST_ROWS: usize = 100;

pub(super) struct Exporter<'a> {
    pub pipeline: &'a Pipeline,
    pub plan: &'a Plan<'a>,
    pub outputs: &'a Outputs,
    pub store: &'a Store,
    pub program: Program,
    /// The family of models of an adapter that does not tell its own.
    pub family: Option<Family>,
    /// How the files that are in the cache as they are came out of it.
    pub transfers: &'a RefCell<BTreeMap<Transfer, usize>>,
    /// What is to be said with the scores of the stage, if it gives any.
    pub notes: &'a [String],
    /// What is asked for beside the parts of a model.
    pub whole: Option<Whole>,
    /// What was put beside such parts.
    pub beside: &'a RefCell<Vec<String>>,
    /// Files that lay where others were written, and were other ones.
    pub replaced: &'a RefCell<Vec<PathBuf>>,
}

impl Exporter<'_> {
    /// Writes the output of an instance to a folder.
    pub fn export(&self, index: usize, digest: Digest, folder: &Path) -> Result<(), CliError> {
        let manifest = self.store.manifest(digest)?;
        match manifest.kind {
            ArtifactKind::Pairs => self.pairs(&manifest, folder),
            ArtifactKind::Videos => self.videos(&manifest, folder),
            ArtifactKind::Frames => {
                self.frames(&manifest, folder)?;
                self.sheets(index, digest, folder)
            }
            ArtifactKind::Metrics => self.metrics(&manifest, index, folder),
            ArtifactKind::LoraAdapter => adapter::export(self, index, &manifest, folder),
            ArtifactKind::Model if let Some(whole) = &self.whole => {
                whole::export(self, whole, index, &manifest, folder)
            }
            ArtifactKind::Model => model::export(self, &manifest, folder),
            _ => self.plain(&manifest, folder),
        }
    }

    fn pairs(&self, manifest: &Manifest, folder: &Path) -> Result<(), CliError> {
        let (mut rows, mut names) = (Vec::new(), FileNames::default());
        for item in &manifest.items {
            let name = names.free(&file_name(&item.name));
            for (file, suffix) in [(INPUT, "input"), (TARGET, "target"), (MASK, "mask")] {
                if item.files.contains_key(file) {
                    self.put(item, file, &folder.join(format!("{name}.{suffix}.png")))?;
                }
            }
            if rows.len() < MOST_ROWS {
                rows.push(vec![self.image(item, INPUT)?, self.image(item, TARGET)?]);
            }
        }
        let sheet = sheet::item_sheet(&rows, pictures::items_per_row(rows.len()), MIN_SIZE);
        write_file(&folder.join("sheet.png"), &frames::to_png(&sheet))
    }

    fn videos(&self, manifest: &Manifest, folder: &Path) -> Result<(), CliError> {
        let (mut rows, mut names) = (Vec::new(), FileNames::default());
        for item in &manifest.items {
            let images = self.clip(item)?.images();
            moving(&images, &names.free(&file_name(&item.name)), folder)?;
            if rows.len() < MOST_ROWS {
                rows.push(images);
            }
        }
        write_file(
            &folder.join("sheet.png"),
            &frames::to_png(&sheet::item_sheet(&rows, 1, MIN_SIZE)),
        )
    }

    fn frames(&self, manifest: &Manifest, folder: &Path) -> Result<(), CliError> {
        let mut names = FileNames::default();
        for item in &manifest.items {
            let name = names.free(&file_name(&item.name));
            moving(&self.clip(item)?.images(), &name, folder)?;
            self.put(item, frames::PREDICTION, &folder.join(format!("{name}.png")))?;
        }
        Ok(())
    }

    /// A contact sheet; one for each checkpoint, by its step, where there are several.
    fn sheets(&self, index: usize, digest: Digest, folder: &Path) -> Result<(), CliError> {
        let Self { pipeline, outputs, store, .. } = self;
        let answers = pictures::Answers::of(pipeline, index, digest, outputs, store)?;
        for checkpoint in answers.checkpoints() {
            let step = checkpoint.map(|name| format!(".{name}")).unwrap_or_default();
            let path = folder.join(file_name(&format!("sheet{step}.png")));
            write_file(&path, &frames::to_png(&answers.sheet(checkpoint, store)?))?;
        }
        Ok(())
    }

    /// The document with what it was made from, and its scores per item as CSV.
    fn metrics(&self, manifest: &Manifest, index: usize, folder: &Path) -> Result<(), CliError> {
        for item in &manifest.items {
            let bytes = self.read(item, "metrics.json")?;
            let mut document: Value = serde_json::from_slice(&bytes)
                .map_err(|error| broken(&item.name, &error.to_string()))?;
            if let Some(document) = document.as_object_mut() {
                let log = |digest| training_log(self.store, digest);
                document.insert("provenance".to_owned(), provenance::of(self.plan, index, &log));
                document.insert("notes".to_owned(), self.notes.into());
            }
            write_file(&folder.join("metrics.json"), format!("{document:#}\n").as_bytes())?;
            let csv = per_item_csv(&bytes).map_err(|error| broken(&item.name, &error))?;
            write_file(&folder.join("metrics.csv"), csv.as_bytes())?;
        }
        Ok(())
    }

    /// All files as they are; in a folder per item where there are several items.
    fn plain(&self, manifest: &Manifest, folder: &Path) -> Result<(), CliError> {
        let mut names = FileNames::default();
        for item in &manifest.items {
            let folder = folder_of(manifest, item, folder, &mut names);
            for file in item.files.keys() {
                self.put(item, file, &folder.join(file_name(file)))?;
            }
        }
        Ok(())
    }

    fn clip(&self, item: &Item) -> Result<Clip, CliError> {
        Clip::from_bytes(&self.read(item, videos::FILE)?)
            .map_err(|error| broken(&item.name, &error.to_string()))
    }

    fn image(&self, item: &Item, file: &str) -> Result<RgbImage, CliError> {
        read_image(self.store, item, file)
    }

    pub(super) fn read(&self, item: &Item, file: &str) -> Result<Vec<u8>, CliError> {
        read(self.store, item, file)
    }

    /// Puts a file of an item, as it is, at `path`.
    pub(super) fn put(&self, item: &Item, file: &str, path: &Path) -> Result<(), CliError> {
        let how = self.store.materialise(reference(item, file)?, path)?;
        *self.transfers.borrow_mut().entry(how).or_default() += 1;
        Ok(())
    }
}

/// Where the files of an item go: below a folder of its own where there are several.
pub(super) fn folder_of(
    manifest: &Manifest,
    item: &Item,
    folder: &Path,
    names: &mut FileNames,
) -> PathBuf {
    match manifest.items.len() {
        1 => folder.to_owned(),
        _ => folder.join(names.free(&file_name(&item.name))),
    }
}

/// A clip as GIF and as strip of its frames.
fn moving(images: &[RgbImage], name: &str, folder: &Path) -> Result<(), CliError> {
    let large: Vec<_> = images.iter().map(|image| sheet::enlarge(image, MIN_SIZE)).collect();
    let gif = clip::gif(&large)
        .map_err(|error| broken(name, &format!("cannot be written as GIF: {error}")))?;
    write_file(&folder.join(format!("{name}.gif")), &gif)?;
    let strip = frames::to_png(&sheet::strip(images, MIN_SIZE));
    write_file(&folder.join(format!("{name}.strip.png")), &strip)
}

/// What an adapter or a model says of its training, without the losses.
pub(in crate::cli) fn training_log(store: &Store, digest: Digest) -> Option<Value> {
    let manifest = store.manifest(digest).ok()?;
    let file = match manifest.kind {
        ArtifactKind::LoraAdapter => TRAIN,
        ArtifactKind::Model => LOG,
        _ => return None,
    };
    let mut log: Value =
        serde_json::from_slice(&read(store, manifest.items.last()?, file).ok()?).ok()?;
    log.as_object_mut()?.remove("losses");
    Some(log)
}

/// Reads a file of an item.
pub(super) fn read(store: &Store, item: &Item, file: &str) -> Result<Vec<u8>, CliError> {
    Ok(store.read(reference(item, file)?)?)
}

/// A file of an item, as the cache names it.
pub(super) fn reference<'a>(item: &'a Item, file: &str) -> Result<&'a FileRef, CliError> {
    item.files.get(file).ok_or_else(|| broken(&item.name, &format!("has no `{file}`")))
}

/// Reads an image of an item.
pub(super) fn read_image(store: &Store, item: &Item, file: &str) -> Result<RgbImage, CliError> {
    let image = image::load_from_memory(&read(store, item, file)?)
        .map_err(|error| broken(&item.name, &format!("`{file}` is no image: {error}")))?;
    Ok(image.into_rgb8())
}

pub(super) fn broken(item: &str, what: &str) -> CliError {
    CliError::Message {
        code: exit::STAGE_FAILED,
        message: format!("item `{item}`: {what}"),
        help: None,
    }
}

/// A line per item, a column per metric.
fn per_item_csv(document: &[u8]) -> Result<String, String> {
    #[derive(serde::Deserialize)]
    struct Metrics {
        #[serde(default)]
        per_item: BTreeMap<String, BTreeMap<String, Value>>,
    }
    let metrics: Metrics = serde_json::from_slice(document).map_err(|e| e.to_string())?;
    let mut names: Vec<&String> = metrics.per_item.values().flat_map(BTreeMap::keys).collect();
    names.sort();
    names.dedup();
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = std::iter::once("item").chain(names.iter().map(|name| name.as_str()));
    writer.write_record(header).map_err(|e| e.to_string())?;
    for (item, values) in &metrics.per_item {
        let values = names.iter().map(|name| match values.get(*name) {
            Some(Value::Null) | None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        });
        let line = std::iter::once(item.clone()).chain(values);
        writer.write_record(line).map_err(|e| e.to_string())?;
    }
    let bytes = writer.into_inner().map_err(|e| e.to_string())?;
    String::from_utf8(bytes).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_per_item_become_lines() {
        let document = br#"{"values": {"f1": 0.3}, "per_item": {
            "b": {"f1": 0.1, "note": "a, b"}, "a": {"f1": 0.5, "extra": null}}}"#;
        insta::assert_snapshot!(per_item_csv(document).unwrap(), @r#"
        item,extra,f1,note
        a,,0.5,
        b,,0.1,"a, b"
        "#);
    }
}
