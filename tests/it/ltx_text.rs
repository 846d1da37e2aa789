//! Prompts of LTX-Video's two pipelines: from text to latents against the reference, and what does
//! not go together.

use std::{fs, path::Path};

use burn::tensor::{Tensor, TensorData};
use pipe::{
    artifact::{ArtifactKind, Item, frames, samples},
    models::{ModelRef, params::Dtype},
    stages::{LoraTrain, Sample, Stage, StageError, TextEncode, VaeEncode},
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::{
    golden::{Golden, assert_below, device, relative_error, stage_tolerance},
    ltx_video::Fixture,
    training,
    training_stages::{Bench, stage},
};

/// The models of the condition pipeline's fixture with a text encoder and a tokenizer.
pub fn write_model(folder: &Path) -> ModelRef {
    let fixture = Fixture::of("condition");
    let golden = Golden::fixture("ltx_video/prompt");
    let model = training::write_model(folder, &fixture.config, &fixture.transformer, &fixture.vae);
    for part in ["text_encoder", "tokenizer"] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    let config = golden.config()["text_encoder"].to_string();
    fs::write(folder.join("text_encoder/config.json"), config).unwrap();
    let weights = golden.weights().to_safetensors(Dtype::F32, None);
    fs::write(folder.join("text_encoder/model.safetensors"), weights).unwrap();
    let spiece = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/t5/spiece.model");
    fs::copy(spiece, folder.join("tokenizer/spiece.model")).unwrap();
    model
}

/// The clips of an experiment, and the image of the reference.
struct Experiment {
    bench: Bench,
    model: ModelRef,
    golden: Golden,
}

impl Experiment {
    fn new() -> Self {
        let bench = Bench::new();
        let model = write_model(&bench.folder.path().join("model"));
        let condition = Golden::fixture("ltx_video/condition");
        bench.fill_with(&condition, [17, 32, 64]);
        let (rgb, shape) = condition.values("sample.image");
        let rgb = rgb.iter().map(|v| *v as u8).collect();
        let image = image::RgbImage::from_raw(shape[1] as u32, shape[0] as u32, rgb).unwrap();
        let pair = bench.item("pair", &[("input.png", frames::to_png(&image))]);
        bench.put("pairs", ArtifactKind::Pairs, vec![pair]);
        Self { bench, model, golden: Golden::fixture("ltx_video/prompt") }
    }

    fn try_run(&self, stage: &dyn Stage, ports: &[&str]) -> Result<Vec<Item>, StageError> {
        self.bench.run(stage, ports, usize::MAX)
    }

    /// Encodes one of the reference's texts onto a port.
    fn encode(&self, port: &'static str, text: &str, more: &Value) -> Item {
        let mut params = json!({ "prompt": self.golden.config()[text] });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let encode: TextEncode = stage(Some(&self.model), params);
        let made = self.try_run(&encode, &[]).unwrap();
        self.bench.put(port, ArtifactKind::TextEmbeddings, made.clone());
        made.into_iter().next().unwrap()
    }

    fn embedding(&self, item: &Item) -> Tensor<3> {
        let bytes = self.bench.read(item, "embedding.safetensors");
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let view = file.tensor("embedding").unwrap();
        let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        let shape = [1, view.shape()[0], view.shape()[1]];
        Tensor::from_data(TensorData::new(values.collect::<Vec<_>>(), shape), &device())
    }

    fn sample(&self, more: &Value, ports: &[&str]) -> Result<Tensor<5>, StageError> {
        let mut params = json!({ "frames": 17, "steps": 4, "seed": 42 });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let sample: Sample = stage(Some(&self.model), params);
        let made = self.try_run(&sample, ports)?;
        let latents = samples::from_bytes(&self.bench.read(&made[0], samples::FILE)).unwrap();
        let [c, f, h, w] = latents.shape;
        Ok(Tensor::from_data(TensorData::new(latents.values, [1, c, f, h, w]), &device()))
    }
}

const CONDITION: &str = "flow_condition";

#[test]
fn the_condition_pipeline_agrees_from_the_prompt_to_the_latents() {
    let experiment = Experiment::new();
    let golden = &experiment.golden;
    for (port, text) in [("text", "prompt"), ("negative", "negative")] {
        // The schedule of the model tells the format.
        let item = experiment.encode(port, text, &json!({}));
        let wanted: Tensor<3> = golden.tensor(&format!("embeds.{text}"));
        let error = relative_error(experiment.embedding(&item), &wanted);
        assert_below(&format!("embedding of {text}"), error, stage_tolerance(1e-5));
    }
    for (name, more, ports) in [
        ("plain", json!({ "sampler": CONDITION }), &["pairs", "text"][..]),
        (
            "guided",
            json!({ "sampler": CONDITION, "guidance_scale": 3.0 }),
            &["pairs", "text", "negative"],
        ),
    ] {
        let latents = experiment.sample(&more, ports).unwrap();
        let error = relative_error(latents, &golden.tensor(&format!("sample.{name}")));
        assert_below(&format!("{name} latents"), error, stage_tolerance(1e-4));
    }
}

#[test]
fn the_mask_matters_and_the_padding_behind_it_does_not() {
    let experiment = Experiment::new();
    let encode = |more: Value| experiment.embedding(&experiment.encode("text", "prompt", &more));
    let masked = encode(json!({}));
    let wider = encode(json!({ "max_length": 300 }));
    assert!(relative_error(wider, &masked) < stage_tolerance(1e-5));
    let basic = encode(json!({ "format": "basic" }));
    assert!(relative_error(basic, &masked) > 0.01);
}

#[test]
fn nothing_is_encoded_that_no_training_reads() {
    let experiment = Experiment::new();
    let encode: VaeEncode = stage(Some(&experiment.model), json!({}));
    let latents = experiment.try_run(&encode, &["videos"]).unwrap();
    let bytes = experiment.bench.read(&latents[0], "latents.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("image_latents").unwrap().shape()[0], 0);
    assert!(file.tensor("latents").unwrap().shape()[1] > 1);
    // Only keys of such models changed for it.
    let of_tiny: VaeEncode = stage(Some(&ModelRef("builtin:tiny".into())), json!({}));
    assert_eq!((encode.revision(), of_tiny.revision()), (1, 0));
}

#[test]
fn a_prompt_of_the_other_pipeline_is_refused() {
    let experiment = Experiment::new();
    let encode: VaeEncode = stage(Some(&experiment.model), json!({}));
    let latents = experiment.try_run(&encode, &["videos"]).unwrap();
    experiment.bench.put("latents", ArtifactKind::Latents, latents);
    let train = |causal: Option<bool>| {
        let params = json!({ "rank": 1, "steps": 1, "causal_time": causal });
        let train: LoraTrain = stage(Some(&experiment.model), params);
        experiment.try_run(&train, &["latents", "text"]).map(drop)
    };
    let sample = |sampler: Option<&str>| {
        experiment.sample(&json!({ "sampler": sampler }), &["pairs", "text"]).map(drop)
    };
    let told = |result: Result<(), StageError>| result.unwrap_err().to_string();

    experiment.encode("text", "prompt", &json!({ "format": "condition" }));
    for published in [None, Some(CONDITION)] {
        sample(published).unwrap();
    }
    for published in [None, Some(true)] {
        train(published).unwrap();
    }
    let wanted = "the prompt on `text` is encoded as in the condition pipeline, but";
    for error in [told(sample(Some("flow_euler"))), told(train(Some(false)))] {
        assert!(error.contains(wanted), "{error}");
    }

    experiment.encode("text", "prompt", &json!({ "format": "basic" }));
    sample(Some("flow_euler")).unwrap();
    train(Some(false)).unwrap();
    let wanted = "the prompt on `text` is encoded as in the basic pipeline, but";
    for error in [told(sample(None)), told(sample(Some(CONDITION))), told(train(None))] {
        assert!(error.contains(wanted), "{error}");
    }

    experiment.encode("text", "prompt", &json!({}));
    experiment.encode("negative", "negative", &json!({ "format": "basic" }));
    let guided = json!({ "sampler": CONDITION, "guidance_scale": 3.0 });
    let error = told(experiment.sample(&guided, &["pairs", "text", "negative"]).map(drop));
    assert!(error.contains("the prompt on `negative` is encoded as in the basic"), "{error}");
}
