//! `color_correct`: predictions in the colours that answers to the training images ought to have.

use std::collections::BTreeSet;

use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    CheckError, Inputs, Output, Port, Ports, Stage, StageContext, StageError, StageKind,
    Surroundings, predictions::Predictions,
};
use crate::{
    artifact::{ArtifactKind, Item, frames, pairs, videos::Clip},
    data::color_map::{ColorMap, ColorSums, Correction},
};

/// The item's file that holds the map.
const MAP_FILE: &str = "color_map.json";

/// Corrects the colours of predictions by a map fitted to what the same adapter predicts for the
/// pairs it was trained on: by ridge regression over their pixels, that is least squares drawn
/// towards the map that changes nothing, so that colours stay which those pairs hardly show. Only
/// the last frame, the answer, is changed.
///
/// Where the predictions were made with several adapters along one training, each has a map of its
/// own.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColorCorrect {
    /// The form of the map.
    #[serde(default)]
    pub map: Correction,
}

impl StageKind for ColorCorrect {
    const KIND: &'static str = "color_correct";
    // 1: first · 2: pixels without a distance, black in the target, are not fitted to.
    const VERSION: u32 = 2;
    const PORTS: Ports = Ports {
        inputs: &[
            Port { name: "predictions", kinds: &[ArtifactKind::Frames], required: true },
            Port { name: "example_predictions", kinds: &[ArtifactKind::Frames], required: true },
            Port { name: "examples", kinds: &[ArtifactKind::Pairs], required: true },
        ],
        output: ArtifactKind::Frames,
    };
}

// It maps items, but by the name of the checkpoint that made them, which is in no key of an item.
impl Stage for ColorCorrect {
    fn check(&self, around: &Surroundings<'_>) -> Vec<CheckError> {
        around.without_target(&["examples"]).into_iter().collect()
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let maps = self.maps(inputs, cx)?;
        check_one_map(&maps, inputs.items("predictions"))?;
        cx.for_each(inputs.items("predictions"), "correct colours", |item| {
            let of = maps.iter().find(|(checkpoint, _)| is_of(item, checkpoint.as_deref()));
            let (_, map) = of.ok_or_else(|| {
                StageError::failed("no example was predicted by the checkpoint of this prediction")
                    .with_help("sample the examples and the tests with the same `lora`")
            })?;
            let mut clip = Clip::from_bytes(&inputs.read(item, frames::FILE)?)
                .map_err(|e| StageError::failed(e.to_string()))?;
            let answer = map.apply(&prediction(inputs, item)?);
            let start = clip.rgb.len().checked_sub(answer.as_raw().len()).ok_or_else(|| {
                StageError::failed("the prediction is larger than the frames of its clip")
            })?;
            clip.rgb[start..].copy_from_slice(answer.as_raw());
            let map = serde_json::to_vec_pretty(map).expect("numbers are valid JSON");
            out.item(
                &item.name,
                &[
                    (frames::FILE, &clip.to_bytes()),
                    (frames::PREDICTION, &frames::to_png(&answer)),
                    (MAP_FILE, &map),
                ],
            )
        })
    }
}

impl ColorCorrect {
    /// The map of each checkpoint that predicted the examples.
    fn maps(
        &self,
        inputs: &Inputs<'_>,
        cx: &StageContext<'_>,
    ) -> Result<Vec<(Option<String>, ColorMap)>, StageError> {
        let examples = inputs.items("examples");
        let answers = Predictions::of(inputs, "example_predictions", examples)?;
        let mut maps = Vec::new();
        for (at, checkpoint) in answers.checkpoints.iter().enumerate() {
            let mut sums = ColorSums::default();
            cx.for_each(examples, "compare examples", |item| {
                let pair = pairs::Pair::read(inputs, item)?;
                let found = answers.image(inputs, at, item, pair.target.dimensions())?;
                sums.add(&found, &pair.target, &pair.known());
                Ok(())
            })?;
            maps.push((checkpoint.map(str::to_owned), sums.fit(self.map)));
        }
        Ok(maps)
    }
}

/// Predictions of several checkpoints need examples of each: the map of one unnamed adapter is that
/// of none of them.
fn check_one_map(
    maps: &[(Option<String>, ColorMap)],
    predictions: &[Item],
) -> Result<(), StageError> {
    let checkpoints: BTreeSet<_> =
        predictions.iter().filter_map(|item| Some(item.name.split_once('/')?.0)).collect();
    if checkpoints.len() > 1 && maps.iter().any(|(checkpoint, _)| checkpoint.is_none()) {
        return Err(StageError::failed(
            "`predictions` holds several checkpoints, but `example_predictions` one without a name",
        )
        .with_help("sample the examples and the tests with the same `lora`"));
    }
    Ok(())
}

fn is_of(item: &Item, checkpoint: Option<&str>) -> bool {
    checkpoint
        .is_none_or(|name| item.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')))
}

fn prediction(inputs: &Inputs<'_>, item: &Item) -> Result<RgbImage, StageError> {
    let bytes = inputs.read(item, frames::PREDICTION)?;
    Ok(pairs::decode(&bytes, frames::PREDICTION, item)?.into_rgb8())
}

#[cfg(test)]
mod tests {
    use image::{Luma, Rgb};
    use serde_json::json;

    use super::*;
    use crate::{
        data::{Depth, Pair},
        stages::support::Bench,
    };

    fn picture(seed: u32) -> RgbImage {
        RgbImage::from_fn(16, 16, |x, y| {
            Rgb([x as u8 * 9 + 20, y as u8 * 8 + 30, ((x * seed + y) % 16) as u8 * 10 + 10])
        })
    }

    /// The pictures as a model of shifted colours gives them.
    fn shifted(image: &RgbImage, gain: f64) -> RgbImage {
        let mut map = ColorMap { offset: [0.1, 0.0, 0.05], ..ColorMap::IDENTITY };
        map.matrix[1][1] = gain;
        map.apply(image)
    }

    fn frames_item(bench: &Bench, name: &str, answer: &RgbImage) -> Item {
        let clip = Clip::from_images(&[picture(9), answer.clone()]).unwrap();
        let files: [(&str, &[u8]); 2] =
            [(frames::FILE, &clip.to_bytes()), (frames::PREDICTION, &frames::to_png(answer))];
        bench.item(name, &files)
    }

    fn pair(bench: &Bench, name: &str, target: &RgbImage) -> Item {
        let (image, meta) = (frames::to_png(target), br#"{"source_id": "x", "task": "pairs"}"#);
        bench.item(name, &[("input.png", &image), ("target.png", &image), ("meta.json", meta)])
    }

    fn corrected(
        bench: &Bench,
        map: &str,
        predictions: &[Item],
        answers: &[Item],
    ) -> Result<Vec<(String, RgbImage, RgbImage)>, StageError> {
        let examples = [pair(bench, "a", &picture(3)), pair(bench, "b", &picture(5))];
        let inputs = bench.inputs(&[
            ("predictions", ArtifactKind::Frames, predictions),
            ("example_predictions", ArtifactKind::Frames, answers),
            ("examples", ArtifactKind::Pairs, &examples),
        ]);
        let stage: ColorCorrect = serde_json::from_value(json!({ "map": map })).unwrap();
        let items = bench.run(&stage, &inputs)?;
        items
            .iter()
            .map(|item| {
                let clip = Clip::from_bytes(&inputs.read(item, frames::FILE)?).unwrap();
                assert_eq!(clip.frame(0), Some(picture(9)), "only the answer changes");
                let answer = prediction(&inputs, item)?;
                Ok((item.name.clone(), answer, frames::prediction(&clip)))
            })
            .collect()
    }

    fn far(a: &RgbImage, b: &RgbImage) -> u8 {
        a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    }

    #[test]
    fn the_shift_of_the_examples_is_taken_off_the_tests() {
        let bench = Bench::new();
        let answers =
            [("a", 3), ("b", 5)].map(|(n, s)| frames_item(&bench, n, &shifted(&picture(s), 0.7)));
        let tests = [frames_item(&bench, "t", &shifted(&picture(7), 0.7))];
        for (map, most) in [("affine", 2), ("per_channel", 2), ("off", 255)] {
            let found = corrected(&bench, map, &tests, &answers).unwrap();
            let (name, answer, last) = &found[0];
            assert_eq!((name.as_str(), answer), ("t", last));
            assert!(far(answer, &picture(7)) <= most, "{map}");
            assert_eq!(*answer == shifted(&picture(7), 0.7), map == "off");
        }
    }

    #[test]
    fn what_has_no_distance_does_not_pull_the_map() {
        let bench = Bench::new();
        let target = RgbImage::from_fn(16, 16, |x, y| match x {
            0..5 => Rgb([0; 3]),
            _ => Rgb([(x * 9 + y * 6) as u8 + 20; 3]),
        });
        // Where the target has a hole, the model paints what it sees.
        let seen = RgbImage::from_fn(16, 16, |x, y| Rgb([(x * 9 + y * 6) as u8 + 20; 3]));
        let depth = Depth::from_fn(16, 16, |x, _| Luma([if x < 5 { 0.0 } else { 2.0 }]));
        let mut example = Pair { input: target.clone(), target, ..Pair::default() };
        let fitted = |example: &Pair| {
            let mut out = |_: &Item| Ok(());
            let mut out = Output::new(&bench.store, &mut out);
            example.write(&mut out, "a").unwrap();
            let examples = out.into_items();
            let answers = [frames_item(&bench, "a", &seen)];
            let tests = [frames_item(&bench, "t", &seen)];
            let inputs = bench.inputs(&[
                ("predictions", ArtifactKind::Frames, &tests),
                ("example_predictions", ArtifactKind::Frames, &answers),
                ("examples", ArtifactKind::Pairs, &examples),
            ]);
            let stage: ColorCorrect =
                serde_json::from_value(json!({ "map": "per_channel" })).unwrap();
            let items = bench.run(&stage, &inputs).unwrap();
            far(&prediction(&inputs, &items[0]).unwrap(), &seen)
        };
        assert!(fitted(&example) > 10, "black that is an answer counts");
        example.depth = Some(depth);
        assert_eq!(fitted(&example), 0);
    }

    #[test]
    fn each_checkpoint_has_a_map_of_its_own() {
        let bench = Bench::new();
        let answers: Vec<Item> = [("step_1", 0.7), ("step_2", 0.9)]
            .iter()
            .flat_map(|(step, gain)| {
                [("a", 3), ("b", 5)].map(|(name, seed)| {
                    let answer = shifted(&picture(seed), *gain);
                    frames_item(&bench, &format!("{step}/{name}"), &answer)
                })
            })
            .collect();
        let test = |name: &str, gain| frames_item(&bench, name, &shifted(&picture(7), gain));
        let tests = [test("step_1/t", 0.7), test("step_2/t", 0.9)];
        for (name, answer, _) in corrected(&bench, "affine", &tests, &answers).unwrap() {
            assert!(far(&answer, &picture(7)) <= 2, "{name}");
        }
        let unnamed =
            [("a", 3), ("b", 5)].map(|(n, s)| frames_item(&bench, n, &shifted(&picture(s), 0.7)));
        let error = corrected(&bench, "affine", &tests, &unnamed).unwrap_err().to_string();
        assert!(error.contains("`example_predictions` one without a name"), "{error}");
        let error = corrected(&bench, "affine", &[test("step_3/t", 0.9)], &answers).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no example was predicted by the checkpoint of this prediction"
        );
    }
}
