//! Coloured masks: intersection over union of the classes.

use std::collections::BTreeMap;

use image::RgbImage;

use super::{Case, Metric, Rules, Score, percent, sum};
use crate::data::{DataError, SceneColor};

/// `scene_miou`: the mean over the classes that some target shows, of each class's intersection over
/// union pooled over images, what is none of them (`rest`) being one more; `pixel_accuracy`; and `image_miou`, the mean over images.
pub struct SceneMetric;

impl Metric for SceneMetric {
    fn name(&self) -> &'static str {
        "scene"
    }

    fn doc(&self) -> &'static str {
        "Intersection over union of coloured masks, each pixel as its nearest class; what shows none of the classes counts as one more."
    }

    fn tasks(&self) -> Option<&'static [&'static str]> {
        Some(&["scene"])
    }

    fn names(&self) -> &'static [&'static str] {
        &["scene_miou", "image_miou", "pixel_accuracy"]
    }

    fn score(&self, case: &Case<'_>, _: &Rules) -> Result<Option<Score>, DataError> {
        if case.pair.meta.scene.is_empty() {
            return Err(DataError::failed("the pair has no classes")
                .with_help("use a data set with `task = \"scene\"`"));
        }
        Ok(Some(score(case.prediction(), &case.pair.target, &case.pair.meta.scene)))
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
/// and in either, and `wanted` in the target.
pub fn score(prediction: &RgbImage, target: &RgbImage, classes: &[SceneColor]) -> Score {
    let mut colors = vec![[0; 3]];
    colors.extend(classes.iter().map(|class| class.color));
    let name = |class: usize| if class == 0 { "rest" } else { classes[class - 1].name.as_str() };
    let mut counts: BTreeMap<usize, [u32; 3]> = BTreeMap::new();
    let mut right = 0u32;
    for (found, wanted) in prediction.pixels().zip(target.pixels()) {
        let (found, wanted) = (nearest(&colors, found.0), nearest(&colors, wanted.0));
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
    let pixels = f64::from(target.width() * target.height());
    let image_miou = ious.iter().sum::<f64>() / ious.len().max(1) as f64;
    scores.insert("image_miou".to_owned(), image_miou);
    scores.insert("right".to_owned(), right.into());
    scores.insert("pixels".to_owned(), pixels);
    scores
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
        let scores =
            [score(&picture(2), &picture(2), &classes), score(&picture(1), &picture(2), &classes)];
        let found = SceneMetric.summary(&scores.iter().collect::<Vec<_>>());
        // a: 8 + 4 of 8 + 8; b: 8 + 8 of 8 + 12.
        assert!((found["scene_miou"] - 77.5).abs() < 1e-9, "{found:?}");
        assert!((found["pixel_accuracy"] - 87.5).abs() < 1e-9, "{found:?}");
    }
}
