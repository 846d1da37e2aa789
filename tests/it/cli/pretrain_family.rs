//! A model of another family than the one at hand, trained from nothing but its configurations.

use std::fs;

use super::{Experiment, Shell, bad_weights::copy_of_the_model};

const STAGES: &str = r#"
[stages.prompt]
kind   = "text_encode"
model  = "builtin:tiny"

[stages.vae]
kind   = "pretrain"
family = "LTXVideoTransformer3DModel"
inputs = { videos = "clips" }
part   = "vae"
steps  = 1

[stages.vae.config]
patch_size      = 2
latent_channels = 4
block_out_channels = [4, 4]
down_block_types   = ["LTXVideoDownBlock3D", "LTXVideoDownBlock3D"]
downsample_type    = ["conv", "conv"]
layers_per_block   = [1, 1, 1]
spatio_temporal_scaling = [true, true]
decoder_block_out_channels = [4, 4]
decoder_layers_per_block   = [1, 1, 1]
decoder_spatio_temporal_scaling = [true, true]
decoder_inject_noise = [false, false, false]
upsample_residual    = [false, false]
upsample_factor      = [1, 1]

[stages.latents]
kind   = "vae_encode"
inputs = { videos = "clips", model = "vae" }
model  = "builtin:tiny"

[stages.transformer]
kind   = "pretrain"
family = "LTXVideoTransformer3DModel"
inputs = { latents = "latents", text = "prompt", model = "vae" }
part   = "transformer"
steps  = 1

[stages.transformer.scheduler]
_class_name = "FlowMatchEulerDiscreteScheduler"
use_dynamic_shifting = true

[stages.transformer.config]
num_attention_heads = 1
attention_head_dim  = 16
cross_attention_dim = 16
in_channels      = 4
out_channels     = 4
num_layers       = 1
caption_channels = 64
"#;

/// LTX-Video: the built-in model stands for the parts that are not on the input.
fn ltx() -> String {
    Experiment { name: "ltx", ..Experiment::default() }.up_to_clips() + STAGES
}

/// What is exported of it, sampled.
const MADE: &str = r#"name = "made"

[stages.pairs]
kind   = "dataset"
source = "builtin:figures"
task   = "pose"
count  = 1
size   = [32, 32]

[stages.prompt]
kind   = "text_encode"
model  = "model"

[stages.made]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt" }
model  = "model"
frames = 5
steps  = 1

[stages.frames]
kind   = "decode"
inputs = { samples = "made" }
model  = "model"
"#;

fn check(file: &str) -> String {
    let shell = Shell::new();
    shell.write("ltx.toml", file);
    let said = shell.transcript("check ltx.toml");
    said.lines().map(|line| line.trim_start_matches([' ', '│'])).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_family_is_trained_from_its_configurations() {
    let shell = Shell::new();
    shell.write("ltx.toml", &ltx());
    shell.succeed("run ltx.toml");
    shell.succeed("export ltx.toml vae --to vae");
    let config = fs::read_to_string(shell.path("vae/config.json")).unwrap();
    assert!(config.contains(r#""_class_name": "AutoencoderKLLTXVideo""#), "{config}");

    // As docs/models.md says: with the rest of a model's folder it can be sampled.
    copy_of_the_model(&shell);
    fs::remove_file(shell.path("model/model_index.json")).unwrap();
    for part in ["vae", "transformer"] {
        fs::remove_dir_all(shell.path("model").join(part)).unwrap();
    }
    let scheduler =
        r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": true}"#;
    fs::write(shell.path("model/scheduler/scheduler_config.json"), scheduler).unwrap();
    shell.succeed("export ltx.toml transformer --to model");
    shell.write("made.toml", MADE);
    shell.succeed("run made.toml");
}

#[test]
fn parts_of_two_families_are_told_before_any_training() {
    let sampled = "\n[stages.made]\nkind = \"sample\"\nmodel = \"builtin:tiny\"\nframes = 5\nsteps = 1\n\
                   inputs = { pairs = \"pairs\", text = \"prompt\", model = \"vae\" }\n";
    let said = check(&(ltx() + sampled));
    let wanted = "stage `made`: the autoencoder on the input `model` is for LTXVideoTransformer3DModel, but the \
                  transformer of `model` is CogVideoXTransformer3DModel";
    assert!(said.contains(wanted), "{said}");
    let family = "family = \"LTXVideoTransformer3DModel\"\ninputs = { latents";
    let other = ltx().replace(family, "inputs = { latents");
    let said = check(&other);
    assert!(said.contains("the autoencoder on the input `model` is not of this family"), "{said}");
}
