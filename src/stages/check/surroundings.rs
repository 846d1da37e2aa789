//! What is known of a stage's place in its pipeline before anything runs: what it will be given, by
//! whom, and of which models and data.

use std::rc::Rc;

use super::{
    Cause, CheckError, KnownData, KnownModels, Lineage, ModelParts, Trainings,
    agreement::{TextUse, unlike_lengths, wrong_length},
    model_facts::Facts,
};
use crate::{
    data::tasks::has_target,
    models::{Denoiser, ModelRef, TextFormat, VideoDiffusion},
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
    pub ports: Vec<&'a str>,
    /// The ports whose number of items is known.
    pub items: Vec<(&'a str, usize)>,
    /// The ports with predictions of which it is known with how many adapters they are made.
    pub checkpoints: Vec<(&'a str, usize)>,
    /// What the pairs on its ports are examples of, and the stages that give them.
    pub tasks: Vec<(&'a str, (&'static str, &'a str))>,
    /// Whether it is to run, so that what it would only make nonsense of is wrong.
    pub is_to_run: bool,
    /// Its own name.
    pub stage: &'a str,
    /// Its place among the stages of the pipeline.
    pub index: usize,
    /// The place of the first stage that makes the same of the same.
    pub twin: usize,
    /// The parts of models behind what is on its ports, where they are known.
    pub lineages: Vec<(&'a str, Rc<Lineage>)>,
    /// The ports with adapters and models, and what is known of the trainings behind them.
    pub trained: Vec<(&'a str, Rc<Trainings>)>,
    /// How the prompts on its ports are encoded, where that is known.
    pub texts: Vec<(&'a str, EncodedText)>,
    /// What is on the port `model`, if that is known.
    pub parts: Option<&'a ModelParts>,
    /// The models of the pipeline.
    pub models: &'a KnownModels,
    /// Its data.
    pub data: &'a KnownData,
}

impl Surroundings<'_> {
    /// What is known of a stage's model, parts on the port `model` included.
    pub(in crate::stages) fn model<'m>(
        &self,
        model: impl Into<Option<&'m ModelRef>>,
    ) -> Option<Rc<Facts>> {
        self.models.facts(model, self.parts?)
    }

    /// What the pairs on a port are examples of, and the stage that gives them.
    pub(in crate::stages) fn task(&self, port: &str) -> Option<(&'static str, &str)> {
        self.tasks.iter().find(|(of, _)| *of == port).map(|(_, task)| *task)
    }

    /// Pairs on these ports that a stage which is to run would compare with, but that have no
    /// targets.
    pub(in crate::stages) fn without_target(&self, ports: &[&str]) -> Option<CheckError> {
        let tasks = ports.iter().filter_map(|port| self.task(port));
        let (task, stage) = tasks.filter(|_| self.is_to_run).find(|(task, _)| !has_target(task))?;
        Some(CheckError::new(
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
    pub(in crate::stages) fn trained_on(&self, port: &str) -> Trainings {
        let known = self.trained.iter().find(|(of, _)| *of == port);
        known.map(|(_, trained)| (**trained).clone()).unwrap_or_default()
    }

    /// Prompts that are encoded in another way than their use asks for. A use that the family does
    /// not know is told of elsewhere.
    pub(in crate::stages) fn check_text(
        &self,
        user: TextUse,
        family: Option<&dyn VideoDiffusion>,
    ) -> Vec<CheckError> {
        if family.is_some_and(|family| !family.text_formats().contains(&user.format())) {
            return Vec::new();
        }
        self.texts.iter().filter_map(|(port, found)| user.check(port, found.format)).collect()
    }

    /// Prompts of a length that the denoiser does not take; or, with guidance, of two that it
    /// cannot have side by side.
    pub(in crate::stages) fn check_text_length(
        &self,
        denoiser: &dyn Denoiser,
        guided: bool,
    ) -> Vec<CheckError> {
        let tokens = |port: &str| self.texts.iter().find(|(of, _)| *of == port)?.1.tokens;
        let ports: &[&'static str] = if guided { &["text", "negative"] } else { &["text"] };
        let wrong = |port: &&'static str| wrong_length(port, tokens(port)?, denoiser);
        let errors: Vec<_> = ports.iter().filter_map(wrong).collect();
        if !errors.is_empty() || !guided {
            return errors;
        }
        let unlike = || unlike_lengths(tokens("text")?, tokens("negative")?);
        unlike().into_iter().collect()
    }

    /// Whether a port is connected.
    pub fn has(&self, port: &str) -> bool {
        self.ports.contains(&port)
    }
}
