//! A `pretrain` that cannot work, told before anything runs.

use crate::cli::{Experiment, Shell};

const STAGES: &str = r#"
[stages.prompt]
kind   = "text_encode"
model  = "builtin:tiny"

[stages.vae]
kind   = "pretrain"
inputs = { videos = "clips" }
part   = "vae"
crop   = [16, 16]
steps  = 2

[stages.vae.config]
block_out_channels = [4, 4, 8]
norm_num_groups    = 2
layers_per_block   = 1
down_block_types   = ["CogVideoXDownBlock3D", "CogVideoXDownBlock3D", "CogVideoXDownBlock3D"]
up_block_types     = ["CogVideoXUpBlock3D", "CogVideoXUpBlock3D", "CogVideoXUpBlock3D"]
latent_channels    = 8
temporal_compression_ratio = 2
scaling_factor     = 1.5

[stages.latents]
kind   = "vae_encode"
inputs = { videos = "clips", model = "vae" }
model  = "builtin:tiny"

[stages.transformer]
kind   = "pretrain"
inputs = { latents = "latents", text = "prompt" }
part   = "transformer"
steps  = 2
image_latent_scale = 0.6667

[stages.transformer.config]
num_attention_heads = 1
attention_head_dim  = 16
in_channels    = 16
out_channels   = 8
num_layers     = 1
time_embed_dim = 8
text_embed_dim = 64
max_text_seq_length = 8
use_rotary_positional_embeddings = true
"#;

/// An autoencoder, and a transformer on its latents.
fn pretraining() -> String {
    Experiment { name: "pretraining", count: 2, ..Experiment::default() }.up_to_clips() + STAGES
}

/// What `check` says of the pipeline with one part of its text replaced, in one line.
fn said(from: &str, to: &str) -> String {
    let shell = Shell::new();
    let file = pretraining().replace(from, to);
    assert_ne!(file, pretraining(), "`{from}` must be there");
    shell.write("wrong.toml", &file);
    let said = shell.transcript("check wrong.toml");
    said.lines().map(|line| line.trim_start_matches([' ', '│'])).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_cannot_be_trained_is_told_before_anything_runs() {
    let shell = Shell::new();
    shell.write("right.toml", &pretraining());
    shell.succeed("check right.toml");
    for (from, to, wanted) in [
        (
            "inputs = { videos = \"clips\" }\npart",
            "part",
            "stage `vae`: training a part `vae` needs the input `videos`",
        ),
        ("latents = \"latents\", ", "", "a part `transformer` needs the input `latents`"),
        (", text = \"prompt\"", "", "a part `transformer` needs the input `text`"),
        ("[16, 16]", "[15, 17]", "`crop`: height must be a multiple of 4 pixels, but is 15"),
        ("[16, 16]", "[15, 17]", "`crop`: width must be a multiple of 4 pixels, but is 17"),
        ("[16, 16]", "[64, 16]", "`crop` must fit the clips of 32x32, but is 64x16"),
        ("_ratio = 2", "_ratio = 4", "which this autoencoder decodes to 8 frames"),
        ("layers_per_block   = 1", "act_fn = \"bogus\"", "`config.act_fn` must be silu"),
        ("= 1.5", "= 0", "`config.scaling_factor` must be a positive number"),
        ("= 1.5", "= 1e39", "`config.scaling_factor` must be a positive number"),
        (
            "= 1.5",
            "= \"much\"",
            "`config.scaling_factor` cannot be read: invalid type: string \"much\", expected f32",
        ),
        ("num_groups    = 2", "num_groups    = 3", "`config.norm_num_groups` must be a divisor"),
        ("heads = 1", "heads = 0", "`config.num_attention_heads` must be at least 1"),
        ("num_layers     = 1", "window = 3", "`config.window = 3` is not a setting this version"),
        ("num_layers     = 1", "patch_size = 0", "`config.patch_size` must be at least 1"),
        (
            "image_latent_scale = 0.6667\n",
            "scheduler = { _class_name = \"Unknown\" }\nimage_latent_scale = 1\n",
            "`scheduler`: `_class_name` must be",
        ),
        (
            "image_latent_scale = 0.6667\n",
            "image_latent_scale = 1\ntimestep_distribution = \"shifted_logit_normal\"\n",
            "`timestep_distribution` must be",
        ),
    ] {
        let said = said(from, to);
        assert!(said.contains(wanted) && said.contains("? 2"), "{to}: {said}");
    }
}

#[test]
fn a_configuration_that_is_no_file_is_not_called_one() {
    let shell = Shell::new();
    let wrong = pretraining().replace("layers_per_block   = 1", "in_channels = 4");
    shell.write("wrong.toml", &wrong);
    insta::assert_snapshot!(shell.transcript("check wrong.toml"), @r"
    $ pipe check wrong.toml
    ? 2
    --- stderr
      × stage `vae`: `config.in_channels` must be 3, but is 4
        ╭─[wrong.toml:26:1]
     25 │ 
     26 │ [stages.vae.config]
        · ─────────┬─────────
        ·          ╰── `config`
     27 │ block_out_channels = [4, 4, 8]
        ╰────
    wrong.toml: 1 error
    ");
}

#[test]
fn the_multiple_of_the_image_is_not_guessed() {
    let shell = Shell::new();
    shell.write("wrong.toml", &pretraining().replace("image_latent_scale = 0.6667\n", ""));
    insta::assert_snapshot!(shell.transcript("check wrong.toml"), @r#"
    $ pipe check wrong.toml
    ? 2
    --- stderr
      × stage `transformer`: `image_latent_scale` must be a number where no autoencoder on the input
      │ `model` gives it
        ╭─[wrong.toml:41:9]
     40 │ 
     41 │ [stages.transformer]
        ·         ─────┬─────
        ·              ╰── `image_latent_scale`
     42 │ kind   = "pretrain"
        ╰────
      help: connect the autoencoder that made the latents to `model`, or set `image_latent_scale` to 1
            / `scaling_factor` of that autoencoder
    wrong.toml: 1 error
    "#);
    let connected = pretraining()
        .replace("image_latent_scale = 0.6667\n", "")
        .replace("text = \"prompt\" }", "text = \"prompt\", model = \"vae\" }");
    shell.write("right.toml", &connected);
    shell.succeed("check right.toml");
}

#[test]
fn halves_of_an_autoencoder_that_do_not_match_are_told() {
    let shell = Shell::new();
    let file = pretraining();
    let start = file.find("[stages.vae.config]").unwrap();
    let unlike = r#"
family = "LTXVideoTransformer3DModel"

[stages.vae.config]
patch_size = 1
block_out_channels = [4, 4]
down_block_types   = ["LTXVideoDownBlock3D", "LTXVideoDownBlock3D"]
downsample_type    = ["conv", "conv"]
layers_per_block   = [1, 1, 1]
spatio_temporal_scaling = [true, true]
decoder_block_out_channels = [4]
decoder_layers_per_block   = [1, 1]
decoder_spatio_temporal_scaling = [true]
decoder_inject_noise = [false, false]
upsample_residual    = [false]
upsample_factor      = [1]
"#;
    shell.write("wrong.toml", &format!("{}{unlike}", file[..start].trim_end()));
    let said = shell.transcript("check wrong.toml");
    let wanted = "the encoder makes one latent of 4 frames and 4 pixels a side";
    assert!(said.contains(wanted), "{said}");
}

#[test]
fn an_autoencoder_of_other_latents_than_the_transformer_takes_is_an_error() {
    let shell = Shell::new();
    let file = pretraining();
    let start = file.find("[stages.latents]").unwrap();
    let sampling = r#"
[stages.predict]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt", model = "vae" }
model  = "builtin:tiny"
frames = 5
steps  = 1
"#;
    let vae = file[..start].replace("latent_channels    = 8", "latent_channels    = 4");
    let vae = vae.replace("crop   = [16, 16]\nsteps  = 2", "steps  = 0");
    shell.write("wrong.toml", &format!("{vae}{sampling}"));
    let said = shell.transcript("run wrong.toml");
    assert!(said.contains("? 1") && said.contains("the latents have 4 channels"), "{said}");
}
