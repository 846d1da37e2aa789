use burn::tensor::Device;
use serde_json::Value;

use super::*;
use crate::{
    artifact::{Item, model},
    models::{ModelSource, params::Dtype},
    stages::support::Bench,
};

fn stage(params: Value) -> LoraMerge {
    serde_json::from_value(params).unwrap()
}

#[test]
fn rules_between_parameters() {
    let wrong = |params| {
        let errors = stage(params).validate();
        errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect::<Vec<_>>()
    };
    assert!(wrong(json!({})).is_empty());
    assert!(wrong(json!({ "method": "svd", "rank": 4 })).is_empty());
    assert_eq!(
        wrong(json!({ "method": "svd" })),
        ["method: must come with `rank`, but there is none"]
    );
    assert_eq!(wrong(json!({ "rank": 4 })), ["rank: is for `method = \"svd\"` alone"]);
    assert_eq!(
        wrong(json!({ "files": ["../a.safetensors"], "root": "x" })),
        ["files: must lie below `root`, but `../a.safetensors` does not"]
    );
    assert_eq!(wrong(json!({ "root": "x" })), ["files: must be given together with `root`"]);
}

/// An adapter of the built-in model with the log of a training.
fn adapter(bench: &Bench, scale: f64) -> Item {
    let model = ModelRef("builtin:tiny".to_owned()).resolve().unwrap();
    let base = model.params("transformer", &Device::flex()).unwrap();
    let mut adapter = Adapter::new_fresh(&base, &["to_q"], 2, 1.0, 7, &Device::flex()).unwrap();
    for param in adapter.factors.0.values_mut() {
        param.flat = param.flat.clone() + 0.125;
    }
    let log = json!({ "image_latent_scale": scale, "settings": { "image_latent_scale": null } });
    let (weights, log) = (adapter.to_diffusers(), log.to_string());
    let files =
        [("pytorch_lora_weights.safetensors", &weights[..]), ("train.json", log.as_bytes())];
    bench.item("adapter", &files)
}

/// Adapters of one artifact may differ from what the file says of their stage, so logs count, too.
#[test]
fn logs_are_compared_and_handed_on() {
    let bench = Bench::new();
    let [one, two] = [0.3, 0.9].map(|scale| [adapter(&bench, scale)]);
    let kind = ArtifactKind::LoraAdapter;
    let merge = |params: Value, ports: &[(&str, ArtifactKind, &[Item])]| {
        bench.run(&stage(params), &bench.inputs(ports))
    };
    let error = merge(json!({}), &[("first", kind, &one), ("second", kind, &two)]).unwrap_err();
    let told = "by 0.3000 in the training of the adapter on `first`, but by 0.9000";
    assert!(error.to_string().contains(told), "{error}");

    let whole = merge(json!({ "model": "builtin:tiny" }), &[("first", kind, &one)]).unwrap();
    let on_port = [("model", ArtifactKind::Model, &whole[..])];
    let tiny = ModelRef("builtin:tiny".to_owned()).resolve().unwrap();
    let (_, record) = record_of_model(&bench.inputs(&on_port), &tiny, &json!({})).unwrap();
    assert_eq!(record.scale, Some(ImageLatentScale::Factor(0.3)));
    let again = [on_port[0], ("first", kind, &two)];
    let error = merge(json!({ "model": "builtin:tiny" }), &again).unwrap_err().to_string();
    assert!(error.contains("but by 0.3000 in that of the model on `model`"), "{error}");
}

/// A merge that goes tensor by tensor is the one that takes the whole model.
#[test]
fn a_model_is_merged_into_as_its_weights_are_or_as_asked() {
    let bench = Bench::new();
    let source = ModelRef("builtin:tiny".to_owned()).resolve().unwrap();
    let base = source.params("transformer", &Device::flex()).unwrap();
    let [one] = [0.3].map(|scale| [adapter(&bench, scale)]);
    let ports = [("first", ArtifactKind::LoraAdapter, &one[..])];
    let whole = AdapterArtifact::read(&bench.inputs(&ports), "first").unwrap().unwrap();
    let mut wanted = base.clone();
    whole.adapter.merge_into(&mut wanted).unwrap();
    for (precision, dtype) in
        [(json!(null), Dtype::BF16), (json!("bf16"), Dtype::BF16), (json!("f32"), Dtype::F32)]
    {
        let merge = stage(json!({ "model": "builtin:tiny", "precision": precision }));
        let items = bench.run(&merge, &bench.inputs(&ports)).unwrap();
        let file = bench.store.read(&items[0].files["diffusion_pytorch_model.safetensors"]);
        assert!(
            file.unwrap() == wanted.to_safetensors(dtype, Some(model::format())),
            "{precision}"
        );
    }
}

#[test]
fn parts_that_are_not_merged_into_are_passed_on_whole_or_not_at_all() {
    let bench = Bench::new();
    let [one] = [0.3].map(|scale| [adapter(&bench, scale)]);
    let vae = bench.item("vae", &[("config.json", b"{}"), ("log.json", b"{}")]);
    let parts = std::slice::from_ref(&vae);
    let ports =
        [("first", ArtifactKind::LoraAdapter, &one[..]), ("model", ArtifactKind::Model, parts)];
    let missing = bench.run(&stage(json!({ "model": "builtin:tiny" })), &bench.inputs(&ports));
    let message = missing.unwrap_err().to_string();
    assert!(message.contains("has no file `diffusion_pytorch_model.safetensors`"), "{message}");
    let vae = bench
        .item("vae", &[("config.json", b"{}"), ("diffusion_pytorch_model.safetensors", b"whole")]);
    let parts = std::slice::from_ref(&vae);
    let ports = [ports[0], ("model", ArtifactKind::Model, parts)];
    let merge = || bench.run(&stage(json!({ "model": "builtin:tiny" })), &bench.inputs(&ports));
    assert!(merge().unwrap().contains(&vae));
    let weights = vae.files["diffusion_pytorch_model.safetensors"].digest;
    let path = bench.store.object_path(weights);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"wh0le").unwrap();
    assert!(matches!(merge(), Err(StageError::Damaged { digest }) if digest == weights));
}

#[test]
fn files_count_as_they_are_filled_up_to_one_rank() {
    let folder = tempfile::tempdir().unwrap();
    let zeros = [0; 4 * 400];
    let view = |shape: [usize; 2]| {
        let bytes = &zeros[..4 * shape[0] * shape[1]];
        safetensors::tensor::TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()
    };
    let shapes = [("q", [8, 4], [4, 8]), ("k", [1, 400], [400, 1])];
    let tensors = shapes.iter().flat_map(|(module, a, b)| {
        [("A", *a), ("B", *b)].map(|(letter, shape)| {
            (format!("transformer.{module}.lora_{letter}.weight"), view(shape))
        })
    });
    let bytes = safetensors::serialize(tensors, None).unwrap();
    std::fs::write(folder.path().join("a.safetensors"), bytes).unwrap();
    let root = folder.path().to_str().unwrap();
    let merge = stage(json!({ "root": root, "files": ["a.safetensors"] }));
    assert_eq!(merge.size_of_files(), 4 * 8 * (4 + 4 + 400 + 400), "f32 of rank 8");
}

#[test]
fn files_of_other_kinds_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let bench = Bench::new();
    for (file, wanted) in [
        ("a.gguf", "GGUF"),
        ("a.bin", "pickle"),
        ("a.txt", "must be a safetensors file"),
        ("a.safetensors", "`a.safetensors` is not a whole safetensors file"),
    ] {
        std::fs::write(folder.path().join(file), b"\xff\xff\xff\xff\xff\xff\xff\x7f{").unwrap();
        let stage = stage(json!({ "files": [file], "root": root }));
        let error = bench.run(&stage, &bench.inputs(&[])).unwrap_err().to_string();
        assert!(error.contains(wanted), "{file}: {error}");
    }
    let stage = stage(json!({}));
    let error = bench.run(&stage, &bench.inputs(&[])).unwrap_err().to_string();
    assert_eq!(error, "there is no adapter to merge");
}

/// What an export leaves of a merge is read as what the cache holds of it.
#[test]
fn a_merged_model_in_a_folder_keeps_how_the_image_was_given() {
    let bench = Bench::new();
    let one = [adapter(&bench, 0.3)];
    let ports = [("first", ArtifactKind::LoraAdapter, &one[..])];
    let merge = |model: &str| bench.run(&stage(json!({ "model": model })), &bench.inputs(&ports));
    let whole = merge("builtin:tiny").unwrap();
    let source = ModelRef("builtin:tiny".to_owned()).resolve().unwrap();
    let ModelSource::Builtin(files) = source else { panic!("it is built in") };
    let folder = tempfile::tempdir().unwrap();
    for (file, bytes) in files {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let model = folder.path().to_str().unwrap();
    let named = ModelRef(model.to_owned()).resolve().unwrap();
    let record =
        |source: &ModelSource| record_of_model(&bench.inputs(&[]), source, &json!({})).unwrap().1;
    let before = named.digest(&["transformer"]).unwrap();
    assert_eq!(record(&named), ImageRecord::default());
    for (file, content) in &whole[0].files {
        let path = folder.path().join("transformer").join(file);
        std::fs::write(path, bench.store.read(content).unwrap()).unwrap();
    }
    let after = named.digest(&["transformer"]).unwrap();
    assert!(record(&named).scale == Some(ImageLatentScale::Factor(0.3)) && before != after);

    // It is part of the key, and a merge into it must agree with it.
    let log = folder.path().join("transformer/log.json");
    std::fs::write(&log, json!({ "settings": { "image_latent_scale": 0.9 } }).to_string()).unwrap();
    assert_ne!(named.digest(&["transformer"]).unwrap(), after);
    let error = merge(model).unwrap_err().to_string();
    insta::assert_snapshot!(error, @"the image's latent was multiplied by 0.3000 in the training of the adapter on `first`, but by 0.9000 in that of the transformer in the model's folder: no sampling is right for both");
    for foreign in ["no JSON", "[]", "{\"settings\": 3}"] {
        std::fs::write(&log, foreign).unwrap();
        assert_eq!(record(&named), ImageRecord::default(), "{foreign}");
    }
}
