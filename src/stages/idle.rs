//! Parameters that do nothing beside others, kind by kind.

use super::{
    Dataset, IdleParam, Interpolate, Metric, Pretrain, Transform, dataset::Task,
    metric::MetricName, pretrain::Part, transform::Operation,
};
use crate::{
    data::{interpolation::Interpolation, source::SourceName},
    train::schedule::LrSchedule,
};

/// `warmup_steps` of a training whose schedule has none.
pub(super) fn warmup(schedule: LrSchedule, steps: usize) -> Vec<IdleParam> {
    if schedule != LrSchedule::Constant || steps == 0 {
        return Vec::new();
    }
    let serves = "`lr_schedule` is `constant_with_warmup` or `cosine`";
    vec![IdleParam { param: "warmup_steps", by: "lr_schedule", serves }]
}

pub(super) fn interpolate(stage: &Interpolate) -> Vec<IdleParam> {
    if stage.method == Interpolation::Tiles {
        return Vec::new();
    }
    vec![IdleParam { param: "grid", by: "method", serves: "`method` is `tiles`" }]
}

pub(super) fn dataset(stage: &Dataset) -> Vec<IdleParam> {
    let (source, task) = (stage.source.source, stage.task);
    let coco = source == SourceName::Coco;
    let arc = "the data is ARC";
    of_rules([
        (task == Task::World, "frames", "task", "`task` is `world`"),
        (task == Task::Pose, "pose", "task", "`task` is `pose`"),
        (task == Task::Segmentation, "class", "task", "`task` is `segmentation`"),
        (coco || task != Task::Segmentation, "class", "source", "the data is COCO"),
        (coco, "min_share", "source", "the data is COCO"),
        (!coco || task != Task::Images, "min_share", "task", "`task` is not `images`"),
        (source == SourceName::Arc, "source.set", "source.source", arc),
        (source == SourceName::Arc, "source.task", "source.source", arc),
    ])
}

pub(super) fn transform(stage: &Transform) -> Vec<IdleParam> {
    let operation = stage.operation;
    let share = matches!(operation, Operation::Zoom | Operation::Inpainting);
    let by = "operation";
    of_rules([
        (share, "share", by, "`operation` is `zoom` or `inpainting`"),
        (operation == Operation::Jigsaw, "grid", by, "`operation` is `jigsaw`"),
        (operation == Operation::Edges, "thresholds", by, "`operation` is `edges`"),
    ])
}

pub(super) fn metric(stage: &Metric) -> Vec<IdleParam> {
    let metric = stage.metric;
    of_rules([
        (metric == MetricName::Pose, "pose", "metric", "`metric` is `pose`"),
        (metric == MetricName::Miou, "mask_threshold", "metric", "`metric` is `miou`"),
    ])
}

pub(super) fn pretrain(stage: &Pretrain) -> Vec<IdleParam> {
    let (vae, by) = (stage.part == Part::Vae, "part");
    let (of_vae, of_transformer) = ("`part` is `vae`", "`part` is `transformer`");
    let mut idle = of_rules([
        (vae, "crop", by, of_vae),
        (vae, "loss", by, of_vae),
        (!vae, "scheduler", by, of_transformer),
        (!vae, "timestep_distribution", by, of_transformer),
        (!vae, "image_latent_scale", by, of_transformer),
        (!vae, "image_dropout", by, of_transformer),
        (!vae, "recompute", by, of_transformer),
    ]);
    idle.extend(warmup(stage.lr_schedule, stage.warmup_steps));
    idle
}

/// Whether a parameter does something; its name, the one that decides, and when it would.
type Rule = (bool, &'static str, &'static str, &'static str);

fn of_rules<const N: usize>(rules: [Rule; N]) -> Vec<IdleParam> {
    let idle = rules.into_iter().filter(|(works, ..)| !works);
    idle.map(|(_, param, by, serves)| IdleParam { param, by, serves }).collect()
}
