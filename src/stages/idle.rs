//! Parameters that do nothing beside others, kind by kind.

use super::{IdleParam, Interpolate, LoraMerge, Pretrain, Sample, pretrain::Part};
use crate::{
    data::{
        Request,
        choice::{Choice, Listed},
        interpolation::Interpolation,
        sets::Knowledge,
        transforms::Change,
    },
    metrics::Rules,
    models::Sampler,
    train::schedule::LrSchedule,
};

/// `warmup_steps` of a training whose schedule has none.
pub(super) fn warmup(schedule: LrSchedule, steps: usize) -> Vec<IdleParam> {
    if schedule != LrSchedule::Constant || steps == 0 {
        return Vec::new();
    }
    let serves = "`lr_schedule` is `constant_with_warmup` or `cosine`".to_owned();
    vec![IdleParam { param: "warmup_steps", by: "lr_schedule", serves }]
}

pub(super) fn interpolate(stage: &Interpolate) -> Vec<IdleParam> {
    if stage.method == Interpolation::Tiles {
        return Vec::new();
    }
    vec![IdleParam { param: "grid", by: "method", serves: "`method` is `tiles`".to_owned() }]
}

pub(super) fn dataset(request: &Request) -> Vec<IdleParam> {
    let mut idle = beside("task", request.task);
    idle.extend(beside("source.source", request.source.source));
    if matches!(request.task.needs(), Knowledge::Scene | Knowledge::Image) {
        let serves = "`task` is `pose` or `segmentation`".to_owned();
        idle.push(IdleParam { param: "min_share", by: "task", serves });
    }
    if request.task.needs() == Knowledge::Image {
        let serves = "`task` is `pose`, `segmentation` or `scene`".to_owned();
        idle.push(IdleParam { param: "crowd", by: "task", serves });
    }
    idle
}

pub(super) fn transform(change: &Change) -> Vec<IdleParam> {
    let mut idle = beside("operation", change.operation);
    if !change.makes_an_image() {
        let serves = "`operation` makes one of the images".to_owned();
        idle.push(IdleParam { param: "apply", by: "operation", serves });
    }
    idle
}

pub(super) fn metric(rules: &Rules) -> Vec<IdleParam> {
    beside("metric", rules.metric)
}

/// What does nothing beside the entry that `by` names.
fn beside<T: Listed + ?Sized>(by: &'static str, choice: Choice<T>) -> Vec<IdleParam> {
    let idle = choice.idle_params().into_iter();
    idle.map(|(param, readers)| {
        let readers: Vec<_> = readers.iter().map(|name| format!("`{name}`")).collect();
        IdleParam { param, by, serves: format!("`{by}` is {}", readers.join(" or ")) }
    })
    .collect()
}

/// `condition` beside a sampler that takes none, and a negative prompt without guidance.
pub(super) fn sample(stage: &Sample) -> Vec<IdleParam> {
    // Which sampler is the default depends on the model, of which nothing is known here.
    let works = stage.sampler.is_none_or(|sampler| sampler == Sampler::FlowCondition);
    let guided = stage.guidance_scale > 1.0;
    of_rules([
        (works, "condition", "sampler", "`sampler` is `flow_condition`"),
        (guided, "inputs.negative", "guidance_scale", "`guidance_scale` is more than 1"),
    ])
}

pub(super) fn lora_merge(stage: &LoraMerge) -> Vec<IdleParam> {
    let (merges, reads) = (stage.model.is_some(), !stage.files.is_empty());
    of_rules([
        (merges, "precision", "model", "`model` is given, into which the adapters are merged"),
        (reads, "image_latent_scale", "files", "`files` are, of whose training it tells"),
        (reads, "causal_time", "files", "`files` are, of whose training it tells"),
        (reads, "frame_rate", "files", "`files` are, of whose training it tells"),
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
        (!vae, "causal_time", by, of_transformer),
        (!vae, "frame_rate", by, of_transformer),
        (!vae, "recompute", by, of_transformer),
        (!vae, "held_out_every", by, of_transformer),
    ]);
    idle.extend(warmup(stage.lr_schedule, stage.warmup_steps));
    idle
}

/// Whether a parameter does something; its name, the one that decides, and when it would.
type Rule = (bool, &'static str, &'static str, &'static str);

fn of_rules<const N: usize>(rules: [Rule; N]) -> Vec<IdleParam> {
    let idle = rules.into_iter().filter(|(works, ..)| !works);
    idle.map(|(_, param, by, serves)| IdleParam { param, by, serves: serves.to_owned() }).collect()
}
