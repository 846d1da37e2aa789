//! What the pipelines do in their profile `paper`, against the paper's own settings: its Tables 4
//! to 6, the training steps of its tasks, and the attempts of its grids.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use pipe::config::{Instance, LoadOptions, Pipeline, load};
use serde_json::{Value, json};

/// How the paper trains a model.
struct Recipe {
    model: &'static str,
    modules: &'static str,
    batch_size: u64,
    learning_rate: f64,
    betas: [f64; 2],
    weight_decay: f64,
    /// What the model's sampler is by default, and so where a file names none.
    sampler: &'static str,
    /// How often the encoder draws noise on the image.
    image_latent_pool: u64,
}

const COG_VIDEO_X: &Recipe = &Recipe {
    model: "hf:zai-org/CogVideoX1.5-5B-I2V",
    modules: "qkvo",
    batch_size: 2,
    learning_rate: 1e-4,
    betas: [0.9, 0.95],
    weight_decay: 1e-3,
    sampler: "dpm",
    image_latent_pool: 16,
};

const LTX_VIDEO: &Recipe = &Recipe {
    model: "hf:Lightricks/LTX-Video-0.9.1",
    modules: "all_linear_blocks",
    batch_size: 16,
    learning_rate: 1e-3,
    betas: [0.9, 0.99],
    weight_decay: 0.0,
    sampler: "flow_euler",
    image_latent_pool: 1,
};

/// An experiment as the paper states it. What it leaves open is empty here.
#[derive(Clone, Copy)]
struct Experiment {
    file: &'static str,
    recipe: &'static Recipe,
    size: Option<[u64; 2]>,
    frames: u64,
    /// Training steps by number of examples; 0 examples stands for a task's own.
    steps: &'static [(u64, u64)],
    methods: &'static [&'static str],
    sampling_steps: &'static [u64],
}

/// Transforms of pictures: 1200 steps whatever the number of examples, of which we take four.
const PICTURES: Experiment = Experiment {
    file: "",
    recipe: COG_VIDEO_X,
    size: Some([480, 480]),
    frames: 9,
    steps: &[(1, 1200), (3, 1200), (10, 1200), (30, 1200)],
    methods: &[],
    sampling_steps: &[50],
};

/// Segmentation and pose on COCO.
const COCO: Experiment = Experiment {
    size: Some([480, 720]),
    steps: &[(1, 1000), (3, 1000), (10, 2000), (30, 4000)],
    methods: &["quadratic"],
    ..PICTURES
};

const ABLATION: Experiment = Experiment {
    methods: &["linear", "quadratic", "discrete", "tiles", "sqrt"],
    sampling_steps: &[5],
    ..COCO
};

const ON_LTX_VIDEO: Experiment = Experiment {
    recipe: LTX_VIDEO,
    size: Some([480, 704]),
    steps: &[(1, 3000), (3, 3000), (10, 3000), (30, 3000)],
    methods: &["linear"],
    ..COCO
};

const GRIDS: Experiment = Experiment { methods: &["discrete"], ..PICTURES };

const EXPERIMENTS: &[Experiment] = &[
    Experiment { file: "arc_agi", steps: &[(0, 1800)], ..GRIDS },
    Experiment { file: "color_correction", size: None, steps: &[], ..PICTURES },
    Experiment { file: "colorization", ..PICTURES },
    Experiment { file: "concept_arc", steps: &[(0, 600)], ..GRIDS },
    Experiment { file: "custom_pairs", steps: &[], ..PICTURES },
    Experiment { file: "depth", size: None, steps: &[], ..PICTURES },
    Experiment { file: "edges", methods: &["sqrt"], ..PICTURES },
    Experiment { file: "few_shot_effect", ..COCO },
    Experiment { file: "few_shot_tasks", ..PICTURES },
    Experiment {
        file: "geometric",
        steps: &[(1, 1200), (3, 1200)],
        methods: &["discrete"],
        ..PICTURES
    },
    Experiment { file: "inpainting", ..PICTURES },
    Experiment { file: "jigsaw", ..PICTURES },
    Experiment { file: "lora_composition", steps: &[(3, 1200), (10, 1200)], ..PICTURES },
    Experiment {
        file: "mask_to_image",
        size: Some([480, 720]),
        frames: 49,
        steps: &[],
        methods: &["linear"],
        ..PICTURES
    },
    Experiment { file: "model_comparison", ..COCO },
    Experiment { file: "model_comparison", ..ON_LTX_VIDEO },
    Experiment { file: "model_comparison_segmentation", ..COCO },
    Experiment { file: "model_comparison_segmentation", ..ON_LTX_VIDEO },
    Experiment { file: "pose_ablation", ..ABLATION },
    Experiment {
        file: "sampling_steps",
        steps: &[(10, 2000)],
        sampling_steps: &[1, 2, 5, 10, 50],
        ..COCO
    },
    Experiment { file: "segmentation_ablation", ..ABLATION },
    Experiment { file: "style_transfer", size: Some([480, 720]), steps: &[(1, 1200)], ..PICTURES },
    Experiment { file: "tiny_imagenet", size: Some([256, 256]), steps: &[(30, 500)], ..PICTURES },
];

fn of_the_paper(file: &str) -> Pipeline {
    in_profile(file, "paper")
}

fn in_profile(file: &str, profile: &str) -> Pipeline {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("pipelines/{file}.toml"));
    let options = LoadOptions { profile: Some(profile.to_owned()), ..LoadOptions::default() };
    load(&path, &options).unwrap_or_else(|error| panic!("{file}: {error:?}"))
}

/// The instances of a kind that have this model.
fn of_kind<'a>(pipeline: &'a Pipeline, kind: &str, model: &str) -> Vec<&'a Instance> {
    let fits =
        |instance: &&Instance| instance.entry.kind == kind && instance.params["model"] == model;
    pipeline.instances.iter().filter(fits).collect()
}

/// The instance on a port.
fn input<'a>(pipeline: &'a Pipeline, instance: &Instance, port: &str) -> &'a Instance {
    &pipeline.instances[instance.inputs[port]]
}

/// The data set that pairs come from, by way of any operations on them.
fn dataset<'a>(pipeline: &'a Pipeline, instance: &Instance) -> &'a Instance {
    let pairs = input(pipeline, instance, "pairs");
    if pairs.entry.kind == "dataset" { pairs } else { dataset(pipeline, pairs) }
}

/// The values of a parameter of several instances.
fn values<'a>(instances: &[&'a Instance], param: &str) -> BTreeSet<&'a str> {
    instances.iter().map(|instance| instance.params[param].as_str().unwrap()).collect()
}

/// A training in a few words, for messages.
fn what(experiment: &Experiment, training: &Instance) -> String {
    format!("{}, {training} on {}", experiment.file, experiment.recipe.model)
}

#[test]
fn every_pipeline_of_the_paper_has_its_settings_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let stems = files.filter(|file| file.extension() == Some("toml".as_ref()));
    let stems: BTreeSet<String> =
        stems.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let known = EXPERIMENTS.iter().map(|experiment| experiment.file);
    // What no published model belongs to.
    let known = known.chain(["pretrain_tiny"]).map(str::to_owned);
    assert_eq!(stems, known.collect());
}

#[test]
fn no_pipeline_trains_another_model_than_those_here() {
    for experiment in EXPERIMENTS {
        let of_file = EXPERIMENTS.iter().filter(|other| other.file == experiment.file);
        let known: BTreeSet<_> = of_file.map(|other| other.recipe.model).collect();
        let pipeline = of_the_paper(experiment.file);
        let trainings = pipeline.instances.iter();
        let trainings: Vec<_> = trainings.filter(|i| i.entry.kind == "lora_train").collect();
        assert_eq!(values(&trainings, "model"), known, "{}", experiment.file);
    }
}

#[test]
fn models_are_trained_as_in_the_paper() {
    for experiment in EXPERIMENTS {
        let (pipeline, recipe) = (of_the_paper(experiment.file), experiment.recipe);
        let trainings = of_kind(&pipeline, "lora_train", recipe.model);
        assert!(!trainings.is_empty(), "{} trains no {}", experiment.file, recipe.model);
        for training in trainings {
            let what = what(experiment, training);
            let (found, cell) = (&training.params, &training.cell);
            let rank = cell.get("rank").and_then(Value::as_u64).unwrap_or(64);
            let modules = cell.get("modules").and_then(Value::as_str).unwrap_or(recipe.modules);
            assert_eq!(found["rank"], rank, "{what}");
            let alpha = found["alpha"].as_f64().unwrap_or(found["rank"].as_f64().unwrap() / 2.0);
            assert!((alpha / rank as f64 - 0.5).abs() < 1e-12, "{what}: alpha {alpha}");
            let default = json!(recipe.modules);
            assert_eq!(found.get("modules").unwrap_or(&default), modules, "{what}");
            assert_eq!(found["batch_size"], recipe.batch_size, "{what}");
            assert_eq!(found["gradient_accumulation"], 1, "{what}");
            assert_eq!(found["learning_rate"], recipe.learning_rate, "{what}");
            assert_eq!(found["lr_schedule"], "constant", "{what}");
            assert_eq!(found["warmup_steps"], 0, "{what}");
            assert_eq!(found["max_grad_norm"], 1.0, "{what}");
            let Recipe { betas, weight_decay, .. } = recipe;
            let optimizer = json!({ "betas": betas, "weight_decay": weight_decay, "eps": 1e-8 });
            assert_eq!(found["optimizer"], optimizer, "{what}");
            assert_eq!(pipeline.seed, 42, "{what}");

            let latents = input(&pipeline, training, "latents");
            let pool = latents.params.get("image_latent_pool").and_then(Value::as_u64).unwrap_or(1);
            assert_eq!(pool, recipe.image_latent_pool, "{what}");
            let clips = input(&pipeline, latents, "videos");
            assert_eq!(clips.params["frames"], experiment.frames, "{what}");
            if let Some(size) = experiment.size {
                assert_eq!(dataset(&pipeline, clips).params["size"], json!(size), "{what}");
            }
        }
        if !pipeline.sweep.baseline.is_empty() {
            let baseline = json!({ "interpolation": "quadratic", "modules": "qkvo", "rank": 64 });
            assert_eq!(json!(pipeline.sweep.baseline), baseline, "{}", experiment.file);
        }
    }
}

#[test]
fn steps_examples_and_interpolations_are_those_of_the_paper() {
    for experiment in EXPERIMENTS {
        let pipeline = of_the_paper(experiment.file);
        let trainings = of_kind(&pipeline, "lora_train", experiment.recipe.model);
        let mut steps: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        let mut subsets: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        let mut methods = BTreeSet::new();
        for training in trainings {
            let clips = input(&pipeline, input(&pipeline, training, "latents"), "videos");
            let examples = &dataset(&pipeline, clips).params;
            let n = examples["count"].as_u64().unwrap_or(0);
            steps.entry(n).or_default().insert(training.params["steps"].as_u64().unwrap());
            subsets.entry(n).or_default().insert(examples["subset"].as_u64().unwrap());
            methods.insert(clips.params["method"].as_str().unwrap());
        }
        if !experiment.steps.is_empty() {
            let wanted = experiment.steps.iter().map(|(n, steps)| (*n, [*steps].into())).collect();
            assert_eq!(steps, wanted, "{} on {}", experiment.file, experiment.recipe.model);
            // Means of three runs, but one with 30 examples or with a task's own.
            for (n, subsets) in subsets {
                let wanted = if [0, 30].contains(&n) { 1 } else { 3 };
                assert_eq!(subsets.len(), wanted, "{}: n = {n}", experiment.file);
            }
        }
        if !experiment.methods.is_empty() {
            let wanted = experiment.methods.iter().copied().collect();
            assert_eq!(methods, wanted, "{} on {}", experiment.file, experiment.recipe.model);
        }
    }
}

#[test]
fn answers_are_sampled_as_in_the_paper() {
    for experiment in EXPERIMENTS {
        let (pipeline, recipe) = (of_the_paper(experiment.file), experiment.recipe);
        let samples = of_kind(&pipeline, "sample", recipe.model);
        assert!(!samples.is_empty(), "{} samples no {}", experiment.file, recipe.model);
        let mut steps = BTreeSet::new();
        for sample in samples {
            let what = what(experiment, sample);
            let found = &sample.params;
            steps.insert(found["steps"].as_u64().unwrap());
            assert_eq!(found["guidance_scale"], 1.0, "{what}");
            assert_eq!(found["frames"], experiment.frames, "{what}");
            let sampler = found["sampler"].as_str().unwrap_or(recipe.sampler);
            assert_eq!(sampler, recipe.sampler, "{what}");
            assert!(sample.inputs.contains_key("lora"), "{what}");
            if let Some(size) = experiment.size {
                assert_eq!(dataset(&pipeline, sample).params["size"], json!(size), "{what}");
            }
        }
        let wanted = experiment.sampling_steps.iter().copied().collect();
        assert_eq!(steps, wanted, "{} on {}", experiment.file, recipe.model);
        assert_eq!(values(&of_kind(&pipeline, "text_encode", recipe.model), "prompt"), [""].into());
    }
}

#[test]
fn grids_get_the_checkpoints_and_attempts_of_the_paper() {
    for (file, tasks, every, attempts, set) in
        [("arc_agi", 400, 300, 2, "evaluation"), ("concept_arc", 160, 100, 3, "corpus/")]
    {
        let pipeline = of_the_paper(file);
        let trainings = of_kind(&pipeline, "lora_train", COG_VIDEO_X.model);
        assert_eq!(trainings.len(), tasks, "{file}");
        let wanted: Vec<u64> = (1..=6).map(|k| k * every).collect();
        for training in trainings {
            assert_eq!(training.params["save_at"], json!(wanted), "{file}");
            let clips = input(&pipeline, input(&pipeline, training, "latents"), "videos");
            let source = &dataset(&pipeline, clips).params["source"];
            assert!(source["set"].as_str().unwrap().starts_with(set), "{file}: {source}");
        }
        let is_metric = |instance: &&Instance| instance.entry.kind == "metric";
        for score in pipeline.instances.iter().filter(is_metric) {
            assert_eq!(score.params["attempts"], attempts, "{file}");
            assert_eq!(score.params["arc"]["task"], "each_question", "{file}");
            assert!(score.inputs.contains_key("example_predictions"), "{file}");
        }
    }
}

/// Profiles that run the published model on other data differ from `paper` in the data alone.
#[test]
fn other_data_is_learnt_and_answered_as_that_of_the_paper() {
    for (file, profile, task) in
        [("edges", "paper_bsds", "boundaries"), ("style_transfer", "paper_pairs", "pairs")]
    {
        let [paper, other] = ["paper", profile].map(|profile| in_profile(file, profile));
        let settings = |pipeline: &Pipeline| {
            let instances = pipeline.instances.iter();
            let settings = instances.filter(|i| !["dataset", "transform"].contains(&i.entry.kind));
            settings
                .map(|i| (i.stage.clone(), json!(*i.params).to_string()))
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(settings(&other), settings(&paper), "{file}");
        for instance in other.instances.iter().filter(|i| i.entry.kind == "dataset") {
            assert_eq!(instance.params["size"], json!([480, 720]), "{file}: {instance}");
            assert_eq!(instance.params["task"], task, "{file}: {instance}");
        }
    }
}
