//! What training and sampling must do alike: the multiple of the conditioning image's latent, how
//! time is counted, how prompts are encoded (`text`), and of which models the parts are (`parts`).
//! A mismatch gives wrong colours, broken motion or another picture, and no other sign.
//!
//! A stage states an [`ImageUse`], and what that gets wrong is in `image`. A training leaves an
//! [`ImageRecord`] in the log of what it gives; a merge hands on what the records of its adapters
//! agree on (`differ`). Records are compared where the file holds the trainings, and once more when
//! a stage runs, by the logs.

mod differ;
mod image;
mod parts;
mod text;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{super::vae_encode::PosteriorChoice, CheckWarning};
use crate::models::{
    ImageConditioning, ModelSource, TimeAxis,
    sampling::{ImageLatentScale, ScaleRule, Side},
    source::TRANSFORMER_LOG,
};

pub(in crate::stages) use image::{rate_of_channels, scale_of_a_frame, time_of_channels};
pub use parts::{Lineage, Mismatch};
pub(in crate::stages) use text::{TextUse, unlike_lengths, wrong_length};

/// How a stage gives the denoiser its conditioning image and counts time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageUse {
    /// Multiple of the image's latent; by default that of the published pipeline.
    pub scale: Option<ImageLatentScale>,
    /// Whether time is counted from the first video frame.
    pub causal_time: bool,
    /// Video frames per second; by default that of the published pipeline.
    pub frame_rate: Option<f64>,
    /// Whether it samples or trains.
    pub side: Side,
}

/// How the image was given in the trainings behind an adapter or a model, as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ImageRecord {
    /// The multiple: a number, or the rule `paper_mismatch`, which means two; of files also another
    /// rule.
    pub scale: Option<ImageLatentScale>,
    /// Whether time was counted from the first video frame.
    pub causal_time: Option<bool>,
    /// Video frames per second.
    pub frame_rate: Option<f64>,
}

/// What the file tells of the trainings behind what a stage gives.
#[derive(Clone, Debug, Default)]
pub struct Trainings {
    /// How the image was given.
    pub image: ImageRecord,
    /// A stage that takes in adapters of which nobody says the multiple.
    pub without_scale: Option<Arc<str>>,
    /// A stage that takes in adapters of which nobody says how time was counted.
    pub without_time: Option<Arc<str>>,
    /// Which latents of the image they had, and the stage that encoded them.
    pub posterior: Option<(PosteriorChoice, Arc<str>)>,
}

/// The port of a model.
const MODEL: &str = "model";
/// What the transformer of a model that the file names is called among those of ports.
pub(in crate::stages) const FOLDER: &str = "folder";
/// What adapters from files are called among those of ports.
pub(in crate::stages) const FILES: &str = "files";
/// Multiples this close are one number, written with fewer digits.
const SAME: f64 = 1e-3;
/// What the log of a merge says of a rate that nobody knows.
const UNKNOWN: &str = "unknown";
const MEANT: ImageLatentScale = ImageLatentScale::Rule(ScaleRule::PaperMismatch);

impl ImageRecord {
    /// What the log of an adapter, or of a model that adapters were merged into, says of the
    /// trainings; nothing in adapters of other programs.
    pub fn of_log(log: &Value) -> Self {
        let Some(settings) = log.get("settings") else { return Self::default() };
        let stated = settings.get("image_latent_scale").and_then(scale);
        let multiple = log.get("image_latent_scale").and_then(Value::as_f64);
        let multiple = multiple.map(ImageLatentScale::Factor);
        // The log of a training leaves out what is false.
        let causal_time = settings.get("causal_time").map_or(Some(false), Value::as_bool);
        let scale = stated.filter(|s| *s == MEANT).or(multiple).or(stated);
        Self { scale, causal_time, frame_rate: rate_of_log(settings) }
    }

    /// What the log of a model says, that of a full training included; such a training leaves the
    /// multiple to the VAE where none is set.
    pub fn of_model(log: &Value, vae: Option<&Value>) -> Self {
        let Some(settings) = log.get("settings") else { return Self::default() };
        let Some(part) = settings.get("part") else { return Self::of_log(log) };
        if part != "transformer" || settings.get("steps").and_then(Value::as_u64) == Some(0) {
            return Self::default();
        }
        let causal_time = settings.get("causal_time").and_then(Value::as_bool).unwrap_or(false);
        let scale = settings.get("image_latent_scale").and_then(scale);
        let record =
            ImageUse { scale, causal_time, frame_rate: None, side: Side::Training }.record(vae);
        ImageRecord { frame_rate: rate_of_log(settings), ..record }
    }

    /// What the log in a model's own folder says, which an export leaves there. A file of that name
    /// may be somebody else's.
    pub fn of_source(source: &ModelSource, vae: Option<&Value>) -> Self {
        let bytes =
            source.has(TRANSFORMER_LOG).then(|| source.read(TRANSFORMER_LOG).ok()).flatten();
        let log = bytes.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let log = log.filter(|log| log.get("settings").is_some_and(Value::is_object));
        log.map(|log| Self::of_model(&log, vae)).unwrap_or_default()
    }

    /// Adds the record to a log, in the form that [`Self::of_log`] reads.
    pub fn write(self, log: &mut Value) {
        if self == Self::default() {
            return;
        }
        if let Some(ImageLatentScale::Factor(multiple)) = self.scale {
            log["image_latent_scale"] = json!(multiple);
        }
        let frame_rate = self.frame_rate.map_or_else(|| json!(UNKNOWN), |rate| json!(rate));
        log["settings"] = json!({
            "image_latent_scale": self.scale, "causal_time": self.causal_time, "frame_rate": frame_rate,
        });
    }
}

impl ImageUse {
    /// What the log of a training with this use says; without the VAE's `config.json`, a multiple
    /// that it decides is not known.
    pub fn record(self, vae: Option<&Value>) -> ImageRecord {
        let scale = match self.scale {
            Some(stated) if stated == MEANT => Some(stated),
            Some(ImageLatentScale::Factor(_)) => self.scale,
            rule => vae
                .and_then(|vae| ImageLatentScale::resolve(rule, vae, Side::Training).ok())
                .map(ImageLatentScale::Factor),
        };
        ImageRecord {
            scale,
            causal_time: Some(self.causal_time),
            frame_rate: Some(rate(self.frame_rate)),
        }
    }
}

impl Trainings {
    /// Another latent of the image than in training, which is a small thing: the posteriors are
    /// narrow.
    pub fn other_posterior(&self, own: PosteriorChoice) -> Option<CheckWarning> {
        let (then, stage) = self.posterior.as_ref().filter(|(then, _)| *then != own)?;
        let shown = |choice| match choice {
            PosteriorChoice::Sample => ("a draw from", "sample"),
            PosteriorChoice::Mean => ("the mean of", "mean"),
        };
        let ((then, name), (now, _)) = (shown(*then), shown(own));
        let message = format!(
            "takes {now} the posterior for the image's latent, but training had {then} it, from `{stage}`; for \
             the same, set `posterior = \"{name}\"`"
        );
        Some(CheckWarning { param: Some("posterior"), message })
    }

    /// What may be wrong with sampling from it, and cannot be known.
    pub fn warning(&self, conditioning: ImageConditioning) -> Option<String> {
        let (stage, param, harm) = match conditioning {
            ImageConditioning::Channels => {
                (self.without_scale.as_ref()?, "image_latent_scale", "wrong colours")
            }
            ImageConditioning::FirstFrame => {
                (self.without_time.as_ref()?, "causal_time", "broken motion")
            }
        };
        Some(format!(
            "samples with adapters of `files` whose training is not known: {harm} would be the only sign \
             of a mismatch; state `{param}` in `{stage}`, as it was in their training"
        ))
    }
}

/// The rate that a stage means.
fn rate(stated: Option<f64>) -> f64 {
    TimeAxis::new(false, stated).frame_rate
}

/// The rate in a log, which leaves out that of the published pipeline.
fn rate_of_log(settings: &Value) -> Option<f64> {
    match settings.get("frame_rate") {
        None | Some(Value::Null) => Some(rate(None)),
        Some(stated) => stated.as_f64(),
    }
}

fn scale(value: &Value) -> Option<ImageLatentScale> {
    ImageLatentScale::deserialize(value).ok()
}

fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() <= SAME * a.abs()
}

/// What is on a port, as messages name it where it is the only one.
fn trainee(port: &str) -> &'static str {
    match port {
        MODEL => "the model on `model`",
        FOLDER => "the transformer in the model's folder",
        _ => "the adapter",
    }
}

/// A multiple with four digits, or as a power where it has too many of them.
fn shown(multiple: f64) -> String {
    if multiple == 0.0 || (1e-3..1e6).contains(&multiple.abs()) {
        format!("{multiple:.4}")
    } else {
        format!("{multiple:e}")
    }
}
