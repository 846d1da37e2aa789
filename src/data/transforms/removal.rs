//! Tasks that take something away: colours, a square, the order.

use image::{Rgb, RgbImage};

use super::{Change, Operation, Side};
use crate::{data::DataError, rng::TorchRng};

/// Grey to colours.
pub struct Colorization;

impl Operation for Colorization {
    fn name(&self) -> &'static str {
        "colorization"
    }

    fn doc(&self) -> &'static str {
        "Grey to colours."
    }

    fn side(&self) -> Side {
        Side::Input
    }

    fn apply(&self, image: &RgbImage, _: &Change, _: u64) -> Result<RgbImage, DataError> {
        Ok(grey(image))
    }
}

/// Black squares to what they hide.
pub struct Inpainting;

impl Operation for Inpainting {
    fn name(&self) -> &'static str {
        "inpainting"
    }

    fn doc(&self) -> &'static str {
        "Black squares to what they hide."
    }

    fn params(&self) -> &'static [&'static str] {
        &["share", "squares"]
    }

    fn side(&self) -> Side {
        Side::Input
    }

    fn apply(&self, image: &RgbImage, change: &Change, seed: u64) -> Result<RgbImage, DataError> {
        let share = change.share.unwrap_or(0.25);
        Ok(hide_squares(image, change.squares, share, seed))
    }
}

/// Shuffled pieces to the picture.
pub struct Jigsaw;

impl Operation for Jigsaw {
    fn name(&self) -> &'static str {
        "jigsaw"
    }

    fn doc(&self) -> &'static str {
        "Shuffled pieces to the picture."
    }

    fn params(&self) -> &'static [&'static str] {
        &["grid"]
    }

    fn side(&self) -> Side {
        Side::Input
    }

    fn needs_side(&self, change: &Change) -> usize {
        change.grid
    }

    fn apply(&self, image: &RgbImage, change: &Change, seed: u64) -> Result<RgbImage, DataError> {
        Ok(jigsaw(image, change.grid, seed))
    }
}

/// Rec. 601 luma in all three channels.
pub fn grey(image: &RgbImage) -> RgbImage {
    let mut grey = image.clone();
    for pixel in grey.pixels_mut() {
        let [r, g, b] = pixel.0.map(f32::from);
        pixel.0 = [(0.299 * r + 0.587 * g + 0.114 * b).round() as u8; 3];
    }
    grey
}

/// The image with black squares, `share` of the shorter side, at uniform places; they may overlap.
pub fn hide_squares(image: &RgbImage, squares: usize, share: f64, seed: u64) -> RgbImage {
    let (width, height) = image.dimensions();
    let shorter = width.min(height);
    let side = ((f64::from(shorter) * share).round() as u32).clamp(1, shorter);
    let mut rng = TorchRng::new(seed);
    let mut place = |length: u32| rng.randint(u64::from(length - side) + 1, 1)[0] as u32;
    let mut hidden = image.clone();
    for _ in 0..squares {
        let (left, top) = (place(width), place(height));
        for y in top..top + side {
            for x in left..left + side {
                hidden.put_pixel(x, y, Rgb([0; 3]));
            }
        }
    }
    hidden
}

/// The image with its `grid` by `grid` pieces in a random other order. Pieces have floored sizes;
/// pixels beyond the last row or column of pieces stay. A side of fewer pixels than `grid` has no
/// pieces.
pub fn jigsaw(image: &RgbImage, grid: usize, seed: u64) -> RgbImage {
    let order = shuffled_order(grid * grid, seed);
    let mut shuffled = image.clone();
    let (width, height) = (image.width() / grid as u32, image.height() / grid as u32);
    let corner = |piece: usize| ((piece % grid) as u32 * width, (piece / grid) as u32 * height);
    for (place, piece) in order.into_iter().enumerate() {
        let ((left, top), (from_left, from_top)) = (corner(place), corner(piece));
        for y in 0..height {
            for x in 0..width {
                let pixel = *image.get_pixel(from_left + x, from_top + y);
                shuffled.put_pixel(left + x, top + y, pixel);
            }
        }
    }
    shuffled
}

/// A random permutation that is not the identity, if there is one.
fn shuffled_order(len: usize, seed: u64) -> Vec<usize> {
    let mut rng = TorchRng::new(seed);
    loop {
        let order = rng.randperm(len);
        if len < 2 || order.iter().enumerate().any(|(place, piece)| place != *piece) {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> RgbImage {
        RgbImage::from_fn(12, 9, |x, y| Rgb([(x * 20) as u8, (y * 25) as u8, 1]))
    }

    fn sorted(image: &RgbImage) -> Vec<[u8; 3]> {
        let mut pixels: Vec<_> = image.pixels().map(|pixel| pixel.0).collect();
        pixels.sort_unstable();
        pixels
    }

    #[test]
    fn grey_weighs_the_channels() {
        let color = |rgb| grey(&RgbImage::from_pixel(1, 1, Rgb(rgb))).get_pixel(0, 0).0;
        assert_eq!(color([255, 0, 0]), [76; 3]);
        assert_eq!(color([0, 255, 0]), [150; 3]);
        assert_eq!(color([0, 0, 255]), [29; 3]);
    }

    #[test]
    fn a_square_of_the_stated_size_is_hidden_somewhere_else_per_seed() {
        let white = RgbImage::from_pixel(40, 20, Rgb([255; 3]));
        let black = |image: &RgbImage| image.pixels().filter(|p| p.0 == [0; 3]).count();
        let hidden: Vec<_> = (0..8).map(|seed| hide_squares(&white, 1, 0.25, seed)).collect();
        assert!(hidden.iter().all(|image| black(image) == 25));
        assert!(hidden.iter().any(|image| image != &hidden[0]));
        assert_eq!(black(&hide_squares(&white, 1, 1.0, 3)), 400, "a whole side fits too");
    }

    #[test]
    fn more_squares_hide_more() {
        let white = RgbImage::from_pixel(64, 64, Rgb([255; 3]));
        let black = |count| {
            let hidden = hide_squares(&white, count, 0.1, 5);
            hidden.pixels().filter(|p| p.0 == [0; 3]).count()
        };
        assert_eq!(black(1), 36);
        assert!(black(4) > 72 && black(4) <= 144);
    }

    #[test]
    fn a_jigsaw_moves_pieces_and_loses_none() {
        for seed in 0..20 {
            let shuffled = jigsaw(&image(), 3, seed);
            assert_ne!(shuffled, image());
            assert_eq!(sorted(&shuffled), sorted(&image()));
        }
    }
}
