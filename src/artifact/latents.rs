//! Encoded clips with their conditioning image.
//!
//! One item is `latents.safetensors`: `latents` F32 `[C, f, h, w]`, multiplied by the VAE's scaling
//! factor, and `image_latents` F32 `[K, C, 1, h, w]`, not scaled: K encodings of the first frame,
//! each with its own noise, from which training takes one at each step; K is 0 for a model whose
//! image is the first frame of the clip. Where the VAE states mean and deviation of each channel,
//! both are standardised.

use super::tensors::{Array, TensorFileError, write_two};

/// The item's file.
pub const FILE: &str = "latents.safetensors";

/// One encoded clip.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipLatents {
    /// `[C, f, h, w]`, scaled.
    pub clip: Array<4>,
    /// `[K, C, 1, h, w]`, not scaled.
    pub images: Array<5>,
}

impl ClipLatents {
    /// Reads [`FILE`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TensorFileError> {
        let clip: Array<4> = Array::read(bytes, "latents")?;
        let images: Array<5> = Array::read(bytes, "image_latents")?;
        let ([c, _, h, w], [_, image @ ..]) = (clip.shape, images.shape);
        if image != [c, 1, h, w] {
            return Err(TensorFileError::Kind {
                name: "image_latents".into(),
                wanted: format!("[K, {c}, 1, {h}, {w}]"),
                found: format!("{:?}", images.shape),
            });
        }
        Ok(Self { clip, images })
    }

    /// Writes [`FILE`].
    pub fn to_bytes(&self) -> Vec<u8> {
        write_two(("latents", &self.clip), ("image_latents", &self.images))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latents(image_channels: usize) -> ClipLatents {
        ClipLatents {
            clip: Array { shape: [2, 1, 1, 2], values: vec![1.0, -2.0, 3.5, 0.25] },
            images: Array {
                shape: [1, image_channels, 1, 1, 2],
                values: vec![0.5; 2 * image_channels],
            },
        }
    }

    #[test]
    fn latents_survive_a_round_trip() {
        assert_eq!(ClipLatents::from_bytes(&latents(2).to_bytes()).unwrap(), latents(2));
        let images = Array { shape: [0, 2, 1, 1, 2], values: Vec::new() };
        let without = ClipLatents { images, ..latents(2) };
        assert_eq!(ClipLatents::from_bytes(&without.to_bytes()).unwrap(), without);
    }

    #[test]
    fn an_image_of_another_shape_is_refused() {
        let error = ClipLatents::from_bytes(&latents(3).to_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tensor `image_latents` must be [K, 2, 1, 1, 2], but is [1, 3, 1, 1, 2]"
        );
    }
}
