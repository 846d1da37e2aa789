//! Adapters that are trained, merged, exported, and brought in from files.

use safetensors::SafeTensors;

use super::{CLIPS, Shell};

const TWO: &str = r#"
[stages.latents]
kind   = "vae_encode"
inputs = { videos = "clips" }
model  = "builtin:tiny"

[stages.prompt]
kind  = "text_encode"
model = "builtin:tiny"

[stages.one]
kind   = "lora_train"
inputs = { latents = "latents", text = "prompt" }
model  = "builtin:tiny"
rank   = 2
steps  = 3
learning_rate = 1e-2

[stages.two]
kind   = "lora_train"
inputs = { latents = "latents", text = "prompt" }
model  = "builtin:tiny"
rank   = 3
alpha  = 6
modules = "qk"
steps  = 3
learning_rate = 1e-2
seed   = 5

[stages.both]
kind    = "lora_merge"
inputs  = { first = "one", second = "two" }
weights = [0.5, 2.0]

[stages.whole]
kind   = "lora_merge"
inputs = { first = "both" }
model  = "builtin:tiny"
precision = "f32"

[stages.plain]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt" }
model  = "builtin:tiny"
frames = 5
steps  = 2

[stages.adapted]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt", lora = "both" }
model  = "builtin:tiny"
frames = 5
steps  = 2

[stages.merged]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt", model = "whole" }
model  = "builtin:tiny"
frames = 5
steps  = 2
"#;

/// Adapters from files of other programs.
const IMPORTED: &str = r#"name = "imported"

[stages.back]
kind  = "lora_merge"
root  = "adapters"
files = ["FILE"]
"#;

fn pipeline() -> String {
    format!("{CLIPS}{TWO}").replace(", \"quadratic\"", "").replace("count  = 2", "count  = 1")
}

fn latents(shell: &Shell, folder: &str) -> Vec<f32> {
    let files = super::walk(&shell.path(folder));
    let file = files.iter().find(|path| path.extension() == Some("safetensors".as_ref())).unwrap();
    let bytes = std::fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (_, view) = tensors.iter().next().unwrap();
    view.data().chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[test]
fn a_merged_model_samples_as_the_model_with_the_adapters() {
    let shell = Shell::new();
    shell.write("merge.toml", &pipeline());
    shell.succeed("run merge.toml");
    for stage in ["plain", "adapted", "merged"] {
        shell.succeed(&format!("export merge.toml {stage} --to {stage}"));
    }
    let [plain, adapted, merged] =
        ["plain", "adapted", "merged"].map(|folder| latents(&shell, folder));
    let scale = adapted.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let far = |other: &[f32]| {
        let differences = adapted.iter().zip(other).map(|(a, b)| (a - b).abs());
        differences.fold(0.0_f32, f32::max) / scale
    };
    let (moved, missed) = (far(&plain), far(&merged));
    assert!(missed < 1e-5 && moved > 100.0 * missed.max(1e-5), "{moved} {missed}");

    // What each program loads comes back as the same adapter.
    shell.succeed("export merge.toml both --to adapters/diffusers");
    shell.succeed("export merge.toml both --to adapters/comfyui --format comfyui");
    shell.succeed("export merge.toml both --to adapters/peft --format peft");
    let files = [
        "diffusers/pytorch_lora_weights.safetensors",
        "comfyui/comfyui_lora.safetensors",
        "peft/adapter_model.safetensors",
    ];
    let original = std::fs::read(shell.path("adapters").join(files[0])).unwrap();
    for file in files {
        shell.write("imported.toml", &IMPORTED.replace("FILE", file));
        shell.succeed("run imported.toml");
        shell.succeed("export imported.toml back --to back");
        let back = std::fs::read(shell.path("back/pytorch_lora_weights.safetensors")).unwrap();
        assert_eq!(back, original, "{file}");
    }
    // Whose it is, only the pipeline that trained it knows.
    let refused = "export imported.toml back --to back --format comfyui";
    insta::assert_snapshot!(shell.transcript(refused), @"
    $ pipe export imported.toml back --to back --format comfyui
    ? 2
    --- stderr
      × of which family of models the adapter `adapter` is cannot be known: both have the modules that
      │ it is made of, and ComfyUI loads each by its own names
      help: add `--family cogvideox` or `--family ltx-video`
    ");
    for (family, name) in [
        ("cogvideox", "transformer.transformer_blocks.0.attn1.to_k.lora_A.weight"),
        ("ltx-video", "diffusion_model.transformer_blocks.0.attn1.to_k.lora_A.weight"),
    ] {
        shell.succeed(&format!("{refused} --family {family}"));
        let bytes = std::fs::read(shell.path("back/comfyui_lora.safetensors")).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert!(header.tensors().contains_key(name), "{family}");
    }
    let other = "export merge.toml both --to back --format comfyui --family ltx-video";
    insta::assert_snapshot!(shell.transcript(other), @"
    $ pipe export merge.toml both --to back --format comfyui --family ltx-video
    ? 2
    --- stderr
      × `--family` says LTX-Video, but the adapter `adapter` is one of CogVideoX
      help: leave `--family` out
    ");
    shell.write("imported.toml", &IMPORTED.replace("FILE", "nothing.safetensors"));
    let output = shell.output("run imported.toml");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("nothing.safetensors"), "{told}");
}

#[test]
fn an_adapter_for_another_model_is_refused_before_anything_runs() {
    let shell = Shell::new();
    let mut header = serde_json::json!({});
    for (name, shape) in [("lora_A", [2, 7]), ("lora_B", [7, 2])] {
        let at = if name == "lora_A" { 0 } else { 56 };
        header[format!("transformer.transformer_blocks.0.attn1.to_q.{name}.weight")] =
            serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, at + 56] });
    }
    let header = header.to_string();
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 112]].concat();
    std::fs::create_dir(shell.path("adapters")).unwrap();
    std::fs::write(shell.path("adapters/a.safetensors"), bytes).unwrap();
    let sampled = TWO.split("[stages.adapted]").nth(1).unwrap().split("[stages.merged]").next();
    let prompt = "[stages.prompt]\nkind = \"text_encode\"\nmodel = \"builtin:tiny\"\n";
    let text = format!(
        "{CLIPS}{prompt}[stages.both]\nkind = \"lora_merge\"\nroot = \"adapters\"\n\
         files = [\"a.safetensors\"]\n[stages.adapted]{}",
        sampled.unwrap()
    );
    shell.write("wrong.toml", &text);
    let transcript = shell.transcript("run wrong.toml --jobs 1 --only adapted");
    assert!(transcript.contains("? 3\n") && transcript.contains("4 not reached"), "{transcript}");
    assert!(
        transcript.contains("`transformer_blocks.0.attn1.to_q` is for a layer of [7, 7]"),
        "{transcript}"
    );
}

#[test]
fn an_adapter_file_is_told_with_its_content_and_the_model_it_states() {
    let shell = Shell::new();
    std::fs::create_dir(shell.path("adapters")).unwrap();
    let mut header = serde_json::json!({ "__metadata__": { "lora_adapter_metadata":
        r#"{"r": 2, "lora_alpha": 2, "base_model_name_or_path": "THUDM/CogVideoX-5b-I2V"}"# } });
    for (name, shape, at) in [("lora_A", [2, 7], 0), ("lora_B", [7, 2], 56)] {
        header[format!("transformer.transformer_blocks.0.attn1.to_q.{name}.weight")] =
            serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, at + 56] });
    }
    let header = header.to_string();
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 112]].concat();
    std::fs::write(shell.path("adapters/a.safetensors"), &bytes).unwrap();
    let imported = IMPORTED.replace("FILE", "a.safetensors");
    shell.write("imported.toml", &imported);
    shell.succeed("run imported.toml");
    let told = shell.succeed("explain imported.toml back");
    let digest = &blake3::hash(&bytes).to_hex()[..12];
    let wanted =
        format!("  adapter: {digest}  a.safetensors  trained on `THUDM/CogVideoX-5b-I2V`\n");
    assert!(told.contains(&wanted), "{told}");
    let merged = |model: &str| {
        shell.write("merged.toml", &format!("{imported}model = \"hf:{model}\"\n"));
        let output = shell.output("check merged.toml");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap().replace("\n  │ ", " ")
    };
    let warned = merged("THUDM/CogVideoX1.5-5B-I2V");
    assert!(warned.contains("states that it was trained on `THUDM/CogVideoX-5b-I2V`"), "{warned}");
    let silent = merged("zai-org/CogVideoX-5b-I2V");
    assert!(!silent.contains("trained on"), "{silent}");
}

#[test]
fn what_cannot_be_merged_or_scored_is_told_before_anything_runs() {
    let shell = Shell::new();
    let whole = "kind   = \"lora_merge\"\ninputs = { first = \"both\" }\nmodel  = \"builtin:tiny\"\n\
                 precision = \"f32\"";
    let wrong = pipeline()
        .replace("weights = [0.5, 2.0]", "weights = [0.5]\nprecision = \"bf16\"\nframe_rate = 12")
        .replace(whole, "kind = \"lora_merge\"");
    let score = r#"
[stages.answers]
kind   = "decode"
inputs = { samples = "adapted" }
model  = "builtin:tiny"

[stages.score]
kind   = "metric"
inputs = { predictions = "answers", second = "answers", pairs = "pairs" }
metric = "pose"
"#;
    let wrong = wrong.replace(", model = \"whole\"", "");
    shell.write("wrong.toml", &format!("{wrong}{score}"));
    let said = shell.transcript("check wrong.toml");
    for message in [
        "`weights` must be as many as the adapters, 2, but are 1",
        "`precision` does nothing here",
        "`frame_rate` does nothing here",
        "there is no adapter to merge",
        "the metric `pose` takes one attempt, but has 2",
    ] {
        assert!(said.contains(message), "{message}: {said}");
    }
}
