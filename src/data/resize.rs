//! The one resize of a data set: cover, then centre crop (spec A.3); annotations follow.

use image::{ImageBuffer, Pixel, RgbImage, imageops};

use super::{Person, Sample, SceneLabels};

/// Where a source image ends up on the canvas.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fit {
    scale: f64,
    resized: [u32; 2],
    offset: [u32; 2],
}

impl Fit {
    /// Scales `[height, width]` to cover `size` and centres it.
    fn cover(source: [u32; 2], size: [usize; 2]) -> Self {
        let ratios = [0, 1].map(|axis| size[axis] as f64 / f64::from(source[axis]));
        let scale = ratios[0].max(ratios[1]);
        let resized = [0, 1].map(|axis| {
            let exact = f64::from(source[axis]) * scale;
            // `ceil`, but not one pixel more for the rounding error of the ratio.
            ((exact - 1e-6).ceil() as u32).max(size[axis] as u32)
        });
        let offset = [0, 1].map(|axis| (resized[axis] - size[axis] as u32) / 2);
        Self { scale, resized, offset }
    }
}

/// A sample at `[height, width]`.
pub fn resize_sample(sample: Sample, size: [usize; 2]) -> Sample {
    let source = [sample.image.height(), sample.image.width()];
    // Keypoints outside of the image are not labelled, whatever its size.
    if source == size.map(|side| side as u32) && sample.persons.is_empty() {
        return sample;
    }
    Sample {
        image: resize_image(&sample.image, size),
        persons: resize_persons(&sample.persons, source, size),
        mask: sample.mask.map(|mask| resize_nearest(&mask, size)),
        scene: sample.scene.map(|scene| SceneLabels {
            labels: resize_nearest(&scene.labels, size),
            names: scene.names,
        }),
        depth: sample.depth.map(|depth| resize_nearest(&depth, size)),
        answer: sample.answer.map(|answer| resize_image(&answer, size)),
        ..sample
    }
}

/// The persons of an image of `source` height and width at `size`. Keypoints outside the crop are
/// not labelled any more; persons without any are left out.
pub fn resize_persons(persons: &[Person], source: [u32; 2], size: [usize; 2]) -> Vec<Person> {
    let fit = Fit::cover(source, size);
    persons
        .iter()
        .map(|person| move_person(person, fit, size))
        .filter(|person| person.keypoints.iter().any(|keypoint| keypoint[2] > 0.0))
        .collect()
}

/// An image at `[height, width]`: area filter when it shrinks, bilinear when it grows.
pub fn resize_image(image: &RgbImage, size: [usize; 2]) -> RgbImage {
    let fit = Fit::cover([image.height(), image.width()], size);
    let [height, width] = fit.resized;
    let resized = if [image.height(), image.width()] == fit.resized {
        image.clone()
    } else if fit.scale < 1.0 {
        area(image, width, height)
    } else {
        imageops::resize(image, width, height, imageops::FilterType::Triangle)
    };
    crop(&resized, fit, size)
}

/// A mask, labels or distances at `[height, width]`, nearest neighbour, with the same crop as their image.
pub fn resize_nearest<P: Pixel>(
    map: &ImageBuffer<P, Vec<P::Subpixel>>,
    size: [usize; 2],
) -> ImageBuffer<P, Vec<P::Subpixel>> {
    let fit = Fit::cover([map.height(), map.width()], size);
    let [height, width] = fit.resized;
    let [top, left] = fit.offset;
    // The source pixel below the middle of a target pixel.
    let below = |at: u32, source: u32, resized: u32| {
        let at = (f64::from(at) + 0.5) * f64::from(source) / f64::from(resized);
        (at as u32).min(source - 1)
    };
    ImageBuffer::from_fn(size[1] as u32, size[0] as u32, |x, y| {
        let x = below(x + left, map.width(), width);
        *map.get_pixel(x, below(y + top, map.height(), height))
    })
}

fn crop<P: Pixel<Subpixel = u8> + 'static>(
    image: &ImageBuffer<P, Vec<u8>>,
    fit: Fit,
    [height, width]: [usize; 2],
) -> ImageBuffer<P, Vec<u8>> {
    let [top, left] = fit.offset;
    imageops::crop_imm(image, left, top, width as u32, height as u32).to_image()
}

fn move_person(person: &Person, fit: Fit, [height, width]: [usize; 2]) -> Person {
    let [top, left] = fit.offset;
    let keypoints = person.keypoints.map(|[x, y, visibility]| {
        // Pixel centres: a keypoint on the middle of a pixel stays on the middle of its image.
        let x = ((f64::from(x) + 0.5) * fit.scale - 0.5 - f64::from(left)) as f32;
        let y = ((f64::from(y) + 0.5) * fit.scale - 0.5 - f64::from(top)) as f32;
        let inside =
            (-0.5..width as f32 - 0.5).contains(&x) && (-0.5..height as f32 - 0.5).contains(&y);
        if visibility > 0.0 && inside { [x, y, visibility] } else { [0.0; 3] }
    });
    Person { keypoints }
}

/// Averages the source area under each pixel, parts of pixels by their share.
fn area(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let columns = shares(image.width(), width);
    let rows = shares(image.height(), height);
    RgbImage::from_fn(width, height, |x, y| {
        let mut sum = [0.0f64; 3];
        let mut total = 0.0;
        for (row, row_share) in &rows[y as usize] {
            for (column, column_share) in &columns[x as usize] {
                let share = row_share * column_share;
                total += share;
                for (sum, value) in sum.iter_mut().zip(image.get_pixel(*column, *row).0) {
                    *sum += share * f64::from(value);
                }
            }
        }
        image::Rgb(sum.map(|sum| (sum / total).round() as u8))
    })
}

/// For each target pixel, the source pixels it covers and how much of each.
fn shares(source: u32, target: u32) -> Vec<Vec<(u32, f64)>> {
    let step = f64::from(source) / f64::from(target);
    (0..target)
        .map(|index| {
            let (from, to) = (f64::from(index) * step, f64::from(index + 1) * step);
            (from as u32..(to.ceil() as u32).min(source))
                .map(|pixel| {
                    let share = to.min(f64::from(pixel + 1)) - from.max(f64::from(pixel));
                    (pixel, share)
                })
                .filter(|(_, share)| *share > 1e-9)
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Rgb};

    use super::*;

    #[test]
    fn a_wide_image_is_scaled_by_its_height_and_cropped_left_and_right() {
        let fit = Fit::cover([100, 400], [50, 50]);
        assert_eq!(fit, Fit { scale: 0.5, resized: [50, 200], offset: [0, 75] });
    }

    #[test]
    fn size_and_middle_are_kept_at_odd_ratios() {
        for (source, size) in
            [([480, 640], [480, 720]), ([427, 640], [64, 96]), ([33, 500], [64, 64])]
        {
            let fit = Fit::cover(source, size);
            assert!(fit.resized[0] as usize >= size[0] && fit.resized[1] as usize >= size[1]);
            let image = RgbImage::from_pixel(source[1], source[0], Rgb([7, 200, 90]));
            let resized = resize_image(&image, size);
            assert_eq!(
                resized,
                RgbImage::from_pixel(size[1] as u32, size[0] as u32, Rgb([7, 200, 90]))
            );
        }
        // 640x480 to cover 720x480: 720x540, of which the middle 480 rows stay.
        let fit = Fit::cover([480, 640], [480, 720]);
        assert_eq!((fit.resized, fit.offset), ([540, 720], [30, 0]));
    }

    #[test]
    fn masks_follow_their_images() {
        let white = |x: u32| (30..50).contains(&x);
        let image = RgbImage::from_fn(90, 60, |x, _| Rgb(if white(x) { [255; 3] } else { [0; 3] }));
        let mask = GrayImage::from_fn(90, 60, |x, _| image::Luma([if white(x) { 255 } else { 0 }]));
        for size in [[30, 30], [60, 60], [120, 100]] {
            let (image, mask) = (resize_image(&image, size), resize_nearest(&mask, size));
            let differing = image
                .pixels()
                .zip(mask.pixels())
                .filter(|(a, b)| (a.0[0] >= 128) != (b.0[0] >= 128))
                .count();
            assert!(differing <= 2 * size[0], "{size:?}: {differing}");
        }
    }

    #[test]
    fn halving_averages_four_pixels() {
        let image = RgbImage::from_fn(2, 2, |x, y| Rgb([(x * 100 + y * 50) as u8; 3]));
        assert_eq!(resize_image(&image, [1, 1]).get_pixel(0, 0).0, [75; 3]);
    }

    #[test]
    fn keypoints_outside_the_image_are_not_labelled_even_if_it_keeps_its_size() {
        let mut keypoints = [[0.0; 3]; 17];
        (keypoints[0], keypoints[1]) = ([3.25, 2.0, 1.0], [20.0, 3.0, 2.0]);
        let image = RgbImage::new(8, 6);
        let sample = Sample { image, persons: vec![Person { keypoints }], ..Sample::default() };
        let kept = resize_sample(sample, [6, 8]).persons;
        let far =
            |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>();
        assert!(far(kept[0].keypoints[0], [3.25, 2.0, 1.0]) < 1e-6);
        assert!(far(kept[0].keypoints[1], [0.0; 3]) < 1e-6);
    }

    #[test]
    fn keypoints_outside_the_crop_are_not_labelled() {
        let mut keypoints = [[0.0; 3]; 17];
        keypoints[0] = [2.0, 50.0, 2.0];
        keypoints[1] = [200.0, 50.0, 1.0];
        let fit = Fit::cover([100, 400], [50, 50]);
        let moved = move_person(&Person { keypoints }, fit, [50, 50]);
        let close = |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(moved.keypoints[0], [0.0; 3]), "{moved:?}");
        assert!(close(moved.keypoints[1], [24.75, 24.75, 1.0]), "{moved:?}");
    }
}
