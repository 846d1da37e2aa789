//! What a stage gets wrong with what was trained in another way, or with its family of models.

use serde_json::Value;

use super::{
    super::{Cause, CheckError},
    FOLDER, ImageRecord, ImageUse, MEANT, is_close, rate, shown, trainee,
};
use crate::models::{
    ImageConditioning, LoadError,
    sampling::{ImageLatentScale, Side},
};

impl ImageUse {
    /// What this use gets wrong with what is on `port` and was trained in another way; `vae` is its
    /// `config.json`.
    pub fn check(
        self,
        (port, trained): (&str, ImageRecord),
        conditioning: ImageConditioning,
        vae: &Value,
    ) -> Result<Option<CheckError>, LoadError> {
        let ImageRecord { scale, causal_time, frame_rate } = trained;
        Ok(match conditioning {
            ImageConditioning::Channels => match scale {
                Some(scale) => self.check_scale((port, scale), vae)?,
                None => None,
            },
            ImageConditioning::FirstFrame => causal_time
                .and_then(|causal| self.check_time(port, causal))
                .or_else(|| self.check_rate(port, frame_rate?)),
        })
    }

    fn check_scale(
        self,
        (port, trained): (&str, ImageLatentScale),
        vae: &Value,
    ) -> Result<Option<CheckError>, LoadError> {
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
        Ok(Some(CheckError::new(
            Cause::Param("image_latent_scale"),
            format!(
                "the image's latent is multiplied by {now} here, but by {then} in the training of \
                 {trained}"
            ),
            help,
        )))
    }

    fn check_time(self, port: &str, trained_causal: bool) -> Option<CheckError> {
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
        Some(CheckError::new(Cause::Param(param), message, help))
    }

    fn check_rate(self, port: &str, then: f64) -> Option<CheckError> {
        let now = rate(self.frame_rate);
        (!is_close(now, then)).then(|| {
            let trained = trainee(port);
            let help = match port {
                FOLDER => format!("set `frame_rate = {then}`, as in that training"),
                _ => "set the same `frame_rate` in both stages".to_owned(),
            };
            CheckError::new(
                Cause::Param("frame_rate"),
                format!(
                    "the clips have {now} frames per second here, but {then} in the training of {trained}"
                ),
                help,
            )
        })
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
pub(in crate::stages) fn scale_of_a_frame(
    scale: Option<ImageLatentScale>,
    conditioning: ImageConditioning,
) -> Option<CheckError> {
    let idle = scale.is_some() && conditioning == ImageConditioning::FirstFrame;
    idle.then(|| {
        CheckError::new(
            Cause::Param("image_latent_scale"),
            "`image_latent_scale` is not for this family of models, whose image is the first frame",
            "leave it out",
        )
    })
}

/// A way to count time that a family does not know.
pub(in crate::stages) fn time_of_channels(
    causal: bool,
    conditioning: ImageConditioning,
) -> Option<CheckError> {
    let idle = causal && conditioning == ImageConditioning::Channels;
    idle.then(|| {
        CheckError::new(
            Cause::Param("causal_time"),
            "`causal_time` is not for this family of models, which has one way to count time",
            "leave it out",
        )
    })
}

/// Frames per second for a family that counts frames.
pub(in crate::stages) fn rate_of_channels(
    frame_rate: Option<f64>,
    conditioning: ImageConditioning,
) -> Option<CheckError> {
    let idle = frame_rate.is_some() && conditioning == ImageConditioning::Channels;
    idle.then(|| {
        CheckError::new(
            Cause::Param("frame_rate"),
            "`frame_rate` is not for this family of models, which counts frames and not seconds",
            "leave it out",
        )
    })
}
