//! Compares everything in a folder of reference values made elsewhere.
//!
//! `PIPE_GOLDEN_DIR=... cargo test --test it external_golden -- --ignored --nocapture`

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{FloatDType, Tensor};
use pipe::models::{
    DecodeNoise, DenoiserInput, ParamReader, Params, TimeAxis, VideoDiffusion,
    cogvideox::CogVideoX, ltx_video::LtxVideo,
};
use serde_json::Value;

use crate::{
    external_golden_text::{self, text_encoder},
    golden::{Golden, device, relative_error, stage_tolerance, tolerance, trained_tolerance},
    training::{external_factors, external_lora, external_sample},
};

/// One part of one model folder: what is compared, and within which relative error.
struct Check {
    family: &'static str,
    part: &'static str,
    tolerance: f32,
    /// Names and relative errors of what was compared in `<root>/<family>`.
    run: fn(&Path) -> Vec<(&'static str, f32)>,
}

const CHECKS: &[Check] = &[
    Check { family: "cogvideox15", part: "transformer", tolerance: 1e-4, run: transformer },
    Check { family: "cogvideox10", part: "transformer", tolerance: 1e-4, run: transformer },
    Check { family: "cogvideox15", part: "vae", tolerance: 5e-4, run: vae },
    Check { family: "cogvideox10", part: "vae", tolerance: 5e-4, run: vae },
    Check { family: "cogvideox15", part: "lora", tolerance: 1e-4, run: external_lora },
    Check { family: "cogvideox10", part: "lora", tolerance: 1e-4, run: external_lora },
    Check { family: "cogvideox15", part: "factors", tolerance: 1e-3, run: external_factors },
    Check { family: "cogvideox15", part: "sampling", tolerance: 2e-3, run: external_sample },
    Check { family: "cogvideox10", part: "factors", tolerance: 1e-3, run: external_factors },
    Check { family: "cogvideox10", part: "sampling", tolerance: 2e-3, run: external_sample },
    Check { family: "ltx09", part: "transformer", tolerance: 1e-4, run: ltx_transformer },
    Check { family: "ltx091", part: "transformer", tolerance: 1e-4, run: ltx_transformer },
    Check { family: "ltx09", part: "vae", tolerance: 5e-4, run: ltx_vae },
    Check { family: "ltx091", part: "vae", tolerance: 5e-4, run: ltx_vae },
    Check { family: "ltx09", part: "sampling", tolerance: 2e-3, run: external_sample },
    Check { family: "ltx091", part: "sampling", tolerance: 2e-3, run: external_sample },
    Check { family: "cogvideox15", part: "text_encoder", tolerance: 1e-4, run: text_encoder },
    Check { family: "cogvideox10", part: "text_encoder", tolerance: 1e-4, run: text_encoder },
    Check { family: "ltx09", part: "text_encoder", tolerance: 1e-4, run: text_encoder },
    Check { family: "ltx091", part: "text_encoder", tolerance: 1e-4, run: text_encoder },
];

/// The files of tensors that the check of a part reads in its model folder.
fn files(part: &str) -> &'static [&'static str] {
    match part {
        "transformer" => {
            &["transformer/expect.safetensors", "transformer/diffusion_pytorch_model.safetensors"]
        }
        "vae" => &["vae/expect.safetensors", "vae/diffusion_pytorch_model.safetensors"],
        "text_encoder" => &["text_encoder/expect.safetensors", "text_encoder/model.safetensors"],
        "lora" => &["lora/trace.safetensors", "lora/init.safetensors", "lora/final.safetensors"],
        "sampling" => &["sample.safetensors"],
        _ => &[],
    }
}

/// Every file of tensors is read by a check, here or in `external_golden_text`.
fn assert_all_are_checked(root: &Path) {
    let here = CHECKS
        .iter()
        .flat_map(|check| files(check.part).iter().map(|file| Path::new(check.family).join(file)));
    let known: Vec<_> = here.chain(external_golden_text::FILES.map(PathBuf::from)).collect();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(root).unwrap();
            let is_tensors = path.extension().is_some_and(|ending| ending == "safetensors");
            assert!(
                !is_tensors || known.iter().any(|of| of == name),
                "no check is of `{}`",
                name.display()
            );
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
}

#[test]
fn a_file_of_tensors_that_no_check_reads_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let check = |file: &str| {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        let checked = std::panic::catch_unwind(|| assert_all_are_checked(folder.path()));
        fs::remove_file(path).unwrap();
        checked.is_ok()
    };
    for known in ["ltx09/vae/expect.safetensors", "cogvideox10/scheduler/ddim.safetensors"] {
        assert!(check(known), "{known}");
    }
    for unknown in ["ltx09/scheduler/x.safetensors", "ltx2/vae/expect.safetensors", "x.safetensors"]
    {
        assert!(!check(unknown), "{unknown}");
    }
}

#[test]
#[ignore = "needs PIPE_GOLDEN_DIR"]
fn external_golden() {
    let root = std::env::var("PIPE_GOLDEN_DIR").expect("PIPE_GOLDEN_DIR names a folder");
    assert_all_are_checked(Path::new(&root));
    let mut failed = 0;
    for Check { family, part, tolerance: on_cpu, run } in CHECKS {
        let tolerance = match *part {
            "sampling" | "text_encoder" => stage_tolerance(*on_cpu),
            "lora" | "factors" => trained_tolerance(*on_cpu),
            _ => tolerance(*on_cpu),
        };
        for (what, error) in run(&Path::new(&root).join(family)) {
            let verdict = if error <= tolerance { "" } else { " FAILED" };
            failed += usize::from(error > tolerance);
            println!("{family}, {part}, {what}: {error:.1e} of {tolerance:.0e}{verdict}");
        }
    }
    assert_eq!(failed, 0, "{failed} comparisons are out of tolerance");
}

pub fn load(folder: &Path) -> (Value, Params) {
    let config = fs::read(folder.join("config.json")).unwrap();
    let weights = fs::read(folder.join("diffusion_pytorch_model.safetensors")).unwrap();
    let mut params = Params::default();
    params.read_safetensors(&weights, "weights", &device(), FloatDType::F32).unwrap();
    (serde_json::from_slice(&config).unwrap(), params)
}

/// `[B, F, C, H, W]`, the reference's order, and ours.
fn swap(x: Tensor<5>) -> Tensor<5> {
    x.swap_dims(1, 2)
}

pub fn transformer(model: &Path) -> Vec<(&'static str, f32)> {
    let folder = model.join("transformer");
    let (config, params) = load(&folder);
    let denoiser = CogVideoX.denoiser(&config, &ParamReader::loaded(&params, None)).unwrap();
    let golden = Golden::read(folder.join("expect.safetensors"));
    // Image latents for every frame, which the pipeline never has.
    let hidden = swap(golden.tensor("hidden"));
    let channels = hidden.dims()[1] / 2;
    let latents = hidden.clone().narrow(1, 0, channels).autodiff().require_grad();
    let image = hidden.narrow(1, channels, channels).autodiff().require_grad();
    let input = DenoiserInput {
        latents: latents.clone(),
        image: image.clone(),
        text: golden.tensor("text"),
        timesteps: golden.values("timestep").0,
        time: TimeAxis::default(),
    };
    let out = denoiser.forward(&input);
    let error = relative_error(out.clone().inner(), &swap(golden.tensor("out")));
    let grads = (out * swap(golden.tensor("grad_out"))).sum().backward();
    let grad = Tensor::cat(vec![latents.grad(&grads).unwrap(), image.grad(&grads).unwrap()], 1);
    let grad_error = relative_error(grad, &swap(golden.tensor("grad_hidden")));
    let mut errors = vec![("output", error), ("gradient", grad_error)];
    if golden.has("ofs") {
        // What the published model is always given.
        errors.push(("ofs", (golden.values("ofs").0[0] - 2.0).abs()));
    }
    golden.finish(&["cos", "sin"]);
    errors
}

pub fn vae(model: &Path) -> Vec<(&'static str, f32)> {
    let folder = model.join("vae");
    let (config, params) = load(&folder);
    let vae = CogVideoX.vae(&config, &ParamReader::loaded(&params, None)).unwrap();
    let golden = Golden::read(folder.join("expect.safetensors"));
    let video: Tensor<5> = golden.tensor("video");
    let posterior = vae.encode(video.clone());
    let image = vae.encode(video.narrow(2, 0, 1)).mean;
    let decoded = vae.decode(golden.tensor("mean"));
    let errors = vec![
        ("mean", relative_error(posterior.mean, &golden.tensor("mean"))),
        ("logvar", relative_error(posterior.logvar, &golden.tensor("logvar"))),
        ("decoded", relative_error(decoded, &golden.tensor("decoded"))),
        ("image mean", relative_error(image, &golden.tensor("image_mean"))),
    ];
    golden.finish(&[]);
    errors
}

/// Sample by sample, because here the text has no padding to mask.
pub fn ltx_transformer(model: &Path) -> Vec<(&'static str, f32)> {
    let folder = model.join("transformer");
    let (config, params) = load(&folder);
    let denoiser = LtxVideo.denoiser(&config, &ParamReader::loaded(&params, None)).unwrap();
    let golden = Golden::read(folder.join("expect.safetensors"));
    let grid: Vec<usize> = golden.values("grid").0.iter().map(|len| *len as usize).collect();
    let (mask, text): (Tensor<2>, Tensor<3>) = (golden.tensor("mask"), golden.tensor("text"));
    // Packed `[B, S, C]` as `[1, C, f, h, w]`.
    let unpacked = |name: &str, sample: usize| -> Tensor<5> {
        let packed: Tensor<3> = golden.tensor::<3>(name).narrow(0, sample, 1);
        let channels = packed.dims()[2];
        packed.reshape([1, grid[0], grid[1], grid[2], channels]).permute([0, 4, 1, 2, 3])
    };
    let timesteps = golden.values("timestep").0;
    let samples = text.dims()[0];
    let mut errors = [("output", 0.0_f32), ("gradient", 0.0)];
    for sample in 0..samples {
        let tokens = mask.clone().narrow(0, sample, 1).sum().into_scalar::<f32>() as usize;
        let latents = unpacked("hidden", sample).autodiff().require_grad();
        let input = DenoiserInput {
            image: latents.clone().narrow(2, 0, 1),
            latents: latents.clone(),
            text: text.clone().narrow(0, sample, 1).narrow(1, 0, tokens),
            timesteps: timesteps.chunks(timesteps.len() / samples).nth(sample).unwrap().to_vec(),
            time: TimeAxis::default(),
        };
        let out = denoiser.forward(&input);
        let error = relative_error(out.clone().inner(), &unpacked("out", sample));
        errors[0].1 = errors[0].1.max(error);
        let grads = (out * unpacked("grad_out", sample)).sum().backward();
        let error = relative_error(latents.grad(&grads).unwrap(), &unpacked("grad_hidden", sample));
        errors[1].1 = errors[1].1.max(error);
    }
    golden.finish(&[]);
    errors.to_vec()
}

pub fn ltx_vae(model: &Path) -> Vec<(&'static str, f32)> {
    let folder = model.join("vae");
    let (config, params) = load(&folder);
    let vae = LtxVideo.vae(&config, &ParamReader::loaded(&params, None)).unwrap();
    let golden = Golden::read(folder.join("expect.safetensors"));
    let (video, mean): (Tensor<5>, Tensor<5>) = (golden.tensor("video"), golden.tensor("mean"));
    let [_, channels, ..] = mean.dims();
    let statistic = |name: &str| golden.tensor::<1>(name).reshape([1, channels, 1, 1, 1]);
    let standard = (mean.clone() - statistic("latents_mean")) / statistic("latents_std");
    let posterior = vae.encode(video.clone());
    let image = vae.encode(video.narrow(2, 0, 1)).mean;
    // Not every folder has them for this family.
    let optional = [("logvar", "logvar", posterior.logvar), ("image mean", "image_mean", image)];
    let optional = optional.into_iter().filter(|(_, name, _)| golden.has(name));
    let mut errors = vec![
        ("mean", relative_error(posterior.mean, &mean)),
        ("standard", relative_error(vae.standardize(mean.clone()), &standard)),
        ("decoded", relative_error(vae.decode(mean), &golden.tensor("decoded"))),
    ];
    errors.extend(
        optional.map(|(what, name, found)| (what, relative_error(found, &golden.tensor(name)))),
    );
    if golden.has("temb") {
        let published = DecodeNoise::TIMESTEP as f32;
        errors.push(("timestep", (golden.values("temb").0[0] - published).abs()));
    }
    golden.finish(&[]);
    errors
}
