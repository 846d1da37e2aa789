//! What is wrong with a model or an adapter is an error of the file that names it, and of a run
//! before its first stage: no tensor is read for that.

use std::fs;

use serde_json::{Value, json};

use crate::cli::{
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
model  = "model"
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

/// The built-in model as the folder `model`, whose autoencoder lacks a tensor; gives its weights as
/// they were.
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
    insta::assert_snapshot!(shell.transcript("check made.toml"), @r#"
    $ pipe check made.toml
    ? 2
    --- stderr
      × stage `made`: the weights of `vae` do not fit its configuration: missing
      │ `encoder.conv_in.conv.bias` [16]
        ╭─[made.toml:26:10]
     25 │ kind   = "sample"
     26 │ model  = "model"
        ·          ───┬───
        ·             ╰── `model`
     27 │ frames = 5
        ╰────
      help: weights and `config.json` must come from the same model: copy or download both again

      × stage `answers`: the weights of `vae` do not fit its configuration: missing
      │ `encoder.conv_in.conv.bias` [16]
        ╭─[made.toml:34:10]
     33 │ inputs = { samples = "made" }
     34 │ model  = "model"
        ·          ───┬───
        ·             ╰── `model`
        ╰────
      help: weights and `config.json` must come from the same model: copy or download both again
    made.toml: 2 errors
    "#);
    insta::assert_snapshot!(shell.transcript("run made.toml"), @"
    $ pipe run made.toml
    ? 3
    --- stderr
    clips: 6 stages on cpu
    failed   0 stages ran, 6 not reached in [TIME]
      × the model `model` cannot be read: the weights of `vae` do not fit its configuration: missing
      │ `encoder.conv_in.conv.bias` [16] (made.toml:26:10); needed by `made` and 1 more
      help: weights and `config.json` must come from the same model: copy or download both again
    ");
    fs::write(shell.path("model/vae/diffusion_pytorch_model.safetensors"), whole).unwrap();
    insta::assert_snapshot!(shell.transcript("check made.toml"), @"
    $ pipe check made.toml
    ? 0
    --- stdout
    made.toml: fine, 6 stages; not looked into: values of weights (`model`)
    ");
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
    insta::assert_snapshot!(shell.transcript("check made.toml"), @r#"
    $ pipe check made.toml
    ? 2
    --- stderr
      × stage `prompt`: `transformer/config.json`: `rope_theta = 500` is not a setting this version
      │ knows
        ╭─[made.toml:22:10]
     21 │ kind   = "text_encode"
     22 │ model  = "${model}"
        ·          ─────┬────
        ·               ╰── used here
     23 │ 
        ╰────
        ╭─[made.toml:37:9]
     36 │ [params]
     37 │ model = "model"
        ·         ───┬───
        ·            ╰── `model`
        ╰────
      help: it must be the file that came with the weights

      × stage `prompt`: `scheduler/scheduler_config.json`: `prediction_type` must be `v_prediction`,
      │ but is `epsilon`
        ╭─[made.toml:22:10]
     21 │ kind   = "text_encode"
     22 │ model  = "${model}"
        ·          ─────┬────
        ·               ╰── used here
     23 │ 
        ╰────
        ╭─[made.toml:37:9]
     36 │ [params]
     37 │ model = "model"
        ·         ───┬───
        ·            ╰── `model`
        ╰────
      help: it must be the file that came with the weights

      × stage `made`: the weights of `vae` do not fit its configuration: missing
      │ `encoder.conv_in.conv.bias` [16]
        ╭─[made.toml:26:10]
     25 │ kind   = "sample"
     26 │ model  = "${model}"
        ·          ─────┬────
        ·               ╰── used here
     27 │ frames = 5
        ╰────
        ╭─[made.toml:37:9]
     36 │ [params]
     37 │ model = "model"
        ·         ───┬───
        ·            ╰── `model`
        ╰────
      help: weights and `config.json` must come from the same model: copy or download both again
    made.toml: 3 errors
    "#);
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
    insta::assert_snapshot!(shell.transcript("check prompt.toml"), @r#"
    $ pipe check prompt.toml
    ? 2
    --- stderr
      × stage `prompt`: `model` must name a model, but is empty
       ╭─[prompt.toml:3:9]
     2 │ kind = "text_encode"
     3 │ model = ""
       ·         ─┬
       ·          ╰── `model`
       ╰────
      help: name a folder in diffusers' layout, `hf:org/repo@revision`, or `builtin:tiny`
    prompt.toml: 1 error
    "#);
    let blank = "[stages.prompt]\nkind = \"text_encode\"\nmodel = \"${model}\"\n[params]\nmodel = \" \\t\"\n";
    shell.write("blank.toml", blank);
    insta::assert_snapshot!(shell.transcript("run blank.toml"), @r#"
    $ pipe run blank.toml
    ? 2
    --- stderr
      × stage `prompt`: `model` must name a model, but is empty
       ╭─[blank.toml:5:9]
     2 │ kind = "text_encode"
     3 │ model = "${model}"
       ·         ─────┬────
       ·              ╰── used here
     4 │ [params]
     5 │ model = " \t"
       ·         ──┬──
       ·           ╰── `model`
       ╰────
      help: name a folder in diffusers' layout, `hf:org/repo@revision`, or `builtin:tiny`
    "#);
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
    insta::assert_snapshot!(shell.transcript("check latents.toml"), @r#"
    $ pipe check latents.toml
    ? 2
    --- stderr
      × stage `latents`: cannot read `model/vae/config.json`: it has [SIZE], but at most [SIZE] are
      │ read
        ╭─[latents.toml:23:10]
     22 │ inputs = { videos = "clips" }
     23 │ model  = "model"
        ·          ───┬───
        ·             ╰── `model`
        ╰────
      help: it is not what its name says: copy or download it again
    latents.toml: 1 error
    "#);
    for line in ["plan latents.toml", "run latents.toml"] {
        let output = shell.output(line);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
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

/// An adapter of another program, merged into a model.
const MERGE: &str = "name = \"merge\"\n[stages.whole]\nkind = \"lora_merge\"\nroot = \"adapters\"\n\
                     files = [\"a.safetensors\"]\nmodel = \"builtin:tiny\"\n";
const TO_Q: &str = "transformer_blocks.0.attn1.to_q";

/// The same without a model.
fn merge_alone() -> String {
    MERGE.replace("model = \"builtin:tiny\"\n", "")
}

#[test]
fn adapters_of_others_are_looked_at_beside_their_model() {
    let shell = Shell::new();
    shell.write("merge.toml", MERGE);
    write_adapter(&shell, &[(TO_Q, [2, 7], [7, 2]), ("proj_everything", [2, 8], [8, 2])]);
    insta::assert_snapshot!(shell.transcript("check merge.toml"), @r#"
    $ pipe check merge.toml
    ? 2
    --- stderr
      × stage `whole`: `a.safetensors`: the adapter does not fit the model: `proj_everything` is not a
      │ linear layer of the model; `transformer_blocks.0.attn1.to_q` is for a layer of [7, 7], but the
      │ model's is [192, 192]
       ╭─[merge.toml:5:9]
     4 │ root = "adapters"
     5 │ files = ["a.safetensors"]
       ·         ────────┬────────
       ·                 ╰── `files`
     6 │ model = "builtin:tiny"
       ╰────
      help: name the file of an adapter that was trained for this model
    merge.toml: 1 error
    "#);
    // Ranks disagree, whatever the model is.
    write_adapter(&shell, &[(TO_Q, [2, 192], [192, 3])]);
    shell.write("merge.toml", &merge_alone());
    insta::assert_snapshot!(shell.transcript("check merge.toml"), @r#"
    $ pipe check merge.toml
    ? 2
    --- stderr
      × stage `whole`: `a.safetensors`: the factors of `transformer_blocks.0.attn1.to_q` must share a
      │ rank of at least 1, but have 2 and 3
       ╭─[merge.toml:5:9]
     4 │ root = "adapters"
     5 │ files = ["a.safetensors"]
       ·         ────────┬────────
       ·                 ╰── `files`
       ╰────
      help: name the file of an adapter that was trained for this model
    merge.toml: 1 error
    "#);
}

#[test]
fn adapters_behind_a_merge_are_looked_at_beside_the_model_that_they_reach() {
    let shell = Shell::new();
    let behind = "\n[stages.both]\nkind = \"lora_merge\"\ninputs = { first = \"whole\" }\n\
                  [stages.in]\nkind = \"lora_merge\"\ninputs = { first = \"both\" }\n\
                  model = \"builtin:tiny\"\n";
    shell.write("behind.toml", &(merge_alone() + behind));
    write_adapter(&shell, &[("transformer_blocks.70.attn1.to_q", [2, 192], [192, 2])]);
    insta::assert_snapshot!(shell.transcript("check behind.toml"), @r#"
    $ pipe check behind.toml
    ? 2
    --- stderr
      × stage `in`: `a.safetensors`: the adapter does not fit the model:
      │ `transformer_blocks.70.attn1.to_q` is not a linear layer of the model; `whole` names the file,
      │ and the model is `builtin:tiny`
        ╭─[behind.toml:10:9]
      9 │ inputs = { first = "whole" }
     10 │ [stages.in]
        ·         ─┬
        ·          ╰── `inputs`
     11 │ kind = "lora_merge"
        ╰────
      help: name the file of an adapter that was trained for this model
    behind.toml: 1 error
    "#);
    insta::assert_snapshot!(shell.transcript("run behind.toml"), @"
    $ pipe run behind.toml
    ? 3
    --- stderr
    warning: `whole` reads `a.safetensors`, which does not state its scale (alpha by rank): it is taken to be 1, as diffusers does, though CogVideo's trainer and diffusers' example save such files of any alpha; state it in `weights` (behind.toml:5:9)
    merge: 3 stages on cpu
    failed   0 stages ran, 3 not reached in [TIME]
      × the adapters of `adapters` cannot be used: `a.safetensors`: the adapter does not fit the
      │ model: `transformer_blocks.70.attn1.to_q` is not a linear layer of the model; `whole` names
      │ the file, and the model is `builtin:tiny`; needed by `in`
      help: name the file of an adapter that was trained for this model
    ");
    write_adapter(&shell, &[(TO_Q, [2, 192], [192, 2])]);
    shell.succeed("check behind.toml");
}

/// What is read of a header is not what is allocated for it.
#[test]
fn adapters_of_a_vast_size_are_refused() {
    let shell = Shell::new();
    shell.write("merge.toml", &merge_alone());
    let vast = 1_000_000_000_000;
    write_adapter(&shell, &[(TO_Q, [vast, 0], [0, vast])]);
    for command in ["check merge.toml", "run merge.toml"] {
        let told = shell.transcript(command);
        assert!(told.contains("dimensions of at least 1"), "{told}");
    }
    write_adapter(&shell, &[(TO_Q, [9000, 1], [1, 9000]), ("proj_out", [1, 900], [900, 1])]);
    let told = shell.transcript("check merge.toml");
    assert!(told.contains("has rank 9000") && told.contains("help: resize the branches"), "{told}");
}

#[test]
fn an_adapter_file_of_another_form_or_place_or_scale_is_told() {
    let shell = Shell::new();
    write_adapter(&shell, &[(TO_Q, [2, 192], [192, 2])]);
    shell.write("merge.toml", &MERGE.replace("a.safetensors", "a.bin"));
    insta::assert_snapshot!(shell.transcript("check merge.toml"), @r#"
    $ pipe check merge.toml
    ? 2
    --- stderr
      × stage `whole`: `a.bin` is a pickle file, which can run code when it is read
       ╭─[merge.toml:5:9]
     4 │ root = "adapters"
     5 │ files = ["a.bin"]
       ·         ────┬────
       ·             ╰── `files`
     6 │ model = "builtin:tiny"
       ╰────
      help: save the adapter as safetensors
    merge.toml: 1 error
    "#);
    shell.write("merge.toml", &MERGE.replace("a.safetensors", "b.safetensors"));
    insta::assert_snapshot!(shell.transcript("run merge.toml"), @"
    $ pipe run merge.toml
    ? 3
    --- stderr
    merge: 1 stage on cpu
    failed   0 stages ran, 1 not reached in [TIME]
      × the adapters of `adapters` cannot be used: there is no file `b.safetensors` in `adapters`
      │ (merge.toml:5:9); needed by `whole`
      help: name files as they lie below `root`
    ");
    shell.write("merge.toml", MERGE);
    insta::assert_snapshot!(shell.transcript("check merge.toml"), @"
    $ pipe check merge.toml
    ? 0
    --- stdout
    merge.toml: fine, 1 stage
    --- stderr
    warning: `whole` reads `a.safetensors`, which does not state its scale (alpha by rank): it is taken to be 1, as diffusers does, though CogVideo's trainer and diffusers' example save such files of any alpha; state it in `weights` (merge.toml:5:9)
    ");
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
    insta::assert_snapshot!(shell.transcript("run merge.toml"), @"
    $ pipe run merge.toml
    ? 1
    --- stderr
    warning: `one` reads `a.safetensors`, which does not state its scale (alpha by rank): it is taken to be 1, as diffusers does, though CogVideo's trainer and diffusers' example save such files of any alpha; state it in `weights` (merge.toml:5:9)
    merge: 1 stage on cpu
    failed   one
      × stage `one`, item `a.safetensors`: `transformer.transformer_blocks.0.attn1.to_q.lora_B.weight`
      │ holds values that are not finite numbers
      help: the training that made it has diverged: take a file that it saved earlier
    failed   0 stages ran, 1 failed in [TIME]
    ");
}
