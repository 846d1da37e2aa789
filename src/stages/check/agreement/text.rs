//! How prompts are encoded: as the pipeline does that reads them.

use super::super::{Cause, CheckError};
use crate::models::{Denoiser, Sampler, TextFormat};

/// What a stage reads a prompt for.
#[derive(Clone, Copy, Debug)]
pub(in crate::stages) enum TextUse {
    /// To sample with a sampler; without one, in a basic pipeline.
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
    pub fn check(self, port: &str, found: TextFormat) -> Option<CheckError> {
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
        Some(CheckError::new(
            Cause::Param(param),
            format!("the prompt on `{port}` is encoded as in the {name} pipeline, but {user}"),
            format!("set {remedy}, or `format = \"{other}\"` where the prompt is encoded"),
        ))
    }
}

/// A prompt on `port` of a length that a denoiser does not take.
pub(in crate::stages) fn wrong_length(
    port: &str,
    tokens: usize,
    denoiser: &dyn Denoiser,
) -> Option<CheckError> {
    let error = denoiser.check_text(tokens).err()?;
    let cause = Cause::Prompts(if port == "negative" { &["negative"] } else { &["text"] });
    Some(CheckError::new(
        cause,
        format!("the prompt on `{port}` does not fit the model: {error}"),
        "leave `max_length` out where the prompt is encoded, and take the text encoder of the same model",
    ))
}

/// Prompts for guidance of two lengths, for a model that reads padding too.
pub(in crate::stages) fn unlike_lengths(text: usize, negative: usize) -> Option<CheckError> {
    (text != negative).then(|| {
        CheckError::new(
            Cause::Prompts(&["negative", "text"]),
            format!(
                "for guidance the prompts on `text` and `negative` must have one length, but they \
                 have {text} and {negative} tokens"
            ),
            "leave `max_length` out where they are encoded, or give both the same",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_must_be_encoded_as_in_the_pipeline_that_reads_them() {
        use TextFormat::{Basic, Condition};
        let told = |user: TextUse, found| {
            let CheckError { message, help, .. } = user.check("text", found)?;
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
}
