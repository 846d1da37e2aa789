//! Tasks made from plain images: geometric ones, and ones that take something away.
//!
//! Open choices follow spec A.3: zoom keeps the middle half, inpainting hides one square with a
//! quarter of the shorter side, a jigsaw has 3x3 pieces and is never left in order.

use image::{DynamicImage, Rgb, RgbImage, imageops};
use imageproc::edges;

use super::resize;
use crate::rng::TorchRng;

/// The middle `share` of each side, enlarged to the image's size.
pub fn zoom(image: &RgbImage, share: f64) -> RgbImage {
    let side = |length: u32| ((f64::from(length) * share).round() as u32).clamp(1, length);
    let (width, height) = (side(image.width()), side(image.height()));
    let (left, top) = ((image.width() - width) / 2, (image.height() - height) / 2);
    let middle = imageops::crop_imm(image, left, top, width, height).to_image();
    resize::resize_image(&middle, [image.height() as usize, image.width() as usize])
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

/// Canny edges, white on black.
pub fn canny(image: &RgbImage, [low, high]: [f32; 2]) -> RgbImage {
    let luma = DynamicImage::ImageRgb8(image.clone()).into_luma8();
    DynamicImage::ImageLuma8(edges::canny(&luma, low, high)).into_rgb8()
}

/// The image with one black square, `share` of the shorter side, at a uniform place.
pub fn hide_square(image: &RgbImage, share: f64, seed: u64) -> RgbImage {
    let (width, height) = image.dimensions();
    let shorter = width.min(height);
    let side = ((f64::from(shorter) * share).round() as u32).clamp(1, shorter);
    let mut rng = TorchRng::new(seed);
    let mut place = |length: u32| rng.randint(u64::from(length - side) + 1, 1)[0] as u32;
    let (left, top) = (place(width), place(height));
    let mut hidden = image.clone();
    for y in top..top + side {
        for x in left..left + side {
            hidden.put_pixel(x, y, Rgb([0; 3]));
        }
    }
    hidden
}

/// The image with its `grid` by `grid` pieces in a random other order. Pieces have floored sizes;
/// pixels beyond the last row or column of pieces stay.
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
    fn zoom_keeps_the_size_and_the_middle() {
        let mut picture = RgbImage::new(8, 8);
        for (x, y) in [(3, 3), (3, 4), (4, 3), (4, 4)] {
            picture.put_pixel(x, y, Rgb([255; 3]));
        }
        assert_eq!(zoom(&picture, 0.25), RgbImage::from_pixel(8, 8, Rgb([255; 3])));
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
        let hidden: Vec<_> = (0..8).map(|seed| hide_square(&white, 0.25, seed)).collect();
        assert!(hidden.iter().all(|image| black(image) == 25));
        assert!(hidden.iter().any(|image| image != &hidden[0]));
        assert_eq!(black(&hide_square(&white, 1.0, 3)), 400, "a whole side fits too");
    }

    #[test]
    fn a_jigsaw_moves_pieces_and_loses_none() {
        for seed in 0..20 {
            let shuffled = jigsaw(&image(), 3, seed);
            assert_ne!(shuffled, image());
            assert_eq!(sorted(&shuffled), sorted(&image()));
        }
    }

    #[test]
    fn edges_are_found_where_the_brightness_jumps() {
        let half = RgbImage::from_fn(32, 32, |x, _| Rgb([if x < 16 { 0 } else { 255 }; 3]));
        let found = canny(&half, [50.0, 100.0]);
        assert!(found.enumerate_pixels().all(|(x, _, p)| p.0 == [0; 3] || (13..19).contains(&x)));
        assert!(found.pixels().any(|p| p.0 == [255; 3]));
    }
}
