//! The stages that train, sample and decode, on a small model.

use std::{cell::RefCell, collections::BTreeMap, fs, sync::Arc};

use pipe::{
    artifact::{
        ArtifactKind, Item, Manifest, adapter::AdapterArtifact, frames, samples, videos::Clip,
    },
    models::{ModelCache, ModelRef},
    rng::TorchRng,
    stages::{
        CancelFlag, CommandGuard, Decode, Inputs, LoraTrain, Output, Pretrain, Stage, StageContext,
        StageError, VaeEncode,
    },
    store::{CheckpointFolder, Store},
};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

use crate::{
    golden::{Golden, device},
    training::Fixture,
};

/// A store with the artifacts of a small experiment, and stages run on it.
pub struct Bench {
    pub folder: tempfile::TempDir,
    store: Store,
    models: ModelCache,
    artifacts: RefCell<BTreeMap<&'static str, Arc<Manifest>>>,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("cache")).unwrap();
        Self { store, folder, models: ModelCache::default(), artifacts: RefCell::default() }
    }

    pub fn put(&self, name: &'static str, kind: ArtifactKind, items: Vec<Item>) {
        let manifest = Manifest { kind, format_version: kind.format_version(), items };
        self.artifacts.borrow_mut().insert(name, Arc::new(manifest));
    }

    pub fn item(&self, name: &str, files: &[(&str, Vec<u8>)]) -> Item {
        let files = files
            .iter()
            .map(|(file, bytes)| ((*file).to_owned(), self.store.put(bytes).unwrap()))
            .collect();
        Item { name: name.to_owned(), files }
    }

    pub fn fill(&self, fixture: &Fixture) {
        self.fill_with(&fixture.golden, [9, 16, 24]);
    }

    /// Clips of a size, the prompt `text` and pairs.
    pub fn fill_with(&self, golden: &Golden, size: [usize; 3]) {
        let clip = |seed: u64| {
            let bytes = TorchRng::new(seed).randint(256, size.iter().product::<usize>() * 3);
            Clip { size, rgb: bytes.iter().map(|v| *v as u8).collect() }
        };
        let names = ["a", "b", "c"];
        let clips = names
            .iter()
            .zip(0..)
            .map(|(name, seed)| self.item(name, &[("clip.safetensors", clip(seed).to_bytes())]));
        self.put("videos", ArtifactKind::Videos, clips.collect());
        let pairs = names.iter().zip(0..).map(|(name, seed)| {
            let image = frames::to_png(&clip(seed).frame(0).unwrap());
            self.item(name, &[("input.png", image)])
        });
        self.put("pairs", ArtifactKind::Pairs, pairs.collect());
        self.put_text(golden, None);
    }

    /// The prompt `text`, said to be of a format.
    pub fn put_text(&self, golden: &Golden, format: Option<&str>) {
        let (text, shape) = golden.values("text");
        let bytes: Vec<u8> = text.iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, shape[1..].to_vec(), &bytes).unwrap();
        let metadata = format.map(|format| [("format".to_owned(), format.to_owned())].into());
        let file = safetensors::serialize([("embedding", view)], metadata).unwrap();
        let prompt = [("embedding.safetensors", file), ("prompt.txt", Vec::new())];
        let prompt = self.item("prompt", &prompt);
        self.put("text", ArtifactKind::TextEmbeddings, vec![prompt]);
    }

    /// Runs a stage on ports of the artifacts' names, and stops it after `stop` ticks.
    pub fn run(
        &self,
        stage: &dyn Stage,
        ports: &[&str],
        stop: usize,
    ) -> Result<Vec<Item>, StageError> {
        assert!(stage.validate().is_empty(), "{:?}", stage.validate());
        let artifacts = self.artifacts.borrow();
        let ports = ports.iter().map(|p| ((*p).to_owned(), Arc::clone(&artifacts[p]))).collect();
        let inputs = Inputs::new(&self.store, ports);
        let mut on_item = |_: &Item| Ok(());
        let mut out = Output::new(&self.store, &mut on_item);
        let cancel = CancelFlag::default();
        let ticks = std::sync::atomic::AtomicUsize::new(0);
        let progress = |_| {
            if ticks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 >= stop {
                cancel.cancel();
            }
        };
        let checkpoints = CheckpointFolder::alone(&self.folder.path().join("checkpoints")).unwrap();
        let cx = StageContext {
            device: &device(),
            models: &self.models,
            sources: None,
            checkpoints: (!stage.trajectory_params().is_empty()).then_some(&checkpoints),
            allow_commands: false,
            commands: &CommandGuard::default(),
            weights_hold: &|| Ok(()),
            progress: &progress,
            steps_made: &std::sync::atomic::AtomicU64::new(0),
            cancel: &cancel,
        };
        stage.run(&inputs, &mut out, &cx)?;
        Ok(out.into_items())
    }

    pub fn read(&self, item: &Item, file: &str) -> Vec<u8> {
        self.store.read(&item.files[file]).unwrap()
    }
}

pub fn stage<S: serde::de::DeserializeOwned>(model: Option<&ModelRef>, mut params: Value) -> S {
    if let Some(model) = model {
        params["model"] = json!(model);
    }
    serde_json::from_value(params).unwrap()
}

#[test]
fn the_stages_of_an_experiment_fit_together() {
    let fixture = Fixture::read("15");
    let bench = Bench::new();
    let model = fixture.write_model(&bench.folder.path().join("model"));
    let model = Some(&model);
    bench.fill(&fixture);
    let run = |stage: &dyn Stage, ports: &[&str]| bench.run(stage, ports, usize::MAX).unwrap();

    let encode: VaeEncode = stage(model, json!({ "seed": 3, "image_latent_pool": 2 }));
    bench.put("latents", ArtifactKind::Latents, run(&encode, &["videos"]));

    let train = json!({ "rank": 2, "steps": 6, "batch_size": 2, "learning_rate": 0.01, "seed": 3 });
    let train: LoraTrain = stage(model, train);
    let ports = ["latents", "text"];
    let whole = run(&train, &ports);
    fs::remove_dir_all(bench.folder.path().join("checkpoints")).unwrap();
    for stop in [2, 3] {
        let stopped = bench.run(&train, &ports, stop);
        assert!(matches!(stopped, Err(StageError::Cancelled)), "{stopped:?}");
    }
    assert_eq!(run(&train, &ports), whole, "resumed must equal uninterrupted, byte for byte");
    bench.put("lora", ArtifactKind::LoraAdapter, whole);
    {
        let artifacts = bench.artifacts.borrow();
        let ports = [("lora".to_owned(), Arc::clone(&artifacts["lora"]))].into();
        let read = AdapterArtifact::read(&Inputs::new(&bench.store, ports), "lora").unwrap();
        assert_eq!(read.unwrap().train["losses"].as_array().unwrap().len(), 6);
    }

    let sampling = json!({ "frames": 9, "steps": 3, "seed": 42 });
    let one: pipe::stages::Sample = stage(model, sampling.clone());
    let mut batched = sampling.clone();
    batched["batch_size"] = json!(3);
    let batched: pipe::stages::Sample = stage(model, batched);
    let adapted = run(&one, &["pairs", "text", "lora"]);
    assert_eq!(run(&batched, &["pairs", "text", "lora"]), adapted);
    assert_ne!(run(&one, &["pairs", "text"]), adapted, "the adapter must matter");
    let latents = samples::from_bytes(&bench.read(&adapted[0], samples::FILE)).unwrap();
    assert_eq!(latents.shape, [4, 3, 4, 6]);
    bench.put("samples", ArtifactKind::Samples, adapted);

    let decode: Decode = stage(model, json!({}));
    let decoded = run(&decode, &["samples"]);
    let names: Vec<_> = decoded.iter().map(|item| item.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let clip = Clip::from_bytes(&bench.read(&decoded[0], frames::FILE)).unwrap();
    assert_eq!(clip.size, [9, 16, 24]);
    let png = image::load_from_memory(&bench.read(&decoded[0], frames::PREDICTION)).unwrap();
    assert_eq!(png.to_rgb8(), clip.frame(8).unwrap());
}

#[test]
fn pretraining_starts_fresh_resumes_exactly_and_passes_other_parts_on() {
    let fixture = Fixture::read("15");
    let bench = Bench::new();
    bench.fill(&fixture);
    let vae = json!({
        "part": "vae", "steps": 4, "seed": 1, "learning_rate": 0.003, "lr_schedule": "constant",
        "loss": { "l1": 1.0, "edges": 0.5, "kl": 1e-5 }, "ema_decay": 0.9, "save_every": 1,
        "config": fixture.config["vae"],
    });
    let fresh = |steps: usize| -> Pretrain {
        let mut params = vae.clone();
        params["steps"] = json!(steps);
        stage(None, params)
    };
    let start = bench.run(&fresh(0), &[], usize::MAX).unwrap();
    assert_eq!(start, bench.run(&fresh(0), &[], usize::MAX).unwrap());
    let whole = bench.run(&fresh(4), &["videos"], usize::MAX).unwrap();
    assert_ne!(whole[0].files, start[0].files);
    fs::remove_dir_all(bench.folder.path().join("checkpoints")).unwrap();
    assert!(bench.run(&fresh(4), &["videos"], 2).is_err());
    assert_eq!(bench.run(&fresh(4), &["videos"], usize::MAX).unwrap(), whole);
    fs::remove_dir_all(bench.folder.path().join("checkpoints")).unwrap();

    bench.fill_with(&fixture.golden, [5, 16, 24]);
    let error = bench.run(&fresh(4), &["videos"], usize::MAX).unwrap_err().to_string();
    assert!(error.contains("2 latent frames, which this autoencoder decodes to 8"), "{error}");
    bench.fill(&fixture);

    bench.put("model", ArtifactKind::Model, whole.clone());
    let base = fixture.write_model(&bench.folder.path().join("model"));
    let encode: VaeEncode = stage(Some(&base), json!({ "image_noise": "off" }));
    let latents = bench.run(&encode, &["videos", "model"], usize::MAX).unwrap();
    bench.put("latents", ArtifactKind::Latents, latents);
    let transformer: Pretrain = stage(
        None,
        json!({ "part": "transformer", "steps": 3, "seed": 1, "config": fixture.config["transformer"] }),
    );
    let ports = ["latents", "text", "model"];
    let trained = bench.run(&transformer, &ports, usize::MAX).unwrap();
    assert_eq!(
        trained.iter().map(|item| item.name.as_str()).collect::<Vec<_>>(),
        ["transformer", "vae"]
    );
    assert_eq!(trained[1].files, whole[0].files);
    let log: Value = serde_json::from_slice(&bench.read(&trained[0], "log.json")).unwrap();
    assert_eq!(log["losses"].as_array().unwrap().len(), 3);

    let unscaled = bench.run(&transformer, &["latents", "text"], usize::MAX).unwrap_err();
    assert!(unscaled.to_string().contains("`image_latent_scale` must be a number"), "{unscaled}");
    for (changed, wanted) in [
        (json!({ "in_channels": 4, "out_channels": 2 }), "the latents have 4 channels"),
        (json!({ "text_embed_dim": 5 }), "the prompt on `text` has"),
    ] {
        let mut config = fixture.config["transformer"].clone();
        config.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        let params = json!({ "part": "transformer", "steps": 3, "config": config });
        let error = bench.run(&stage::<Pretrain>(None, params), &ports, usize::MAX).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[test]
fn a_model_like_another_has_its_configuration_and_new_weights() {
    let fixture = Fixture::read("15");
    let bench = Bench::new();
    let model = fixture.write_model(&bench.folder.path().join("model"));
    let made = |more: Value| -> Vec<Item> {
        let mut params = json!({ "part": "transformer", "steps": 0, "seed": 5 });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let stage: Pretrain = stage(None, params);
        bench.run(&stage, &[], usize::MAX).unwrap()
    };
    let like = made(json!({ "like": model }));
    let stated = made(json!({ "config": fixture.config["transformer"] }));
    let weights = "diffusion_pytorch_model.safetensors";
    assert_eq!(like[0].files[weights], stated[0].files[weights]);
    let config: Value = serde_json::from_slice(&bench.read(&like[0], "config.json")).unwrap();
    assert_eq!(config, fixture.config["transformer"]);

    let both = json!({ "part": "vae", "steps": 0, "like": model, "config": { "act_fn": "silu" } });
    let errors = stage::<Pretrain>(None, both).validate();
    assert_eq!(errors[0].field, "like");
    assert_eq!(errors[0].message, "must not stand beside `config`, which says the same");
}

#[test]
fn a_diverging_run_names_the_step_and_the_remedy() {
    let fixture = Fixture::read("10");
    let bench = Bench::new();
    let model = fixture.write_model(&bench.folder.path().join("model"));
    bench.fill(&fixture);
    let encode: VaeEncode = stage(Some(&model), json!({}));
    let latents = bench.run(&encode, &["videos"], usize::MAX).unwrap();
    bench.put("latents", ArtifactKind::Latents, latents);
    let train = json!({ "rank": 2, "steps": 9, "learning_rate": 1e30, "seed": 3 });
    let train: LoraTrain = stage(Some(&model), train);
    let error = bench.run(&train, &["latents", "text"], usize::MAX).unwrap_err();
    assert!(error.to_string().contains("not a finite number at step"), "{error}");
    let StageError::Failed { help: Some(help), .. } = error else { panic!("{error:?}") };
    assert!(help.contains("learning_rate"));
}
