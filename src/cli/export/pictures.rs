//! Contact sheets of predictions beside what was asked and what was wanted.

use std::{
    collections::{BTreeSet, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use image::RgbImage;
use serde_json::Value;

use super::{CliError, cell_name, files::read_image, write_file};
use crate::{
    artifact::{
        ArtifactKind, Item, Manifest, Origins, file_name, frames,
        pairs::{INPUT, TARGET},
    },
    config::Pipeline,
    data::tasks::has_target,
    plan::owner_of,
    report::{results::Outputs, sheet},
    store::{Digest, PictureName, Store},
};

/// Longer side of enlarged images.
const MIN_SIZE: u32 = 128;
/// Items on the sheets that a run writes.
const MOST_ITEMS: usize = 24;

/// The sheets of a run.
pub(crate) struct Pictures {
    /// Where they are.
    pub folder: PathBuf,
    /// How many were damaged and are drawn again.
    pub damaged: usize,
}

/// Writes a sheet for each stage of frames that a table's metric scores, below the cache. Of
/// several checkpoints it shows the last, whose step is in the name.
///
/// A sheet's name holds the digest of the predictions, by which `gc` knows whose it is, and that of
/// all that it may show, so one that is there is up to date; and its own, so that one that was
/// damaged is known by it and drawn again.
pub(crate) fn write(
    pipeline: &Pipeline,
    outputs: &Outputs,
    store: &Store,
) -> Result<Option<Pictures>, CliError> {
    let folder = store.root().join("pictures").join(owner_of(pipeline).folder_name());
    let drawn = Drawn::in_folder(folder.clone());
    let (mut any, mut damaged) = (false, 0);
    for index in scored(pipeline) {
        let Some(digest) = outputs.digest(index) else { continue };
        any = true;
        let instance = &pipeline.instances[index];
        let of_all = shown(pipeline, index, digest, outputs);
        // Which checkpoint a sheet shows is looked up only where there may be several.
        let shown = has_checkpoints(pipeline, index)
            .then(|| Answers::of(pipeline, index, digest, outputs, store))
            .transpose()?;
        let last = shown.as_ref().and_then(|answers| answers.checkpoints().pop().flatten());
        let step = last.map(|step| format!("-{step}")).unwrap_or_default();
        let of = file_name(&format!("{}-{}{step}", instance.stage, cell_name(instance)));
        let stem = format!("{of}-{}-{}", digest.short(), of_all.short());
        let (is_whole, dropped) = drawn.check(&stem)?;
        damaged += dropped;
        if is_whole {
            continue;
        }
        let answers = match &shown {
            Some(answers) => answers,
            None => &Answers::of(pipeline, index, digest, outputs, store)?,
        };
        let sheet = frames::to_png(&answers.sheet(last, store)?);
        write_file(&folder.join(format!("{stem}-{}.png", Digest::of(&sheet).short())), &sheet)?;
        drawn.drop_older(&of, &stem)?;
    }
    Ok(any.then_some(Pictures { folder, damaged }))
}

/// The sheets that are there.
struct Drawn {
    folder: PathBuf,
    names: BTreeSet<String>,
}

impl Drawn {
    fn in_folder(folder: PathBuf) -> Self {
        // A folder that cannot be read is told when it is written to.
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        Self { folder, names }
    }

    /// Whether the sheet is there and whole, and how many of it were damaged, which are removed.
    fn check(&self, stem: &str) -> Result<(bool, usize), CliError> {
        let (mut is_whole, mut damaged) = (false, 0);
        for name in self.beginning(&format!("{stem}-")) {
            let path = self.folder.join(name);
            let Some(name) = PictureName::of(&path).filter(|name| name.own.is_some()) else {
                continue;
            };
            if path.is_dir() {
                let error = io::Error::from(io::ErrorKind::IsADirectory);
                return Err(CliError::file("draw", &path, &error)
                    .with_help("move the folder away; the next run draws the picture"));
            }
            // One that cannot be read is as good as none.
            if name.is_of(&path).unwrap_or(false) {
                is_whole = true;
            } else {
                remove(&path)?;
                damaged += 1;
            }
        }
        Ok((is_whole, damaged))
    }

    /// Removes the sheet as older versions called it: without its own digest, and before that
    /// without that of the predictions.
    fn drop_older(&self, of: &str, stem: &str) -> Result<(), CliError> {
        for name in self.beginning(&format!("{of}-")) {
            let Some(bare) = name.strip_suffix(".png") else { continue };
            let rest = bare.strip_prefix(of).and_then(|rest| rest.strip_prefix('-'));
            if bare == stem || rest.is_some_and(Digest::is_short) {
                remove(&self.folder.join(name))?;
            }
        }
        Ok(())
    }

    fn beginning<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a String> + 'a {
        let from = self.names.range(start.to_owned()..);
        from.take_while(move |name| name.starts_with(start))
    }
}

fn remove(path: &Path) -> Result<(), CliError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CliError::file("remove", path, &error))
        }
        _ => Ok(()),
    }
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

/// Whether the frames of an instance may be of several checkpoints.
fn has_checkpoints(pipeline: &Pipeline, index: usize) -> bool {
    upstream(pipeline, index).any(|input| {
        let saved = pipeline.instances[input].params.get("save_at").and_then(Value::as_array);
        saved.is_some_and(|steps| !steps.is_empty())
    })
}

/// Predictions, and the pairs that they were made for where those are known.
pub(super) struct Answers {
    predictions: Arc<Manifest>,
    pairs: Option<Asked>,
}

/// Pairs that answers were made for.
struct Asked {
    pairs: Arc<Manifest>,
    /// Whether they have targets to show.
    has_targets: bool,
}

impl Answers {
    /// The frames that an instance gave.
    pub fn of(
        pipeline: &Pipeline,
        index: usize,
        digest: Digest,
        outputs: &Outputs,
        store: &Store,
    ) -> Result<Self, CliError> {
        let predictions = store.manifest(digest)?;
        let pairs = nearest_pairs(pipeline, index, outputs, store, &predictions)?;
        Ok(Self { predictions, pairs })
    }

    /// The pair that each prediction was made for, and with which checkpoint.
    fn origins(&self) -> impl Iterator<Item = (&Item, Option<(Option<&str>, &Item)>)> {
        let origins = self.pairs.as_ref().map(|asked| Origins::new(&asked.pairs.items));
        let items = self.predictions.items.iter();
        items.map(move |item| (item, origins.as_ref().and_then(|known| known.of(&item.name))))
    }

    /// The checkpoints in the order of the items; one without a name where there is only one.
    pub fn checkpoints(&self) -> Vec<Option<&str>> {
        let mut checkpoints: Vec<_> = self
            .origins()
            .map(|(_, origin)| origin.and_then(|(checkpoint, _)| checkpoint))
            .collect();
        checkpoints.dedup();
        checkpoints
    }

    /// Input, target and prediction of each item of a checkpoint; without targets where there are
    /// none, and predictions alone where the pairs are not known.
    pub fn sheet(&self, checkpoint: Option<&str>, store: &Store) -> Result<RgbImage, CliError> {
        let of_checkpoint = |origin: &Option<(Option<&str>, &Item)>| {
            origin.is_none_or(|(found, _)| found == checkpoint)
        };
        let shown = self.origins().filter(|(_, origin)| of_checkpoint(origin));
        let has_targets = self.pairs.as_ref().is_some_and(|asked| asked.has_targets);
        let mut items = Vec::new();
        for (item, origin) in shown.take(MOST_ITEMS) {
            let mut images = Vec::new();
            if let Some((_, pair)) = origin {
                images.push(read_image(store, pair, INPUT)?);
                if has_targets {
                    images.push(read_image(store, pair, TARGET)?);
                }
            }
            images.push(read_image(store, item, frames::PREDICTION)?);
            items.push(images);
        }
        Ok(sheet::item_sheet(&items, items_per_row(items.len()), MIN_SIZE))
    }
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
) -> Result<Option<Asked>, CliError> {
    for input in upstream(pipeline, index) {
        if pipeline.instances[input].output() != ArtifactKind::Pairs {
            continue;
        }
        let Some(digest) = outputs.digest(input) else { continue };
        let pairs = store.manifest(digest)?;
        let origins = Origins::new(&pairs.items);
        if predictions.items.iter().all(|item| origins.of(&item.name).is_some()) {
            let has_targets = pipeline.instances[input].work.task().is_none_or(has_target);
            return Ok(Some(Asked { pairs, has_targets }));
        }
    }
    Ok(None)
}
