//! What training and sampling must do alike: the multiple of the conditioning image's latent, how time
//! is counted, and how prompts are encoded. A mismatch gives wrong colours, broken motion or another
//! picture, and no other sign.

use serde_json::Value;

use super::{Cause, Misfit};
use crate::models::{
    ImageConditioning, LoadError, Sampler, TextFormat, TimeAxis,
    sampling::{ImageLatentScale, ScaleRule, Side},
};

/// How a denoiser gets the conditioning image and counts time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ImageUse {
    /// Multiple of the image's latent; by default that of the published pipeline.
    pub scale: Option<ImageLatentScale>,
    /// Whether time is counted from the first video frame.
    pub causal_time: bool,
    /// Video frames per second; by default that of the published pipeline.
    pub frame_rate: Option<f64>,
}

/// Multiples this close are one number, written with fewer digits.
const SAME: f64 = 1e-3;

impl ImageUse {
    /// What the log of an adapter says of its training; none if it says nothing, as in adapters of
    /// other programs and those merged from different ones.
    pub fn of_adapter(train: &Value) -> Option<Self> {
        let multiple = train.get("image_latent_scale")?.as_f64()?;
        let settings = train.get("settings")?;
        let rule = settings.get("image_latent_scale").and_then(Value::as_str);
        let scale = if rule == Some("paper_mismatch") {
            ImageLatentScale::Rule(ScaleRule::PaperMismatch)
        } else {
            ImageLatentScale::Factor(multiple)
        };
        let causal_time = settings.get("causal_time").and_then(Value::as_bool).unwrap_or(false);
        let frame_rate = settings.get("frame_rate").and_then(Value::as_f64);
        Some(Self { scale: Some(scale), causal_time, frame_rate })
    }

    /// What sampling in this way gets wrong with an adapter that was trained in another one; `vae` is
    /// its `config.json`.
    pub fn misfit(
        self,
        trained: Self,
        conditioning: ImageConditioning,
        vae: &Value,
    ) -> Result<Option<Misfit>, LoadError> {
        match conditioning {
            ImageConditioning::Channels => self.scale_misfit(trained.scale, vae),
            ImageConditioning::FirstFrame => {
                Ok(self.time_misfit(trained.causal_time).or(self.rate_misfit(trained)))
            }
        }
    }

    fn scale_misfit(
        self,
        trained: Option<ImageLatentScale>,
        vae: &Value,
    ) -> Result<Option<Misfit>, LoadError> {
        let meant = Some(ImageLatentScale::Rule(ScaleRule::PaperMismatch));
        if trained == meant && self.scale == meant {
            return Ok(None);
        }
        let then = ImageLatentScale::resolve(trained, vae, Side::Training)?;
        let now = ImageLatentScale::resolve(self.scale, vae, Side::Sampling)?;
        if (then - now).abs() <= SAME * then.abs() {
            return Ok(None);
        }
        let (now, then) = (shown(now), shown(then));
        Ok(Some(Misfit::new(
            Cause::Param("image_latent_scale"),
            format!(
                "the image's latent is multiplied by {now} here, but by {then} in the training of the \
                 adapter"
            ),
            "set the same `image_latent_scale` in both stages, or \"paper_mismatch\" in both where the \
             mismatch is meant",
        )))
    }

    fn time_misfit(self, trained_causal: bool) -> Option<Misfit> {
        let (message, help) = match (trained_causal, self.causal_time) {
            (false, true) => (
                "the sampler `flow_condition` counts time from the first video frame, but the adapter \
                 was trained without `causal_time`",
                "set `causal_time = true` in its training, or sample with `flow_euler`",
            ),
            (true, false) => (
                "the adapter was trained with `causal_time`, but this sampler counts time by latent \
                 frames",
                "set `sampler = \"flow_condition\"`, or take `causal_time` out of its training",
            ),
            _ => return None,
        };
        Some(Misfit::new(Cause::Param("sampler"), message, help))
    }

    fn rate_misfit(self, trained: Self) -> Option<Misfit> {
        let [now, then] =
            [self, trained].map(|how| TimeAxis::new(false, how.frame_rate).frame_rate);
        (now.to_bits() != then.to_bits()).then(|| {
            Misfit::new(
                Cause::Param("frame_rate"),
                format!(
                    "the clips have {now} frames per second here, but {then} in the training of the \
                     adapter"
                ),
                "set the same `frame_rate` in both stages",
            )
        })
    }
}

/// What a stage reads a prompt for.
#[derive(Clone, Copy, Debug)]
pub(super) enum TextUse {
    /// To sample with a sampler, or the family's default, which is that of a basic pipeline.
    Sampling(Option<Sampler>),
    /// To train, counting time from the first video frame or not.
    Training { causal_time: bool },
}

impl TextUse {
    /// How the prompt must be encoded.
    pub fn format(self) -> TextFormat {
        match self {
            Self::Sampling(sampler) => sampler.map_or(TextFormat::Basic, Sampler::text_format),
            Self::Training { causal_time: true } => TextFormat::Condition,
            Self::Training { causal_time: false } => TextFormat::Basic,
        }
    }

    /// A prompt on `port` that is encoded as in another pipeline.
    pub fn misfit(self, port: &str, found: TextFormat) -> Option<Misfit> {
        let wanted = self.format();
        if found == wanted {
            return None;
        }
        let (param, user, remedy) = match (self, wanted) {
            (Self::Sampling(_), TextFormat::Condition) => (
                "sampler",
                "`flow_condition` samples as the condition pipeline does",
                "another `sampler`",
            ),
            (Self::Sampling(_), TextFormat::Basic) => (
                "sampler",
                "this sampler is that of the basic one",
                "`sampler = \"flow_condition\"`",
            ),
            (Self::Training { .. }, TextFormat::Condition) => (
                "causal_time",
                "`causal_time` trains for the condition pipeline",
                "`causal_time = false`",
            ),
            (Self::Training { .. }, TextFormat::Basic) => (
                "causal_time",
                "training without `causal_time` is for the basic one",
                "`causal_time = true`",
            ),
        };
        let [name, other] = match wanted {
            TextFormat::Basic => ["condition", "basic"],
            TextFormat::Condition => ["basic", "condition"],
        };
        Some(Misfit::new(
            Cause::Param(param),
            format!("the prompt on `{port}` is encoded as in the {name} pipeline, but {user}"),
            format!("set {remedy}, or `format = \"{other}\"` where the prompt is encoded"),
        ))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scaled(scale: Option<ImageLatentScale>) -> ImageUse {
        ImageUse { scale, ..ImageUse::default() }
    }

    const MEANT: Option<ImageLatentScale> = Some(ImageLatentScale::Rule(ScaleRule::PaperMismatch));

    #[test]
    fn multiples_must_be_the_same_unless_the_mismatch_is_meant() {
        let vae = json!({ "scaling_factor": 0.7, "invert_scale_latents": true });
        let factor = |factor| Some(ImageLatentScale::Factor(factor));
        let fits = |trained, sampled| {
            let found = scaled(sampled).misfit(scaled(trained), ImageConditioning::Channels, &vae);
            found.unwrap().is_none()
        };
        assert!(fits(None, None) && fits(None, Some(ImageLatentScale::Rule(ScaleRule::Inverse))));
        assert!(
            fits(factor(1.4286), None)
                && fits(factor(0.7), Some(ImageLatentScale::Rule(ScaleRule::Direct)))
        );
        assert!(fits(MEANT, MEANT));
        assert!(!fits(None, factor(1.0)) && !fits(factor(0.7), None));
        assert!(!fits(MEANT, None));
        assert!(!fits(Some(ImageLatentScale::Rule(ScaleRule::Direct)), MEANT));
    }

    #[test]
    fn a_multiple_is_shown_with_as_few_digits_as_tell_it() {
        let multiples = [0.0, 1.0 / 0.7, 2e-5, 999_999.0, 1e300];
        assert_eq!(multiples.map(shown), ["0.0000", "1.4286", "2e-5", "999999.0000", "1e300"]);
    }

    #[test]
    fn time_must_be_counted_in_one_way() {
        let (plain, causal) =
            (ImageUse::default(), ImageUse { causal_time: true, ..ImageUse::default() });
        let misfit = |sampled: ImageUse, trained| {
            sampled.misfit(trained, ImageConditioning::FirstFrame, &json!({})).unwrap()
        };
        assert_eq!((misfit(plain, plain), misfit(causal, causal)), (None, None));
        assert!(misfit(causal, plain).unwrap().message.contains("without `causal_time`"));
        assert!(misfit(plain, causal).unwrap().message.contains("with `causal_time`"));

        let slow = ImageUse { frame_rate: Some(12.5), ..plain };
        let stated = ImageUse { frame_rate: Some(25.0), ..plain };
        assert_eq!((misfit(slow, slow), misfit(stated, plain)), (None, None));
        insta::assert_snapshot!(misfit(slow, plain).unwrap().message, @"the clips have 12.5 frames per second here, but 25 in the training of the adapter");
        assert!(misfit(plain, slow).is_some());
    }

    #[test]
    fn prompts_must_be_encoded_as_in_the_pipeline_that_reads_them() {
        use TextFormat::{Basic, Condition};
        let told = |user: TextUse, found| {
            let Misfit { message, help, .. } = user.misfit("text", found)?;
            Some(format!("{message}\n{}", help.unwrap()))
        };
        let (basic, condition) =
            (TextUse::Sampling(None), TextUse::Sampling(Some(Sampler::FlowCondition)));
        let [plain, causal] = [false, true].map(|causal_time| TextUse::Training { causal_time });
        assert_eq!((told(basic, Basic), told(causal, Condition)), (None, None));
        insta::assert_snapshot!(told(condition, Basic).unwrap(), @r#"
        the prompt on `text` is encoded as in the basic pipeline, but `flow_condition` samples as the condition pipeline does
        set another `sampler`, or `format = "condition"` where the prompt is encoded
        "#);
        insta::assert_snapshot!(told(basic, Condition).unwrap(), @r#"
        the prompt on `text` is encoded as in the condition pipeline, but this sampler is that of the basic one
        set `sampler = "flow_condition"`, or `format = "basic"` where the prompt is encoded
        "#);
        insta::assert_snapshot!(told(causal, Basic).unwrap(), @r#"
        the prompt on `text` is encoded as in the basic pipeline, but `causal_time` trains for the condition pipeline
        set `causal_time = false`, or `format = "condition"` where the prompt is encoded
        "#);
        insta::assert_snapshot!(told(plain, Condition).unwrap(), @r#"
        the prompt on `text` is encoded as in the condition pipeline, but training without `causal_time` is for the basic one
        set `causal_time = true`, or `format = "basic"` where the prompt is encoded
        "#);
    }

    #[test]
    fn the_log_of_an_adapter_says_how_it_was_trained() {
        let log = json!({ "image_latent_scale": 0.7, "settings": { "image_latent_scale": null } });
        assert_eq!(ImageUse::of_adapter(&log), Some(scaled(Some(ImageLatentScale::Factor(0.7)))));
        let meant = json!({
            "image_latent_scale": 0.7,
            "settings": { "image_latent_scale": "paper_mismatch", "causal_time": true, "frame_rate": 8.0 },
        });
        let found = ImageUse::of_adapter(&meant).unwrap();
        assert_eq!(found, ImageUse { scale: MEANT, causal_time: true, frame_rate: Some(8.0) });
        assert_eq!(ImageUse::of_adapter(&json!({ "merged": {} })), None);
    }
}
