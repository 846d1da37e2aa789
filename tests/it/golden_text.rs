//! The stage `text_encode` on a model folder, end to end.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use burn::tensor::{FloatDType, Int, Tensor, TensorData};
use pipe::{
    artifact::{ArtifactKind, Manifest, text::TextEmbedding},
    config::value::Node,
    models::{
        ModelCache, ModelRef, ParamReader, Params, TextEncoder, params::Dtype, t5::T5Encoder,
    },
    stages::{
        CancelFlag, CommandGuard, Inputs, Output, STAGES, Stage, StageContext, StageError,
        TextEncode,
    },
    store::Store,
};
use serde_json::json;

use crate::golden::{device, stage_tolerance};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/t5");

/// A folder in diffusers' layout with the small text encoder of `tests/golden/t5`.
fn model_folder(vocab_size: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let put = |path: &str, bytes: Vec<u8>| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let fixture = |name: &str| std::fs::read(Path::new(GOLDEN).join(name)).unwrap();
    put(
        "transformer/config.json",
        br#"{"_class_name": "CogVideoXTransformer3DModel", "max_text_seq_length": 6}"#.to_vec(),
    );
    put("vae/config.json", b"{}".to_vec());
    put("scheduler/scheduler_config.json", b"{}".to_vec());
    put("tokenizer/spiece.model", fixture("spiece.model"));
    let mut config: serde_json::Value = serde_json::from_slice(&fixture("config.json")).unwrap();
    config["vocab_size"] = vocab_size.into();
    put("text_encoder/config.json", config.to_string().into_bytes());

    let mut params = Params::default();
    let bytes = fixture("model.safetensors");
    params.read_safetensors(&bytes, "", &device(), FloatDType::F32).unwrap();
    let table = params.0.get_mut("shared.weight").unwrap();
    let width = table.shape[1];
    let rows: Tensor<1> = table.flat.clone().narrow(0, 0, vocab_size * width);
    (table.flat, table.shape) = (rows, vec![vocab_size, width]);
    put("text_encoder/model.safetensors", params.to_safetensors(Dtype::F32, None));
    folder
}

fn run(stage: &TextEncode) -> Result<TextEmbedding, StageError> {
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    let (models, device) = (ModelCache::default(), device());
    let mut on_item = |_: &pipe::artifact::Item| Ok(());
    let mut out = Output::new(&store, &mut on_item);
    let cx = StageContext {
        device: &device,
        models: &models,
        sources: None,
        checkpoints: None,
        allow_commands: false,
        commands: &CommandGuard::default(),
        weights_hold: &|| Ok(()),
        progress: &|_| (),
        steps_made: &std::sync::atomic::AtomicU64::new(0),
        cancel: &CancelFlag::default(),
    };
    stage.run(&Inputs::new(&store, BTreeMap::new()), &mut out, &cx)?;
    let manifest =
        Manifest { kind: ArtifactKind::TextEmbeddings, format_version: 1, items: out.into_items() };
    let inputs = Inputs::new(&store, [("text".to_owned(), Arc::new(manifest))].into());
    TextEmbedding::read(&inputs, "text", &device)
}

fn stage(folder: &Path, prompt: &str, max_length: Option<usize>) -> TextEncode {
    let model = ModelRef(folder.display().to_string());
    TextEncode { model, prompt: prompt.to_owned(), max_length, format: None }
}

#[test]
fn a_prompt_becomes_the_encoder_s_output_for_its_ids() {
    let folder = model_folder(60);
    let written = run(&stage(folder.path(), "", None)).unwrap();
    assert_eq!(written.embedding.dims(), [6, 16], "the transformer's configuration says 6");
    assert_eq!(written.prompt, "");

    let bytes = std::fs::read(Path::new(GOLDEN).join("model.safetensors")).unwrap();
    let mut params = Params::default();
    params.read_safetensors(&bytes, "", &device(), FloatDType::F32).unwrap();
    let config = std::fs::read(Path::new(GOLDEN).join("config.json")).unwrap();
    let reader = ParamReader::loaded(&params, None);
    let encoder = T5Encoder::new(&serde_json::from_slice(&config).unwrap(), &reader).unwrap();
    let ids = TensorData::new(vec![1_i64, 0, 0, 0, 0, 0], [1, 6]);
    let wanted = encoder.encode(Tensor::<2, Int>::from_data(ids, &device()), None);
    let difference = (written.batch(1) - wanted).abs().max().into_scalar::<f32>();
    assert!(difference < stage_tolerance(f32::EPSILON), "{difference}");
    assert_eq!(written.batch(3).dims(), [3, 6, 16]);
}

#[test]
fn length_and_prompt_decide_the_embedding() {
    let folder = model_folder(60);
    let long = run(&stage(folder.path(), "a video", Some(11))).unwrap();
    assert_eq!((long.embedding.dims(), long.prompt.as_str()), ([11, 16], "a video"));
    let empty = run(&stage(folder.path(), "", Some(11))).unwrap();
    let difference = (long.embedding - empty.embedding).abs().max().into_scalar::<f32>();
    assert!(difference > 0.01, "{difference}");
}

#[test]
fn a_family_that_masks_padding_gets_none() {
    let folder = model_folder(60);
    let padded = run(&stage(folder.path(), "a video", Some(11))).unwrap().embedding;
    let config = folder.path().join("transformer/config.json");
    std::fs::write(config, br#"{"_class_name": "LTXVideoTransformer3DModel"}"#).unwrap();
    let kept = run(&stage(folder.path(), "a video", Some(11))).unwrap().embedding;
    let [tokens, _] = kept.dims();
    assert!((2..11).contains(&tokens), "{tokens} tokens");
    let difference = (padded.narrow(0, 0, tokens) - kept).abs().max().into_scalar::<f32>();
    assert!(
        difference < stage_tolerance(f32::EPSILON),
        "the rest is encoded with its padding: {difference}"
    );
    let empty = run(&stage(folder.path(), "", None)).unwrap().embedding;
    assert_eq!(empty.dims()[0], 1, "the end of the text alone");
}

#[test]
fn a_tokenizer_of_another_model_is_an_error() {
    let folder = model_folder(5);
    let error = run(&stage(folder.path(), "the quick brown fox", None)).unwrap_err();
    assert!(error.to_string().contains("the text encoder has 5 tokens"), "{error}");
}

#[test]
fn the_stage_is_registered_and_parses_with_defaults() {
    let entry = STAGES.iter().find(|entry| entry.kind == "text_encode").unwrap();
    let parsed = (entry.parse)(&Node::from(json!({"model": "builtin:tiny"}))).unwrap();
    assert_eq!(parsed.params["prompt"], "");
    assert!(parsed.stage.validate().is_empty());
    let parsed = (entry.parse)(&Node::from(json!({"model": "x", "max_length": 0}))).unwrap();
    assert_eq!(parsed.stage.validate()[0].field, "max_length");
    assert!((entry.parse)(&Node::from(json!({"model": "x", "promt": ""}))).is_err());
}
