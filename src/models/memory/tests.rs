use super::*;

/// The configuration at the head of a list of published tensors.
macro_rules! config {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/shapes/", $name))
            .lines()
            .next()
            .unwrap()
    };
}

/// The configurations of CogVideoX1.5-5B-I2V, without its weights.
fn paper() -> ModelSource {
    let mut transformer: Value = serde_json::from_str(config!("cogvideox_15.txt")).unwrap();
    transformer["_class_name"] = "CogVideoXTransformer3DModel".into();
    let files = [
        ("transformer/config.json", transformer.to_string()),
        ("vae/config.json", config!("cogvideox_vae.txt").to_owned()),
        ("text_encoder/config.json", config!("t5_xxl.txt").to_owned()),
    ];
    let files = files.map(|(path, text)| (path.to_owned(), text.into_bytes().into()));
    ModelSource::Files { files: std::sync::Arc::new(files.into()), base: None }
}

const CLIP: ClipSize = ClipSize { frames: 9, height: 480, width: 720 };

fn training(batch: usize, recompute: bool) -> Memory {
    of_training(&LoraTraining {
        targets: Some(LoraTargets::Qkvo),
        rank: 64,
        batch,
        recompute,
        accumulates: false,
    })
}

fn of_training(training: &LoraTraining) -> Memory {
    let source = paper();
    Estimator::new(&source, false).unwrap().lora_training(CLIP, training).unwrap()
}

#[test]
fn gradients_that_are_added_up_are_there_twice() {
    let targets = Some(LoraTargets::Qkvo);
    let summed = LoraTraining { targets, rank: 64, batch: 2, recompute: true, accumulates: true };
    assert_eq!(of_training(&summed).trained, 66_060_288 * 20);
}

#[test]
fn the_published_model_has_its_published_sizes() {
    let memory = training(2, true);
    assert_eq!(memory.weights, 5_571_594_880 * 2);
    assert_eq!(memory.trained, 66_060_288 * 16);
    let source = paper();
    let text = Estimator::new(&source, false).unwrap().text(None, None).unwrap();
    assert_eq!(text.weights, 4_762_310_656 * 2);
}

/// The paper trains batches of two.
#[test]
fn the_setting_of_the_paper_fits_a_card_of_24_gigabytes() {
    const CARD: u64 = 24_000_000_000;
    let recomputed = training(2, true);
    assert!(recomputed.total() < CARD, "{recomputed:?}");
    assert!(training(2, false).total() > CARD);
}

/// What an H100 reserved for it, within 5 % (`benches/results/2026-11-27-h100.md`).
#[test]
fn the_setting_of_the_paper_is_planned_as_it_was_measured() {
    for (recompute, measured) in [(true, 14.8e9), (false, 35.9e9)] {
        let planned = training(2, recompute).total() as f64;
        assert!((planned / measured - 1.0).abs() < 0.05, "{planned} of {measured}");
    }
}

#[test]
fn more_of_anything_needs_more() {
    assert!(training(2, true).total() > training(1, true).total());
    let source = paper();
    let estimator = Estimator::new(&source, true).unwrap();
    let sampling = |parallel| estimator.sampling(CLIP, parallel, false).unwrap().total();
    assert!(sampling(2) > sampling(1));
    let wide = ClipSize { width: 2 * CLIP.width, ..CLIP };
    let coding = |clip| estimator.decoding(clip, false).unwrap().total();
    assert!(coding(wide) > coding(CLIP));
    assert!(estimator.decoding(CLIP, false).unwrap().total() > 4 * 215_583_907);
}

#[test]
fn tiles_need_less_the_larger_the_clip() {
    let source = paper();
    let estimator = Estimator::new(&source, false).unwrap();
    let activations = |clip, tiled| estimator.decoding(clip, tiled).unwrap().activations;
    // A tile has half the height and half the width.
    let (whole, tiled) = (activations(CLIP, false), activations(CLIP, true));
    assert!(tiled * 7 < whole * 2 && tiled * 4 > whole, "{tiled} of {whole}");
    let small = ClipSize { frames: 9, height: 240, width: 360 };
    assert!(activations(small, true) >= activations(small, false), "they are one tile");
}

#[test]
fn memory_is_told_with_the_parts_that_there_are() {
    let memory = Memory { weights: 3 << 30, trained: 1 << 29, ..Memory::default() };
    let wanted = "3.5 GiB of memory (weights 3.0 GiB, trained 512.0 MiB)";
    assert_eq!(memory.to_string(), wanted);
}
