//! Models that clips do not fit, and weights that do not fit their model.

use std::{
    fs,
    path::{Path, PathBuf},
};

use safetensors::{SafeTensors, tensor::TensorView};

use super::{CLIPS, Shell};

/// Latents of clips of figures.
pub(super) fn latents(model: &str) -> String {
    format!(
        r#"{CLIPS}
[stages.latents]
kind   = "vae_encode"
inputs = {{ videos = "clips" }}
model  = "{model}"
"#
    )
    .replace("count  = 2", "count  = 1")
    .replace("[\"linear\", \"quadratic\"]", "[\"linear\"]")
}

#[test]
fn sizes_and_frames_that_do_not_fit() {
    let shell = Shell::new();
    shell.write("latents.toml", &latents("builtin:tiny"));
    insta::assert_snapshot!(
        shell.transcript("check latents.toml --set clips.frames=8 --set pairs.size=[30,31]"), @"
        $ pipe check latents.toml --set clips.frames=8 --set pairs.size=[30,31]
        ? 2
        --- stderr
          × stage `clips`: `frames` must be 4k + 1, at least 5, but is 8
           ╭─[--set:1:14]
         1 │ clips.frames=8
           ·              ┬
           ·              ╰── `frames`
           ╰────
          help: the nearest are 5 and 9

          × stage `pairs`: `size`: sides must be even, 8 to 4096, but are [30, 31]
           ╭─[--set:1:12]
         1 │ pairs.size=[30,31]
           ·            ───┬───
           ·               ╰── `size`
           ╰────
          help: give [height, width] in pixels; the model may ask for more, such as multiples of 16
        latents.toml: 2 errors
        "
    );
    insta::assert_snapshot!(
        shell.transcript("run latents.toml --jobs 1 --set pairs.size=[30,32]"), @"
    $ pipe run latents.toml --jobs 1 --set pairs.size=[30,32]
    ? 2
    --- stderr
      × stage `latents`: height must be a multiple of 8 pixels for the model's transformer, of 4 for
      │ its autoencoder, but is 30
       ╭─[--set:1:12]
     1 │ pairs.size=[30,32]
       ·            ───┬───
       ·               ╰── `size`
       ╰────
      help: take 24 or 32
    "
    );
    shell.succeed("run latents.toml");
}

/// A part of a model, and the stage that reads its weights.
pub(super) struct Part {
    folder: &'static str,
    weights: &'static str,
    /// A tensor of it.
    pub(super) tensor: &'static str,
    /// A value of its configuration, and one that its weights do not fit.
    config: [&'static str; 2],
    stage: &'static str,
}

pub(super) const VAE: Part = Part {
    folder: "vae",
    weights: "diffusion_pytorch_model.safetensors",
    tensor: "encoder.conv_in.conv.bias",
    config: ["\"layers_per_block\": 1", "\"layers_per_block\": 2"],
    stage: "kind = \"vae_encode\"\nmodel = \"model\"\ninputs = { videos = \"clips\" }",
};

const TRANSFORMER: Part = Part {
    folder: "transformer",
    weights: "diffusion_pytorch_model.safetensors",
    tensor: "norm_final.weight",
    config: ["\"num_layers\": 6", "\"num_layers\": 7"],
    stage: "kind = \"sample\"\nmodel = \"model\"\nframes = 9\nsteps = 1\n\
            inputs = { pairs = \"pairs\", text = \"prompt\" }\n\
            [stages.prompt]\nkind = \"text_encode\"\nmodel = \"builtin:tiny\"",
};

const TEXT_ENCODER: Part = Part {
    folder: "text_encoder",
    weights: "model.safetensors",
    tensor: "encoder.final_layer_norm.weight",
    config: ["\"num_layers\": 2", "\"num_layers\": 1"],
    stage: "kind = \"text_encode\"\nmodel = \"model\"",
};

/// A copy of the built-in model as a folder.
pub(super) fn copy_of_the_model(shell: &Shell) -> PathBuf {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let target = to.join(path.file_name().unwrap());
            if path.is_dir() {
                copy(&path, &target);
            } else {
                fs::copy(&path, &target).unwrap();
            }
        }
    }
    let folder = shell.path("model");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/builtin_tiny"), &folder);
    folder.join("vae/diffusion_pytorch_model.safetensors")
}

impl Part {
    /// The bytes of a weights file made from the tensors that `change` leaves.
    pub(super) fn rewritten(
        &self,
        whole: &[u8],
        change: impl Fn(&mut Vec<(String, Vec<usize>)>),
    ) -> Vec<u8> {
        let tensors = SafeTensors::deserialize(whole).unwrap();
        let mut shapes: Vec<_> =
            tensors.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec())).collect();
        shapes.sort();
        change(&mut shapes);
        let views = shapes.iter().map(|(name, shape)| {
            let known = tensors.tensor(name).or_else(|_| tensors.tensor(self.tensor)).unwrap();
            (name, TensorView::new(known.dtype(), shape.clone(), known.data()).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    /// What a run says of each fault of the part, in turn; then it is whole again and the run goes
    /// on.
    fn told(&self) -> String {
        let shell = Shell::new();
        let text = CLIPS.replace("count  = 2", "count  = 1").replace("[32, 32]", "[64, 64]");
        let text = text.replace("[\"linear\", \"quadratic\"]", "[\"linear\"]");
        shell.write("part.toml", &format!("{text}\n[stages.part]\n{}\n", self.stage));
        copy_of_the_model(&shell);
        let folder = shell.path("model").join(self.folder);
        let (file, config) = (folder.join(self.weights), folder.join("config.json"));
        let whole = fs::read(&file).unwrap();
        let right = fs::read_to_string(&config).unwrap();
        let is_it = |tensor: &(String, Vec<usize>)| tensor.0 == self.tensor;

        let missing = self.rewritten(&whole, |all| all.retain(|tensor| !is_it(tensor)));
        let extra = self.rewritten(&whole, |all| {
            let shape = all.iter().find(|tensor| is_it(tensor)).unwrap().1.clone();
            all.push(("left_over.bias".to_owned(), shape));
        });
        let shape = self.rewritten(&whole, |all| {
            all.iter_mut().find(|tensor| is_it(tensor)).unwrap().1.push(1);
        });
        let mut told = Vec::new();
        let mut say = |fault: &str| {
            let output = shell.output("run part.toml --jobs 1 --only part");
            let text = String::from_utf8(output.stderr).unwrap();
            let error = text.find("  ×").map_or("", |start| &text[start..]);
            let error = error.split("failed ").next().unwrap_or_default().trim_end();
            let code = output.status.code().unwrap();
            told.push(format!("{fault}: {code}\n{error}"));
        };
        for (fault, bytes) in [
            ("missing", &missing[..]),
            ("extra", &extra),
            ("of another shape", &shape),
            ("cut short", &whole[..whole.len() - 100]),
            ("empty", &[]),
        ] {
            fs::write(&file, bytes).unwrap();
            say(fault);
        }
        fs::remove_file(&file).unwrap();
        say("absent");
        fs::write(&file, &whole).unwrap();
        let [value, other] = self.config;
        assert!(right.contains(value), "{right}");
        fs::write(&config, right.replace(value, other)).unwrap();
        say("another configuration");
        fs::write(&config, &right[..right.len() / 2]).unwrap();
        say("half a configuration");
        fs::write(&config, &right).unwrap();
        shell.succeed("run part.toml --only part");
        told.join("\n")
    }
}

#[test]
fn a_vae_whose_weights_do_not_fit() {
    insta::assert_snapshot!(VAE.told(), @"
    missing: 3
      × the model `model` cannot be read: the weights of `vae` do not fit its configuration: missing
      │ `encoder.conv_in.conv.bias` [16] (part.toml:22:9); needed by `part[method=linear]`
      help: weights and `config.json` must come from the same model: copy or download both again
    extra: 3
      × the model `model` cannot be read: the weights of `vae` do not fit its configuration:
      │ `left_over.bias` is not part of the model (part.toml:22:9); needed by `part[method=linear]`
      help: weights and `config.json` must come from the same model: copy or download both again
    of another shape: 3
      × the model `model` cannot be read: the weights of `vae` do not fit its configuration:
      │ `encoder.conv_in.conv.bias` must be [16], but is [16, 1] (part.toml:22:9); needed by
      │ `part[method=linear]`
      help: weights and `config.json` must come from the same model: copy or download both again
    cut short: 3
      × the model `model` cannot be read: `vae/diffusion_pytorch_model.safetensors` is not a whole
      │ safetensors file: incomplete metadata, file not fully covered (part.toml:22:9); needed by
      │ `part[method=linear]`
      help: it may be cut short: copy or download it again
    empty: 3
      × the model `model` cannot be read: `vae/diffusion_pytorch_model.safetensors` is not a whole
      │ safetensors file: header too small (part.toml:22:9); needed by `part[method=linear]`
      help: it may be cut short: copy or download it again
    absent: 3
      × the model `model` cannot be read: the model has no weights
      │ `vae/diffusion_pytorch_model.safetensors` (part.toml:22:9); needed by `part[method=linear]`
      help: `vae` must hold `diffusion_pytorch_model.safetensors`, or shards with
            `diffusion_pytorch_model.safetensors.index.json`
    another configuration: 3
      × the model `model` cannot be read: the weights of `vae` do not fit its configuration: missing
      │ `decoder.up_blocks.0.resnets.2.conv1.conv.bias` [64]; missing
      │ `decoder.up_blocks.0.resnets.2.conv1.conv.weight` [64, 64, 3, 3, 3]; missing
      │ `decoder.up_blocks.0.resnets.2.conv2.conv.bias` [64]; missing
      │ `decoder.up_blocks.0.resnets.2.conv2.conv.weight` [64, 64, 3, 3, 3]; missing
      │ `decoder.up_blocks.0.resnets.2.norm1.conv_b.conv.bias` [64]; missing
      │ `decoder.up_blocks.0.resnets.2.norm1.conv_b.conv.weight` [64, 8, 1, 1, 1]; missing
      │ `decoder.up_blocks.0.resnets.2.norm1.conv_y.conv.bias` [64]; missing
      │ `decoder.up_blocks.0.resnets.2.norm1.conv_y.conv.weight` [64, 8, 1, 1, 1]; and 64 more
      │ (part.toml:22:9); needed by `part[method=linear]`
      help: weights and `config.json` must come from the same model: copy or download both again
    half a configuration: 3
      × the model `model` cannot be read: `vae/config.json`: must be JSON: EOF while parsing a value
      │ at line 16 column 20 (part.toml:22:9); needed by `part[method=linear]`
      help: it must be the file that came with the weights
    ");
}

#[test]
fn a_transformer_whose_weights_do_not_fit() {
    insta::assert_snapshot!(TRANSFORMER.told(), @"
    missing: 3
      × the model `model` cannot be read: the weights of `transformer` do not fit its configuration:
      │ missing `norm_final.weight` [192] (part.toml:22:9); needed by `part`
      help: weights and `config.json` must come from the same model: copy or download both again
    extra: 3
      × the model `model` cannot be read: the weights of `transformer` do not fit its configuration:
      │ `left_over.bias` is not part of the model (part.toml:22:9); needed by `part`
      help: weights and `config.json` must come from the same model: copy or download both again
    of another shape: 3
      × the model `model` cannot be read: the weights of `transformer` do not fit its configuration:
      │ `norm_final.weight` must be [192], but is [192, 1] (part.toml:22:9); needed by `part`
      help: weights and `config.json` must come from the same model: copy or download both again
    cut short: 3
      × the model `model` cannot be read: `transformer/diffusion_pytorch_model.safetensors` is not a
      │ whole safetensors file: incomplete metadata, file not fully covered (part.toml:22:9); needed
      │ by `part`
      help: it may be cut short: copy or download it again
    empty: 3
      × the model `model` cannot be read: `transformer/diffusion_pytorch_model.safetensors` is not a
      │ whole safetensors file: header too small (part.toml:22:9); needed by `part`
      help: it may be cut short: copy or download it again
    absent: 3
      × the model `model` cannot be read: the model has no weights
      │ `transformer/diffusion_pytorch_model.safetensors` (part.toml:22:9); needed by `part`
      help: `transformer` must hold `diffusion_pytorch_model.safetensors`, or shards with
            `diffusion_pytorch_model.safetensors.index.json`
    another configuration: 3
      × the model `model` cannot be read: the weights of `transformer` do not fit its configuration:
      │ missing `transformer_blocks.6.attn1.norm_k.bias` [64]; missing
      │ `transformer_blocks.6.attn1.norm_k.weight` [64]; missing
      │ `transformer_blocks.6.attn1.norm_q.bias` [64]; missing
      │ `transformer_blocks.6.attn1.norm_q.weight` [64]; missing
      │ `transformer_blocks.6.attn1.to_k.bias` [192]; missing `transformer_blocks.6.attn1.to_k.weight`
      │ [192, 192]; missing `transformer_blocks.6.attn1.to_out.0.bias` [192]; missing
      │ `transformer_blocks.6.attn1.to_out.0.weight` [192, 192]; and 16 more (part.toml:22:9); needed
      │ by `part`
      help: weights and `config.json` must come from the same model: copy or download both again
    half a configuration: 3
      × the model `model` cannot be read: `transformer/config.json`: must be JSON: EOF while parsing a
      │ string at line 11 column 6 (part.toml:22:9); needed by `part`
      help: it must be the file that came with the weights
    ");
}

#[test]
fn a_text_encoder_whose_weights_do_not_fit() {
    insta::assert_snapshot!(TEXT_ENCODER.told(), @"
    missing: 3
      × the model `model` cannot be read: the weights of `text_encoder` do not fit its configuration:
      │ missing `encoder.final_layer_norm.weight` [64] (part.toml:22:9); needed by `part`
      help: weights and `config.json` must come from the same model: copy or download both again
    extra: 3
      × the model `model` cannot be read: the weights of `text_encoder` do not fit its configuration:
      │ `left_over.bias` is not part of the model (part.toml:22:9); needed by `part`
      help: weights and `config.json` must come from the same model: copy or download both again
    of another shape: 3
      × the model `model` cannot be read: the weights of `text_encoder` do not fit its configuration:
      │ `encoder.final_layer_norm.weight` must be [64], but is [64, 1] (part.toml:22:9); needed by
      │ `part`
      help: weights and `config.json` must come from the same model: copy or download both again
    cut short: 3
      × the model `model` cannot be read: `text_encoder/model.safetensors` is not a whole safetensors
      │ file: incomplete metadata, file not fully covered (part.toml:22:9); needed by `part`
      help: it may be cut short: copy or download it again
    empty: 3
      × the model `model` cannot be read: `text_encoder/model.safetensors` is not a whole safetensors
      │ file: header too small (part.toml:22:9); needed by `part`
      help: it may be cut short: copy or download it again
    absent: 3
      × the model `model` cannot be read: the model has no weights `text_encoder/model.safetensors`
      │ (part.toml:22:9); needed by `part`
      help: `text_encoder` must hold `model.safetensors`, or shards with
            `model.safetensors.index.json`
    another configuration: 3
      × the model `model` cannot be read: the weights of `text_encoder` do not fit its configuration:
      │ `encoder.block.1.layer.0.SelfAttention.k.weight` is not part of the model;
      │ `encoder.block.1.layer.0.SelfAttention.o.weight` is not part of the model;
      │ `encoder.block.1.layer.0.SelfAttention.q.weight` is not part of the model;
      │ `encoder.block.1.layer.0.SelfAttention.v.weight` is not part of the model;
      │ `encoder.block.1.layer.0.layer_norm.weight` is not part of the model;
      │ `encoder.block.1.layer.1.DenseReluDense.wi_0.weight` is not part of the model;
      │ `encoder.block.1.layer.1.DenseReluDense.wi_1.weight` is not part of the model;
      │ `encoder.block.1.layer.1.DenseReluDense.wo.weight` is not part of the model; and 1 more
      │ (part.toml:22:9); needed by `part`
      help: weights and `config.json` must come from the same model: copy or download both again
    half a configuration: 3
      × the model `model` cannot be read: `text_encoder/config.json`: must be JSON: EOF while parsing
      │ a value at line 11 column 17 (part.toml:22:9); needed by `part`
      help: it must be the file that came with the weights
    ");
}

#[test]
fn weights_that_are_no_numbers_make_nothing_that_is_kept() {
    let mut told = String::new();
    for part in [&VAE, &TEXT_ENCODER, &TRANSFORMER] {
        let shell = Shell::new();
        let text = CLIPS.replace("count  = 2", "count  = 1").replace("[32, 32]", "[64, 64]");
        let text = text.replace("[\"linear\", \"quadratic\"]", "[\"linear\"]");
        shell.write("part.toml", &format!("{text}\n[stages.part]\n{}\n", part.stage));
        copy_of_the_model(&shell);
        let file = shell.path("model").join(part.folder).join(part.weights);
        let mut bytes = fs::read(&file).unwrap();
        let (start, end) = {
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let data = tensors.tensor(part.tensor).unwrap().data().as_ptr_range();
            let file = bytes.as_ptr() as usize;
            (data.start as usize - file, data.end as usize - file)
        };
        bytes[start..end].fill(0xff);
        fs::write(&file, bytes).unwrap();
        let output = shell.output("run part.toml --jobs 1 --only part");
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        let error = &text[text.find("  ×").unwrap()..];
        told += error.split("failed ").next().unwrap();
    }
    insta::assert_snapshot!(told, @"
      × stage `part[method=linear]`, item `figure-000000`: the autoencoder's latents are not finite
      │ numbers
      help: the model's weights may be damaged, or not be made for this input
      × stage `part`: the values of the prompt's embedding are not finite numbers
      help: the model's weights may be damaged, or not be made for this input
      × stage `part`, item `figure-000000`: the sampled latents are not finite numbers
      help: the model's weights may be damaged, or not be made for this input
    ");
}
