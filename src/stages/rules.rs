//! Rules for parameters that several kinds have.

use super::ParamError;
use crate::models::{TimeAxis, sampling::ImageLatentScale};

/// Counts that must not be zero.
pub(super) fn at_least_one(counts: &[(&str, usize)]) -> Vec<ParamError> {
    let zero = counts.iter().filter(|(_, value)| *value == 0);
    zero.map(|(field, _)| ParamError::new(field, "must be at least 1, but is 0")).collect()
}

/// A share or a probability.
pub(super) fn share(field: &str, value: f64) -> Option<ParamError> {
    let message = format!("must lie between 0 and 1, but is {value}");
    (!(0.0..=1.0).contains(&value)).then(|| ParamError::new(field, message))
}

/// A multiple of the conditioning image's latent.
pub(super) fn image_scale(scale: Option<ImageLatentScale>) -> Option<ParamError> {
    match scale {
        Some(ImageLatentScale::Factor(factor)) => positive("image_latent_scale", factor),
        _ => None,
    }
}

/// Frames per second; at rates beyond, positions are no numbers any more.
pub(super) fn frame_rate(rate: Option<f64>) -> Option<ParamError> {
    let rate = rate.filter(|rate| !(0.1..=1000.0).contains(rate))?;
    Some(ParamError::new("frame_rate", format!("must lie between 0.1 and 1000, but is {rate}")))
}

/// Whether a frame rate says no more than its default, so that both give one key.
#[expect(clippy::ref_option, reason = "what serde calls")]
pub(super) fn is_usual_rate(rate: &Option<f64>) -> bool {
    rate.is_none_or(|rate| rate.to_bits() == TimeAxis::FRAME_RATE.to_bits())
}

/// A number above zero.
pub(super) fn positive(field: &str, value: f64) -> Option<ParamError> {
    let message = format!("must be a positive number, but is {value}");
    (!(value > 0.0 && value.is_finite())).then(|| ParamError::new(field, message))
}

/// A number that is not infinite.
pub(super) fn finite(field: &str, value: f64) -> Option<ParamError> {
    let message = format!("must be a finite number, but is {value}");
    (!value.is_finite()).then(|| ParamError::new(field, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_breaks_a_rule_is_named() {
        let fields: Vec<_> =
            at_least_one(&[("a", 0), ("b", 1)]).into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["a"]);
        assert!(share("p", 0.0).is_none() && share("p", 1.0).is_none());
        let message = share("p", f64::NAN).unwrap().message;
        assert_eq!(message, "must lie between 0 and 1, but is NaN");
        for wrong in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
            assert!(image_scale(Some(ImageLatentScale::Factor(wrong))).is_some(), "{wrong}");
        }
        assert!(image_scale(Some(ImageLatentScale::Factor(0.7))).is_none());
        for wrong in [f64::NAN, 0.0, -25.0, 1001.0] {
            assert!(frame_rate(Some(wrong)).is_some(), "{wrong}");
        }
        assert!(frame_rate(Some(0.1)).is_none() && frame_rate(None).is_none());
        assert!(is_usual_rate(&None) && is_usual_rate(&Some(25.0)) && !is_usual_rate(&Some(24.0)));
        assert!(finite("mean", f64::NAN).is_some() && finite("mean", -3.0).is_none());
    }
}
