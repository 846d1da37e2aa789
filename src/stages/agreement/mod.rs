//! What training and sampling must do alike: the multiple of the conditioning image's latent, how time
//! is counted, how prompts are encoded (`text`), and of which models the parts are (`parts`). A mismatch gives wrong colours, broken motion or another
//! picture, and no other sign.
//!
//! A stage states an [`ImageUse`]. A training leaves an [`ImageRecord`] in the log of what it gives; a
//! merge hands on what the records of its adapters agree on. Records are compared where the file holds
//! the trainings, and once more when a stage runs, by the logs.

mod parts;
mod text;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Cause, Caution, Misfit, vae_encode::PosteriorChoice};
use crate::models::{
    ImageConditioning, LoadError, ModelSource, TimeAxis,
    sampling::{ImageLatentScale, ScaleRule, Side},
    source::TRANSFORMER_LOG,
};

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
    /// The multiple: a number, or the rule `paper_mismatch`, which means two; of files also another rule.
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
pub(super) const FOLDER: &str = "folder";
/// What adapters from files are called among those of ports.
pub(super) const FILES: &str = "files";
/// Multiples this close are one number, written with fewer digits.
const SAME: f64 = 1e-3;
/// What the log of a merge says of a rate that nobody knows.
const UNKNOWN: &str = "unknown";
const MEANT: ImageLatentScale = ImageLatentScale::Rule(ScaleRule::PaperMismatch);

impl ImageRecord {
    /// What the log of an adapter, or of a model that adapters were merged into, says of the trainings;
    /// nothing in adapters of other programs.
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

    /// What the log in a model's own folder says, which an export leaves there. A file of that name may be
    /// somebody else's.
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

    /// What all records say, each under its port's name or `files`; where they contradict each other,
    /// no sampling could be right.
    pub fn agreed<'a>(records: impl IntoIterator<Item = (&'a str, Self)>) -> Result<Self, Misfit> {
        let (mut all, mut by) = (Self::default(), [""; 3]);
        for (port, Self { scale, causal_time, frame_rate }) in records {
            match (all.scale, scale) {
                (None, Some(_)) => (all.scale, by[0]) = (scale, port),
                (Some(a), Some(b)) if !is_same(a, b) => {
                    return Err(scales_differ((by[0], a), (port, b)));
                }
                _ => {}
            }
            match (all.causal_time, causal_time) {
                (None, Some(_)) => (all.causal_time, by[1]) = (causal_time, port),
                (Some(a), Some(b)) if a != b => {
                    let (with, without) = if a { (by[1], port) } else { (port, by[1]) };
                    return Err(times_differ(with, without));
                }
                _ => {}
            }
            match (all.frame_rate, frame_rate) {
                (None, Some(_)) => (all.frame_rate, by[2]) = (frame_rate, port),
                (Some(a), Some(b)) if !is_close(a, b) => {
                    return Err(rates_differ((by[2], a), (port, b)));
                }
                _ => {}
            }
        }
        Ok(all)
    }
}

impl ImageUse {
    /// What the log of a training with this use says; without the VAE's `config.json`, a multiple that
    /// it decides is not known.
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

    /// What this use gets wrong with what is on `port` and was trained in another way; `vae` is its
    /// `config.json`.
    pub fn misfit(
        self,
        (port, trained): (&str, ImageRecord),
        conditioning: ImageConditioning,
        vae: &Value,
    ) -> Result<Option<Misfit>, LoadError> {
        let ImageRecord { scale, causal_time, frame_rate } = trained;
        Ok(match conditioning {
            ImageConditioning::Channels => match scale {
                Some(scale) => self.scale_misfit((port, scale), vae)?,
                None => None,
            },
            ImageConditioning::FirstFrame => causal_time
                .and_then(|causal| self.time_misfit(port, causal))
                .or_else(|| self.rate_misfit(port, frame_rate?)),
        })
    }

    fn scale_misfit(
        self,
        (port, trained): (&str, ImageLatentScale),
        vae: &Value,
    ) -> Result<Option<Misfit>, LoadError> {
        if trained == MEANT && self.scale == Some(MEANT) {
            return Ok(None);
        }
        let then = ImageLatentScale::resolve(Some(trained), vae, Side::Training)?;
        let now = ImageLatentScale::resolve(self.scale, vae, self.side)?;
        if is_close(then, now) {
            return Ok(None);
        }
        let help = match port {
            FOLDER => scale_of_folder(trained, then),
            _ => "set the same `image_latent_scale` in both stages, or \"paper_mismatch\" in both where the \
                  mismatch is meant"
                .to_owned(),
        };
        let (now, then, trained) = (shown(now), shown(then), trainee(port));
        Ok(Some(Misfit::new(
            Cause::Param("image_latent_scale"),
            format!(
                "the image's latent is multiplied by {now} here, but by {then} in the training of \
                 {trained}"
            ),
            help,
        )))
    }

    fn time_misfit(self, port: &str, trained_causal: bool) -> Option<Misfit> {
        let trained = trainee(port);
        let (message, help) = match (self.side, trained_causal, self.causal_time) {
            (Side::Sampling, false, true) => (
                format!(
                    "the sampler `flow_condition` counts time from the first video frame, but {trained} \
                     was trained without `causal_time`"
                ),
                "set `causal_time = true` in its training, or sample with `flow_euler`",
            ),
            (Side::Sampling, true, false) => (
                format!(
                    "{trained} was trained with `causal_time`, but this sampler counts time by latent \
                     frames"
                ),
                "set `sampler = \"flow_condition\"`, or take `causal_time` out of its training",
            ),
            (Side::Training, false, true) => (
                format!("`causal_time` is set here, but {trained} was trained without it"),
                "set it in both trainings, or in none",
            ),
            (Side::Training, true, false) => (
                format!("{trained} was trained with `causal_time`, which is not set here"),
                "set it in both trainings, or in none",
            ),
            _ => return None,
        };
        let param = if self.side == Side::Sampling { "sampler" } else { "causal_time" };
        Some(Misfit::new(Cause::Param(param), message, help))
    }
}

impl ImageUse {
    fn rate_misfit(self, port: &str, then: f64) -> Option<Misfit> {
        let now = rate(self.frame_rate);
        (!is_close(now, then)).then(|| {
            let trained = trainee(port);
            let help = match port {
                FOLDER => format!("set `frame_rate = {then}`, as in that training"),
                _ => "set the same `frame_rate` in both stages".to_owned(),
            };
            Misfit::new(
                Cause::Param("frame_rate"),
                format!(
                    "the clips have {now} frames per second here, but {then} in the training of {trained}"
                ),
                help,
            )
        })
    }
}

impl Trainings {
    /// Another latent of the image than in training, which is a small thing: the posteriors are narrow.
    pub fn other_posterior(&self, own: PosteriorChoice) -> Option<Caution> {
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
        Some(Caution { param: Some("posterior"), message })
    }

    /// What may be wrong with sampling from it, and cannot be known.
    pub fn caution(&self, conditioning: ImageConditioning) -> Option<String> {
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

fn is_same(a: ImageLatentScale, b: ImageLatentScale) -> bool {
    match (a, b) {
        (ImageLatentScale::Factor(a), ImageLatentScale::Factor(b)) => is_close(a, b),
        (a, b) => a == b,
    }
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

/// The same where there are several.
fn named(port: &str) -> String {
    match port {
        FILES => "the adapters of `files`".to_owned(),
        MODEL | FOLDER => trainee(port).to_owned(),
        port => format!("the adapter on `{port}`"),
    }
}

fn scales_differ(a: (&str, ImageLatentScale), b: (&str, ImageLatentScale)) -> Misfit {
    let shown = |scale| match scale {
        ImageLatentScale::Factor(multiple) => shown(multiple),
        rule @ ImageLatentScale::Rule(_) => {
            format!("`{}`", json!(rule).as_str().unwrap_or_default())
        }
    };
    let message = format!(
        "the image's latent was multiplied by {} in the training of {}, but by {} in that of {}: no \
         sampling is right for both",
        shown(a.1),
        named(a.0),
        shown(b.1),
        named(b.0)
    );
    let (param, help) = if [a.0, b.0].contains(&FILES) {
        let help = "state as a number what `files` were trained with; if that is another one, they cannot \
                    be merged";
        ("image_latent_scale", help)
    } else {
        ("inputs", "train them with one `image_latent_scale`, or sample with each on its own")
    };
    Misfit::new(Cause::Param(param), message, help)
}

fn times_differ(with: &str, without: &str) -> Misfit {
    let param = if [with, without].contains(&FILES) { "causal_time" } else { "inputs" };
    let (with, without) = (named(with), named(without));
    let message = format!(
        "time was counted from the first video frame in the training of {with}, but by latent frames in \
         that of {without}: no sampling is right for both"
    );
    let help = "train them alike, with `causal_time` or without, or sample with each on its own";
    Misfit::new(Cause::Param(param), message, help)
}

fn rates_differ(a: (&str, f64), b: (&str, f64)) -> Misfit {
    let message = format!(
        "the clips had {} frames per second in the training of {}, but {} in that of {}: no sampling is right \
         for both",
        a.1,
        named(a.0),
        b.1,
        named(b.0)
    );
    let help = "train them with one `frame_rate`, or sample with each on its own";
    Misfit::new(Cause::Param("inputs"), message, help)
}

/// A multiple with four digits, or as a power where it has too many of them.
fn shown(multiple: f64) -> String {
    if multiple == 0.0 || (1e-3..1e6).contains(&multiple.abs()) {
        format!("{multiple:.4}")
    } else {
        format!("{multiple:e}")
    }
}

/// What to set beside the transformer in a model's folder, whose training is over.
fn scale_of_folder(trained: ImageLatentScale, then: f64) -> String {
    // The digits that are shown, unless they are another number.
    let digits = shown(then).parse().ok().filter(|digits| is_close(*digits, then)).unwrap_or(then);
    let same = format!("set `image_latent_scale = {digits}`, as in that training");
    if trained == MEANT {
        return format!(
            "{same}, or \"paper_mismatch\", as it was trained, where the mismatch is meant"
        );
    }
    same
}

/// A multiple for an image that has none of its own, being a frame of the clip.
pub(super) fn scale_of_a_frame(
    scale: Option<ImageLatentScale>,
    conditioning: ImageConditioning,
) -> Option<Misfit> {
    let idle = scale.is_some() && conditioning == ImageConditioning::FirstFrame;
    idle.then(|| {
        Misfit::new(
            Cause::Param("image_latent_scale"),
            "`image_latent_scale` is not for this family of models, whose image is the first frame",
            "leave it out",
        )
    })
}

/// A way to count time that a family does not know.
pub(super) fn time_of_channels(causal: bool, conditioning: ImageConditioning) -> Option<Misfit> {
    let idle = causal && conditioning == ImageConditioning::Channels;
    idle.then(|| {
        Misfit::new(
            Cause::Param("causal_time"),
            "`causal_time` is not for this family of models, which has one way to count time",
            "leave it out",
        )
    })
}

/// Frames per second for a family that counts frames.
pub(super) fn rate_of_channels(
    frame_rate: Option<f64>,
    conditioning: ImageConditioning,
) -> Option<Misfit> {
    let idle = frame_rate.is_some() && conditioning == ImageConditioning::Channels;
    idle.then(|| {
        Misfit::new(
            Cause::Param("frame_rate"),
            "`frame_rate` is not for this family of models, which counts frames and not seconds",
            "leave it out",
        )
    })
}
