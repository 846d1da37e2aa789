//! Contact sheets of predictions beside what was asked and what was wanted.

use std::{
    collections::{BTreeSet, VecDeque},
    path::PathBuf,
};

use image::RgbImage;

use super::{CliError, cell_name, files::read_image, write_file};
use crate::{
    artifact::{
        ArtifactKind, Item, Manifest, Origins, file_name, frames,
        pairs::{INPUT, TARGET},
    },
    config::Pipeline,
    plan::Lock,
    report::{results::Outputs, sheet},
    store::{Digest, Store},
};

/// Longer side of enlarged images.
const MIN_SIZE: u32 = 128;
/// Items on the sheets that a run writes.
const MOST_ITEMS: usize = 24;

/// Writes a sheet for each stage of frames that a table's metric scores, below the cache, and gives
/// their folder. A sheet's name ends in the digest of the predictions, by which `gc` knows whose it is,
/// and that of all that it shows, so one that is there is up to date.
pub(crate) fn write(
    pipeline: &Pipeline,
    outputs: &Outputs,
    store: &Store,
) -> Result<Option<PathBuf>, CliError> {
    let folder = store.root().join("pictures").join(folder_name(pipeline));
    let mut any = false;
    for index in scored(pipeline) {
        let Some(digest) = outputs.digest(index) else { continue };
        any = true;
        let instance = &pipeline.instances[index];
        let shown = shown(pipeline, index, digest, outputs);
        let (stage, cell) = (&instance.stage, cell_name(instance));
        let name = format!("{stage}-{cell}-{}-{}.png", digest.short(), shown.short());
        let path = folder.join(file_name(&name));
        if !path.exists() {
            write_file(&path, &frames::to_png(&sheet(pipeline, index, outputs, store)?))?;
        }
    }
    Ok(any.then_some(folder))
}

/// The digest of predictions and of all pairs that they may stand beside.
fn shown(pipeline: &Pipeline, index: usize, predictions: Digest, outputs: &Outputs) -> Digest {
    let pairs = upstream(pipeline, index)
        .filter(|input| pipeline.instances[*input].output() == ArtifactKind::Pairs)
        .filter_map(|input| outputs.digest(input));
    let all: Vec<String> =
        std::iter::once(predictions).chain(pairs).map(|digest| digest.to_string()).collect();
    Digest::of(all.join(" ").as_bytes())
}

/// All instances that one is made from, the nearest first.
fn upstream(pipeline: &Pipeline, index: usize) -> impl Iterator<Item = usize> {
    let mut seen = BTreeSet::from([index]);
    let mut queue = VecDeque::from([index]);
    std::iter::from_fn(move || {
        let at = queue.pop_front()?;
        let inputs = pipeline.instances[at].inputs.values().copied();
        queue.extend(inputs.filter(|input| seen.insert(*input)));
        Some(at)
    })
    .skip(1)
}

/// `pose`, `pose.paper`: as the lock of the file and profile.
fn folder_name(pipeline: &Pipeline) -> String {
    let lock = Lock::path_of(pipeline);
    file_name(&lock.file_stem().unwrap_or_default().to_string_lossy())
}

/// The instances of frames that the metrics of tables score.
fn scored(pipeline: &Pipeline) -> BTreeSet<usize> {
    let values = pipeline.tables.iter().flat_map(|table| &table.values);
    let metrics: BTreeSet<&str> = values.map(|(stage, _)| stage.as_str()).collect();
    pipeline
        .instances
        .iter()
        .filter(|instance| metrics.contains(instance.stage.as_str()))
        .flat_map(|instance| instance.inputs.values().copied())
        .filter(|input| pipeline.instances[*input].output() == ArtifactKind::Frames)
        .collect()
}

/// Input, target and prediction of each item of frames; predictions alone where the pairs they
/// were made for are not known.
pub(super) fn sheet(
    pipeline: &Pipeline,
    index: usize,
    outputs: &Outputs,
    store: &Store,
) -> Result<RgbImage, CliError> {
    let Some(digest) = outputs.digest(index) else { return Ok(sheet::contact_sheet(&[])) };
    let predictions = store.manifest(digest)?;
    let pairs = nearest_pairs(pipeline, index, outputs, store, &predictions)?;
    let origins = pairs.as_ref().map(|pairs| Origins::new(&pairs.items));
    let origin = |item| origin_of(origins.as_ref(), item);
    // Of several checkpoints, the last is shown.
    let last = predictions.items.last().and_then(origin).and_then(|(checkpoint, _)| checkpoint);
    let shown = predictions
        .items
        .iter()
        .filter(|item| origin(item).is_none_or(|(checkpoint, _)| checkpoint == last));
    let mut items = Vec::new();
    for item in shown.take(MOST_ITEMS) {
        let mut images = Vec::new();
        if let Some((_, pair)) = origin(item) {
            images.push(read_image(store, pair, INPUT)?);
            images.push(read_image(store, pair, TARGET)?);
        }
        images.push(read_image(store, item, frames::PREDICTION)?);
        items.push(images);
    }
    Ok(sheet::item_sheet(&items, items_per_row(items.len()), MIN_SIZE))
}

/// The pair that an item was made from, and with which checkpoint.
fn origin_of<'a>(
    origins: Option<&Origins<'a>>,
    item: &'a Item,
) -> Option<(Option<&'a str>, &'a Item)> {
    origins?.of(&item.name)
}

/// How many items go in a row, so that sheets are about as wide as high.
pub(super) fn items_per_row(items: usize) -> usize {
    match items {
        0..=4 => 1,
        5..=12 => 2,
        13..=36 => 4,
        _ => 8,
    }
}

/// The pairs nearest upstream that have the items' names.
fn nearest_pairs(
    pipeline: &Pipeline,
    index: usize,
    outputs: &Outputs,
    store: &Store,
    predictions: &Manifest,
) -> Result<Option<std::sync::Arc<Manifest>>, CliError> {
    for input in upstream(pipeline, index) {
        if pipeline.instances[input].output() != ArtifactKind::Pairs {
            continue;
        }
        let Some(digest) = outputs.digest(input) else { continue };
        let pairs = store.manifest(digest)?;
        let origins = Origins::new(&pairs.items);
        if predictions.items.iter().all(|item| origins.of(&item.name).is_some()) {
            return Ok(Some(pairs));
        }
    }
    Ok(None)
}
