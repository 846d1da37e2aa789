//! Parts of different models in one pipeline, as a user is told of them.

use std::path::Path;

use crate::cli::{Experiment, Shell};

const FRAMES: &str = r#"
[stages.frames]
kind   = "decode"
inputs = { samples = "predict" }
model  = "builtin:tiny"
"#;

/// An experiment whose stages have these models; others have the built-in one.
fn experiment(models: &[(&str, &str)]) -> String {
    let experiment = Experiment {
        name: "mixed",
        clips: "method = \"linear\"\n",
        predict: "frames = 5\nsteps  = 1\n",
        ..Experiment::default()
    };
    let mut text = experiment.toml() + FRAMES;
    for (stage, model) in models {
        let (before, stages) = text.split_once(&format!("[stages.{stage}]")).unwrap();
        let stages = stages.replacen("\"builtin:tiny\"", &format!("\"{model}\""), 1);
        text = format!("{before}[stages.{stage}]{stages}");
    }
    text
}

/// A copy of the built-in model.
pub(in crate::cli) fn copy(to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/builtin_tiny");
    for part in ["scheduler", "text_encoder", "tokenizer", "transformer", "vae"] {
        std::fs::create_dir_all(to.join(part)).unwrap();
        for file in std::fs::read_dir(from.join(part)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(part).join(file.file_name())).unwrap();
        }
    }
}

/// Changes the last value of a part's weights.
pub(in crate::cli) fn change(model: &Path, part: &str) {
    let name = if part == "text_encoder" { "model" } else { "diffusion_pytorch_model" };
    let path = model.join(part).join(format!("{name}.safetensors"));
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn copies_of_a_model_are_the_same_model() {
    let shell = Shell::new();
    copy(&shell.path("copy"));
    let all = ["latents", "lora", "frames"].map(|stage| (stage, "copy"));
    shell.write("mixed.toml", &experiment(&all));
    insta::assert_snapshot!(shell.transcript("check mixed.toml"), @"
    $ pipe check mixed.toml
    ? 0
    --- stdout
    mixed.toml: fine, 7 stages; not looked into: values of weights (`copy`)
    ");
    // Another transformer is no other autoencoder.
    change(&shell.path("copy"), "transformer");
    insta::assert_snapshot!(shell.transcript("check mixed.toml"), @"
    $ pipe check mixed.toml
    ? 0
    --- stdout
    mixed.toml: fine, 7 stages; not looked into: values of weights (`copy`)
    --- stderr
    warning: `predict`: the adapter on `lora` was trained on the transformer of `copy`, but is sampled with on that of `builtin:tiny` (mixed.toml:35:10); an adapter does what it was trained to on its own transformer alone; name that one
    ");
}

/// A file whose stage has a model with another autoencoder and another text encoder.
fn with_another(stage: &str, file: &str) -> Shell {
    let shell = Shell::new();
    copy(&shell.path("other"));
    change(&shell.path("other"), "vae");
    change(&shell.path("other"), "text_encoder");
    shell.write(file, &experiment(&[(stage, "other")]));
    shell
}

#[test]
fn latents_of_another_autoencoder_are_told_with_both_places() {
    let shell = with_another("latents", "encoded.toml");
    insta::assert_snapshot!(shell.transcript("check encoded.toml"), @r#"
    $ pipe check encoded.toml
    ? 2
    --- stderr
      × stage `lora`: the latents on `latents` were encoded by the autoencoder of `other`, but train a
      │ transformer that knows that of `builtin:tiny`
        ╭─[encoded.toml:23:10]
     22 │ inputs = { videos = "clips" }
     23 │ model  = "other"
        ·          ───┬───
        ·             ╰── the autoencoder of `other`
     24 │ 
        ╰────
        ╭─[encoded.toml:28:10]
     27 │ inputs = { latents = "latents", text = "prompt" }
     28 │ model  = "builtin:tiny"
        ·          ───────┬──────
        ·                 ╰── the autoencoder of `builtin:tiny`
     29 │ rank   = 2
        ╰────
      help: name one model in both stages, or another one whose `vae` holds the same files

      × stage `predict`: the adapter on `lora` was trained on latents of the autoencoder of `other`,
      │ but the image is encoded by that of `builtin:tiny`
        ╭─[encoded.toml:23:10]
     22 │ inputs = { videos = "clips" }
     23 │ model  = "other"
        ·          ───┬───
        ·             ╰── the autoencoder of `other`
     24 │ 
        ╰────
        ╭─[encoded.toml:35:10]
     34 │ inputs = { pairs = "pairs", text = "prompt", lora = "lora" }
     35 │ model  = "builtin:tiny"
        ·          ───────┬──────
        ·                 ╰── the autoencoder of `builtin:tiny`
     36 │ frames = 5
        ╰────
      help: name one model in both stages, or another one whose `vae` holds the same files
    encoded.toml: 2 errors
    "#);
}

#[test]
fn a_prompt_of_another_text_encoder_is_told_with_both_places() {
    let shell = with_another("prompt", "prompted.toml");
    insta::assert_snapshot!(shell.transcript("check prompted.toml"), @r#"
    $ pipe check prompted.toml
    ? 2
    --- stderr
      × stage `lora`: the prompt on `text` was encoded by the text encoder of `other`, but is read by
      │ a transformer that knows that of `builtin:tiny`
        ╭─[prompted.toml:18:9]
     17 │ kind  = "text_encode"
     18 │ model = "other"
        ·         ───┬───
        ·            ╰── the text encoder of `other`
     19 │ 
        ╰────
        ╭─[prompted.toml:28:10]
     27 │ inputs = { latents = "latents", text = "prompt" }
     28 │ model  = "builtin:tiny"
        ·          ───────┬──────
        ·                 ╰── the text encoder of `builtin:tiny`
     29 │ rank   = 2
        ╰────
      help: encode the prompt with the model that it is for

      × stage `predict`: the prompt on `text` was encoded by the text encoder of `other`, but is read
      │ by a transformer that knows that of `builtin:tiny`
        ╭─[prompted.toml:18:9]
     17 │ kind  = "text_encode"
     18 │ model = "other"
        ·         ───┬───
        ·            ╰── the text encoder of `other`
     19 │ 
        ╰────
        ╭─[prompted.toml:35:10]
     34 │ inputs = { pairs = "pairs", text = "prompt", lora = "lora" }
     35 │ model  = "builtin:tiny"
        ·          ───────┬──────
        ·                 ╰── the text encoder of `builtin:tiny`
     36 │ frames = 5
        ╰────
      help: encode the prompt with the model that it is for
    prompted.toml: 2 errors
    "#);
}

#[test]
fn samples_of_another_model_are_told_with_both_places() {
    let shell = with_another("predict", "sampled.toml");
    insta::assert_snapshot!(shell.transcript("check sampled.toml"), @r#"
    $ pipe check sampled.toml
    ? 2
    --- stderr
      × stage `predict`: the adapter on `lora` was trained on latents of the autoencoder of
      │ `builtin:tiny`, but the image is encoded by that of `other`
        ╭─[sampled.toml:23:10]
     22 │ inputs = { videos = "clips" }
     23 │ model  = "builtin:tiny"
        ·          ───────┬──────
        ·                 ╰── the autoencoder of `builtin:tiny`
     24 │ 
        ╰────
        ╭─[sampled.toml:35:10]
     34 │ inputs = { pairs = "pairs", text = "prompt", lora = "lora" }
     35 │ model  = "other"
        ·          ───┬───
        ·             ╰── the autoencoder of `other`
     36 │ frames = 5
        ╰────
      help: name one model in both stages, or another one whose `vae` holds the same files

      × stage `predict`: the prompt on `text` was encoded by the text encoder of `builtin:tiny`, but
      │ is read by a transformer that knows that of `other`
        ╭─[sampled.toml:18:9]
     17 │ kind  = "text_encode"
     18 │ model = "builtin:tiny"
        ·         ───────┬──────
        ·                ╰── the text encoder of `builtin:tiny`
     19 │ 
        ╰────
        ╭─[sampled.toml:35:10]
     34 │ inputs = { pairs = "pairs", text = "prompt", lora = "lora" }
     35 │ model  = "other"
        ·          ───┬───
        ·             ╰── the text encoder of `other`
     36 │ frames = 5
        ╰────
      help: encode the prompt with the model that it is for

      × stage `frames`: the samples on `samples` were made with the autoencoder of `other`, but are
      │ decoded by that of `builtin:tiny`
        ╭─[sampled.toml:35:10]
     34 │ inputs = { pairs = "pairs", text = "prompt", lora = "lora" }
     35 │ model  = "other"
        ·          ───┬───
        ·             ╰── the autoencoder of `other`
     36 │ frames = 5
        ╰────
        ╭─[sampled.toml:42:10]
     41 │ inputs = { samples = "predict" }
     42 │ model  = "builtin:tiny"
        ·          ───────┬──────
        ·                 ╰── the autoencoder of `builtin:tiny`
        ╰────
      help: name one model in both stages, or another one whose `vae` holds the same files
    sampled.toml: 3 errors
    "#);
}

#[test]
fn frames_of_another_autoencoder_are_told_with_both_places() {
    let shell = with_another("frames", "decoded.toml");
    insta::assert_snapshot!(shell.transcript("plan decoded.toml"), @r#"
    $ pipe plan decoded.toml
    ? 2
    --- stderr
      × stage `frames`: the samples on `samples` were made with the autoencoder of `builtin:tiny`, but
      │ are decoded by that of `other`
        ╭─[decoded.toml:35:10]
     34 │ inputs = { pairs = "pairs", text = "prompt", lora = "lora" }
     35 │ model  = "builtin:tiny"
        ·          ───────┬──────
        ·                 ╰── the autoencoder of `builtin:tiny`
     36 │ frames = 5
        ╰────
        ╭─[decoded.toml:42:10]
     41 │ inputs = { samples = "predict" }
     42 │ model  = "other"
        ·          ───┬───
        ·             ╰── the autoencoder of `other`
        ╰────
      help: name one model in both stages, or another one whose `vae` holds the same files
    "#);
}

#[test]
fn what_cannot_be_compared_here_is_a_warning() {
    let shell = Shell::new();
    shell.write("mixed.toml", &experiment(&[("frames", "nowhere")]));
    insta::assert_snapshot!(shell.transcript("check mixed.toml"), @"
    $ pipe check mixed.toml
    ? 0
    --- stdout
    mixed.toml: fine, 7 stages; not looked into: weights (`nowhere`)
    --- stderr
    warning: `frames`: the samples on `samples` were made with the autoencoder of `builtin:tiny`, but are decoded by that of `nowhere`; whether they are the same cannot be known here: one of them is not on this machine (mixed.toml:42:10); name one model in both stages, or another one whose `vae` holds the same files
    warning: the model `nowhere` cannot be read: there is no model folder `nowhere` (mixed.toml:42:10); needed by `frames`
      help: name a folder in diffusers' layout, `hf:org/repo@revision`, or `builtin:tiny`
    ");
}

const MERGED: &str = r#"
[stages.merged]
kind   = "lora_merge"
inputs = { first = "lora" }
model  = "builtin:tiny"

[stages.other_vae]
kind   = "pretrain"
part   = "vae"
inputs = { videos = "clips", model = "merged" }
like   = "builtin:tiny"
steps  = 1

[stages.again]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt", lora = "lora", model = "other_vae" }
model  = "builtin:tiny"
frames = 5
steps  = 1

[stages.again_frames]
kind   = "decode"
inputs = { samples = "again", model = "merged" }
model  = "builtin:tiny"

[stages.base_of_merged]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt", lora = "lora", model = "merged" }
model  = "builtin:tiny"
frames = 5
steps  = 1
"#;

/// Merges keep the autoencoder; a training makes another one.
#[test]
fn parts_are_followed_through_the_port_of_the_model() {
    let shell = Shell::new();
    shell.write("made.toml", &(experiment(&[]) + MERGED));
    insta::assert_snapshot!(shell.transcript("check made.toml"), @r#"
    $ pipe check made.toml
    ? 2
    --- stderr
      × stage `again`: the adapter on `lora` was trained on latents of the autoencoder of
      │ `builtin:tiny`, but the image is encoded by that of the stage `other_vae`
        ╭─[made.toml:23:10]
     22 │ inputs = { videos = "clips" }
     23 │ model  = "builtin:tiny"
        ·          ───────┬──────
        ·                 ╰── the autoencoder of `builtin:tiny`
     24 │ 
        ╰────
        ╭─[made.toml:49:9]
     48 │ 
     49 │ [stages.other_vae]
        ·         ────┬────
        ·             ╰── the autoencoder of the stage `other_vae`
     50 │ kind   = "pretrain"
        ╰────
        ╭─[made.toml:56:9]
     55 │ 
     56 │ [stages.again]
        ·         ──┬──
        ·           ╰── here
     57 │ kind   = "sample"
        ╰────
      help: name one model in both stages, or another one whose `vae` holds the same files

      × stage `again`: the transformer on `model` was trained on latents of the autoencoder of
      │ `builtin:tiny`, but the image is encoded by that of the stage `other_vae`
        ╭─[made.toml:23:10]
     22 │ inputs = { videos = "clips" }
     23 │ model  = "builtin:tiny"
        ·          ───────┬──────
        ·                 ╰── the autoencoder of `builtin:tiny`
     24 │ 
        ╰────
        ╭─[made.toml:49:9]
     48 │ 
     49 │ [stages.other_vae]
        ·         ────┬────
        ·             ╰── the autoencoder of the stage `other_vae`
     50 │ kind   = "pretrain"
        ╰────
        ╭─[made.toml:56:9]
     55 │ 
     56 │ [stages.again]
        ·         ──┬──
        ·           ╰── here
     57 │ kind   = "sample"
        ╰────
      help: name one model in both stages, or another one whose `vae` holds the same files

      × stage `again_frames`: the samples on `samples` were made with the autoencoder of the stage
      │ `other_vae`, but are decoded by that of `builtin:tiny`
        ╭─[made.toml:49:9]
     48 │ 
     49 │ [stages.other_vae]
        ·         ────┬────
        ·             ╰── the autoencoder of the stage `other_vae`
     50 │ kind   = "pretrain"
        ╰────
        ╭─[made.toml:66:10]
     65 │ inputs = { samples = "again", model = "merged" }
     66 │ model  = "builtin:tiny"
        ·          ───────┬──────
        ·                 ╰── the autoencoder of `builtin:tiny`
     67 │ 
        ╰────
      help: name one model in both stages, or another one whose `vae` holds the same files
    made.toml: 3 errors
    "#);
    // The same stage by two names makes the same.
    let twins = format!(
        "{}{}",
        experiment(&[]),
        MERGED
            .replace(
                "model = \"merged\" }\nmodel  = \"builtin:tiny\"\n\n[stages.base",
                "model = \"twin\" }\nmodel  = \"builtin:tiny\"\n\n[stages.base"
            )
            .replace("lora = \"lora\", model = \"other_vae\"", "model = \"other_vae\""),
    );
    let twin = MERGED.split("\n\n").nth(1).unwrap().replace("other_vae", "twin");
    shell.write("twins.toml", &format!("{twins}\n{twin}\n"));
    insta::assert_snapshot!(shell.transcript("check twins.toml"), @r#"
    $ pipe check twins.toml
    ? 2
    --- stderr
      × stage `again`: the transformer on `model` was trained on latents of the autoencoder of
      │ `builtin:tiny`, but the image is encoded by that of the stage `other_vae`
        ╭─[twins.toml:23:10]
     22 │ inputs = { videos = "clips" }
     23 │ model  = "builtin:tiny"
        ·          ───────┬──────
        ·                 ╰── the autoencoder of `builtin:tiny`
     24 │ 
        ╰────
        ╭─[twins.toml:49:9]
     48 │ 
     49 │ [stages.other_vae]
        ·         ────┬────
        ·             ╰── the autoencoder of the stage `other_vae`
     50 │ kind   = "pretrain"
        ╰────
        ╭─[twins.toml:56:9]
     55 │ 
     56 │ [stages.again]
        ·         ──┬──
        ·           ╰── here
     57 │ kind   = "sample"
        ╰────
      help: name one model in both stages, or another one whose `vae` holds the same files
    twins.toml: 1 error
    "#);
}
