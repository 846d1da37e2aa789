//! `dataset`: image pairs of a task from a data set, or clips of the procedural world.

use std::path::Path;

use image::{DynamicImage, RgbImage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Draw, IdleParam, Inputs, Output, OwnSize, ParamError, Ports, Stage, StageContext, StageError,
    StageKind, draw, idle,
};
use crate::{
    artifact::{
        ArtifactKind,
        pairs::{Pair, PairMeta},
        videos,
    },
    data::{
        Sample, arc, coco, figures, folder, pose, read_image, resize, select,
        source::{DataSource, SourceName, TaskRef},
    },
    store::SourceReader,
};

/// Reads images and makes the pairs of a task.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Where the images come from: `{ source = "coco", root = "data/coco" }`, or only
    /// `"builtin:figures"`.
    pub source: DataSource,
    /// What is to be predicted from an image.
    pub task: Task,
    /// Which part of the data.
    #[serde(default)]
    pub split: Split,
    /// Number of images; all there are by default.
    #[serde(default)]
    #[schemars(range(max = 10_000_000))]
    pub count: Option<usize>,
    /// Which block of `count` images of the data, shuffled by `seed`. Blocks of one count are
    /// disjoint; block 0 of a smaller count is the beginning of block 0 of a larger one.
    #[serde(default)]
    pub subset: usize,
    /// Height and width of the images: scaled to cover, then cropped to the middle.
    pub size: [usize; 2],
    /// Frames of a clip, for `task = "world"`.
    #[serde(default = "nine")]
    #[schemars(range(max = 4097))]
    pub frames: usize,
    /// The class whose mask is the target, for `task = "segmentation"` on COCO.
    #[serde(default = "dog")]
    pub class: String,
    /// On COCO: take only images on which a person's keypoints (or the class's instances) span at
    /// least this share of the image.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_share: f64,
    /// Sizes of the drawing, for `task = "pose"`.
    #[serde(default)]
    pub pose: pose::PoseStyle,
    /// Seed of the choice of images; the pipeline's by default.
    #[serde(default)]
    pub seed: Option<u64>,
}

fn nine() -> usize {
    9
}

fn dog() -> String {
    "dog".to_owned()
}

/// What is to be predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// A drawing of the pose of all persons.
    Pose,
    /// A white mask on black.
    Segmentation,
    /// The answer of an ARC example.
    Arc,
    /// The pairs of a folder as they are.
    Pairs,
    /// The image itself: plain images for a `transform` stage.
    Images,
    /// No task: clips of the procedural world, for `pretrain`.
    World,
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

impl StageKind for Dataset {
    const KIND: &'static str = "dataset";
    const VERSION: u32 = 1; // 1: first
    const PORTS: Ports = Ports { inputs: &[], output: ArtifactKind::Pairs };
}

impl Stage for Dataset {
    fn validate(&self) -> Vec<ParamError> {
        use SourceName::{Arc, Coco, Figures, Folder};

        let mut errors = Vec::new();
        let mut error = |field: &str, message: String, help: &str| {
            errors.push(ParamError::new(field, message).help(help));
        };
        if self.size.iter().any(|side| !(8..=4096).contains(side) || side % 2 == 1) {
            error(
                "size",
                format!("sides must be even, 8 to 4096, but are {:?}", self.size),
                "give [height, width] in pixels; the model may ask for more, such as multiples of 16",
            );
        }
        if self.count == Some(0) {
            error(
                "count",
                "must be at least 1, but is 0".into(),
                "leave it out to take all images",
            );
        }
        if !(0.0..=1.0).contains(&self.min_share) {
            error("min_share", format!("must be 0 to 1, but is {}", self.min_share), "0 takes all");
        }
        let DataSource { source, root, set, task } = &self.source;
        if *source != Figures && root.is_none() {
            error("source", "this data set needs `root`".into(), "add root = \"path/to/data\"");
        }
        if *source == Arc && (set.is_none() || task.is_none()) {
            error(
                "source",
                "ARC data needs `set` and `task`".into(),
                "for example set = \"evaluation\", task = \"00576224\" or task = 0",
            );
        }
        if *source == Arc && self.size[0] != self.size[1] {
            error(
                "size",
                format!("an ARC canvas is square, but `size` is {:?}", self.size),
                "give two equal sides; the reference uses [480, 480]",
            );
        }
        let fits = match self.task {
            Task::Pose | Task::Segmentation => matches!(source, Figures | Coco),
            Task::Arc => *source == Arc,
            Task::Pairs => *source == Folder,
            Task::Images => *source != Arc,
            Task::World => *source == Figures,
        };
        if !fits {
            error(
                "task",
                "this data set does not offer this task".into(),
                "pose, segmentation, images: builtin:figures, coco; arc: arc; pairs, images: folder; \
                 world: builtin:figures",
            );
        }
        if self.task == Task::World && (self.frames == 0 || self.frames % 4 != 1) {
            error(
                "frames",
                format!("must be 4k + 1, but is {}", self.frames),
                "for example frames = 9",
            );
        }
        if *source == Figures && self.count.is_none() {
            error(
                "count",
                "the procedural world has no end, so `count` must be given".into(),
                "for example count = 10",
            );
        }
        errors
    }

    fn idle_params(&self) -> Vec<IdleParam> {
        idle::dataset(self)
    }

    fn draw(&self) -> Option<Draw> {
        Some(draw::dataset(self))
    }

    fn own_size(&self) -> OwnSize {
        let frames = (self.task == Task::World).then_some(("frames", self.frames));
        OwnSize { frames, image: Some(("size", self.size)) }
    }

    fn source_root(&self) -> Option<&Path> {
        self.source.root.as_deref().map(Path::new)
    }

    fn output(&self) -> Option<ArtifactKind> {
        (self.task == Task::World).then_some(ArtifactKind::Videos)
    }

    fn run(
        &self,
        _: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        if self.task == Task::World {
            return self.world(out, cx);
        }
        if self.source.source == SourceName::Figures {
            return self.figures(out, cx);
        }
        let sources = cx.sources.ok_or_else(|| StageError::failed("this data set needs `root`"))?;
        match self.source.source {
            SourceName::Coco => self.coco(sources, out, cx),
            SourceName::Arc => self.arc(sources, out, cx),
            SourceName::Folder if self.task == Task::Images => self.images(sources, out, cx),
            SourceName::Folder | SourceName::Figures => self.folder(sources, out, cx),
        }
    }
}

impl Dataset {
    fn seed(&self) -> u64 {
        self.seed.unwrap_or(0)
    }

    fn is_train(&self) -> bool {
        self.split == Split::Train
    }

    /// The chosen indices among `available` images.
    fn choose(&self, available: usize) -> Result<Vec<usize>, StageError> {
        if available == 0 {
            return Err(StageError::failed("no image of the data fits the stage's parameters")
                .with_help("check `split`, `class` and `min_share`"));
        }
        let count = self.count.unwrap_or(available);
        select(available, count, self.subset, self.seed()).map_err(|e| {
            StageError::failed(e.to_string())
                .with_help("lower `count` or `subset`, or get more data")
        })
    }

    fn world(&self, out: &mut Output<'_>, cx: &StageContext<'_>) -> Result<(), StageError> {
        for index in self.block()? {
            self.tick(index, cx, "clips")?;
            let clip = figures::world_clip(self.seed(), index as u64, self.size, self.frames);
            let clip = videos::Clip::from_images(&clip).expect("all frames have one size");
            out.item(&format!("world-{index:06}"), &[(videos::FILE, &clip.to_bytes())])?;
        }
        Ok(())
    }

    fn figures(&self, out: &mut Output<'_>, cx: &StageContext<'_>) -> Result<(), StageError> {
        let split = if self.is_train() { figures::Split::Train } else { figures::Split::Test };
        let seed = split.seed(self.seed());
        for index in self.block()? {
            self.tick(index, cx, "images")?;
            self.write(figures::figure(seed, index as u64, self.size), out)?;
        }
        Ok(())
    }

    /// The indices of this subset in the endless procedural world.
    fn block(&self) -> Result<std::ops::Range<usize>, StageError> {
        let count = self.count.unwrap_or(0);
        let start = self.subset.checked_mul(count);
        start.and_then(|start| Some(start..start.checked_add(count)?)).ok_or_else(|| {
            StageError::failed(format!("subset {} of {count} images is too large", self.subset))
        })
    }

    fn tick(&self, index: usize, cx: &StageContext<'_>, what: &str) -> Result<(), StageError> {
        let count = self.count.unwrap_or(1).max(1);
        cx.tick((index % count) as u64, count as u64, what)
    }

    fn coco(
        &self,
        sources: &SourceReader,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let (train, share) = (self.is_train(), self.min_share);
        let index = match self.task {
            Task::Segmentation => coco::Index::instances(sources, train, &self.class, share)?,
            Task::Images => coco::Index::images(sources, train)?,
            _ => coco::Index::persons(sources, train, self.size, share)?,
        };
        let ids = index.ids();
        let chosen = self.choose(ids.len())?;
        for (done, place) in chosen.iter().enumerate() {
            cx.tick(done as u64, chosen.len() as u64, "images")?;
            let sample = index.sample(sources, ids[*place])?;
            self.write(resize::resize_sample(sample, self.size), out)?;
        }
        Ok(())
    }

    fn arc(
        &self,
        sources: &SourceReader,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let set = self.source.set.as_deref().unwrap_or_default();
        let wanted = self.source.task.clone().unwrap_or(TaskRef::Index(0));
        let (name, task) = arc::read_task(sources, set, &wanted)?;
        let task = task.with_grey_rule();
        let cell = task.cell();
        let examples = if self.is_train() { &task.train } else { &task.test };
        let chosen = self.choose(examples.len())?;
        for (done, index) in chosen.iter().enumerate() {
            cx.tick(done as u64, chosen.len() as u64, "examples")?;
            let example = &examples[*index];
            let draw = |grid| resize::resize_image(&arc::render(grid, cell), self.size);
            let meta = PairMeta {
                source_id: format!("{set}/{name}/{}/{index}", self.split_name()),
                task: "arc".to_owned(),
                arc: Some(arc::ArcGrids {
                    task: name.clone(),
                    input: example.input.clone(),
                    output: example.output.clone(),
                    cell,
                }),
                ..PairMeta::default()
            };
            let (input, target) = (draw(&example.input), draw(&example.output));
            let item = format!("{name}-{}-{index}", self.split_name());
            Pair { input, target, mask: None, meta }.write(out, &item)?;
        }
        Ok(())
    }

    fn split_name(&self) -> &'static str {
        if self.is_train() { "train" } else { "test" }
    }

    fn folder(
        &self,
        sources: &SourceReader,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let pairs = folder::pairs(sources, self.split_name())?;
        let chosen = self.choose(pairs.len())?;
        for (done, place) in chosen.iter().enumerate() {
            cx.tick(done as u64, chosen.len() as u64, "images")?;
            let folder::PairFiles { name, input, target } = &pairs[*place];
            let input = read_image(sources, input)?;
            let target = read_image(sources, target)?;
            // Spec A.3: where the two differ in size, the target is brought to the input's.
            let target = if target.dimensions() == input.dimensions() {
                target
            } else {
                resize::resize_image(&target, [input.height() as usize, input.width() as usize])
            };
            let meta = PairMeta {
                source_id: name.clone(),
                task: "pairs".to_owned(),
                ..PairMeta::default()
            };
            let [input, target] =
                [input, target].map(|image| resize::resize_image(&image, self.size));
            Pair { input, target, mask: None, meta }.write(out, name)?;
        }
        Ok(())
    }

    fn images(
        &self,
        sources: &SourceReader,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let files = folder::plain_images(sources, self.split_name())?;
        let chosen = self.choose(files.len())?;
        for (done, place) in chosen.iter().enumerate() {
            cx.tick(done as u64, chosen.len() as u64, "images")?;
            let (name, path) = &files[*place];
            let image = resize::resize_image(&read_image(sources, path)?, self.size);
            self.write(Sample { id: name.clone(), image, persons: Vec::new(), mask: None }, out)?;
        }
        Ok(())
    }

    /// Writes the pair of an annotated image that has the right size.
    fn write(&self, sample: Sample, out: &mut Output<'_>) -> Result<(), StageError> {
        let Sample { id, image, persons, mask } = sample;
        let (target, mask, task) = match self.task {
            Task::Segmentation => {
                let mask =
                    mask.ok_or_else(|| StageError::failed("the image has no mask").on_item(&id))?;
                (white_on_black(&mask), Some(mask), "segmentation")
            }
            Task::Images => (image.clone(), None, "images"),
            _ => (pose::draw(&persons, self.size, self.pose), None, "pose"),
        };
        let meta = PairMeta { source_id: id.clone(), task: task.to_owned(), persons, arc: None };
        Pair { input: image, target, mask, meta }.write(out, &id)
    }
}

fn white_on_black(mask: &image::GrayImage) -> RgbImage {
    DynamicImage::ImageLuma8(mask.clone()).into_rgb8()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::stages::support::Bench;

    /// The pairs a stage makes, by name.
    fn pairs(params: Value) -> Result<Vec<(String, Pair)>, StageError> {
        let stage: Dataset = serde_json::from_value(params).unwrap();
        assert!(stage.validate().is_empty());
        let bench = Bench::new();
        let inputs = bench.inputs(&[]);
        let items = bench.run(&stage, &inputs)?;
        items.iter().map(|item| Ok((item.name.clone(), Pair::read(&inputs, item)?))).collect()
    }

    fn names(params: Value) -> Vec<String> {
        pairs(params).unwrap().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn figures_of_splits_and_subsets_differ() {
        let figures = |split: &str, subset: usize| {
            json!({ "source": "builtin:figures", "task": "pose", "split": split, "count": 3,
                    "subset": subset, "size": [64, 64], "seed": 42 })
        };
        let train = pairs(figures("train", 0)).unwrap();
        assert_eq!(train.len(), 3);
        for (name, pair) in &train {
            assert!(pair.target.pixels().any(|p| p.0 == [0, 0, 255]), "{name} shows no torso");
            assert_eq!(pair.meta.source_id, *name);
        }
        let test = pairs(figures("test", 0)).unwrap();
        assert!(train.iter().zip(&test).all(|(a, b)| a.1.input != b.1.input));
        assert!(names(figures("train", 1)).iter().all(|n| train.iter().all(|(m, _)| m != n)));
        let again = pairs(figures("train", 0)).unwrap();
        assert!(train.iter().zip(&again).all(|(a, b)| a.1.input == b.1.input));
    }

    #[test]
    fn the_mask_of_figures_is_the_segmentation_target() {
        let found = pairs(json!({
            "source": "builtin:figures", "task": "segmentation", "count": 2, "size": [64, 64],
        }))
        .unwrap();
        for (_, Pair { target, mask, .. }) in found {
            assert_eq!(target, white_on_black(&mask.unwrap()));
        }
    }

    #[test]
    fn a_folder_of_pairs_is_read_and_its_targets_follow_their_inputs() {
        let root = tempfile::tempdir().unwrap();
        for (folder, side) in [("input", 20), ("target", 40)] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
            for name in ["a", "b", "c"] {
                let image = RgbImage::from_fn(side, side, |x, _| {
                    image::Rgb(if x < side / 2 { [250; 3] } else { [10; 3] })
                });
                image.save(root.path().join(format!("{folder}/{name}.png"))).unwrap();
            }
        }
        let source = json!({ "source": "folder", "root": root.path() });
        let found = pairs(json!({ "source": source, "task": "pairs", "size": [10, 10] })).unwrap();
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|(_, pair)| pair.input == pair.target));
        let plain = json!({ "source": "folder", "root": root.path().join("input") });
        assert_eq!(
            names(json!({ "source": plain, "task": "images", "size": [8, 8], "count": 2 })).len(),
            2
        );
        let error =
            pairs(json!({ "source": source, "task": "pairs", "size": [10, 10], "count": 4 }))
                .unwrap_err();
        assert_eq!(error.to_string(), "subset 0 of 4 needs 4 images, but the data has 3");
    }

    #[test]
    fn a_missing_root_is_the_machines_fault() {
        let source = json!({ "source": "coco", "root": "no/such/folder" });
        let error =
            pairs(json!({ "source": source, "task": "pose", "size": [64, 64] })).unwrap_err();
        let StageError::Environment { message, help } = error else { panic!("{error}") };
        assert!(message.contains("person_keypoints_train2017.json"), "{message}");
        assert!(help.is_some());
    }

    #[test]
    fn clips_of_the_world_are_videos() {
        let stage: Dataset = serde_json::from_value(json!({
            "source": "builtin:figures", "task": "world", "count": 2, "size": [32, 32], "frames": 5,
        }))
        .unwrap();
        assert_eq!(stage.output(), Some(ArtifactKind::Videos));
        let bench = Bench::new();
        let inputs = bench.inputs(&[]);
        let items = bench.run(&stage, &inputs).unwrap();
        assert_eq!(items.len(), 2);
        let bytes = inputs.read(&items[1], videos::FILE).unwrap();
        assert_eq!(videos::Clip::from_bytes(&bytes).unwrap().size, [5, 32, 32]);
    }

    fn problems(params: Value) -> Vec<String> {
        let stage: Dataset = serde_json::from_value(params).unwrap();
        stage.validate().into_iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
    }

    #[test]
    fn whole_parameters_have_no_problem() {
        let figures =
            json!({ "source": "builtin:figures", "task": "pose", "count": 3, "size": [64, 64] });
        assert_eq!(problems(figures), [""; 0]);
        let arc = json!({
            "source": { "source": "arc", "root": "d", "set": "training", "task": 7 },
            "task": "arc", "split": "test", "size": [480, 480],
        });
        assert_eq!(problems(arc), [""; 0]);
    }

    #[test]
    fn each_broken_rule_is_named() {
        let wrong = json!({
            "source": { "source": "arc" }, "task": "pose", "count": 0, "size": [63, 64], "min_share": 2,
        });
        insta::assert_snapshot!(problems(wrong).join("\n"), @r"
        size: sides must be even, 8 to 4096, but are [63, 64]
        count: must be at least 1, but is 0
        min_share: must be 0 to 1, but is 2
        source: this data set needs `root`
        source: ARC data needs `set` and `task`
        size: an ARC canvas is square, but `size` is [63, 64]
        task: this data set does not offer this task
        ");
        let world =
            json!({ "source": "builtin:figures", "task": "world", "size": [64, 64], "frames": 8 });
        insta::assert_snapshot!(problems(world).join("\n"), @r"
        frames: must be 4k + 1, but is 8
        count: the procedural world has no end, so `count` must be given
        ");
    }

    #[test]
    fn the_defaults_are_written_out() {
        let stage: Dataset = serde_json::from_value(
            json!({ "source": "builtin:figures", "task": "pose", "size": [64, 64] }),
        )
        .unwrap();
        let params = serde_json::to_value(&stage).unwrap();
        let again: Dataset = serde_json::from_value(params.clone()).unwrap();
        assert_eq!(serde_json::to_value(&again).unwrap(), params);
        assert_eq!(params["source"]["source"], "builtin:figures");
    }
}
