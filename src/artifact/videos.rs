//! Clips: `clip.safetensors` with `frames` U8 `[F, H, W, 3]`, RGB.

use image::RgbImage;
use safetensors::{Dtype, SafeTensors};

use super::tensors::{TensorFileError, check, write_all};

/// The item's file.
pub const FILE: &str = "clip.safetensors";

/// Frames of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clip {
    /// Frames, height, width.
    pub size: [usize; 3],
    /// RGB bytes, frame by frame, row by row.
    pub rgb: Vec<u8>,
}

impl Clip {
    /// A clip of images; `None` if there are none or their sizes differ.
    pub fn from_images(frames: &[RgbImage]) -> Option<Self> {
        let (width, height) = frames.first()?.dimensions();
        if frames.iter().any(|frame| frame.dimensions() != (width, height)) {
            return None;
        }
        let size = [frames.len(), height as usize, width as usize];
        Some(Self {
            size,
            rgb: frames.iter().flat_map(|frame| frame.as_raw().iter().copied()).collect(),
        })
    }

    /// One frame as an image; `None` past the end.
    pub fn frame(&self, index: usize) -> Option<RgbImage> {
        let [_, height, width] = self.size;
        let len = height * width * 3;
        let bytes = self.rgb.get(index * len..(index + 1) * len)?;
        RgbImage::from_raw(width as u32, height as u32, bytes.to_vec())
    }

    /// All frames as images.
    pub fn images(&self) -> Vec<RgbImage> {
        (0..self.size[0]).filter_map(|index| self.frame(index)).collect()
    }

    /// Reads [`FILE`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TensorFileError> {
        let file = SafeTensors::deserialize(bytes)?;
        let view = file.tensor("frames")?;
        let [frames, height, width, channels] = check(&view, "frames", Dtype::U8)?;
        if frames == 0 || channels != 3 {
            return Err(TensorFileError::Kind {
                name: "frames".into(),
                wanted: "[F, H, W, 3]".into(),
                found: format!("{:?}", view.shape()),
            });
        }
        Ok(Self { size: [frames, height, width], rgb: view.data().to_vec() })
    }

    /// Writes [`FILE`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let [frames, height, width] = self.size;
        write_all(&[("frames", Dtype::U8, &[frames, height, width, 3], &self.rgb)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clip_survives_a_round_trip_frame_by_frame() {
        let frames: Vec<_> = (0..3u8)
            .map(|f| RgbImage::from_fn(4, 2, |x, y| image::Rgb([f, x as u8, y as u8])))
            .collect();
        let clip = Clip::from_images(&frames).unwrap();
        let read = Clip::from_bytes(&clip.to_bytes()).unwrap();
        assert_eq!(read.size, [3, 2, 4]);
        assert_eq!(read.images(), frames);
        assert_eq!(read.frame(3), None);
    }

    #[test]
    fn frames_of_two_sizes_are_no_clip() {
        assert_eq!(Clip::from_images(&[RgbImage::new(4, 2), RgbImage::new(2, 4)]), None);
        assert_eq!(Clip::from_images(&[]), None);
    }
}
