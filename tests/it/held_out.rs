//! Losses on clips that are not trained on.

use pipe::{
    artifact::ArtifactKind,
    stages::{LoraTrain, Pretrain, Stage, StageError, VaeEncode},
};
use serde_json::{Value, json};

use crate::{
    training::Fixture,
    training_stages::{Bench, stage},
};

/// The losses by step and quantile in a training's log.
fn evaluations(log: &Value) -> Vec<(u64, Vec<f64>)> {
    let list = log["held_out"]["losses"].as_array().cloned().unwrap_or_default();
    let losses = |entry: &Value| {
        entry["losses"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    };
    list.iter().map(|entry| (entry["step"].as_u64().unwrap(), losses(entry))).collect()
}

/// A bench with latents of three clips, of which some are held out.
fn bench(fixture: &Fixture, held_out: &[usize]) -> (Bench, pipe::models::ModelRef) {
    let bench = Bench::new();
    bench.fill(fixture);
    let model = fixture.write_model(&bench.folder.path().join("model"));
    let encode: VaeEncode = stage(Some(&model), json!({}));
    let latents = bench.run(&encode, &["videos"], usize::MAX).unwrap();
    let picked = held_out.iter().map(|index| latents[*index].clone()).collect();
    bench.put("held_out", ArtifactKind::Latents, picked);
    bench.put("latents", ArtifactKind::Latents, latents[..1].to_vec());
    (bench, model)
}

fn log_of(bench: &Bench, training: &dyn Stage, file: &str, ports: &[&str]) -> Value {
    let made = bench.run(training, ports, usize::MAX).unwrap();
    serde_json::from_slice(&bench.read(&made[0], file)).unwrap()
}

const PORTS: [&str; 3] = ["latents", "text", "held_out"];

fn training(model: &pipe::models::ModelRef, more: &Value) -> LoraTrain {
    let mut params =
        json!({ "rank": 2, "steps": 5, "learning_rate": 0.01, "seed": 3, "save_every": 1 });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    stage(Some(model), params)
}

#[test]
fn resumed_logs_equal_uninterrupted_ones_and_training_is_not_changed() {
    let fixture = Fixture::read("15");
    let (bench, model) = bench(&fixture, &[1, 2]);
    let train = training(&model, &json!({ "held_out_every": 2 }));
    let whole = bench.run(&train, &PORTS, usize::MAX).unwrap();
    let log: Value = serde_json::from_slice(&bench.read(&whole[0], "train.json")).unwrap();
    let found = evaluations(&log);
    assert_eq!(found.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 2, 4]);
    assert!(found.iter().all(|(_, losses)| losses.len() == 5));
    assert_ne!(found[0].1, found[2].1, "the adapter must matter");

    let forget = || std::fs::remove_dir_all(bench.folder.path().join("checkpoints")).unwrap();
    forget();
    for stop in [1, 2] {
        let stopped = bench.run(&train, &PORTS, stop);
        assert!(matches!(stopped, Err(StageError::Cancelled)), "{stopped:?}");
    }
    assert_eq!(bench.run(&train, &PORTS, usize::MAX).unwrap(), whole);

    // Without a look at other clips, the adapter is the same and the log says nothing of them.
    forget();
    let plain = bench.run(&training(&model, &json!({})), &PORTS[..2], usize::MAX).unwrap();
    let weights = "pytorch_lora_weights.safetensors";
    assert_eq!(plain[0].files[weights], whole[0].files[weights]);
    let log: Value = serde_json::from_slice(&bench.read(&plain[0], "train.json")).unwrap();
    assert!(log.get("held_out").is_none());

    // What is saved on the way has the log of a training that ends there.
    forget();
    let short = bench
        .run(&training(&model, &json!({ "steps": 2, "held_out_every": 2 })), &PORTS, usize::MAX)
        .unwrap();
    forget();
    let both = training(&model, &json!({ "save_at": [2, 5], "held_out_every": 2 }));
    let both = bench.run(&both, &PORTS, usize::MAX).unwrap();
    assert_eq!(both[0].files, short[0].files);
    assert_eq!(both[1].files, whole[0].files);
}

/// The noise of a clip depends on its name and the quantile, not on what else is held out.
#[test]
fn the_loss_of_several_clips_is_the_mean_of_their_own() {
    let fixture = Fixture::read("10");
    let before_training = |held_out: &[usize]| {
        let (bench, model) = bench(&fixture, held_out);
        let train = training(&model, &json!({ "steps": 1, "held_out_every": 9 }));
        evaluations(&log_of(&bench, &train, "train.json", &PORTS)).remove(0).1
    };
    let (one, other, both) =
        (before_training(&[1]), before_training(&[2]), before_training(&[1, 2]));
    assert_eq!(before_training(&[2, 1]), both);
    for quantile in 0..5 {
        let mean = f64::midpoint(one[quantile], other[quantile]);
        assert!((both[quantile] - mean).abs() < 1e-6 * mean, "{both:?} of {one:?} and {other:?}");
    }
    assert_ne!(one, other);
    // Noise with the clip all but gone is far easier to tell than noise on a clean clip.
    assert!(both.windows(2).any(|pair| (pair[0] - pair[1]).abs() > 1e-4), "{both:?}");
}

#[test]
fn pretraining_looks_at_them_too() {
    let fixture = Fixture::read("15");
    let (bench, _) = bench(&fixture, &[1]);
    let train: Pretrain = stage(
        None,
        json!({
            "part": "transformer", "steps": 3, "seed": 1, "held_out_every": 3, "ema_decay": 0.5,
            "image_latent_scale": 1.5, "config": fixture.config["transformer"],
        }),
    );
    let found = evaluations(&log_of(&bench, &train, "log.json", &PORTS));
    assert_eq!(found.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 3]);
    assert_ne!(found[0].1, found[1].1);
}
