//! What a pipeline file asks of its data: a set, a task, and which images.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Classes, DataError, ParamError,
    arc::GreyRule,
    choice::Choice,
    coco::Crowd,
    pose::PoseStyle,
    select,
    source::DataSource,
    tasks::{
        self, Task, boundaries::BoundaryRule, depth::DepthCode, scene::SceneStyle, symbols::Symbols,
    },
};
use crate::rng::TorchRng;

/// Reads images and makes the pairs of a task.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Where the images come from: `{ source = "coco", root = "data/coco" }`, or only
    /// `"builtin:figures"`.
    pub source: DataSource,
    /// What is to be predicted from an image.
    pub task: Choice<dyn Task>,
    /// Which part of the data.
    #[serde(default)]
    pub split: Split,
    /// Number of images; all there are by default.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub count: Option<usize>,
    /// Which block of `count` images of the data, shuffled by `seed`. Blocks of one count are
    /// disjoint; block 0 of a smaller count is the beginning of block 0 of a larger one.
    #[serde(default)]
    pub subset: usize,
    /// The share of the images that is kept for `split = "test"` where the data is not divided into
    /// parts of its own. Which ones depends on their number and names and on `holdout_seed`. Of
    /// `rgbd`, whole sequences are kept, as far as they fit into the share; of a single one, its
    /// end.
    #[serde(default = "fifth")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub holdout: f64,
    /// Which of the images, or of the sequences or subjects, `holdout` keeps: each number is
    /// another choice.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub holdout_seed: u64,
    /// Height and width of the images: scaled to cover, then cropped to the middle.
    pub size: [usize; 2],
    /// Frames of a clip, for `task = "world"`.
    #[serde(default = "nine")]
    #[schemars(range(max = 4097))]
    pub frames: usize,
    /// The class whose mask is the target, for `task = "segmentation"`; or a list of classes, whose
    /// masks are one, such as all animals.
    #[serde(default = "dog")]
    pub class: Classes,
    /// On COCO: take only images on which a person's keypoints (or the class's instances) span at
    /// least this share of the image.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_share: f64,
    /// On COCO: what is done with regions marked as a crowd.
    #[serde(default)]
    pub crowd: Crowd,
    /// For `arc`: where every answer of a task is black and they differ in size, whether they are
    /// painted grey.
    #[serde(default)]
    pub grey_rule: GreyRule,
    /// Sizes of the drawing, and which keypoints it shows, for `task = "pose"`.
    #[serde(default)]
    pub pose: PoseStyle,
    /// Classes and colours, for `task = "scene"`.
    #[serde(default)]
    pub scene: SceneStyle,
    /// How distances become colours, for `task = "depth"`.
    #[serde(default)]
    pub depth: DepthCode,
    /// Which lines count, for `task = "boundaries"`.
    #[serde(default)]
    pub boundaries: BoundaryRule,
    /// Classes and cells, for `task = "symbols"`.
    #[serde(default)]
    pub symbols: Symbols,
    /// For `dreambooth`: what is kept for `split = "test"`, photographs of each subject or all of
    /// some subjects.
    #[serde(default)]
    pub holdout_by: HoldoutBy,
    /// For `rgbd`: what is done about pictures without a depth.
    #[serde(default)]
    pub without_depth: WithoutDepth,
    /// Seed of the choice of images; 0 by default, whatever the pipeline's is.
    #[serde(default)]
    pub seed: Option<u64>,
}

fn nine() -> usize {
    9
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_zero(seed: &u64) -> bool {
    *seed == 0
}

/// The default of [`Request::holdout`].
pub const fn fifth() -> f64 {
    0.2
}

fn dog() -> Classes {
    "dog".into()
}

/// What is kept for tests of data that is not divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HoldoutBy {
    /// Single images: a subject is learnt from and asked about, in other photographs.
    #[default]
    Image,
    /// All images of some subjects, of which nothing is learnt.
    Subject,
}

/// What is done about pictures that have no depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WithoutDepth {
    /// They are an error, which counts them; so are folders of such pictures beside others.
    #[default]
    Error,
    /// They are left out.
    Skip,
}

/// Part of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For training: COCO's train2017, an ARC task's demonstrations.
    #[default]
    Train,
    /// For evaluation: COCO's val2017, an ARC task's questions.
    Test,
}

impl Split {
    /// `train` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

impl Request {
    /// The seed of all that is drawn.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or(0)
    }

    /// Whether the images are to learn from.
    pub fn is_train(&self) -> bool {
        self.split == Split::Train
    }

    /// The rules that the request breaks, before any data is read.
    pub fn validate(&self) -> Vec<ParamError> {
        let mut problems = self.validate_general();
        let DataSource { source, root, .. } = &self.source;
        if source.is_on_disk() && root.is_none() {
            problems.push(
                ParamError::new("source", "this data set needs `root`")
                    .help("add root = \"path/to/data\""),
            );
        }
        problems.extend(source.check(self));
        if !source.offers().contains(&self.task.needs()) {
            let fits = tasks::names_for(source.offers()).join(", ");
            problems.push(
                ParamError::new(
                    "task",
                    format!("`{}` does not offer the task `{}`", source.name(), self.task.name()),
                )
                .help(format!("its tasks are: {fits}")),
            );
        }
        problems.extend(self.task.check(self));
        problems
    }

    fn validate_general(&self) -> Vec<ParamError> {
        let mut problems = Vec::new();
        if self.size.iter().any(|side| !(8..=4096).contains(side) || side % 2 == 1) {
            let message = format!("sides must be even, 8 to 4096, but are {:?}", self.size);
            let help = "give [height, width] in pixels; the model may ask for more, such as multiples of 16";
            problems.push(ParamError::new("size", message).help(help));
        }
        if self.count == Some(0) {
            problems.push(
                ParamError::new("count", "must be at least 1, but is 0")
                    .help("leave it out to take all images"),
            );
        }
        if self.class.is_empty() {
            problems
                .push(ParamError::new("class", "must name a class").help("give a name or several"));
        }
        let share = |field, share| {
            let message = format!("must be 0 to 1, but is {share}");
            (!(0.0..=1.0).contains(&share)).then(|| ParamError::new(field, message))
        };
        problems.extend(share("min_share", self.min_share).map(|error| error.help("0 takes all")));
        problems.extend(share("holdout", self.holdout));
        problems
    }

    /// The chosen places among `available` images, or in an endless world.
    pub fn choose(&self, available: Option<usize>) -> Result<Vec<usize>, DataError> {
        let Some(available) = available else { return self.block() };
        if available == 0 {
            return Err(DataError::failed("no image of the data fits the stage's parameters")
                .with_help("check `split`, `class` and `min_share`"));
        }
        let count = self.count.unwrap_or(available);
        select(available, count, self.subset, self.seed()).map_err(|e| {
            DataError::failed(e.to_string())
                .with_help("lower `count` or `subset`, or get more data")
        })
    }

    /// The places of this subset in an endless world.
    fn block(&self) -> Result<Vec<usize>, DataError> {
        let count = self
            .count
            .ok_or_else(|| DataError::failed("the images have no end, so `count` must be given"))?;
        let start = self.subset.checked_mul(count);
        start.and_then(|start| Some((start..start.checked_add(count)?).collect())).ok_or_else(
            || {
                let subset = self.subset;
                DataError::failed(format!("subset {subset} of {count} images is too large"))
            },
        )
    }

    /// The part of data that is not divided: `holdout` of it for tests, the rest for training.
    pub(super) fn part<T>(&self, all: Vec<T>) -> Result<Vec<T>, DataError> {
        let count = all.len();
        let order = TorchRng::new(self.holdout_seed).randperm(count);
        let mut is_test = vec![false; count];
        let held = held_out(count, self.holdout);
        order.into_iter().take(held).for_each(|place| is_test[place] = true);
        self.of_split(all, is_test)
    }

    /// As [`Self::part`], but what belongs together stays together: whole groups are kept for
    /// tests, as many as fit into the share, or the smallest if none does. Of a single group it is
    /// the end.
    pub(super) fn part_of_groups<T>(
        &self,
        all: Vec<T>,
        group: impl Fn(&T) -> &str,
    ) -> Result<Vec<T>, DataError> {
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        for item in &all {
            *sizes.entry(group(item)).or_default() += 1;
        }
        let held = held_out(all.len(), self.holdout);
        let is_test = if sizes.len() < 2 {
            (0..all.len()).map(|place| place + held >= all.len()).collect()
        } else {
            let sizes: Vec<_> = sizes.into_iter().collect();
            let chosen = fitting(&sizes, held, self.holdout_seed);
            all.iter().map(|item| chosen.contains(group(item))).collect()
        };
        self.of_split(all, is_test)
    }

    /// Those of the request's split; it is an error if all are of the other.
    fn of_split<T>(&self, all: Vec<T>, is_test: Vec<bool>) -> Result<Vec<T>, DataError> {
        let count = all.len();
        let keep = all.into_iter().zip(is_test);
        let kept: Vec<T> =
            keep.filter(|(_, test)| *test != self.is_train()).map(|(item, _)| item).collect();
        if kept.is_empty() && count > 0 { Err(self.nothing_kept(count)) } else { Ok(kept) }
    }

    /// What to say where all `count` examples are of the other split.
    fn nothing_kept(&self, count: usize) -> DataError {
        let Self { holdout, .. } = self;
        let is_share = *holdout > 0.0 && *holdout < 1.0;
        if count == 1 && is_share {
            let message = "the data holds 1 example, but `train` and `test` need 2";
            return DataError::failed(message)
                .with_help("add another one, or, where the data may be so, divide it into `train/` and `test/`");
        }
        let split = self.split.name();
        let message = format!(
            "with `holdout` = {holdout}, none of the {count} examples of the data is left for `split` = \
             \"{split}\""
        );
        DataError::failed(message).with_help("give `holdout` a share between 0 and 1")
    }
}

/// Groups, shuffled, as long as they fit into `most` items; the smallest if none does.
fn fitting<'a>(groups: &[(&'a str, usize)], most: usize, seed: u64) -> BTreeSet<&'a str> {
    let mut left = most;
    let mut chosen = BTreeSet::new();
    for place in TorchRng::new(seed).randperm(groups.len()) {
        let (name, size) = groups[place];
        if size <= left {
            left -= size;
            chosen.insert(name);
        }
    }
    if chosen.is_empty() && most > 0 {
        chosen.extend(groups.iter().min_by_key(|(_, size)| *size).map(|(name, _)| *name));
    }
    chosen
}

/// How many of undivided images are kept for tests; by default ([`fifth`]) a fifth. Neither part is
/// empty unless the share says so.
pub fn held_out(count: usize, share: f64) -> usize {
    let held = (count as f64 * share).round() as usize;
    if share > 0.0 && share < 1.0 && count > 1 { held.clamp(1, count - 1) } else { held }
}
