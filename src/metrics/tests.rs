//! Scores of random pictures equal those of scikit-image, `SciPy` and `NumPy`: see
//! `tests/golden/metrics/make.py`.

use ::image::{GrayImage, Rgb, RgbImage};
use serde_json::json;

use super::*;
use crate::data::{Person, SceneColor, SymbolGrid, tasks::symbols::symbol};

fn expected(name: &str) -> Vec<Value> {
    let text = include_str!("../../tests/golden/metrics/expected.json");
    let cases: Value = serde_json::from_str(text).unwrap();
    cases[name].as_array().unwrap().clone()
}

/// Bytes of the script's generator.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            state = state.wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

struct Sizes {
    seed: u64,
    height: u32,
    width: u32,
}

impl Sizes {
    fn of(case: &Value) -> Self {
        let side = |axis: usize| case["size"][axis].as_u64().unwrap() as u32;
        Self { seed: case["seed"].as_u64().unwrap(), height: side(0), width: side(1) }
    }

    fn picture(&self, more: u64) -> RgbImage {
        let bytes = noise(self.seed + more, (self.width * self.height * 3) as usize);
        RgbImage::from_raw(self.width, self.height, bytes).unwrap()
    }

    /// White where the noise reaches `least`.
    fn lines(&self, more: u64, least: u16) -> GrayImage {
        let bytes = noise(self.seed + more, (self.width * self.height) as usize);
        let white = bytes.into_iter().map(|value| if u16::from(value) >= least { 255 } else { 0 });
        GrayImage::from_raw(self.width, self.height, white.collect()).unwrap()
    }
}

fn agree(found: &Score, case: &Value, names: &[&str]) {
    for name in names {
        let (ours, theirs) = (found[*name], case[*name].as_f64().unwrap());
        assert!((ours - theirs).abs() < 1e-9 * theirs.abs().max(1.0), "{name}: {ours} {case}");
    }
}

fn colored(gray: &GrayImage) -> RgbImage {
    RgbImage::from_fn(gray.width(), gray.height(), |x, y| Rgb([gray.get_pixel(x, y).0[0]; 3]))
}

#[test]
fn distances_between_images_are_those_of_scikit_image() {
    for case in expected("image") {
        let sizes = Sizes::of(&case);
        let (a, b) = (sizes.picture(0), sizes.picture(1000));
        let mixed =
            a.iter().zip(b.iter()).map(|(a, b)| ((3 * u32::from(*a) + u32::from(*b)) / 4) as u8);
        let mixed = RgbImage::from_raw(a.width(), a.height(), mixed.collect()).unwrap();
        agree(
            &image::score(&mixed, &a, &vec![true; a.pixels().len()]),
            &case,
            &["psnr", "ssim", "mse", "mae"],
        );
    }
}

#[test]
fn edges_at_a_tolerance_are_those_of_scipy() {
    for case in expected("edges") {
        let sizes = Sizes::of(&case);
        let rules: Rules = serde_json::from_value(json!({
            "metric": "edges",
            "edges": { "tolerance": case["tolerance"], "thresholds": [128] },
        }))
        .unwrap();
        let (target, drawn) = (colored(&sizes.lines(0, 250)), colored(&sizes.lines(1000, 245)));
        let pair = Pair { target, ..Pair::default() };
        let attempts = [drawn];
        let case_ = Case { attempts: &attempts, pair: &pair, mean_target: None };
        let score = edges::EdgesMetric.score(&case_, &rules).unwrap().unwrap();
        let found = edges::EdgesMetric.summary(&[&score]);
        agree(&found, &case, &["ods_precision", "ods_recall", "ods_f"]);
    }
}

/// Grey where the noise reaches 230, as bright as the noise.
fn faint(seed: u64, height: u32, width: u32) -> RgbImage {
    let bytes = noise(seed, (width * height) as usize).into_iter();
    let bytes = bytes.map(|value| if value >= 230 { value } else { 0 });
    colored(&GrayImage::from_raw(width, height, bytes.collect()).unwrap())
}

#[test]
fn edges_of_several_images_are_counted_together() {
    for case in expected("edge_sets") {
        let rules: Rules = serde_json::from_value(json!({
            "metric": "edges",
            "edges": { "tolerance": case["tolerance"], "thresholds": case["thresholds"] },
        }))
        .unwrap();
        let images = case["images"].as_array().unwrap().iter().map(|image| {
            let sizes = Sizes::of(image);
            let least = image["least"].as_u64().unwrap() as u16;
            let pair = Pair { target: colored(&sizes.lines(0, least)), ..Pair::default() };
            let attempts = [faint(sizes.seed + 1000, sizes.height, sizes.width)];
            let case = Case { attempts: &attempts, pair: &pair, mean_target: None };
            edges::EdgesMetric.score(&case, &rules).unwrap().unwrap()
        });
        let images: Vec<Score> = images.collect();
        let found = edges::EdgesMetric.summary(&images.iter().collect::<Vec<_>>());
        let names = ["ods_f", "ods_precision", "ods_recall", "ods_threshold", "ois_f"];
        agree(&found, &case, &names);
        let mean = sum(&images.iter().collect::<Vec<_>>(), "ois_f") / images.len() as f64;
        assert!((mean - found["ois_f"]).abs() > 0.5, "a mean over images is another number");
    }
}

#[test]
fn intersections_over_unions_are_those_of_numpy() {
    for case in expected("miou") {
        let sizes = Sizes::of(&case);
        let found =
            miou::score(&sizes.picture(0), &sizes.lines(1000, 128), miou::MaskRule::Luma, 128);
        agree(&found, &case, &["miou"]);
    }
}

#[test]
fn unions_over_several_images_are_those_of_numpy() {
    for case in expected("pooled") {
        let images: Vec<Score> = case["images"]
            .as_array()
            .unwrap()
            .iter()
            .map(|image| {
                let (sizes, least) = (Sizes::of(image), image["least"].as_u64().unwrap() as u16);
                let mask = sizes.lines(1000, least);
                miou::score(&sizes.picture(0), &mask, miou::MaskRule::Luma, 128)
            })
            .collect();
        let found = miou::Miou.summary(&images.iter().collect::<Vec<_>>());
        agree(&found, &case, &["miou", "pooled_iou"]);
    }
}

#[test]
fn scenes_are_scored_as_by_numpy() {
    for case in expected("scene") {
        let classes: Vec<SceneColor> = case["colors"]
            .as_array()
            .unwrap()
            .iter()
            .zip(1..)
            .map(|(color, number)| SceneColor {
                name: format!("class {number}"),
                color: serde_json::from_value(color.clone()).unwrap(),
            })
            .collect();
        let unlabelled = serde_json::from_value(case["unlabelled"].clone()).unwrap();
        let images = case["images"].as_array().unwrap().iter().map(|image| {
            let sizes = Sizes::of(image);
            let labels = noise(sizes.seed, (sizes.width * sizes.height) as usize);
            let target = RgbImage::from_fn(sizes.width, sizes.height, |x, y| {
                let label = labels[(y * sizes.width + x) as usize] % 5;
                Rgb(label.checked_sub(1).map_or([0; 3], |at| classes[at as usize].color))
            });
            // Half the target, half noise.
            let noisy = sizes.picture(1000);
            let mixed = target.iter().zip(noisy.iter()).map(|(a, b)| a / 2 + b / 2).collect();
            let found = RgbImage::from_raw(sizes.width, sizes.height, mixed).unwrap();
            scene::score(&found, &target, &classes, unlabelled).unwrap()
        });
        let images: Vec<Score> = images.collect();
        let found = scene::SceneMetric.summary(&images.iter().collect::<Vec<_>>());
        agree(&found, &case, &["scene_miou", "image_miou", "pixel_accuracy"]);
    }
}

#[test]
fn symbols_are_read_as_by_numpy() {
    for case in expected("symbols") {
        let cells = case["cells"].as_u64().unwrap() as usize;
        let classes = case["classes"].as_u64().unwrap() as usize;
        let grids = case["seeds"].as_array().unwrap().iter().map(|seed| {
            let (seed, side) = (seed.as_u64().unwrap(), 16 * cells as u32);
            let shown = noise(seed, cells * cells).into_iter().map(|n| n as usize % classes);
            let grid = SymbolGrid {
                classes: (0..classes).map(|class| class.to_string()).collect(),
                cells: shown.collect(),
                ids: Vec::new(),
                side: cells,
            };
            // A fifth of the symbol, four of noise, all a bit brighter.
            let mut picture = blocks(seed + 1000, side, side);
            for (x, y, pixel) in picture.enumerate_pixels_mut() {
                let cell = (y / 16) as usize * cells + (x / 16) as usize;
                let drawn = symbol(grid.cells[cell], 16).get_pixel(x % 16, y % 16).0;
                let mix = |c: usize| {
                    ((u32::from(drawn[c]) + 4 * u32::from(pixel.0[c])) / 5 + 40).min(255) as u8
                };
                pixel.0 = [0, 1, 2].map(mix);
            }
            symbols::score(&picture, &grid)
        });
        let grids: Vec<Score> = grids.collect();
        let grids: Vec<&Score> = grids.iter().collect();
        let found = symbols::SymbolsMetric.summary(&grids);
        agree(&found, &case, &["accuracy", "recall", "shift_accuracy"]);
        let details = symbols::SymbolsMetric.details(&grids, &Pair::default());
        assert_eq!(details["confusion"], case["confusion"]);
        assert!(found["accuracy"] < 70.0, "some are misread: {found:?}");
    }
}

/// The script's blocks of four pixels.
fn blocks(seed: u64, height: u32, width: u32) -> RgbImage {
    let small = Sizes { seed, height: height / 4, width: width / 4 }.picture(0);
    RgbImage::from_fn(width, height, |x, y| *small.get_pixel(x / 4, y / 4))
}

#[test]
fn poses_are_matched_as_by_scipy() {
    for case in expected("pose") {
        let Sizes { seed, height, width } = Sizes::of(&case);
        let persons = case["persons"].as_u64().unwrap() as usize;
        let persons: Vec<Person> = noise(seed + 2000, persons * 51)
            .chunks(51)
            .map(|bytes| {
                let point = |i: usize| {
                    let [x, y, seen] = [bytes[3 * i], bytes[3 * i + 1], bytes[3 * i + 2]];
                    [x / 16, y / 16, seen / 128].map(f32::from)
                };
                Person { keypoints: std::array::from_fn(point) }
            })
            .collect();
        let [found, wanted] = [seed, seed + 1000].map(|seed| blocks(seed, height, width));
        let score = pose::score(&found, &wanted, &persons, pose::PoseRule::default()).unwrap();
        let counts = ["matched", "predicted", "wanted"];
        agree(&score, &case, &counts);
        agree(&score, &case, &["match_rate", "precision", "f1"]);
    }
}

#[test]
fn errors_of_distances_are_those_of_numpy() {
    for case in expected("depth") {
        let count = case["count"].as_u64().unwrap() as usize;
        let seed = case["seed"].as_u64().unwrap();
        let pairs = noise(seed, count).into_iter().zip(noise(seed + 1000, count));
        let pairs = pairs.map(|(a, b)| [0.5 + f64::from(a) / 40.0, 0.5 + f64::from(b) / 60.0]);
        let align = serde_json::from_value(case["align"].clone()).unwrap();
        let found = depth::score(pairs.collect(), align).unwrap();
        agree(&found, &case, &["abs_rel", "rmse", "delta_1", "delta_2", "delta_3"]);
    }
}

#[test]
fn intervals_are_those_of_torch_and_numpy() {
    for case in expected("bootstrap") {
        let number = |name: &str| case[name].as_u64().unwrap();
        let scores: Vec<Score> = noise(7, number("count") as usize)
            .into_iter()
            .map(|value| score([("psnr", value.into())]))
            .collect();
        let rule = bootstrap::Bootstrap {
            samples: number("samples") as usize,
            level: case["level"].as_f64().unwrap(),
            seed: number("seed"),
        };
        let found = rule.intervals(&image::ImageMetric, &scores.iter().collect::<Vec<_>>())["psnr"];
        for (ours, theirs) in found.iter().zip(case["interval"].as_array().unwrap()) {
            assert!((ours - theirs.as_f64().unwrap()).abs() < 1e-9, "{found:?} {case}");
        }
    }
}

#[test]
fn a_threshold_that_every_pixel_reaches_is_refused() {
    let problems = |threshold: u8| {
        let rules = json!({ "metric": "miou", "mask_threshold": threshold });
        serde_json::from_value::<Rules>(rules).unwrap().validate()
    };
    assert!(problems(1).is_empty());
    assert_eq!(problems(0)[0].field, "mask_threshold");
    assert_eq!(problems(0)[0].message, "must be at least 1, but is 0");
}
