//! Trainings that contradict each other, so that nothing that is made of all of them can be right.

use serde_json::json;

use super::{
    super::{Cause, CheckError},
    FILES, FOLDER, ImageRecord, MODEL, is_close, shown, trainee,
};
use crate::models::sampling::ImageLatentScale;

impl ImageRecord {
    /// What all records say, each under its port's name or `files`; where they contradict each
    /// other, no sampling could be right.
    pub fn agreed<'a>(
        records: impl IntoIterator<Item = (&'a str, Self)>,
    ) -> Result<Self, CheckError> {
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

fn is_same(a: ImageLatentScale, b: ImageLatentScale) -> bool {
    match (a, b) {
        (ImageLatentScale::Factor(a), ImageLatentScale::Factor(b)) => is_close(a, b),
        (a, b) => a == b,
    }
}

/// What is on a port, as messages name it where there are several.
fn named(port: &str) -> String {
    match port {
        FILES => "the adapters of `files`".to_owned(),
        MODEL | FOLDER => trainee(port).to_owned(),
        port => format!("the adapter on `{port}`"),
    }
}

fn scales_differ(a: (&str, ImageLatentScale), b: (&str, ImageLatentScale)) -> CheckError {
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
    CheckError::new(Cause::Param(param), message, help)
}

fn times_differ(with: &str, without: &str) -> CheckError {
    let param = if [with, without].contains(&FILES) { "causal_time" } else { "inputs" };
    let (with, without) = (named(with), named(without));
    let message = format!(
        "time was counted from the first video frame in the training of {with}, but by latent frames in \
         that of {without}: no sampling is right for both"
    );
    let help = "train them alike, with `causal_time` or without, or sample with each on its own";
    CheckError::new(Cause::Param(param), message, help)
}

fn rates_differ(a: (&str, f64), b: (&str, f64)) -> CheckError {
    let message = format!(
        "the clips had {} frames per second in the training of {}, but {} in that of {}: no sampling is right \
         for both",
        a.1,
        named(a.0),
        b.1,
        named(b.0)
    );
    let help = "train them with one `frame_rate`, or sample with each on its own";
    CheckError::new(Cause::Param("inputs"), message, help)
}
