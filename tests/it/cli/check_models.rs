//! What is wrong with a model or an adapter is an error of the file that names it, and of a run before its
//! first stage: no tensor is read for that.

use std::fs;

use serde_json::{Value, json};

use super::{
    CLIPS, Shell,
    bad_models::{configure, write_adapter},
    bad_weights::{VAE, copy_of_the_model, latents},
};

/// Clips that are encoded with the built-in model and decoded with the folder `model`.
fn decoded() -> String {
    let sampled = r#"
[stages.prompt]
kind   = "text_encode"
model  = "builtin:tiny"

[stages.made]
kind   = "sample"
model  = "builtin:tiny"
frames = 5
steps  = 1
inputs = { pairs = "pairs", text = "prompt" }

[stages.answers]
kind   = "decode"
inputs = { samples = "made" }
model  = "model"
"#;
    format!("{CLIPS}{sampled}").replace("count  = 2", "count  = 1")
}

/// The built-in model as the folder `model`, whose autoencoder lacks a tensor; gives its weights as they were.
fn without_a_tensor(shell: &Shell) -> Vec<u8> {
    let file = copy_of_the_model(shell);
    let whole = fs::read(&file).unwrap();
    let cut = VAE.rewritten(&whole, |all| all.retain(|(name, _)| name != VAE.tensor));
    fs::write(file, cut).unwrap();
    whole
}

#[test]
fn what_the_last_stage_would_fail_on_is_told_before_the_first_one_runs() {
    let shell = Shell::new();
    let whole = without_a_tensor(&shell);
    shell.write("made.toml", &decoded());
    insta::assert_snapshot!(shell.transcript("check made.toml"), @"");
    insta::assert_snapshot!(shell.transcript("run made.toml"), @"");
    fs::write(shell.path("model/vae/diffusion_pytorch_model.safetensors"), whole).unwrap();
    insta::assert_snapshot!(shell.transcript("check made.toml"), @"");
}

/// A file that several stages name is wrong once; each part of a model that is wrong is told.
#[test]
fn all_that_is_wrong_is_told_at_once() {
    let shell = Shell::new();
    without_a_tensor(&shell);
    configure(&shell, "transformer/config.json", "rope_theta", json!(500));
    configure(&shell, "scheduler/scheduler_config.json", "prediction_type", json!("epsilon"));
    let text = decoded().replace("builtin:tiny", "${model}").replace("\"model\"", "\"${model}\"");
    shell.write("made.toml", &format!("{text}\n[params]\nmodel = \"model\"\n"));
    insta::assert_snapshot!(shell.transcript("check made.toml"), @"");
    let json = shell.output("check --json made.toml");
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let errors = json["files"][0]["errors"].as_array().unwrap();
    assert!(
        errors.iter().all(|error| error["code"] == "bad_value" && error["line"] == 37),
        "{json:#}"
    );
}

/// What is in the cache was made with these weights, so nothing is looked at.
#[test]
fn a_run_with_nothing_to_do_does_not_look_at_models() {
    let shell = Shell::new();
    copy_of_the_model(&shell);
    shell.write("latents.toml", &latents("model"));
    shell.succeed("run latents.toml");
    // No stage reads this file, so it is in no key.
    fs::write(shell.path("model/model_index.json"), "[]").unwrap();
    shell.succeed("run latents.toml");
    let text = shell.transcript("check latents.toml");
    assert!(
        text.contains("? 2") && text.contains("`model_index.json`: must be a JSON object"),
        "{text}"
    );
    let text = shell.transcript("run latents.toml --force latents");
    assert!(text.contains("? 3") && text.contains("`model_index.json`"), "{text}");
}

#[test]
fn a_model_must_be_named() {
    let shell = Shell::new();
    shell.write("prompt.toml", "[stages.prompt]\nkind = \"text_encode\"\nmodel = \"\"\n");
    insta::assert_snapshot!(shell.transcript("check prompt.toml"), @"");
    let blank = "[stages.prompt]\nkind = \"text_encode\"\nmodel = \"${model}\"\n[params]\nmodel = \" \\t\"\n";
    shell.write("blank.toml", blank);
    insta::assert_snapshot!(shell.transcript("run blank.toml"), @"");
}

/// A file that is named so by mistake would take all memory, or never end.
#[test]
fn files_that_are_read_whole_have_a_largest_size() {
    let shell = Shell::new();
    copy_of_the_model(&shell);
    shell.write("latents.toml", &latents("model"));
    let config = shell.path("model/vae/config.json");
    let whole = fs::read(&config).unwrap();
    fs::File::options().write(true).open(&config).unwrap().set_len(50 << 30).unwrap();
    insta::assert_snapshot!(shell.transcript("check latents.toml"), @"");
    for line in ["plan latents.toml", "run latents.toml"] {
        let text = shell.transcript(line);
        assert!(text.contains("51200 MiB"), "{text}");
    }
    fs::remove_file(&config).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/dev/zero", &config).unwrap();
        let text = shell.transcript("check latents.toml");
        assert!(
            text.contains("? 2") && text.contains("it is a device, not a regular file"),
            "{text}"
        );
        fs::remove_file(&config).unwrap();
    }
    fs::write(&config, whole).unwrap();
    shell.succeed("check latents.toml");
}

#[test]
fn adapters_of_others_are_looked_at_beside_their_model() {
    let shell = Shell::new();
    let merge = "name = \"merge\"\n[stages.whole]\nkind = \"lora_merge\"\nroot = \"adapters\"\n\
                 files = [\"a.safetensors\"]\nmodel = \"builtin:tiny\"\n";
    shell.write("merge.toml", merge);
    let to_q = "transformer_blocks.0.attn1.to_q";
    write_adapter(&shell, &[(to_q, [2, 7], [7, 2]), ("proj_everything", [2, 8], [8, 2])]);
    insta::assert_snapshot!(shell.transcript("check merge.toml"), @"");
    // Ranks disagree, whatever the model is.
    write_adapter(&shell, &[(to_q, [2, 192], [192, 3])]);
    shell.write("merge.toml", &merge.replace("model = \"builtin:tiny\"\n", ""));
    insta::assert_snapshot!(shell.transcript("check merge.toml"), @"");
    shell.write("merge.toml", &merge.replace("a.safetensors", "a.bin"));
    insta::assert_snapshot!(shell.transcript("check merge.toml"), @"");
    shell.write("merge.toml", &merge.replace("a.safetensors", "b.safetensors"));
    insta::assert_snapshot!(shell.transcript("run merge.toml"), @"");
    write_adapter(&shell, &[(to_q, [2, 192], [192, 2])]);
    shell.write("merge.toml", merge);
    insta::assert_snapshot!(shell.transcript("check merge.toml"), @"");
}

/// Such an adapter makes every picture black, and says nothing.
#[test]
fn an_adapter_that_holds_no_numbers_is_refused() {
    let shell = Shell::new();
    let merge = "name = \"merge\"\n[stages.one]\nkind = \"lora_merge\"\nroot = \"adapters\"\n\
                 files = [\"a.safetensors\"]\n";
    shell.write("merge.toml", merge);
    write_adapter(&shell, &[("transformer_blocks.0.attn1.to_q", [2, 192], [192, 2])]);
    let file = shell.path("adapters/a.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    insta::assert_snapshot!(shell.transcript("run merge.toml"), @"");
}

#[test]
fn a_training_that_diverges_fails_and_says_what_helps() {
    let shell = Shell::new();
    let train = r#"
[stages.part]
kind   = "pretrain"
part   = "vae"
like   = "builtin:tiny"
inputs = { videos = "clips" }
steps  = 5
learning_rate = 1e30
lr_schedule   = "constant"
"#;
    let text = format!("{CLIPS}{train}").replace("count  = 2", "count  = 1");
    shell.write("train.toml", &text.replace("[\"linear\", \"quadratic\"]", "[\"linear\"]"));
    insta::assert_snapshot!(shell.transcript("run train.toml"), @"");
}
