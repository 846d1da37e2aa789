//! Tiny models of every class against the reference implementation, in f32.

use burn::tensor::Tensor;
use pipe::models::{
    Denoiser, DenoiserInput, ParamReader, TimeAxis, VideoDiffusion, VideoVae, cogvideox::CogVideoX,
};

use crate::golden::{Golden, assert_close, device};

const TRANSFORMER: f32 = 2e-5;
const VAE: f32 = 5e-5;

fn denoiser(golden: &Golden) -> Box<dyn Denoiser> {
    let weights = golden.weights();
    CogVideoX.denoiser(&golden.config(), &ParamReader::loaded(&weights, None)).unwrap()
}

fn input(golden: &Golden) -> DenoiserInput {
    DenoiserInput {
        latents: golden.tensor("latents"),
        image: golden.tensor("image"),
        text: golden.tensor("text"),
        timesteps: golden.values("timesteps").0,
        time: TimeAxis::default(),
    }
}

fn transformer_agrees(fixture: &str) {
    let golden = Golden::fixture(&format!("transformer/{fixture}"));
    let model = denoiser(&golden);
    let mut input = input(&golden);

    let hidden = model.begin(&input);
    let time: Tensor<3> = golden.tensor::<2>("time").unsqueeze_dim(1);
    assert_close("time embedding", hidden[1].clone(), &time, TRANSFORMER);
    assert_close("patch embedding", hidden[0].clone(), &golden.tensor("tokens"), TRANSFORMER);
    let hidden = model.block(0, hidden, &input);
    assert_close("block", hidden[0].clone(), &golden.tensor("block"), TRANSFORMER);
    assert_close("output", model.forward(&input), &golden.tensor("out"), TRANSFORMER);

    input.latents = input.latents.autodiff().require_grad();
    let loss = (model.forward(&input) * golden.tensor("grad_out")).sum();
    let grad = input.latents.grad(&loss.backward()).unwrap();
    assert_close("gradient", grad, &golden.tensor("grad_latents"), TRANSFORMER);
}

#[test]
fn transformer_15_agrees() {
    transformer_agrees("15");
}

#[test]
fn transformer_10_agrees() {
    transformer_agrees("10");
}

#[test]
fn transformer_10_with_fewer_frames_agrees() {
    transformer_agrees("10_short");
}

#[test]
fn transformer_10_of_another_aspect_agrees() {
    transformer_agrees("10_wide");
}

fn vae(golden: &Golden) -> Box<dyn VideoVae> {
    let weights = golden.weights();
    CogVideoX.vae(&golden.config(), &ParamReader::loaded(&weights, None)).unwrap()
}

fn vae_agrees(fixture: &str) {
    let golden = Golden::fixture(&format!("vae/{fixture}"));
    let vae = vae(&golden);
    let video: Tensor<5> = golden.tensor("video");
    for frames in [1, 9, 17] {
        let posterior = vae.encode(video.clone().narrow(2, 0, frames));
        let [mean, logvar] =
            ["mean", "logvar"].map(|name| golden.tensor::<5>(&format!("{name}.{frames}")));
        assert_close("mean", posterior.mean, &mean, VAE);
        assert_close("logvar", posterior.logvar, &logvar, VAE);
    }
    let latents: Tensor<5> = golden.tensor("mean.17");
    for frames in [1, 5] {
        let decoded = vae.decode(latents.clone().narrow(2, 0, frames));
        assert_close("decoded", decoded, &golden.tensor(&format!("decoded.{frames}")), VAE);
    }
    let latents = latents.autodiff().require_grad();
    let loss = (vae.decode(latents.clone()) * golden.tensor("decoded.5")).sum();
    let grad = latents.grad(&loss.backward()).unwrap();
    assert_close("gradient", grad, &golden.tensor("grad_latents"), VAE);
}

#[test]
fn vae_of_four_levels_agrees() {
    vae_agrees("four_levels");
}

#[test]
fn vae_of_three_levels_agrees() {
    vae_agrees("three_levels");
}

#[test]
fn tiled_vae_agrees() {
    use pipe::models::cogvideox::{Vae, VaeConfig};
    let golden = Golden::fixture("vae/three_levels");
    let weights = golden.weights();
    let config = VaeConfig::parse(&golden.config()).unwrap();
    let vae = Vae::new(config, &ParamReader::loaded(&weights, None)).unwrap().tiled().unwrap();
    let mean = vae.encode(golden.tensor("tiled.video")).mean;
    assert_close("tiled mean", mean, &golden.tensor("tiled.mean"), VAE);
    let decoded = vae.decode(golden.tensor("tiled.mean")).narrow(2, 0, 1);
    assert_close("tiled decoded", decoded, &golden.tensor("tiled.decoded"), VAE);
}

/// An even number of latent frames has no first frame of its own.
#[test]
fn the_number_of_decoded_frames_is_known_beforehand() {
    let golden = Golden::fixture("vae/three_levels");
    let weights = golden.weights();
    let vae = CogVideoX.vae(&golden.config(), &ParamReader::loaded(&weights, None)).unwrap();
    let counts: Vec<_> = (1..=5).map(|frames| vae.decoded_frames(frames)).collect();
    for (frames, wanted) in (1..).zip(&counts) {
        let shape = [1, vae.latent_channels(), frames, 1, 2];
        let decoded = vae.decode(Tensor::zeros(shape, &device()));
        assert_eq!(decoded.dims()[2], *wanted, "{frames} latent frames");
    }
    assert!(counts.is_sorted());
}
