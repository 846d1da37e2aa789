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
          × stage `clips`: must be 4k + 1, at least 5, but is 8
           ╭─[--set:1:14]
         1 │ clips.frames=8
           ·              ┬
           ·              ╰── `frames`
           ╰────
          help: the nearest are 5 and 9

          × stage `pairs`: sides must be even, 8 to 4096, but are [30, 31]
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
      × stage `latents`: height must be a multiple of 4 pixels, but is 30
       ╭─[--set:1:12]
     1 │ pairs.size=[30,32]
       ·            ───┬───
       ·               ╰── `size`
       ╰────
      help: take 28 or 32
    "
    );
    shell.succeed("run latents.toml");
}

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

/// Writes a weights file anew from the tensors that `change` leaves.
fn rewrite(file: &Path, whole: &[u8], change: impl Fn(&mut Vec<(String, Vec<usize>)>)) {
    let tensors = SafeTensors::deserialize(whole).unwrap();
    let mut shapes: Vec<_> =
        tensors.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec())).collect();
    shapes.sort();
    change(&mut shapes);
    let views = shapes.iter().map(|(name, shape)| {
        let known = tensors.tensor(name).or_else(|_| tensors.tensor("encoder.conv_in.conv.bias"));
        let known = known.unwrap();
        (name, TensorView::new(known.dtype(), shape.clone(), known.data()).unwrap())
    });
    fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn weights_that_are_missing_extra_or_of_another_shape() {
    let shell = Shell::new();
    shell.write("latents.toml", &latents("model"));
    let file = copy_of_the_model(&shell);
    let whole = fs::read(&file).unwrap();
    let bias = "encoder.conv_in.conv.bias";

    rewrite(&file, &whole, |tensors| tensors.retain(|(name, _)| name != bias));
    insta::assert_snapshot!(shell.transcript("run latents.toml --jobs 1"), @"
    $ pipe run latents.toml --jobs 1
    ? 1
    --- stderr
    clips: 3 stages on cpu
    ran      pairs  new  [TIME]
    ran      clips[method=linear]  new  [TIME]
    failed   latents[method=linear]
      × stage `latents[method=linear]`: the weights of `vae` do not fit its configuration: missing
      │ `encoder.conv_in.conv.bias` [16]
      help: weights and `config.json` must come from the same model: copy or download both again
    failed   2 stages ran, 1 failed in [TIME]
    ");
    rewrite(&file, &whole, |tensors| {
        let shape = tensors.iter().find(|(name, _)| name == bias).unwrap().1.clone();
        tensors.push(("encoder.left_over.bias".to_owned(), shape));
    });
    insta::assert_snapshot!(shell.transcript("run latents.toml --jobs 1"), @"
    $ pipe run latents.toml --jobs 1
    ? 1
    --- stderr
    clips: 3 stages on cpu
    failed   latents[method=linear]
      × stage `latents[method=linear]`: the weights of `vae` do not fit its configuration:
      │ `encoder.left_over.bias` is not part of the model
      help: weights and `config.json` must come from the same model: copy or download both again
    failed   0 stages ran, 2 reused, 1 failed in [TIME]
    ");
    rewrite(&file, &whole, |tensors| {
        let shape = &mut tensors.iter_mut().find(|(name, _)| name == bias).unwrap().1;
        shape.push(1);
    });
    insta::assert_snapshot!(shell.transcript("run latents.toml --jobs 1"), @"
    $ pipe run latents.toml --jobs 1
    ? 1
    --- stderr
    clips: 3 stages on cpu
    failed   latents[method=linear]
      × stage `latents[method=linear]`: the weights of `vae` do not fit its configuration:
      │ `encoder.conv_in.conv.bias` must be [16], but is [16, 1]
      help: weights and `config.json` must come from the same model: copy or download both again
    failed   0 stages ran, 2 reused, 1 failed in [TIME]
    ");
    fs::write(&file, &whole[..whole.len() - 100]).unwrap();
    insta::assert_snapshot!(shell.transcript("run latents.toml --jobs 1"), @"
    $ pipe run latents.toml --jobs 1
    ? 1
    --- stderr
    clips: 3 stages on cpu
    failed   latents[method=linear]
      × stage `latents[method=linear]`: `vae/diffusion_pytorch_model.safetensors` is not a whole
      │ safetensors file: incomplete metadata, file not fully covered
      help: it may be cut short: copy or download it again
    failed   0 stages ran, 2 reused, 1 failed in [TIME]
    ");
    fs::remove_file(&file).unwrap();
    insta::assert_snapshot!(shell.transcript("run latents.toml --jobs 1"), @"
    $ pipe run latents.toml --jobs 1
    ? 3
    --- stderr
      × the model `model` cannot be read: the model has no weights `vae/
      │ diffusion_pytorch_model.safetensors`; needed by `latents[method=linear]`
      help: `vae` must hold `diffusion_pytorch_model.safetensors`, or shards with
            `diffusion_pytorch_model.safetensors.index.json`
    ");
    fs::write(&file, whole).unwrap();
    shell.succeed("run latents.toml");
}
