//! What would make a stage need less memory, computed and not guessed.

use std::sync::Arc;

use crate::{
    models::{ClipSize, Memory},
    stages::{Lighter, Stage, Workload},
    units::bytes,
};

/// Clips are not made shorter than this, and their sides are multiples of it, which all families
/// take.
const FEWEST_FRAMES: usize = 9;
const SIDE: usize = 32;
/// Nobody who asks for a clip can use one with less than such a part of its frames, or of its
/// pixels.
const LEAST_PART: usize = 4;

/// Of what there is too little memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The device.
    Device,
    /// The machine beside a GPU.
    Machine,
}

impl Whose {
    fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Machine => "machine",
        }
    }
}

/// A stage that needs more memory than there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// What it needs and what there is; said behind the stage's name.
    pub message: String,
    /// What would help.
    pub help: String,
}

impl TooLarge {
    /// A stage that needs so much of a device or a machine that has `limit`.
    pub(super) fn new(
        needed: &Memory,
        limit: u64,
        whose: Whose,
        advice: Option<&Advice<'_>>,
    ) -> Self {
        let has = bytes(limit);
        let needs = needed.total();
        let larger = || larger(whose, needs);
        let help = advice.map_or_else(larger, |advice| advice.for_limit(limit, needs));
        let help = help + &of_clips(needed);
        let whose = whose.name();
        Self { message: format!("needs about {needed}, but the {whose} has {has}"), help }
    }
}

fn larger(whose: Whose, needs: u64) -> String {
    format!("take a smaller model, or a {} with {}", whose.name(), bytes(needs))
}

/// What makes the clips smaller that a stage holds, where they are most of what it needs.
fn of_clips(needed: &Memory) -> String {
    if needed.clips <= needed.total() / 2 {
        return String::new();
    }
    format!(
        "; {} are encoded clips, of which fewer, or a smaller `image_latent_pool`, need less",
        bytes(needed.clips)
    )
}

/// A change, and what the stage needs with it.
#[derive(Clone, Debug)]
struct Change {
    param: &'static str,
    advice: String,
    needs: u64,
}

/// A stage and its clips as they would be.
#[derive(Clone)]
struct Changed {
    stage: Arc<dyn Stage>,
    clip: Option<ClipSize>,
}

/// What can be changed of a stage.
pub struct Advice<'a> {
    work: Workload<'a>,
    start: Changed,
    whose: Whose,
}

impl<'a> Advice<'a> {
    pub(super) fn new(stage: &Arc<dyn Stage>, work: Workload<'a>) -> Self {
        let start = Changed { stage: Arc::clone(stage), clip: work.clip };
        Self { work, start, whose: Whose::Device }
    }

    /// What would make it need less of the machine beside a GPU.
    pub(super) fn beside_gpu(self) -> Self {
        Self { whose: Whose::Machine, ..self }
    }

    /// What would need less, where it is not known how much there is.
    pub fn list(&self) -> Vec<String> {
        self.alone(0).iter().map(told).collect()
    }

    /// What each change would bring, and which of them is enough, alone or with others.
    fn for_limit(&self, limit: u64, now: u64) -> String {
        let (enough, short): (Vec<_>, Vec<_>) =
            self.alone(limit).into_iter().partition(|change| change.needs <= limit);
        let rest = match &short[..] {
            [] => String::new(),
            short => format!("; not enough alone: {}", all_told(short, ", ")),
        };
        match &enough[..] {
            [] if short.is_empty() => {
                format!("no setting of the stage makes it need less: {}", larger(self.whose, now))
            }
            [] => self.for_limit_together(limit) + &rest,
            [one] => format!("{}, which is enough{rest}", told(one)),
            several => format!("each of these is enough: {}{rest}", all_told(several, "; or ")),
        }
    }

    fn for_limit_together(&self, limit: u64) -> String {
        let changes = self.together(limit);
        let advice: Vec<_> = changes.iter().map(|change| change.advice.as_str()).collect();
        let needs = changes.iter().map(|change| change.needs).min().unwrap_or_default();
        let (all, needs) = (advice.join(" and "), bytes(needs));
        if changes.last().is_some_and(|change| change.needs <= limit) {
            return format!("{all}: together they need {needs}, which is enough");
        }
        format!(
            "nothing that leaves the stage of use is enough: {needs} is the least, by all of this: {all}; \
             take a smaller model, or a {} with as much",
            self.whose.name()
        )
    }

    /// Each change alone, as far as it must go for `limit`, or can.
    fn alone(&self, limit: u64) -> Vec<Change> {
        let Some(now) = self.needs(&self.start) else { return Vec::new() };
        let first = self.steps(&self.start, now);
        let as_far = first.into_iter().map(|(mut change, mut changed)| {
            while change.needs > limit {
                let steps = self.steps(&changed, change.needs);
                let next = steps.into_iter().find(|(next, _)| next.param == change.param);
                let Some(next) = next else { break };
                (change, changed) = next;
            }
            change
        });
        as_far.collect()
    }

    /// Changes one after the other, each time that which brings most, until it is enough or nothing
    /// is left to change. Clips are changed last: settings of a stage make the same of them.
    fn together(&self, limit: u64) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        let (mut changed, Some(mut now)) = (self.start.clone(), self.needs(&self.start)) else {
            return changes;
        };
        while now > limit {
            let steps = self.steps(&changed, now);
            let best = steps.into_iter().min_by_key(|(step, _)| (is_of_clips(step), step.needs));
            let Some((change, next)) = best else { break };
            changes.retain(|earlier| earlier.param != change.param);
            (now, changed) = (change.needs, next);
            changes.push(change);
        }
        changes
    }

    fn needs(&self, changed: &Changed) -> Option<u64> {
        let work = Workload { clip: changed.clip, ..self.work };
        let memory = match self.whose {
            Whose::Device => changed.stage.memory(&work),
            Whose::Machine => changed.stage.host_memory(&work),
        };
        memory.ok().flatten().map(|memory| memory.total())
    }

    /// All that can be changed one step further and makes it need less than `now`.
    fn steps(&self, from: &Changed, now: u64) -> Vec<(Change, Changed)> {
        let work = Workload { clip: from.clip, ..self.work };
        let of_stage =
            from.stage.lighter(&work).into_iter().map(|Lighter { param, advice, stage }| {
                (param, advice, Changed { stage, clip: from.clip })
            });
        let clips = from.clip.zip(self.start.clip).into_iter();
        let clips = clips.flat_map(|(clip, asked)| smaller(clip, asked));
        let of_clips = clips.map(|(param, advice, clip)| {
            (param, advice, Changed { stage: Arc::clone(&from.stage), clip: Some(clip) })
        });
        let steps = of_stage.chain(of_clips).filter_map(|(param, advice, changed)| {
            let needs = self.needs(&changed).filter(|needs| *needs < now)?;
            Some((Change { param, advice, needs }, changed))
        });
        steps.collect()
    }
}

const FRAMES: &str = "frames";
const SIZE: &str = "size";

fn is_of_clips(change: &Change) -> bool {
    [FRAMES, SIZE].contains(&change.param)
}

/// The clip with fewer frames, and with smaller ones, as far as that is of use to who asked for
/// another.
fn smaller(clip: ClipSize, asked: ClipSize) -> Vec<(&'static str, String, ClipSize)> {
    let ClipSize { frames, height, width } = clip;
    let mut smaller = Vec::new();
    // One more than a multiple of eight is taken by all families.
    let fewer = frames.saturating_sub(2) / 8 * 8 + 1;
    let least = FEWEST_FRAMES.max(asked.frames.div_ceil(LEAST_PART));
    if (least..frames).contains(&fewer) {
        let clip = ClipSize { frames: fewer, ..clip };
        smaller.push((FRAMES, format!("take clips of {fewer} frames"), clip));
    }
    let half = |side: usize| side.div_ceil(2).next_multiple_of(SIDE).min(side);
    let before = height * width;
    let (height, width) = (half(height), half(width));
    let least = (asked.height * asked.width).div_ceil(LEAST_PART);
    if (least..before).contains(&(height * width)) {
        let advice = format!("take clips of height {height} and width {width}");
        smaller.push((SIZE, advice, ClipSize { height, width, ..clip }));
    }
    smaller
}

/// ``set `rank = 8` (1.2 GiB)``.
fn told(change: &Change) -> String {
    format!("{} ({})", change.advice, bytes(change.needs))
}

fn all_told(changes: &[Change], between: &str) -> String {
    changes.iter().map(told).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        models::{Given, ModelRef},
        stages::{Decode, LoraTrain, ModelParts, Pretrain, StageKind},
    };

    const CLIP: ClipSize = ClipSize { frames: 17, height: 128, width: 128 };

    fn stage<S: StageKind>(params: serde_json::Value) -> Arc<dyn Stage> {
        Arc::new(serde_json::from_value::<S>(params).unwrap())
    }

    fn lora(more: &serde_json::Value) -> Arc<dyn Stage> {
        let mut params = json!({
            "model": "builtin:tiny", "rank": 64, "batch_size": 4, "steps": 1, "recompute": "none",
        });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        stage::<LoraTrain>(params)
    }

    /// The advice where there is a share of what the stage needs.
    fn told_at(stage: &Arc<dyn Stage>, share: f64) -> String {
        let parts = ModelParts::default();
        let work = Workload {
            clip: Some(CLIP),
            on_host: true,
            parts: &parts,
            encoder: None,
            given: Given::default(),
        };
        let needed = stage.memory(&work).unwrap().unwrap();
        let limit = (needed.total() as f64 * share) as u64;
        let advice = Advice::new(stage, work);
        let TooLarge { message, help } =
            TooLarge::new(&needed, limit, Whose::Device, Some(&advice));
        format!("{message}\n{help}")
    }

    #[test]
    fn advice_says_what_each_change_brings_and_which_is_enough() {
        let training = lora(&json!({}));
        insta::assert_snapshot!(told_at(&training, 0.9), @r#"
        needs about 549.7 MiB of memory (weights 17.7 MiB, trained 20.2 MiB, activations 263.7 MiB, attention 248.1 MiB), but the device has 494.7 MiB
        each of these is enough: set `recompute = 2` (428.7 MiB); or set `batch_size = 2` and `gradient_accumulation = 2`, which makes steps of the same kind (293.8 MiB); or take clips of 9 frames (326.0 MiB); or take clips of height 64 and width 64 (122.4 MiB); not enough alone: set `rank = 4` (530.7 MiB)
        "#);
        insta::assert_snapshot!(told_at(&training, 0.4), @r#"
        needs about 549.7 MiB of memory (weights 17.7 MiB, trained 20.2 MiB, activations 263.7 MiB, attention 248.1 MiB), but the device has 219.9 MiB
        each of these is enough: set `batch_size = 1` and `gradient_accumulation = 4`, which makes steps of the same kind (165.9 MiB); or take clips of height 64 and width 64 (122.4 MiB); not enough alone: set `recompute = "block"` (245.9 MiB), set `rank = 4` (530.7 MiB), take clips of 9 frames (326.0 MiB)
        "#);
        insta::assert_snapshot!(told_at(&training, 0.15), @r#"
        needs about 549.7 MiB of memory (weights 17.7 MiB, trained 20.2 MiB, activations 263.7 MiB, attention 248.1 MiB), but the device has 82.5 MiB
        set `batch_size = 1` and `gradient_accumulation = 4`, which makes steps of the same kind and set `recompute = "block"` and set `rank = 32`: together they need 79.8 MiB, which is enough; not enough alone: set `recompute = "block"` (245.9 MiB), set `batch_size = 1` and `gradient_accumulation = 4`, which makes steps of the same kind (165.9 MiB), set `rank = 4` (530.7 MiB), take clips of 9 frames (326.0 MiB), take clips of height 64 and width 64 (122.4 MiB)
        "#);
        insta::assert_snapshot!(told_at(&training, 0.001), @r#"
        needs about 549.7 MiB of memory (weights 17.7 MiB, trained 20.2 MiB, activations 263.7 MiB, attention 248.1 MiB), but the device has 562.9 KiB
        nothing that leaves the stage of use is enough: 24.1 MiB is the least, by all of this: set `batch_size = 1` and `gradient_accumulation = 4`, which makes steps of the same kind and set `recompute = "block"` and set `rank = 4` and take clips of height 64 and width 64 and take clips of 9 frames; take a smaller model, or a device with as much; not enough alone: set `recompute = "block"` (245.9 MiB), set `batch_size = 1` and `gradient_accumulation = 4`, which makes steps of the same kind (165.9 MiB), set `rank = 4` (530.7 MiB), take clips of 9 frames (326.0 MiB), take clips of height 64 and width 64 (122.4 MiB)
        "#);
    }

    #[test]
    fn what_is_set_already_or_brings_nothing_is_no_advice() {
        let least = lora(&json!({ "batch_size": 1, "recompute": "block", "rank": 1 }));
        insta::assert_snapshot!(told_at(&least, 0.5), @"
        needs about 70.0 MiB of memory (weights 17.7 MiB, trained 324.0 KiB, activations 24.4 MiB, attention 27.6 MiB), but the device has 35.0 MiB
        take clips of height 64 and width 64 (26.1 MiB), which is enough; not enough alone: take clips of 9 frames (46.7 MiB)
        ");
        let decode = stage::<Decode>(json!({ "model": "builtin:tiny", "tiling": true }));
        insta::assert_snapshot!(told_at(&decode, 0.7), @"
        needs about 20.2 MiB of memory (weights 7.0 MiB, activations 13.1 MiB), but the device has 14.1 MiB
        nothing that leaves the stage of use is enough: 14.6 MiB is the least, by all of this: take clips of height 64 and width 64 and take clips of 9 frames; take a smaller model, or a device with as much; not enough alone: take clips of 9 frames (17.2 MiB), take clips of height 64 and width 64 (15.4 MiB)
        ");
        let vae = stage::<Pretrain>(json!({ "part": "vae", "steps": 1, "like": "builtin:tiny" }));
        insta::assert_snapshot!(told_at(&vae, 0.3), @"
        needs about 711.4 MiB of memory (trained 63.4 MiB, activations 648.0 MiB), but the device has 213.4 MiB
        set `crop = [32, 32]` (103.9 MiB), which is enough; not enough alone: set `batch_size = 1` (387.4 MiB), take clips of height 64 and width 64 (225.4 MiB)
        ");
    }

    #[test]
    fn without_a_limit_changes_go_as_far_as_they_can() {
        let parts = ModelParts::default();
        let work = Workload {
            clip: Some(CLIP),
            on_host: true,
            parts: &parts,
            encoder: None,
            given: Given::default(),
        };
        let list = Advice::new(&lora(&json!({})), work).list();
        insta::assert_snapshot!(list.join("\n"), @r#"
        set `recompute = "block"` (245.9 MiB)
        set `batch_size = 1` and `gradient_accumulation = 4`, which makes steps of the same kind (165.9 MiB)
        set `rank = 4` (530.7 MiB)
        take clips of 9 frames (326.0 MiB)
        take clips of height 64 and width 64 (122.4 MiB)
        "#);
        let encode = json!({ "model": ModelRef("builtin:tiny".into()), "prompt": "a" });
        let text = stage::<crate::stages::TextEncode>(encode);
        assert!(Advice::new(&text, work).list().is_empty());
    }

    #[test]
    fn too_little_of_the_machine_beside_a_gpu_is_advised_by_what_is_held_there() {
        let training = lora(&json!({ "rank": 4096 }));
        let parts = ModelParts::default();
        let work = Workload {
            clip: Some(CLIP),
            on_host: false,
            parts: &parts,
            encoder: None,
            given: Given::default(),
        };
        let needed = training.host_memory(&work).unwrap().unwrap();
        let told = |limit: u64| {
            let advice = Advice::new(&training, work).beside_gpu();
            let TooLarge { message, help } =
                TooLarge::new(&needed, limit, Whose::Machine, Some(&advice));
            assert!(message.contains("but the machine has "), "{message}");
            help
        };
        let help = told(needed.total() / 3);
        assert!(help.starts_with("set `rank = 1024` ("), "neither batch nor blocks: {help}");
        assert!(help.ends_with("), which is enough"), "{help}");
        let help = told(1);
        assert!(help.contains("is the least, by all of this: set `rank = "), "{help}");
        assert!(help.contains("take a smaller model, or a machine with as much"), "{help}");
    }
}
