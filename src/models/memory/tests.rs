use serde_json::Value;

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

fn training(batch: usize, recomputed: usize) -> Memory {
    of_training(&LoraTraining {
        targets: Some(LoraTargets::Qkvo),
        rank: 64,
        batch,
        recomputed,
        accumulates: false,
    })
}

fn of_training(training: &LoraTraining) -> Memory {
    let source = paper();
    let given = Given::default();
    Estimator::new(&source, false).unwrap().lora_training(CLIP, training, &given).unwrap()
}

/// Clips whose latents are 3 frames of 16 x 60 x 90, padded to 4.
const FRAME: u64 = 16 * 60 * 90 * 4;

#[test]
fn clips_that_a_training_holds_are_counted_where_they_are() {
    let held = |clips, images| HeldClips { clips, images };
    let given = Given { clips: held(500, 1000), held_out: held(20, 1), ..Given::default() };
    let training = LoraTraining {
        targets: None,
        rank: 64,
        batch: 2,
        recomputed: usize::MAX,
        accumulates: false,
    };
    let source = paper();
    let [host, gpu] = [true, false].map(|on_host| Estimator::new(&source, on_host).unwrap());
    let images = (500 * 1000 + 20) * FRAME;
    // The factors of the family's default, QKVO, and their moments, twice while a checkpoint is
    // made.
    let beside = gpu.beside_training(CLIP, &training, &given).unwrap();
    assert_eq!((beside.clips, beside.trained, beside.weights), (images, 66_060_288 * 24, 0));
    // The largest tensor is gone before clips are read and a checkpoint is made; f32 at most.
    let small = LoraTraining { rank: 1, ..training };
    let beside = gpu.beside_training(CLIP, &small, &given).unwrap();
    assert_eq!((beside.clips, beside.weights), (images, 0));
    let beside = gpu.beside_training(CLIP, &small, &Given::default()).unwrap();
    assert_eq!((beside.weights, beside.total()), (3072 * 12288 * 4, 3072 * 12288 * 4));
    let loaded = |part| gpu.loading(&[part]).unwrap().total();
    assert_eq!(
        (loaded("transformer"), loaded("text_encoder")),
        (3072 * 12288 * 4, 32128 * 4096 * 4)
    );
    assert_eq!(gpu.loading(&["vae", "transformer"]).unwrap().weights, loaded("transformer"));
    let clips =
        |estimator: &Estimator<'_>| estimator.lora_training(CLIP, &training, &given).unwrap().clips;
    assert_eq!(clips(&gpu), 520 * 4 * FRAME);
    assert_eq!(clips(&host), 520 * 4 * FRAME + images);
    assert_eq!(gpu.encoded(CLIP, 1000).unwrap(), 2 * (3 + 1000) * FRAME);
}

#[test]
fn sampling_counts_the_adapter_and_the_prompt_as_they_are() {
    let source = paper();
    let estimator = Estimator::new(&source, false).unwrap();
    let sampling = |given| estimator.sampling(CLIP, [1, 1], false, &given).unwrap();
    let plain = sampling(Given::default());
    let with = |adapter| sampling(Given { adapter, ..Given::default() }).weights - plain.weights;
    let qkvo = AdapterSize::of_rank(None, 64);
    assert_eq!(with(qkvo), 66_060_288 * 4, "the family's default is QKVO");
    let qk = AdapterSize::of_rank(Some(LoraTargets::Qk), 32);
    assert_eq!(with(qkvo.and(qk)), (66_060_288 + 33_030_144 / 2) * 4);
    assert_eq!(with(qkvo.and(qk).at_most(16)), (66_060_288 / 4 + 33_030_144 / 4) * 4);
    assert_eq!(with(qkvo.and(AdapterSize::of_files(7))), 66_060_288 * 4 + 7);
    let (vae, _) = estimator.vae().unwrap();
    let tokens = |given| estimator.pass(CLIP, &*vae, given).unwrap().tokens;
    assert_eq!((tokens(None), tokens(Some(452))), (226 + 2700, 452 + 2700));
}

#[test]
fn gradients_that_are_added_up_are_there_twice() {
    let targets = Some(LoraTargets::Qkvo);
    let summed =
        LoraTraining { targets, rank: 64, batch: 2, recomputed: usize::MAX, accumulates: true };
    assert_eq!(of_training(&summed).trained, 66_060_288 * 20);
}

#[test]
fn each_block_that_is_computed_again_saves_as_much_as_the_one_before() {
    let activations = |again| training(2, again).activations;
    assert_eq!(
        (activations(42), training(2, 42).attention),
        (activations(100), training(2, 41).attention)
    );
    let saved: Vec<_> = (1..41).map(|again| activations(again) - activations(again + 1)).collect();
    assert!(saved.iter().all(|bytes| *bytes == saved[0]), "{saved:?}");
    assert!(activations(0) > activations(1) && activations(41) > activations(42) - saved[0]);
}

#[test]
fn the_published_model_has_its_published_sizes() {
    let memory = training(2, 42);
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
    let recomputed = training(2, 42);
    assert!(recomputed.total() < CARD, "{recomputed:?}");
    assert!(training(2, 0).total() > CARD);
}

/// What an H100 reserved for it, within 5 % (`benches/results/2026-11-27-h100-2.md`).
#[test]
fn the_setting_of_the_paper_is_planned_as_it_was_measured() {
    for (recomputed, measured) in [(42, 14.8e9), (0, 35.7e9)] {
        let planned = training(2, recomputed).total() as f64;
        assert!((planned / measured - 1.0).abs() < 0.05, "{planned} of {measured}");
    }
}

/// All that an H100 had in use at the peak of it, with CUDA's context
/// (`benches/results/2026-11-27-h100-2.md`).
#[test]
fn decoding_is_planned_with_what_the_card_had_at_its_peak() {
    const MEASURED: f64 = 15.96e9;
    let source = paper();
    let planned = Estimator::new(&source, false).unwrap().decoding(CLIP, false).unwrap().total();
    let ratio = planned as f64 / MEASURED;
    assert!((1.0..1.05).contains(&ratio), "{planned} of {MEASURED}");
}

#[test]
fn a_longer_prompt_takes_more() {
    let source = paper();
    let estimator = Estimator::new(&source, false).unwrap();
    let tokens = |tokens| estimator.text(Some(tokens), None).unwrap().activations;
    assert_eq!(tokens(452), 2 * tokens(226));
}

#[test]
fn more_of_anything_needs_more() {
    assert!(training(2, 42).total() > training(1, 42).total());
    let source = paper();
    let estimator = Estimator::new(&source, true).unwrap();
    let sampling = |parallel| {
        estimator.sampling(CLIP, [parallel; 2], false, &Given::default()).unwrap().total()
    };
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
