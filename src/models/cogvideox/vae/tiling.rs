//! Overlapping tiles, blended linearly with the tile above, then with the tile to the left.
//!
//! The reference takes shares of a tile's pixels and of its latents, each rounded down. Here tiles,
//! and the steps between them, are whole latents: the same for the sizes that models are published
//! with, and pixels and latents fit together for every other size, too.

use burn::tensor::{Device, Tensor, TensorData};

use crate::models::cogvideox::config::VaeConfig;

/// Sizes of tiles in latents; each pair is rows, columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    tile: [usize; 2],
    /// From one tile to the next.
    stride: [usize; 2],
    /// Pixels per latent row or column.
    space: usize,
}

/// The share of a tile that the next one covers again: a sixth of its rows, a fifth of its columns.
const OVERLAP: [f64; 2] = [1.0 / 6.0, 1.0 / 5.0];

impl Tiling {
    /// Tiles of half the trained size.
    pub fn new(config: &VaeConfig) -> Self {
        let space = config.spatial_compression();
        let trained = [config.sample_height, config.sample_width];
        let tile = trained.map(|size| (size / 2 / space).max(1));
        let stride = [0, 1].map(|i| ((tile[i] as f64 * (1.0 - OVERLAP[i])) as usize).max(1));
        Self { tile, stride, space }
    }

    /// Height and width of a tile in pixels.
    pub(super) fn pixels(&self) -> [usize; 2] {
        self.tile.map(|latents| latents * self.space)
    }

    /// Encodes tile by tile if the video is larger than one.
    pub fn encode(&self, video: &Tensor<5>, part: impl Fn(&Tensor<5>) -> Tensor<5>) -> Tensor<5> {
        self.map(video, [self.space, 1], part)
    }

    /// Decodes tile by tile if the latents are larger than one.
    pub fn decode(&self, latents: &Tensor<5>, part: impl Fn(&Tensor<5>) -> Tensor<5>) -> Tensor<5> {
        self.map(latents, [1, self.space], part)
    }

    /// `per_latent`: rows or columns of the input, and of the output, for one of the latents.
    fn map(
        &self,
        x: &Tensor<5>,
        per_latent: [usize; 2],
        part: impl Fn(&Tensor<5>) -> Tensor<5>,
    ) -> Tensor<5> {
        let [_, _, _, h, w] = x.dims();
        let [from, to] = per_latent;
        let input = self.tile.map(|latents| latents * from);
        if h <= input[0] && w <= input[1] {
            return part(x);
        }
        let stride = self.stride.map(|latents| latents * from);
        let keep = self.stride.map(|latents| latents * to);
        let blend_len = [0, 1].map(|i| (self.tile[i] - self.stride[i]) * to);

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tiling([sample_height, sample_width]: [usize; 2], levels: usize) -> Tiling {
        let config = json!({
            "sample_height": sample_height, "sample_width": sample_width, "norm_num_groups": 2,
            "block_out_channels": vec![4; levels], "temporal_compression_ratio": 1,
            "down_block_types": vec!["CogVideoXDownBlock3D"; levels],
            "up_block_types": vec!["CogVideoXUpBlock3D"; levels],
        });
        Tiling::new(&VaeConfig::parse(&config).unwrap())
    }

    /// diffusers: 240 x 360 pixels, of which the next begins after 200 and 288.
    #[test]
    fn the_published_tiles_are_those_of_the_reference() {
        let tiling = tiling([480, 720], 4);
        assert_eq!(tiling, Tiling { tile: [30, 45], stride: [25, 36], space: 8 });
        assert_eq!(tiling.pixels(), [240, 360]);
    }

    /// Every `space`-th pixel for an encoder, each value `space` times for a decoder: tiles agree
    /// where they meet, so nothing but the places of tiles can make a difference.
    #[test]
    fn tiles_fit_together_whatever_the_trained_size() {
        for (trained, levels) in [
            ([480, 720], 4),
            ([64, 64], 3),
            ([32, 32], 3),
            ([50, 70], 3),
            ([10, 6], 4),
            ([2, 1], 1),
        ] {
            let tiling = tiling(trained, levels);
            for [h, w] in [[1, 1], [8, 12], [16, 16], [9, 32], [17, 5]] {
                let values =
                    Tensor::<1, burn::tensor::Int>::arange(0..i64::from(h * w), &Device::flex());
                let latents = values.float().reshape([1, 1, 1, h as usize, w as usize]);
                let video = grown(&latents, tiling.space);
                let encoded = tiling.encode(&video, |tile| thinned(tile, tiling.space));
                assert_eq!(encoded.dims(), latents.dims(), "{trained:?}");
                encoded.into_data().assert_eq(&latents.to_data(), true);
                let decoded = tiling.decode(&latents, |tile| grown(tile, tiling.space));
                assert_eq!(decoded.dims(), video.dims(), "{trained:?}");
                decoded.into_data().assert_eq(&video.to_data(), true);
            }
        }
    }

    fn grown(x: &Tensor<5>, space: usize) -> Tensor<5> {
        let [_, _, _, h, w] = x.dims();
        let wide = x.clone().reshape([h, 1, w, 1]).repeat_dim(1, space).repeat_dim(3, space);
        wide.reshape([1, 1, 1, h * space, w * space])
    }

    fn thinned(x: &Tensor<5>, space: usize) -> Tensor<5> {
        let [_, _, _, h, w] = x.dims();
        assert!(h % space == 0 && w % space == 0, "a tile of {h} x {w} has no whole latents");
        let rows = x.clone().reshape([h / space, space, w / space, space]);
        rows.narrow(1, 0, 1).narrow(3, 0, 1).reshape([1, 1, 1, h / space, w / space])
    }
}
