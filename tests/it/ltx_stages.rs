//! The stages on a model of LTX-Video's family.

use pipe::{
    artifact::{ArtifactKind, Item, frames, samples, videos::Clip},
    stages::{Decode, LoraTrain, Sample, Stage, StageError, VaeEncode},
};
use serde_json::{Value, json};

use crate::{
    golden::stage_tolerance,
    ltx_video::{Fixture, SLOW},
    training::write_model,
    training_stages::{Bench, stage},
};

#[test]
fn the_stages_of_an_experiment_fit_together() {
    let fixture = Fixture::read();
    let bench = Bench::new();
    let folder = bench.folder.path().join("model");
    let model = write_model(&folder, &fixture.config, &fixture.transformer, &fixture.vae);
    let model = Some(&model);
    bench.fill_with(&fixture.golden, [9, 32, 64]);
    let run = |stage: &dyn Stage, ports: &[&str]| bench.run(stage, ports, usize::MAX).unwrap();

    let encode: VaeEncode = stage(model, json!({ "seed": 3 }));
    bench.put("latents", ArtifactKind::Latents, run(&encode, &["videos"]));
    let settings = json!({
        "rank": 2, "steps": 4, "learning_rate": 0.01, "seed": 3,
    });
    let train: LoraTrain = stage(model, settings.clone());
    let whole = run(&train, &["latents", "text"]);
    let mut other = settings;
    other["timestep_distribution"] = json!("uniform");
    let other: LoraTrain = stage(model, other);
    std::fs::remove_dir_all(bench.folder.path().join("checkpoints")).unwrap();
    assert_ne!(run(&other, &["latents", "text"]), whole, "the distribution must matter");
    bench.put("lora", ArtifactKind::LoraAdapter, whole);

    let sample: Sample = stage(model, json!({ "frames": 9, "steps": 2, "seed": 4 }));
    let adapted = run(&sample, &["pairs", "text", "lora"]);
    assert_ne!(run(&sample, &["pairs", "text"]), adapted, "the adapter must matter");
    let latents = samples::from_bytes(&bench.read(&adapted[0], samples::FILE)).unwrap();
    assert_eq!(latents.shape, [4, 2, 1, 2]);
    bench.put("samples", ArtifactKind::Samples, adapted);

    let decode = |params: Value| -> Decode { stage(model, params) };
    let decoded = run(&decode(json!({})), &["samples"]);
    let stated = run(&decode(json!({ "noise": {} })), &["samples"]);
    assert_eq!(stated, decoded, "nothing stated is the default");
    let reseeded = run(&decode(json!({ "seed": 4 })), &["samples"]);
    assert_ne!(reseeded, decoded, "the decoder's noise must matter");
    let clip = Clip::from_bytes(&bench.read(&decoded[0], frames::FILE)).unwrap();
    assert_eq!(clip.size, [9, 32, 64]);
}

#[test]
fn what_the_family_does_not_know_is_an_error() {
    let fixture = Fixture::read();
    let bench = Bench::new();
    let folder = bench.folder.path().join("model");
    let model = write_model(&folder, &fixture.config, &fixture.transformer, &fixture.vae);
    bench.fill_with(&fixture.golden, [9, 32, 64]);
    let message = |params: Value| {
        let sample: Sample = stage(Some(&model), params);
        let error = bench.run(&sample, &["pairs", "text"], usize::MAX).unwrap_err();
        assert!(matches!(error, StageError::Failed { .. }), "{error:?}");
        error.to_string()
    };
    let sampler = message(json!({ "sampler": "ddim" }));
    let wanted = "`sampler` must be `flow_euler` or `flow_condition` for this family of models, but is `ddim`";
    assert_eq!(sampler, wanted);
    let shifted = message(json!({ "sampler": "flow_condition" }));
    assert!(shifted.contains("`use_dynamic_shifting` must be false"), "{shifted}");
    let frames = message(json!({ "frames": 1 }));
    assert!(frames.contains("number of latent frames must be at least 2, but is 1"), "{frames}");
    let decode: Decode = stage(Some(&model), json!({ "noise": { "scale": 2.0 } }));
    assert_eq!(decode.validate()[0].field, "noise.scale");
}

/// The stages hand on what the condition pipeline needs: the run of the stage is the run above.
#[test]
fn the_stage_samples_as_the_condition_pipeline_does() {
    let fixture = Fixture::of("condition");
    let bench = Bench::new();
    let folder = bench.folder.path().join("model");
    let model = write_model(&folder, &fixture.config, &fixture.transformer, &fixture.vae);
    bench.fill_with(&fixture.golden, [17, 32, 64]);
    let (rgb, shape) = fixture.golden.values("sample.image");
    let rgb = rgb.iter().map(|v| *v as u8).collect();
    let image = image::RgbImage::from_raw(shape[1] as u32, shape[0] as u32, rgb).unwrap();
    let pair = bench.item("pair", &[("input.png", frames::to_png(&image))]);
    bench.put("pairs", ArtifactKind::Pairs, vec![pair]);
    bench.put_text(&fixture.golden, Some("condition"));
    let run = |change: Value| {
        let mut params =
            json!({ "frames": 17, "steps": 4, "seed": 42, "sampler": "flow_condition" });
        for (key, value) in change.as_object().unwrap() {
            params[key] = value.clone();
        }
        let sample: Sample = stage(Some(&model), params);
        let made = bench.run(&sample, &["pairs", "text"], usize::MAX).unwrap();
        samples::from_bytes(&bench.read(&made[0], samples::FILE)).unwrap().values
    };
    let plain = run(json!({}));
    let wanted = fixture.golden.values("sample.plain").0;
    let largest = wanted.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let far = plain.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < stage_tolerance(1e-4) * largest, "{far} of {largest}");
    assert_ne!(run(json!({ "condition": { "noise_scale": 0.0 } })), plain);
    assert_ne!(run(json!({ "condition": { "strength": 0.9 } })), plain);
    assert_ne!(run(json!({ "posterior": "mean" })), plain);
    assert_eq!(run(json!({ "posterior": "sample" })), plain);
    assert_eq!(run(json!({ "sampler": null })), plain, "by default the pipeline of the schedule");
    // Decoding goes on with the generator as the steps of the condition pipeline leave it.
    let sample = stage::<Sample>(
        Some(&model),
        json!({ "frames": 17, "steps": 4, "seed": 42, "sampler": "flow_condition" }),
    );
    let made = bench.run(&sample, &["pairs", "text"], usize::MAX).unwrap();
    bench.put("samples", ArtifactKind::Samples, made);
    let last_frame = |noise: Value| {
        let decode: Decode = stage(Some(&model), json!({ "seed": 42, "noise": noise }));
        let made = bench.run(&decode, &["samples"], usize::MAX).unwrap();
        let shown = image::load_from_memory(&bench.read(&made[0], frames::PREDICTION)).unwrap();
        shown.to_rgb8()
    };
    let (wanted, _) = fixture.golden.values("sample.last_frame");
    let far = |shown: &image::RgbImage| {
        let pixels = shown.enumerate_pixels().filter(|(x, ..)| *x < 32);
        let values = pixels.flat_map(|(x, y, pixel)| {
            [0, 1, 2].map(|c| (f32::from(pixel[c]) / 255.0, c * 32 * 32 + (y * 32 + x) as usize))
        });
        values.map(|(found, at)| (found - wanted[at]).abs()).fold(0.0, f32::max)
    };
    let shown = last_frame(json!({}));
    assert!(far(&shown) < 0.5 / 255.0 + 1e-3, "{}", far(&shown));
    assert_eq!(last_frame(json!({ "condition_steps": 4 })), shown, "it may be stated");
    assert!(far(&last_frame(json!({ "condition_steps": 3 }))) > 1.0 / 255.0, "it matters");

    bench.put_text(&fixture.golden, None);
    assert_ne!(run(json!({ "sampler": "flow_euler" })), plain);

    let encode: VaeEncode = stage(Some(&model), json!({}));
    bench.put(
        "latents",
        ArtifactKind::Latents,
        bench.run(&encode, &["videos"], usize::MAX).unwrap(),
    );
    let train = |causal: bool| {
        bench.put_text(&fixture.golden, causal.then_some("condition"));
        let params = json!({ "rank": 1, "steps": 1, "causal_time": causal });
        let train: LoraTrain = stage(Some(&model), params);
        let made = bench.run(&train, &["latents", "text"], usize::MAX).unwrap();
        std::fs::remove_dir_all(bench.folder.path().join("checkpoints")).unwrap();
        made
    };
    let loss = |made: &[Item]| {
        let log: Value = serde_json::from_slice(&bench.read(&made[0], "train.json")).unwrap();
        log["losses"][0].as_f64().unwrap()
    };
    let (causal, plain) = (train(true), train(false));
    assert!((loss(&causal) - loss(&plain)).abs() > 1e-6, "how time is counted must matter");
    // So an adapter is sampled as it was trained.
    let sample: Sample =
        stage(Some(&model), json!({ "frames": 17, "steps": 1, "sampler": "flow_condition" }));
    bench.put_text(&fixture.golden, Some("condition"));
    bench.put("lora", ArtifactKind::LoraAdapter, causal);
    bench.run(&sample, &["pairs", "text", "lora"], usize::MAX).unwrap();
    bench.put("lora", ArtifactKind::LoraAdapter, plain);
    let error = bench.run(&sample, &["pairs", "text", "lora"], usize::MAX).unwrap_err();
    assert!(error.to_string().contains("was trained without `causal_time`"), "{error}");
    bench.put_text(&fixture.golden, None);
    let scaled: LoraTrain =
        stage(Some(&model), json!({ "rank": 1, "steps": 1, "image_latent_scale": 0.7 }));
    let error = bench.run(&scaled, &["latents", "text"], usize::MAX).unwrap_err();
    assert!(error.to_string().contains("whose image is the first frame"), "{error}");
}

/// Both stages hand the frame rate on, and a training and a sampling that differ in it do not fit.
#[test]
fn clips_have_one_frame_rate_in_training_and_sampling() {
    let fixture = Fixture::read();
    let bench = Bench::new();
    let folder = bench.folder.path().join("model");
    let model = write_model(&folder, &fixture.config, &fixture.transformer, &fixture.vae);
    bench.fill_with(&fixture.golden, [9, 32, 64]);
    let encode: VaeEncode = stage(Some(&model), json!({}));
    let latents = bench.run(&encode, &["videos"], usize::MAX).unwrap();
    bench.put("latents", ArtifactKind::Latents, latents);
    let train = |frame_rate: Value| {
        let params = json!({ "rank": 1, "steps": 1, "frame_rate": frame_rate });
        let train: LoraTrain = stage(Some(&model), params);
        let made = bench.run(&train, &["latents", "text"], usize::MAX).unwrap();
        std::fs::remove_dir_all(bench.folder.path().join("checkpoints")).unwrap();
        made
    };
    let log = |made: &[Item]| -> Value {
        serde_json::from_slice(&bench.read(&made[0], "train.json")).unwrap()
    };
    let (slow, plain) = (train(json!(SLOW)), train(Value::Null));
    assert_eq!(plain, train(json!(25.0)), "the default is one whether it is stated or not");
    let (slow_log, plain_log) = (log(&slow), log(&plain));
    assert_eq!(slow_log["settings"]["frame_rate"], SLOW);
    assert!(plain_log["settings"].get("frame_rate").is_none());
    assert_ne!(slow_log["losses"], plain_log["losses"], "the rate must matter");

    bench.put("lora", ArtifactKind::LoraAdapter, slow);
    let sample = |frame_rate: Value| {
        let params = json!({ "frames": 9, "steps": 1, "frame_rate": frame_rate });
        let sample: Sample = stage(Some(&model), params);
        bench.run(&sample, &["pairs", "text", "lora"], usize::MAX)
    };
    sample(json!(SLOW)).unwrap();
    let error = sample(Value::Null).unwrap_err().to_string();
    let wanted = "the clips have 25 frames per second here, but 12 in the training of the adapter";
    assert_eq!(error, wanted);
    bench.put("lora", ArtifactKind::LoraAdapter, plain);
    sample(json!(25.0)).unwrap();
}
