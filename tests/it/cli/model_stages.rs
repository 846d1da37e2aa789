//! Settings of the stages that run models, as a user sees them.

use super::{CLIPS, Shell, walk};

const TRAINED: &str = r#"
[stages.others]
kind   = "dataset"
source = "builtin:figures"
task   = "pose"
count  = 1
size   = [32, 32]
seed   = 5

[stages.other_clips]
kind   = "interpolate"
inputs = { pairs = "others" }
method = "linear"
frames = 5

[stages.other_latents]
kind   = "vae_encode"
inputs = { videos = "other_clips" }
model  = "builtin:tiny"

[stages.latents]
kind   = "vae_encode"
inputs = { videos = "clips" }
model  = "builtin:tiny"

[stages.prompt]
kind   = "text_encode"
model  = "builtin:tiny"

[stages.lora]
kind   = "lora_train"
inputs = { latents = "latents", text = "prompt", held_out = "other_latents" }
model  = "builtin:tiny"
rank   = 2
steps  = 4
batch_size     = 1
held_out_every = 2
"#;

fn clips() -> String {
    CLIPS.replace(", \"quadratic\"", "").replace("count  = 2", "count  = 1")
}

/// The digest of the output of a stage that ran.
fn digest(shell: &Shell, file: &str, stage: &str) -> String {
    let stages = shell.plan(file);
    let name = |found: &serde_json::Value| found["name"].as_str().unwrap().to_owned();
    let found = stages.iter().find(|found| name(found).split('[').next() == Some(stage));
    found.unwrap()["digest"].as_str().unwrap().to_owned()
}

#[test]
fn the_losses_of_a_training_are_shown() {
    let shell = Shell::new();
    shell.write("trained.toml", &format!("{}{TRAINED}", clips()));
    shell.succeed("run trained.toml");
    let shown = shell.succeed(&format!("show {}", digest(&shell, "trained.toml", "lora")));
    let rows: Vec<Vec<&str>> = shown
        .lines()
        .skip_while(|line| !line.contains("held-out loss, by quantile"))
        .skip(1)
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["step", "0.1", "0.3", "0.5", "0.7", "0.9"], "{shown}");
    let steps: Vec<_> = rows[1..].iter().map(|row| row[0]).collect();
    assert_eq!(steps, ["0", "2", "4"], "{shown}");
    for row in &rows[1..] {
        assert!(row.len() == 6 && row[1..].iter().all(|loss| loss.parse::<f64>().unwrap() > 0.0));
    }
    assert!(shown.contains("  loss = "), "{shown}");
}

#[test]
fn a_look_at_clips_held_out_needs_both_its_settings() {
    let shell = Shell::new();
    let text = format!("{}{TRAINED}", clips());
    shell.write("no_port.toml", &text.replace(", held_out = \"other_latents\"", ""));
    shell.write("no_interval.toml", &text.replace("held_out_every = 2\n", ""));
    let said = shell.transcript("check no_port.toml no_interval.toml");
    for message in [
        "`held_out_every` needs the input `held_out`",
        "connect a `vae_encode` stage of clips that are not trained on to `held_out`",
        "an input `held_out` does nothing without the parameter `held_out_every`",
        "add `held_out_every = 100`",
    ] {
        assert!(said.contains(message), "{said}");
    }
}

/// Width and height of the predictions.
fn sizes(shell: &Shell, file: &str) -> Vec<(u32, u32)> {
    shell.succeed(&format!("export {file} answers --to {file}.out"));
    let files = walk(&shell.path(&format!("{file}.out"))).into_iter();
    let is_prediction = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.ends_with(".png") && !name.contains("strip") && name != "sheet.png"
    };
    files.filter(is_prediction).map(|path| image::image_dimensions(path).unwrap()).collect()
}

/// Every stage on tiles, to the score; tiles are 32 x 32.
#[test]
fn a_run_on_tiles_alone() {
    let shell = Shell::new();
    let stages = r#"
[stages.latents]
kind   = "vae_encode"
inputs = { videos = "clips" }
model  = "builtin:tiny"
tiling = true

[stages.prompt]
kind   = "text_encode"
model  = "builtin:tiny"

[stages.lora]
kind   = "lora_train"
inputs = { latents = "latents", text = "prompt" }
model  = "builtin:tiny"
rank   = 2
steps  = 1

[stages.made]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt", lora = "lora" }
model  = "builtin:tiny"
frames = 5
steps  = 1
tiling = true

[stages.answers]
kind   = "decode"
inputs = { samples = "made" }
model  = "builtin:tiny"
tiling = true

[stages.score]
kind   = "metric"
metric = "pose"
inputs = { predictions = "answers", pairs = "pairs" }
"#;
    let text = format!("{}{stages}", clips().replace("[32, 32]", "[64, 64]"));
    shell.write("tiled.toml", &text);
    shell.succeed("run tiled.toml");
    assert_eq!(sizes(&shell, "tiled.toml"), [(64, 64)]);
}

#[test]
fn tiles_and_the_last_frame_alone() {
    let shell = Shell::new();
    let decoded = r#"
[stages.made]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt" }
model  = "builtin:tiny"
frames = 5
steps  = 1

[stages.answers]
kind   = "decode"
inputs = { samples = "made" }
model  = "builtin:tiny"
"#;
    let prompt = "[stages.prompt]\nkind = \"text_encode\"\nmodel = \"builtin:tiny\"\n";
    // Tiles are half of 64, which the autoencoder was trained with.
    let text = format!("{}{prompt}{decoded}", clips().replace("[32, 32]", "[32, 64]"));
    shell.write("tiles.toml", &text);
    shell.succeed("run tiles.toml");
    let (latents, pixels) =
        (digest(&shell, "tiles.toml", "made"), digest(&shell, "tiles.toml", "answers"));
    shell.write("tiled.toml", &format!("{text}tiling = true\n"));
    shell.succeed("run tiled.toml");
    assert_eq!(digest(&shell, "tiled.toml", "made"), latents);
    assert_ne!(digest(&shell, "tiled.toml", "answers"), pixels, "tiles must matter");
    assert_eq!(sizes(&shell, "tiled.toml"), [(64, 32)]);

    shell.write("last.toml", &format!("{text}last_frame = true\n"));
    let said = shell.transcript("check last.toml");
    assert!(said.contains("? 2\n"), "{said}");
    assert!(said.contains("`last_frame` must be false: the norms of this"), "{said}");
}
