//! Video and text to one sequence of tokens.

use burn::tensor::{Device, Tensor};

use super::{float_dtype, plain_device};
use crate::{
    models::{
        ParamReader,
        cogvideox::{config::TransformerConfig, rotary::additive_positions},
        nn::Linear,
        params::Init,
    },
    rng::TorchRng,
};

/// Patches of the video and projected text, as one sequence.
#[derive(Clone, Debug)]
pub(super) struct PatchEmbed {
    proj: Linear,
    text_proj: Linear,
    /// The stored table of positions of the trained size.
    positions: Option<Tensor<3>>,
}

impl PatchEmbed {
    /// Reads `patch_embed`.
    pub fn new(config: &TransformerConfig, params: &ParamReader<'_>) -> Self {
        let dim = config.inner_dim();
        let patch = config.patch_size;
        let features = config.in_channels * patch * patch * config.frames_per_token();
        let proj = if config.patch_size_t.is_some() {
            params.linear("proj", [features, dim])
        } else {
            // A convolution whose stride is its kernel is a linear layer over patches.
            let proj = params.scope("proj");
            let init = Init::fan_in(features);
            let weight = proj.tensor("weight", [dim, config.in_channels, patch, patch], init);
            let bias = config.patch_bias.then(|| proj.tensor("bias", [dim], init));
            Linear { weight: weight.reshape([dim, features]), bias, lora: None }
        };
        let positions = config.use_learned_positional_embeddings.then(|| {
            let tokens =
                config.max_text_seq_length + trained_grid(config).iter().product::<usize>();
            let table = |_: &mut TorchRng, device: &Device| {
                additive_positions(config, config.max_text_seq_length, trained_grid(config), device)
                    .reshape([tokens * dim])
            };
            params.tensor_or::<3>("pos_embedding", [1, tokens, dim], table)
        });
        let text_proj = params.linear("text_proj", [config.text_embed_dim, dim]);
        Self { proj, text_proj, positions }
    }

    /// `[B, C, F, H, W]` and `[B, L, text]` to `[B, S, D]`.
    pub fn forward(
        &self,
        config: &TransformerConfig,
        video: Tensor<5>,
        text: Tensor<3>,
    ) -> Tensor<3> {
        let [b, c, f, h, w] = video.dims();
        let (patch, patch_t) = (config.patch_size, config.frames_per_token());
        let grid = [f / patch_t, h / patch, w / patch];
        let text_len = text.dims()[1];
        let device = plain_device(&video);
        // Within a token: channel, frame, row, column.
        let patches = video
            .reshape([b, c, grid[0], patch_t, grid[1], patch, grid[2], patch])
            .permute([0, 2, 4, 6, 1, 3, 5, 7])
            .reshape([b, grid.iter().product(), c * patch_t * patch * patch]);
        let tokens = Tensor::cat(vec![self.text_proj.forward(text), self.proj.forward(patches)], 1);
        if !config.has_additive_positions() {
            return tokens;
        }
        let positions = match &self.positions {
            Some(table) if grid == trained_grid(config) => table.clone(),
            _ => additive_positions(config, text_len, grid, &device),
        };
        let dtype = float_dtype(tokens.dtype());
        tokens + positions.cast(dtype)
    }
}

/// Tokens on each axis of the size the model was trained on; only 1.0 stores positions for it.
fn trained_grid(config: &TransformerConfig) -> [usize; 3] {
    let frames = (config.sample_frames - 1) / config.temporal_compression_ratio + 1;
    [frames, config.sample_height / config.patch_size, config.sample_width / config.patch_size]
}
