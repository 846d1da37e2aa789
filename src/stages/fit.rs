//! Whether a stage can take what it will be given, told before anything runs.
//!
//! Sizes are known from parameters, and what a model takes from its configuration, so both are
//! compared when the file is read, not after the work of all stages before.

use std::rc::Rc;

use super::{
    KnownData, KnownModels, Lineage, ModelParts, StageError, Trainings,
    agreement::{TextUse, unlike_lengths, wrong_length},
    model_facts::Facts,
};
use crate::{
    data::tasks::has_target,
    models::{Compression, Denoiser, ModelRef, TextFormat, VideoDiffusion, one_of},
};

/// Frames and `[height, width]` of a stage's items, as far as parameters tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemSize {
    /// Frames of a clip.
    pub frames: Option<usize>,
    /// Height and width.
    pub image: Option<[usize; 2]>,
}

/// What a stage's own parameters say of its items' size, each with the parameter's name.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnSize {
    /// Frames of a clip.
    pub frames: Option<(&'static str, usize)>,
    /// Height and width.
    pub image: Option<(&'static str, [usize; 2])>,
}

/// How a prompt is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedText {
    /// The pipeline in whose way it is.
    pub format: TextFormat,
    /// Its tokens, where they are the same for all prompts since padding is kept.
    pub tokens: Option<usize>,
}

/// What a stage stands beside in its pipeline.
pub struct Surroundings<'a> {
    /// The size of the items it reads, or makes by its own parameters.
    pub size: ItemSize,
    /// The ports that are connected.
    pub ports: &'a [&'a str],
    /// The ports whose number of items is known.
    pub items: &'a [(&'a str, usize)],
    /// The ports with predictions of which it is known with how many adapters they are made.
    pub checkpoints: &'a [(&'a str, usize)],
    /// What the pairs on its ports are examples of, and the stages that give them.
    pub tasks: &'a [(&'a str, (&'static str, &'a str))],
    /// Whether it is to run, so that what it would only make nonsense of is wrong.
    pub is_to_run: bool,
    /// Its own name.
    pub stage: &'a str,
    /// Its place among the stages of the pipeline.
    pub index: usize,
    /// The place of the first stage that makes the same of the same.
    pub twin: usize,
    /// The parts of models behind what is on its ports, where they are known.
    pub lineages: &'a [(&'a str, Rc<Lineage>)],
    /// The ports with adapters and models, and what is known of the trainings behind them.
    pub trained: &'a [(&'a str, Rc<Trainings>)],
    /// How the prompts on its ports are encoded, where that is known.
    pub texts: &'a [(&'a str, EncodedText)],
    /// What is on the port `model`, if that is known.
    pub parts: Option<&'a ModelParts>,
    /// The models of the pipeline.
    pub models: &'a KnownModels,
    /// Its data.
    pub data: &'a KnownData,
}

impl Surroundings<'_> {
    /// What is known of a stage's model, parts on the port `model` included.
    pub(super) fn model<'m>(&self, model: impl Into<Option<&'m ModelRef>>) -> Option<Rc<Facts>> {
        self.models.facts(model, self.parts?)
    }

    /// What the pairs on a port are examples of, and the stage that gives them.
    pub(super) fn task(&self, port: &str) -> Option<(&'static str, &str)> {
        self.tasks.iter().find(|(of, _)| *of == port).map(|(_, task)| *task)
    }

    /// Pairs on these ports that a stage which is to run would compare with, but that have no targets.
    pub(super) fn without_target(&self, ports: &[&str]) -> Option<Misfit> {
        let tasks = ports.iter().filter_map(|port| self.task(port));
        let (task, stage) = tasks.filter(|_| self.is_to_run).find(|(task, _)| !has_target(task))?;
        Some(Misfit::new(
            Cause::Param("inputs"),
            format!(
                "the pairs of `{stage}` have no targets to compare with: with `task = \"{task}\"`, the target \
                 is the picture itself"
            ),
            "give them a task with targets, such as `pairs`, or make targets of them by a stage of kind \
             `transform`; answers alone are made by `pipe run` with `--only` and the stage that gives them",
        ))
    }

    /// What is known of the trainings behind what is on a port.
    pub(super) fn trained_on(&self, port: &str) -> Trainings {
        let known = self.trained.iter().find(|(of, _)| *of == port);
        known.map(|(_, trained)| (**trained).clone()).unwrap_or_default()
    }

    /// Prompts that are encoded in another way than their use asks for. A use that the family does not
    /// know is told of elsewhere.
    pub(super) fn misfits_of_text(
        &self,
        user: TextUse,
        family: Option<&dyn VideoDiffusion>,
    ) -> Vec<Misfit> {
        if family.is_some_and(|family| !family.text_formats().contains(&user.format())) {
            return Vec::new();
        }
        self.texts.iter().filter_map(|(port, found)| user.misfit(port, found.format)).collect()
    }

    /// Prompts of a length that the denoiser does not take; or, with guidance, of two that it cannot have side by side.
    pub(super) fn misfits_of_length(&self, denoiser: &dyn Denoiser, guided: bool) -> Vec<Misfit> {
        let tokens = |port: &str| self.texts.iter().find(|(of, _)| *of == port)?.1.tokens;
        let ports: &[&'static str] = if guided { &["text", "negative"] } else { &["text"] };
        let wrong = |port: &&'static str| wrong_length(port, tokens(port)?, denoiser);
        let misfits: Vec<_> = ports.iter().filter_map(wrong).collect();
        if !misfits.is_empty() || !guided {
            return misfits;
        }
        let unlike = || unlike_lengths(tokens("text")?, tokens("negative")?);
        unlike().into_iter().collect()
    }

    /// Whether a port is connected.
    pub fn has(&self, port: &str) -> bool {
        self.ports.contains(&port)
    }
}

/// What a misfit is caused by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A parameter of the stage itself.
    Param(&'static str),
    /// The length of the prompts on these ports, which the stages say that encode them.
    Prompts(&'static [&'static str]),
    /// The number of frames, whoever gives it.
    Frames,
    /// Height and width, whoever gives them.
    Image,
}

/// Something that a stage cannot take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Where to look.
    pub cause: Cause,
    /// What was wanted and what was found.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Misfit {
    pub(super) fn new(cause: Cause, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { cause, message: message.into(), help: Some(help.into()) }
    }
}

impl From<Misfit> for StageError {
    /// For what shows only when the stage runs.
    fn from(Misfit { message, help, .. }: Misfit) -> Self {
        Self::Failed { message, item: None, help }
    }
}

/// Refuses the first of what does not fit, in a stage that runs.
pub(super) fn refuse(misfits: impl IntoIterator<Item = Misfit>) -> Result<(), StageError> {
    misfits.into_iter().next().map_or(Ok(()), |misfit| Err(misfit.into()))
}

/// What may not be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caution {
    /// The parameter where to look, if it is one.
    pub param: Option<&'static str>,
    /// What is said behind the stage's name.
    pub message: String,
}

impl From<String> for Caution {
    fn from(message: String) -> Self {
        Self { param: None, message }
    }
}

/// A parameter that does nothing beside another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleParam {
    /// Its path, such as `warmup_steps` or `source.set`.
    pub param: &'static str,
    /// The parameter that makes it so.
    pub by: &'static str,
    /// When it would do something.
    pub serves: String,
}

/// Pieces or tiles per side that are more than an image has pixels: those of no pixel would be none.
pub(super) fn grid_in(grid: usize, [height, width]: [usize; 2]) -> Option<Misfit> {
    let (side, found) = if height <= width { ("height", height) } else { ("width", width) };
    (grid > found).then(|| {
        Misfit::new(
            Cause::Param("grid"),
            format!("`grid` divides a side into {grid}, but the {side} has only {found} pixels"),
            format!("take {found} at most, or larger images"),
        )
    })
}

/// The sides of an image, in the order of `[height, width]`.
pub(super) const SIDES: [&str; 2] = ["height", "width"];

/// What of a size has no whole latents.
pub(super) fn pixels(size: ItemSize, compression: Compression) -> Vec<Misfit> {
    pixels_where(size, compression, &|_, _| true)
}

/// The same, where `takes` says of a side in an image of whole latents whether something else takes it: other ones
/// are not advised, if there are any near.
pub(super) fn pixels_where(
    size: ItemSize,
    compression: Compression,
    takes: &dyn Fn(usize, [usize; 2]) -> bool,
) -> Vec<Misfit> {
    let Compression { time, space } = compression;
    let mut misfits = Vec::new();
    let mut image = size.image.unwrap_or([space; 2]);
    for (side, what) in SIDES.into_iter().enumerate() {
        let found = image[side];
        if found != 0 && found.is_multiple_of(space) {
            continue;
        }
        let takes = |value: usize| {
            let mut image = image;
            image[side] = value;
            takes(side, image)
        };
        let nearest = match near(found, space, takes) {
            [None, None] => near(found, space, |_| true),
            nearest => nearest,
        };
        let advice: Vec<_> = nearest.iter().flatten().map(usize::to_string).collect();
        let rule = match step_of(space, takes) {
            Some(step) => format!(
                "a multiple of {step} pixels for the model's transformer, of {space} for its autoencoder"
            ),
            None => format!("a multiple of {space} pixels"),
        };
        misfits.push(Misfit::new(
            Cause::Image,
            format!("{what} must be {rule}, but is {found}"),
            format!("take {}", advice.join(" or ")),
        ));
        // The other side is looked at beside one that fits.
        image[side] = nearest.into_iter().flatten().next().unwrap_or(found);
    }
    let wrong = |frames: &usize| *frames == 0 || !(frames - 1).is_multiple_of(time);
    if let Some(frames) = size.frames.filter(wrong) {
        let below = frames.saturating_sub(1) / time * time + 1;
        let nearest = if frames == 0 { "1".into() } else { format!("{below} or {}", below + time) };
        misfits.push(Misfit::new(
            Cause::Frames,
            format!("the number of frames must be {time}k + 1, but is {frames}"),
            format!("take {nearest} frames"),
        ));
    }
    misfits
}

/// The step of what is taken of the multiples of `space`, if those are the multiples of a larger number.
fn step_of(space: usize, takes: impl Fn(usize) -> bool) -> Option<usize> {
    /// Patches are of a few latents; what begins later is a limit.
    const MOST: usize = 16;
    let patch = (2..=MOST).find(|n| takes(n * space)).filter(|_| !takes(space))?;
    let follows = |n: usize| takes(n * space) == n.is_multiple_of(patch);
    (patch..=3 * patch).all(follows).then_some(patch * space)
}

/// The nearest multiples of `step` below and above that something takes, a few steps away at most.
fn near(found: usize, step: usize, takes: impl Fn(usize) -> bool) -> [Option<usize>; 2] {
    const FAR: usize = 4096;
    let below = (1..=found / step).rev().take(FAR).map(|n| n * step).find(|value| takes(*value));
    let first = found / step + 1;
    [below, (first..first + FAR).map(|n| n * step).find(|value| takes(*value))]
}

/// A choice that the model's family does not know.
pub(super) fn not_known<T: Copy + PartialEq + serde::Serialize>(
    param: &'static str,
    asked: Option<T>,
    known: &[T],
) -> Option<Misfit> {
    let error = one_of(param, asked, known).err()?;
    let help = error.help().map(str::to_owned);
    Some(Misfit { cause: Cause::Param(param), message: error.to_string(), help })
}
