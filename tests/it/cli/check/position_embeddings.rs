//! What a model with a learnt table of positions takes, told before anything runs.

use super::values::experiment;
use crate::cli::Shell;

/// The configurations of a model as CogVideoX 1.0 in `model`: a learnt table of positions for so
/// many frames, and 226 tokens before it.
fn write_learned(shell: &Shell, frames: usize) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/builtin_tiny");
    for file in ["transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json"] {
        let config = std::fs::read(root.join(file)).unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        if file.starts_with("transformer") {
            for (key, value) in [
                ("use_learned_positional_embeddings", true.into()),
                ("patch_size_t", serde_json::Value::Null),
                ("ofs_embed_dim", serde_json::Value::Null),
                ("patch_bias", true.into()),
                ("max_text_seq_length", 226.into()),
                ("sample_height", 16.into()),
                ("sample_width", 16.into()),
                ("sample_frames", frames.into()),
            ] {
                config[key] = value;
            }
        }
        let path = shell.path("model").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, config.to_string()).unwrap();
    }
}

/// It showed after the text encoder, the autoencoder and, of two prompts, the training had run.
#[test]
fn prompts_of_a_length_that_the_model_does_not_take_are_told() {
    let shell = Shell::new();
    write_learned(&shell, 9);
    let learned = experiment().replace("builtin:tiny", "model");
    let prompt = "kind  = \"text_encode\"\n";
    let short = learned.replace(prompt, &format!("{prompt}max_length = 64\n"));
    shell.write("short.toml", &short);
    insta::assert_snapshot!(shell.transcript("plan short.toml"), @r#"
    $ pipe plan short.toml
    ? 2
    --- stderr
      × stage `lora`: the prompt on `text` does not fit the model: number of text tokens must be 226,
      │ but is 64
        ╭─[short.toml:20:14]
     19 │ kind  = "text_encode"
     20 │ max_length = 64
        ·              ─┬
        ·               ╰── `max_length`
     21 │ model = "model"
        ╰────
      help: leave `max_length` out where the prompt is encoded, and take the text encoder of the same
            model
    "#);
    let check = shell.transcript("check short.toml");
    assert!(check.contains("text tokens must be 226"), "{check}");
    shell.write("whole.toml", &learned.replace(prompt, &format!("{prompt}max_length = 226\n")));
    let whole = shell.transcript("check whole.toml");
    assert!(!whole.contains("text tokens"), "{whole}");
    // The length of another model, which nothing states.
    let other = learned.replace(
        &format!("{prompt}model = \"model\""),
        &format!("{prompt}model = \"builtin:tiny\""),
    );
    shell.write("other.toml", &other);
    insta::assert_snapshot!(shell.transcript("plan other.toml"), @r#"
    $ pipe plan other.toml
    ? 2
    --- stderr
      × stage `lora`: the prompt on `text` does not fit the model: number of text tokens must be 226,
      │ but is 8
        ╭─[other.toml:18:9]
     17 │ 
     18 │ [stages.prompt]
        ·         ───┬──
        ·            ╰── encoded here
     19 │ kind  = "text_encode"
        ╰────
      help: leave `max_length` out where the prompt is encoded, and take the text encoder of the same
            model
    "#);
    // The built-in model takes any length, but one for both prompts.
    let guided = experiment()
        .replace("steps  = 5\n", "steps  = 5\nguidance_scale = 6.0\n")
        .replace("text = \"prompt\", lora", "text = \"prompt\", negative = \"empty\", lora");
    let empty = |length: &str| {
        format!(
            "{guided}\n[stages.empty]\nkind  = \"text_encode\"\nmodel = \"builtin:tiny\"\n{length}"
        )
    };
    shell.write("guided.toml", &empty("max_length = 4\n"));
    insta::assert_snapshot!(shell.transcript("check guided.toml"), @r#"
    $ pipe check guided.toml
    ? 2
    --- stderr
      × stage `predict`: for guidance the prompts on `text` and `negative` must have one length, but
      │ they have 8 and 4 tokens
        ╭─[guided.toml:18:9]
     17 │ 
     18 │ [stages.prompt]
        ·         ───┬──
        ·            ╰── encoded here
     19 │ kind  = "text_encode"
        ╰────
        ╭─[guided.toml:43:14]
     42 │ model = "builtin:tiny"
     43 │ max_length = 4
        ·              ┬
        ·              ╰── `max_length`
        ╰────
      help: leave `max_length` out where they are encoded, or give both the same
    guided.toml: 1 error
    "#);
    shell.write("same.toml", &empty("max_length = 8\n"));
    shell.succeed("check same.toml");
}

#[test]
fn clips_of_another_length_than_learnt_positions_are_warned_of() {
    let shell = Shell::new();
    let learned = experiment().replace("builtin:tiny", "model");
    shell.write("short.toml", &learned);
    shell.write("stated.toml", &learned.replace("steps  = 5\n", "steps  = 5\nframes = 5\n"));
    let warnings = |line: &str| {
        let told = shell.output(line).stderr;
        let told = String::from_utf8(told).unwrap();
        told.lines().filter(|line| line.contains("learnt positions")).collect::<Vec<_>>().join("\n")
    };
    write_learned(&shell, 9);
    assert_eq!(warnings("plan short.toml"), "");
    write_learned(&shell, 49);
    insta::assert_snapshot!(warnings("plan short.toml"), @"
    warning: `lora` trains on clips of 9 frames, but the model was trained on 49 and has learnt positions for these alone: for other lengths they are computed, which it has never seen; its own length is `frames = 49`
    warning: `predict` samples clips of 9 frames, but the model was trained on 49 and has learnt positions for these alone: for other lengths they are computed, which it has never seen; its own length is `frames = 49`
    ");
    insta::assert_snapshot!(warnings("plan stated.toml"), @"
    warning: `lora` trains on clips of 9 frames, but the model was trained on 49 and has learnt positions for these alone: for other lengths they are computed, which it has never seen; its own length is `frames = 49`
    warning: `predict` samples clips of 5 frames, but the model was trained on 49 and has learnt positions for these alone: for other lengths they are computed, which it has never seen; its own length is `frames = 49` (stated.toml:38:10)
    ");
}
