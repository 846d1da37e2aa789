//! Mirrors, turns, zoom and crop.

use image::{Rgb, RgbImage, imageops};
use imageproc::geometric_transformations::{Border, Interpolation, rotate};

use super::{Change, Operation};
use crate::data::{DataError, resize};

/// Mirrored left to right.
pub struct Hflip;

impl Operation for Hflip {
    fn name(&self) -> &'static str {
        "hflip"
    }

    fn doc(&self) -> &'static str {
        "Mirrored left to right."
    }

    fn apply(&self, image: &RgbImage, _: &Change, _: u64) -> Result<RgbImage, DataError> {
        Ok(imageops::flip_horizontal(image))
    }
}

/// Mirrored top to bottom.
pub struct Vflip;

impl Operation for Vflip {
    fn name(&self) -> &'static str {
        "vflip"
    }

    fn doc(&self) -> &'static str {
        "Mirrored top to bottom."
    }

    fn apply(&self, image: &RgbImage, _: &Change, _: u64) -> Result<RgbImage, DataError> {
        Ok(imageops::flip_vertical(image))
    }
}

/// Turned a quarter clockwise; the images must be square.
pub struct Rotate90;

impl Operation for Rotate90 {
    fn name(&self) -> &'static str {
        "rotate90"
    }

    fn doc(&self) -> &'static str {
        "Turned a quarter clockwise; the images must be square."
    }

    fn needs_square(&self) -> bool {
        true
    }

    fn apply(&self, image: &RgbImage, _: &Change, _: u64) -> Result<RgbImage, DataError> {
        if image.width() != image.height() {
            return Err(DataError::failed(format!(
                "a quarter turn needs a square image, but this one is {}x{}",
                image.width(),
                image.height()
            ))
            .with_help("give the data set a square `size`"));
        }
        Ok(imageops::rotate90(image))
    }
}

/// Turned by half.
pub struct Rotate180;

impl Operation for Rotate180 {
    fn name(&self) -> &'static str {
        "rotate180"
    }

    fn doc(&self) -> &'static str {
        "Turned by half."
    }

    fn apply(&self, image: &RgbImage, _: &Change, _: u64) -> Result<RgbImage, DataError> {
        Ok(imageops::rotate180(image))
    }
}

/// Turned clockwise by `angle` about the middle; what is uncovered is black.
pub struct Rotate;

impl Operation for Rotate {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn doc(&self) -> &'static str {
        "Turned clockwise by `angle` about the middle; what is uncovered is black."
    }

    fn params(&self) -> &'static [&'static str] {
        &["angle"]
    }

    fn apply(&self, image: &RgbImage, change: &Change, _: u64) -> Result<RgbImage, DataError> {
        Ok(rotated(image, change.angle))
    }
}

/// Whole turns of half and quarter keep every pixel; a wide image loses its ends in a quarter turn.
#[expect(clippy::float_cmp, reason = "exactly a quarter, a half, or three quarters")]
fn rotated(image: &RgbImage, angle: f64) -> RgbImage {
    let [width, height] = [image.width(), image.height()];
    let angle = angle.rem_euclid(360.0);
    if angle == 0.0 {
        return image.clone();
    }
    if angle == 180.0 {
        return imageops::rotate180(image);
    }
    if width == height && angle == 90.0 {
        return imageops::rotate90(image);
    }
    if width == height && angle == 270.0 {
        return imageops::rotate270(image);
    }
    let middle = [width, height].map(|side| (side as f32 - 1.0) / 2.0);
    let border = Border::Constant(Rgb([0; 3]));
    rotate(image, middle.into(), angle.to_radians() as f32, Interpolation::Bilinear, border)
}

/// The middle, enlarged.
pub struct Zoom;

impl Operation for Zoom {
    fn name(&self) -> &'static str {
        "zoom"
    }

    fn doc(&self) -> &'static str {
        "The middle, enlarged."
    }

    fn params(&self) -> &'static [&'static str] {
        &["share"]
    }

    fn apply(&self, image: &RgbImage, change: &Change, _: u64) -> Result<RgbImage, DataError> {
        Ok(zoom(image, change.share.unwrap_or(0.5)))
    }
}

/// The middle; what is around it is black.
pub struct Crop;

impl Operation for Crop {
    fn name(&self) -> &'static str {
        "crop"
    }

    fn doc(&self) -> &'static str {
        "The middle; what is around it is black."
    }

    fn params(&self) -> &'static [&'static str] {
        &["share"]
    }

    fn apply(&self, image: &RgbImage, change: &Change, _: u64) -> Result<RgbImage, DataError> {
        Ok(crop(image, change.share.unwrap_or(0.5)))
    }
}

/// The answer becomes the input: a mask or drawing to its picture.
pub struct Swap;

impl Operation for Swap {
    fn name(&self) -> &'static str {
        "swap"
    }

    fn doc(&self) -> &'static str {
        "The answer becomes the input: a mask or drawing to its picture."
    }

    fn swaps(&self) -> bool {
        true
    }

    fn apply(&self, image: &RgbImage, _: &Change, _: u64) -> Result<RgbImage, DataError> {
        Ok(image.clone())
    }
}

/// Nothing: so that an axis of operations can have tasks that are drawn as they are.
pub struct Keep;

impl Operation for Keep {
    fn name(&self) -> &'static str {
        "keep"
    }

    fn doc(&self) -> &'static str {
        "Nothing: the pair stays as it is."
    }

    fn keeps(&self) -> bool {
        true
    }

    fn apply(&self, image: &RgbImage, _: &Change, _: u64) -> Result<RgbImage, DataError> {
        Ok(image.clone())
    }
}

/// The place and size of the middle `share` of each side: left, top, width, height.
fn middle(image: &RgbImage, share: f64) -> [u32; 4] {
    let side = |length: u32| ((f64::from(length) * share).round() as u32).clamp(1, length);
    let (width, height) = (side(image.width()), side(image.height()));
    [(image.width() - width) / 2, (image.height() - height) / 2, width, height]
}

/// The middle `share` of each side, enlarged to the image's size.
pub fn zoom(image: &RgbImage, share: f64) -> RgbImage {
    let [left, top, width, height] = middle(image, share);
    let middle = imageops::crop_imm(image, left, top, width, height).to_image();
    resize::resize_image(&middle, [image.height() as usize, image.width() as usize])
}

/// The middle `share` of each side on black.
pub fn crop(image: &RgbImage, share: f64) -> RgbImage {
    let [left, top, width, height] = middle(image, share);
    let middle = imageops::crop_imm(image, left, top, width, height).to_image();
    let mut cropped = RgbImage::new(image.width(), image.height());
    imageops::replace(&mut cropped, &middle, i64::from(left), i64::from(top));
    cropped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zoom_keeps_the_size_and_the_middle() {
        let mut picture = RgbImage::new(8, 8);
        for (x, y) in [(3, 3), (3, 4), (4, 3), (4, 4)] {
            picture.put_pixel(x, y, Rgb([255; 3]));
        }
        assert_eq!(zoom(&picture, 0.25), RgbImage::from_pixel(8, 8, Rgb([255; 3])));
    }

    #[test]
    fn a_crop_keeps_the_middle_where_it_is() {
        let white = RgbImage::from_pixel(40, 20, Rgb([255; 3]));
        let cropped = crop(&white, 0.5);
        let kept = |x: u32, y: u32| (10..30).contains(&x) && (5..15).contains(&y);
        assert!(cropped.enumerate_pixels().all(|(x, y, p)| (p.0 == [255; 3]) == kept(x, y)));
    }

    #[test]
    fn a_turn_goes_clockwise() {
        let mut picture = RgbImage::new(20, 20);
        picture.put_pixel(8, 1, Rgb([255; 3]));
        let change = |angle: f64| {
            let json = serde_json::json!({ "operation": "rotate", "angle": angle });
            serde_json::from_value::<Change>(json).unwrap()
        };
        let turned = Rotate.apply(&picture, &change(90.0), 0).unwrap();
        assert_eq!(turned, imageops::rotate90(&picture));
        assert_eq!(turned.get_pixel(18, 8).0, [255; 3]);
        for (angle, wanted) in [
            (0.0, picture.clone()),
            (180.0, imageops::rotate180(&picture)),
            (-90.0, imageops::rotate270(&picture)),
        ] {
            assert_eq!(Rotate.apply(&picture, &change(angle), 0).unwrap(), wanted, "{angle}");
        }
        // The same map a hair beside: pixels stay where they are to the eye.
        let nearly = Rotate.apply(&picture, &change(89.99), 0).unwrap();
        let bright = nearly.enumerate_pixels().max_by_key(|(_, _, p)| p.0[0]).unwrap();
        assert_eq!((bright.0, bright.1), (18, 8));
    }

    #[test]
    fn a_quarter_turn_of_a_wide_image_is_refused() {
        let change =
            serde_json::from_value(serde_json::json!({ "operation": "rotate90" })).unwrap();
        let error = Rotate90.apply(&RgbImage::new(8, 6), &change, 0).unwrap_err();
        insta::assert_snapshot!(error, @"a quarter turn needs a square image, but this one is 8x6");
    }
}
