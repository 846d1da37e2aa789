//! Overlapping tiles, blended linearly with the tile above, then with the tile to the left.

use burn::tensor::{Device, Tensor, TensorData};

use crate::models::cogvideox::config::VaeConfig;

/// Sizes of tiles; each pair is rows, columns.
#[derive(Clone, Copy, Debug)]
pub struct Tiling {
    pub(super) pixels: [usize; 2],
    latents: [usize; 2],
}

/// The share of a tile that the next one covers again: a sixth of its rows, a fifth of its columns.
const OVERLAP: [f64; 2] = [1.0 / 6.0, 1.0 / 5.0];

impl Tiling {
    /// Tiles of half the trained size.
    pub fn new(config: &VaeConfig) -> Self {
        let pixels = [config.sample_height / 2, config.sample_width / 2];
        Self { pixels, latents: pixels.map(|size| size / config.spatial_compression()) }
    }

    /// Encodes tile by tile if the video is larger than one.
    pub fn encode(&self, video: &Tensor<5>, part: impl Fn(&Tensor<5>) -> Tensor<5>) -> Tensor<5> {
        tiled(video, self.pixels, self.latents, part)
    }

    /// Decodes tile by tile if the latents are larger than one.
    pub fn decode(&self, latents: &Tensor<5>, part: impl Fn(&Tensor<5>) -> Tensor<5>) -> Tensor<5> {
        tiled(latents, self.latents, self.pixels, part)
    }
}

fn tiled(
    x: &Tensor<5>,
    input: [usize; 2],
    output: [usize; 2],
    part: impl Fn(&Tensor<5>) -> Tensor<5>,
) -> Tensor<5> {
    let [_, _, _, h, w] = x.dims();
    if h <= input[0] && w <= input[1] {
        return part(x);
    }
    let stride = [0, 1].map(|i| (input[i] as f64 * (1.0 - OVERLAP[i])) as usize);
    let blend_len = [0, 1].map(|i| (output[i] as f64 * OVERLAP[i]) as usize);
    let keep = [output[0] - blend_len[0], output[1] - blend_len[1]];

    let mut rows = Vec::new();
    let mut above: Vec<Tensor<5>> = Vec::new();
    for top in (0..h).step_by(stride[0]) {
        let mut tiles: Vec<Tensor<5>> = Vec::new();
        for (column, left) in (0..w).step_by(stride[1]).enumerate() {
            let size = [input[0].min(h - top), input[1].min(w - left)];
            let mut tile = part(&x.clone().narrow(3, top, size[0]).narrow(4, left, size[1]));
            // The neighbours are taken as blended, as the reference changes them in place.
            if let Some(above) = above.get(column) {
                tile = blend(above, tile, 3, blend_len[0]);
            }
            if let Some(left) = tiles.last() {
                tile = blend(left, tile, 4, blend_len[1]);
            }
            tiles.push(tile);
        }
        let kept = tiles.iter().map(|tile| {
            let [_, _, _, h, w] = tile.dims();
            tile.clone().narrow(3, 0, keep[0].min(h)).narrow(4, 0, keep[1].min(w))
        });
        rows.push(Tensor::cat(kept.collect(), 4));
        above = tiles;
    }
    Tensor::cat(rows, 3)
}

/// Goes over from the last `len` places of `before` to the first ones of `tile` along `dim`.
fn blend(before: &Tensor<5>, tile: Tensor<5>, dim: usize, len: usize) -> Tensor<5> {
    let (size, size_before) = (tile.dims()[dim], before.dims()[dim]);
    let len = len.min(size).min(size_before);
    if len == 0 {
        return tile;
    }
    let share: Vec<f32> = (0..len).map(|i| i as f32 / len as f32).collect();
    let mut shape = [1; 5];
    shape[dim] = len;
    let device: Device = tile.device().without_autodiff();
    let share = Tensor::<5>::from_data(TensorData::new(share, shape), &device);
    let share = share.cast(burn::tensor::FloatDType::from(tile.dtype()));
    let old = before.clone().narrow(dim, size_before - len, len);
    let new = tile.clone().narrow(dim, 0, len);
    let mixed = old.clone() + (new - old) * share;
    if len == size {
        return mixed;
    }
    Tensor::cat(vec![mixed, tile.narrow(dim, len, size - len)], dim)
}
