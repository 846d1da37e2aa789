//! Coloured masks: intersection over union of the classes.

use std::collections::BTreeMap;

use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Case, Metric, Rules, Score, percent, sum};
use crate::data::{DataError, SceneColor};

/// The open choices of the rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SceneRule {
    /// What is done with pixels of the target that show none of the classes.
    pub unlabelled: Unlabelled,
}

/// What is done with pixels of the target that show none of the classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unlabelled {
    /// They are one more class, `rest`.
    #[default]
    Class,
    /// They do not count, whatever is predicted there, as in the benchmark of ADE20K.
    Ignore,
}

/// `scene_miou`: the mean over the classes that some target shows, of each class's intersection
/// over union pooled over images, what is none of them (`rest`) being one more or ignored;
/// `pixel_accuracy`; and `image_miou`, the mean over images.
pub struct SceneMetric;

impl Metric for SceneMetric {
    fn name(&self) -> &'static str {
        "scene"
    }

    fn doc(&self) -> &'static str {
        "Intersection over union of coloured masks, each pixel as its nearest class; what shows none of the classes counts as one more, or not at all."
    }

    fn params(&self) -> &'static [&'static str] {
        &["scene"]
    }

    fn tasks(&self) -> Option<&'static [&'static str]> {
        Some(&["scene"])
    }

    fn names(&self) -> &'static [&'static str] {
        &["scene_miou", "image_miou", "pixel_accuracy"]
    }

    fn settings(&self, rules: &Rules) -> Vec<(&'static str, Value)> {
        vec![("scene", json!(rules.scene))]
    }

    fn score(&self, case: &Case<'_>, rules: &Rules) -> Result<Option<Score>, DataError> {
        if case.pair.meta.scene.is_empty() {
            return Err(DataError::failed("the pair has no classes")
                .with_help("use a data set with `task = \"scene\"`"));
        }
        let classes = &case.pair.meta.scene;
        Ok(score(case.prediction(), &case.pair.target, classes, rules.scene.unlabelled))
    }

    fn summary(&self, scores: &[&Score]) -> Score {
        let mut classes: Vec<&str> = scores
            .iter()
            .flat_map(|score| score.keys())
            .filter_map(|name| name.strip_prefix("wanted:"))
            .collect();
        classes.sort_unstable();
        classes.dedup();
        let iou = |class: &&str| {
            percent(sum(scores, &format!("both:{class}")), sum(scores, &format!("either:{class}")))
        };
        let total: f64 = classes.iter().map(iou).sum();
        super::score([
            ("scene_miou", total / classes.len().max(1) as f64),
            ("image_miou", sum(scores, "image_miou") / scores.len() as f64),
            ("pixel_accuracy", percent(sum(scores, "right"), sum(scores, "pixels"))),
        ])
    }
}

/// Per class that prediction or target show (and for what is none of them, `rest`): pixels in both
/// and in either, and `wanted` in the target. `None` if no pixel counts.
pub fn score(
    prediction: &RgbImage,
    target: &RgbImage,
    classes: &[SceneColor],
    unlabelled: Unlabelled,
) -> Option<Score> {
    let mut colors = vec![[0; 3]];
    colors.extend(classes.iter().map(|class| class.color));
    let name = |class: usize| if class == 0 { "rest" } else { classes[class - 1].name.as_str() };
    let mut counts: BTreeMap<usize, [u32; 3]> = BTreeMap::new();
    let (mut right, mut pixels) = (0u32, 0u32);
    for (found, wanted) in prediction.pixels().zip(target.pixels()) {
        let (found, wanted) = (nearest(&colors, found.0), nearest(&colors, wanted.0));
        if wanted == 0 && unlabelled == Unlabelled::Ignore {
            continue;
        }
        pixels += 1;
        right += u32::from(found == wanted);
        let [both, either, asked] = counts.entry(wanted).or_default();
        (*both, *either, *asked) = (*both + u32::from(found == wanted), *either + 1, *asked + 1);
        if found != wanted {
            counts.entry(found).or_default()[1] += 1;
        }
    }
    let mut scores = Score::new();
    let mut ious = Vec::new();
    for (class, [both, either, asked]) in counts {
        scores.insert(format!("both:{}", name(class)), both.into());
        scores.insert(format!("either:{}", name(class)), either.into());
        if asked > 0 {
            scores.insert(format!("wanted:{}", name(class)), asked.into());
            ious.push(percent(both.into(), either.into()));
        }
    }
    let image_miou = ious.iter().sum::<f64>() / ious.len().max(1) as f64;
    scores.insert("image_miou".to_owned(), image_miou);
    scores.insert("right".to_owned(), right.into());
    scores.insert("pixels".to_owned(), pixels.into());
    (pixels > 0).then_some(scores)
}

/// The nearest colour, the first of equals.
fn nearest(colors: &[[u8; 3]], pixel: [u8; 3]) -> usize {
    let far = |color: &[u8; 3]| -> u32 {
        color.iter().zip(pixel).map(|(a, b)| u32::from(a.abs_diff(b)).pow(2)).sum()
    };
    (0..colors.len()).min_by_key(|class| far(&colors[*class])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn classes_are_pooled_and_the_absent_do_not_count() {
        let class = |name: &str, color| SceneColor { name: name.into(), color };
        let classes = [class("a", [255, 0, 0]), class("b", [0, 255, 0]), class("c", [0, 0, 255])];
        let picture = |split: u32| {
            RgbImage::from_fn(4, 4, |x, _| Rgb(if x < split { [230, 20, 9] } else { [10, 200, 0] }))
        };
        let scores = [2, 1]
            .map(|split| score(&picture(split), &picture(2), &classes, Unlabelled::Class).unwrap());
        let found = SceneMetric.summary(&scores.iter().collect::<Vec<_>>());
        // a: 8 + 4 of 8 + 8; b: 8 + 8 of 8 + 12.
        assert!((found["scene_miou"] - 77.5).abs() < 1e-9, "{found:?}");
        assert!((found["pixel_accuracy"] - 87.5).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn what_is_not_labelled_counts_as_a_class_or_not_at_all() {
        let classes = [SceneColor { name: "a".into(), color: [255, 0, 0] }];
        let red = RgbImage::from_pixel(4, 4, Rgb([255, 0, 0]));
        let half = RgbImage::from_fn(4, 4, |x, _| Rgb([if x < 2 { 255 } else { 0 }, 0, 0]));
        let miou = |unlabelled| {
            let score = score(&red, &half, &classes, unlabelled).unwrap();
            (score["image_miou"], score["pixels"])
        };
        assert_eq!(miou(Unlabelled::Class), (25.0, 16.0));
        assert_eq!(miou(Unlabelled::Ignore), (100.0, 8.0));
        assert_eq!(score(&red, &RgbImage::new(4, 4), &classes, Unlabelled::Ignore), None);
    }
}
