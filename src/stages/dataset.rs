//! `dataset`: image pairs of a task from a data set, or clips of the procedural world.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Inputs, Output, ParamError, Ports, Stage, StageContext, StageError, StageKind};
use crate::{
    artifact::{
        ArtifactKind,
        pairs::{Pair, PairMeta},
        videos,
    },
    data::{Sample, arc, coco, figures, folder, pose, resize, select},
    store::SourceReader,
};

/// Reads images and makes the pairs of a task.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Where the images come from.
    pub source: DataSource,
    /// What is to be predicted from an image.
    pub task: Task,
    /// Which part of the data.
    #[serde(default)]
    pub split: Split,
    /// Number of images; all there are by default.
    #[serde(default)]
    pub count: Option<usize>,
    /// Which block of `count` images of the shuffled data; blocks are disjoint.
    #[serde(default)]
    pub subset: usize,
    /// Height and width of the images.
    pub size: [usize; 2],
    /// Frames of a clip, for `task = "world"`.
    #[serde(default = "nine")]
    pub frames: usize,
    /// The class whose mask is the target, for `task = "segmentation"` on COCO.
    #[serde(default = "dog")]
    pub class: String,
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

/// Where images come from.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSource {
    /// `builtin:figures`, `coco`, `arc` or `folder`.
    pub source: SourceName,
    /// The folder of the data; not needed for built-in data.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    pub root: Option<String>,
    /// For ARC: the folder of task files below `root`.
    #[serde(default)]
    pub set: Option<String>,
    /// For ARC: the task's file name without `.json`.
    #[serde(default)]
    pub task: Option<String>,
}

/// The data sets there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceName {
    /// A procedural world of articulated figures; always there.
    #[serde(rename = "builtin:figures")]
    Figures,
    /// COCO 2017 in its official layout.
    #[serde(rename = "coco")]
    Coco,
    /// ARC-AGI or ConceptARC task files.
    #[serde(rename = "arc")]
    Arc,
    /// Your own pairs: `input/` and `target/` with equal file names.
    #[serde(rename = "folder")]
    Folder,
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
    /// No task: clips of the procedural world, for `pretrain`.
    World,
}

/// Part of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For training.
    #[default]
    Train,
    /// For evaluation (COCO's val2017, an ARC task's test examples).
    Test,
}

impl StageKind for Dataset {
    const KIND: &'static str = "dataset";
    const VERSION: u32 = 1; // 1: first
    const PORTS: Ports = Ports { inputs: &[], output: ArtifactKind::Pairs };
}

impl Stage for Dataset {
    fn validate(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        let mut error = |field: &str, message: String, help: &str| {
            errors.push(ParamError::new(field, message).help(help));
        };
        if self.size.iter().any(|side| !(8..=4096).contains(side)) {
            error(
                "size",
                format!("sides must be 8 to 4096, but are {:?}", self.size),
                "give [height, width] in pixels",
            );
        }
        if self.count == Some(0) {
            error(
                "count",
                "must be at least 1, but is 0".into(),
                "leave it out to take all images",
            );
        }
        use SourceName::{Arc, Coco, Figures, Folder};
        let (source, root) = (self.source.source, self.source.root.is_some());
        if source != Figures && !root {
            error("source", "this data set needs `root`".into(), "add root = \"path/to/data\"");
        }
        if source == Arc && (self.source.set.is_none() || self.source.task.is_none()) {
            error(
                "source",
                "ARC data needs `set` and `task`".into(),
                "for example set = \"evaluation\", task = \"00576224\"",
            );
        }
        let fits = match self.task {
            Task::Pose | Task::Segmentation => matches!(source, Figures | Coco),
            Task::Arc => source == Arc,
            Task::Pairs => source == Folder,
            Task::World => source == Figures,
        };
        if !fits {
            error(
                "task",
                "this data set does not offer this task".into(),
                "pose and segmentation: builtin:figures, coco; arc: arc; pairs: folder; world: builtin:figures",
            );
        }
        if self.task == Task::World && (self.count.is_none() || self.frames % 4 != 1) {
            error(
                "frames",
                "clips of the world need `count` and 4k + 1 `frames`".into(),
                "for example count = 1000, frames = 9",
            );
        }
        if source == Figures && self.count.is_none() {
            error(
                "count",
                "the procedural world has no end, so `count` must be given".into(),
                "for example count = 10",
            );
        }
        errors
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
        match (self.source.source, cx.sources) {
            (SourceName::Figures, _) if self.task == Task::World => self.world(out, cx),
            (SourceName::Figures, _) => self.figures(out, cx),
            (_, None) => Err(StageError::failed("this data set needs `root`")),
            (SourceName::Coco, Some(sources)) => self.coco(sources, out, cx),
            (SourceName::Arc, Some(sources)) => self.arc(sources, out),
            (SourceName::Folder, Some(sources)) => self.folder(sources, out, cx),
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
        let count = self.count.unwrap_or(available);
        select(available, count, self.subset, self.seed()).map_err(|e| {
            StageError::failed(e.to_string())
                .with_help("lower `count` or `subset`, or get more data")
        })
    }

    fn world(&self, out: &mut Output<'_>, cx: &StageContext<'_>) -> Result<(), StageError> {
        let count = self.count.unwrap_or(0);
        for index in 0..count {
            cx.tick(index as u64, count as u64, "clips")?;
            let clip = figures::world_clip(self.seed(), index as u64, self.size, self.frames);
            let clip = videos::Clip::from_images(&clip).expect("all frames have one size");
            out.item(&format!("{index:06}"), &[(videos::FILE, &clip.to_bytes())])?;
        }
        Ok(())
    }

    fn figures(&self, out: &mut Output<'_>, cx: &StageContext<'_>) -> Result<(), StageError> {
        let count = self.count.unwrap_or(0);
        let start = self.subset * count;
        for index in start..start + count {
            cx.tick((index - start) as u64, count as u64, "images")?;
            let sample = figures::figure(self.seed(), index as u64, self.is_train(), self.size);
            self.write(sample, out)?;
        }
        Ok(())
    }

    fn coco(
        &self,
        sources: &SourceReader,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let index = match self.task {
            Task::Segmentation => coco::Index::instances(sources, self.is_train(), &self.class)?,
            _ => coco::Index::persons(sources, self.is_train())?,
        };
        let ids = index.ids();
        let chosen = self.choose(ids.len())?;
        for (done, chosen_index) in chosen.iter().enumerate() {
            cx.tick(done as u64, chosen.len() as u64, "images")?;
            let sample = index.sample(sources, ids[*chosen_index])?;
            self.write(resize::resize_sample(sample, self.size), out)?;
        }
        Ok(())
    }

    fn arc(&self, sources: &SourceReader, out: &mut Output<'_>) -> Result<(), StageError> {
        let (set, name) = (self.source.set.as_deref(), self.source.task.as_deref());
        let (set, name) = (set.unwrap_or_default(), name.unwrap_or_default());
        let path = format!("{set}/{name}.json");
        let bytes = crate::data::read_source(sources, &path, "an ARC task")?;
        let task: arc::Task = serde_json::from_slice(&bytes)
            .map_err(|e| StageError::failed(format!("`{path}` is not an ARC task: {e}")))?;
        let task = task.with_grey_rule();
        let cell = task.cell();
        let examples = if self.is_train() { &task.train } else { &task.test };
        for index in self.choose(examples.len())? {
            let example = &examples[index];
            let render = |grid| resize::resize_image(&arc::render(grid, cell), self.size);
            let meta = PairMeta {
                source_id: format!("{name}/{index}"),
                task: "arc".to_owned(),
                arc: Some(arc::ArcGrids {
                    task: name.to_owned(),
                    input: example.input.clone(),
                    output: example.output.clone(),
                    cell,
                }),
                ..PairMeta::default()
            };
            let pair = Pair {
                input: render(&example.input),
                target: render(&example.output),
                mask: None,
                meta,
            };
            pair.write(out, &format!("{name}-{index}"))?;
        }
        Ok(())
    }

    fn folder(
        &self,
        sources: &SourceReader,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let pairs = folder::pairs(sources, if self.is_train() { "train" } else { "test" })?;
        let chosen = self.choose(pairs.len())?;
        for (done, index) in chosen.iter().enumerate() {
            cx.tick(done as u64, chosen.len() as u64, "images")?;
            let folder::PairFiles { name, input, target } = &pairs[*index];
            let image = |path: &str| -> Result<_, StageError> {
                Ok(resize::resize_image(&crate::data::read_image(sources, path)?, self.size))
            };
            let meta = PairMeta {
                source_id: name.clone(),
                task: "pairs".to_owned(),
                ..PairMeta::default()
            };
            Pair { input: image(input)?, target: image(target)?, mask: None, meta }
                .write(out, name)?;
        }
        Ok(())
    }

    /// Writes the pair of an annotated image.
    fn write(&self, sample: Sample, out: &mut Output<'_>) -> Result<(), StageError> {
        let (target, mask, task) = if self.task == Task::Segmentation {
            let mask = sample
                .mask
                .ok_or_else(|| StageError::failed("the image has no mask").on_item(&sample.id))?;
            (image::DynamicImage::ImageLuma8(mask.clone()).into_rgb8(), Some(mask), "segmentation")
        } else {
            (pose::draw(&sample.persons, self.size, self.pose), None, "pose")
        };
        let meta = PairMeta {
            source_id: sample.id.clone(),
            task: task.to_owned(),
            persons: sample.persons,
            arc: None,
        };
        Pair { input: sample.image, target, mask, meta }.write(out, &sample.id)
    }
}
