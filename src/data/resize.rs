//! The one resize of a data set: cover, then centre crop (docs/method.md, A.3); annotations follow.

use std::ops::Range;

use image::{ImageBuffer, Pixel, Rgb, RgbImage, imageops};

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

    /// Rows and columns of a picture of `source` height and width.
    fn axes(self, source: [u32; 2], size: [usize; 2]) -> [Axis; 2] {
        [0, 1].map(|axis| Axis {
            source: source[axis],
            resized: self.resized[axis],
            kept: self.offset[axis]..self.offset[axis] + size[axis] as u32,
        })
    }
}

/// The factor by which an image of `source` height and width is scaled to cover `size`.
pub fn cover_scale(source: [u32; 2], size: [usize; 2]) -> f64 {
    Fit::cover(source, size).scale
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
///
/// Only the pixels that the crop keeps are made: a picture of one row, scaled to cover, is millions
/// wide.
pub fn resize_image(image: &RgbImage, size: [usize; 2]) -> RgbImage {
    let source = [image.height(), image.width()];
    let fit = Fit::cover(source, size);
    if source == fit.resized {
        let ([top, left], [height, width]) = (fit.offset, size.map(|side| side as u32));
        return imageops::crop_imm(image, left, top, width, height).to_image();
    }
    let [rows, columns] = fit.axes(source, size);
    if fit.scale < 1.0 {
        area(image, &rows.shares(), &columns.shares())
    } else {
        bilinear(image, &rows.blends(), &columns.blends())
    }
}

/// A mask, labels or distances at `[height, width]`, nearest neighbour, with the same crop as their
/// image.
pub fn resize_nearest<P: Pixel>(
    map: &ImageBuffer<P, Vec<P::Subpixel>>,
    size: [usize; 2],
) -> ImageBuffer<P, Vec<P::Subpixel>> {
    let [rows, columns] = nearest([map.height(), map.width()], size);
    ImageBuffer::from_fn(size[1] as u32, size[0] as u32, |x, y| {
        *map.get_pixel(columns[x as usize], rows[y as usize])
    })
}

/// Whether a pixel of a map of `source` height and width is left by [`resize_nearest`] for which
/// `is_set(x, y)`.
pub fn is_shown(source: [u32; 2], size: [usize; 2], is_set: impl Fn(u32, u32) -> bool) -> bool {
    let [mut rows, mut columns] = nearest(source, size);
    rows.dedup();
    columns.dedup();
    rows.into_iter().any(|y| columns.iter().any(|x| is_set(*x, y)))
}

/// The source rows and columns below the middles of the pixels that are kept.
fn nearest(source: [u32; 2], size: [usize; 2]) -> [Vec<u32>; 2] {
    Fit::cover(source, size).axes(source, size).map(|axis| axis.nearest())
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

/// One side of a picture that is scaled and cropped.
struct Axis {
    source: u32,
    resized: u32,
    /// The scaled pixels that the crop keeps.
    kept: Range<u32>,
}

/// For each pixel that is kept, source pixels and how much of each.
type Weights<T> = Vec<Vec<(u32, T)>>;

impl Axis {
    /// The source pixels that a scaled pixel covers.
    fn shares(&self) -> Weights<f64> {
        let step = f64::from(self.source) / f64::from(self.resized);
        let covered = |index: u32| {
            let (from, to) = (f64::from(index) * step, f64::from(index + 1) * step);
            (from as u32..(to.ceil() as u32).min(self.source))
                .map(|pixel| {
                    let share = to.min(f64::from(pixel + 1)) - from.max(f64::from(pixel));
                    (pixel, share)
                })
                .filter(|(_, share)| *share > 1e-9)
                .collect()
        };
        self.kept.clone().map(covered).collect()
    }

    /// The source pixel below the middle of a scaled pixel.
    fn nearest(&self) -> Vec<u32> {
        let below = |index: u32| {
            let at = (f64::from(index) + 0.5) * f64::from(self.source) / f64::from(self.resized);
            (at as u32).min(self.source - 1)
        };
        self.kept.clone().map(below).collect()
    }

    /// The source pixels on both sides of the middle of a scaled pixel, in the arithmetic of the
    /// library's `FilterType::Triangle`.
    fn blends(&self) -> Weights<f32> {
        let ratio = self.source as f32 / self.resized as f32;
        let beside = |index: u32| {
            let middle = (index as f32 + 0.5) * ratio;
            let left = ((middle - 1.0).floor().max(0.0) as u32).min(self.source - 1);
            let right = ((middle + 1.0).ceil() as u32).clamp(left + 1, self.source);
            let weight = |pixel: u32| (1.0 - (pixel as f32 - (middle - 0.5)).abs()).max(0.0);
            let total: f32 = (left..right).map(weight).sum();
            (left..right).map(|pixel| (pixel, weight(pixel) / total)).collect()
        };
        self.kept.clone().map(beside).collect()
    }
}

/// Averages the source area under each pixel, parts of pixels by their share.
fn area(image: &RgbImage, rows: &Weights<f64>, columns: &Weights<f64>) -> RgbImage {
    RgbImage::from_fn(columns.len() as u32, rows.len() as u32, |x, y| {
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
        Rgb(sum.map(|sum| (sum / total).round() as u8))
    })
}

/// Blends the source pixels around each pixel: by rows, then by columns, as the library does.
fn bilinear(image: &RgbImage, rows: &Weights<f32>, columns: &Weights<f32>) -> RgbImage {
    let used = columns.iter().flatten().map(|(column, _)| *column);
    let used = used.clone().min().unwrap_or(0)..used.max().map_or(0, |last| last + 1);
    let mut enlarged = RgbImage::new(columns.len() as u32, rows.len() as u32);
    for (row, y) in rows.iter().zip(0..) {
        let line: Vec<[f32; 3]> = used
            .clone()
            .map(|column| weighted(row, |row| image.get_pixel(column, row).0.map(f32::from)))
            .collect();
        for (column, x) in columns.iter().zip(0..) {
            let color = weighted(column, |column| line[(column - used.start) as usize]);
            enlarged.put_pixel(x, y, Rgb(color.map(|value| value.clamp(0.0, 255.0).round() as u8)));
        }
    }
    enlarged
}

fn weighted(weights: &[(u32, f32)], color: impl Fn(u32) -> [f32; 3]) -> [f32; 3] {
    weights.iter().fold([0.0; 3], |sum, (place, weight)| {
        let color = color(*place);
        [0, 1, 2].map(|channel| sum[channel] + color[channel] * weight)
    })
}

#[cfg(test)]
mod tests {
    use image::GrayImage;

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

    /// A picture without two equal rows or columns.
    fn busy(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let mixed = (x + 1).wrapping_mul(2_654_435_761).wrapping_mul(y ^ 0x9e37_79b9);
            Rgb([(mixed >> 8) as u8, (mixed >> 16) as u8, (x * 7 + y * 13) as u8])
        })
    }

    #[test]
    fn what_grows_is_to_the_bit_the_crop_of_the_librarys_resize() {
        for (source, size) in [
            ([480, 640], [480, 720]),
            ([50, 33], [64, 96]),
            ([3, 500], [64, 8]),
            ([1, 1], [8, 10]),
            ([400, 400], [480, 480]),
            ([37, 91], [38, 92]),
        ] {
            let image = busy(source[1], source[0]);
            let fit = Fit::cover(source, size);
            assert!(fit.scale > 1.0);
            let ([height, width], [top, left]) = (fit.resized, fit.offset);
            let whole = imageops::resize(&image, width, height, imageops::FilterType::Triangle);
            let wanted = imageops::crop_imm(&whole, left, top, size[1] as u32, size[0] as u32);
            assert!(resize_image(&image, size) == wanted.to_image(), "{source:?} {size:?}");
        }
    }

    #[test]
    fn the_crop_of_what_shrinks_is_its_middle() {
        // Scaled to 10x40, of which the columns 15 to 24 stay.
        let image = busy(160, 40);
        let whole = resize_image(&image, [10, 40]);
        let wanted = imageops::crop_imm(&whole, 15, 0, 10, 10).to_image();
        assert!(resize_image(&image, [10, 10]) == wanted);
    }

    /// Scaled to cover, they would be millions of pixels long: gigabytes, of which the middle
    /// stays.
    #[test]
    fn thin_pictures_take_no_more_memory_than_others() {
        let wide = RgbImage::from_fn(16_384, 1, |x, _| Rgb([if x < 8192 { 9 } else { 90 }; 3]));
        let middle = resize_image(&wide, [480, 720]);
        // From the middle of the last dark pixel to that of the first bright one: 480 pixels.
        let shades = [0, 120, 240, 360, 480, 600, 719].map(|x| middle.get_pixel(x, 300).0[0]);
        assert_eq!(shades, [9, 9, 29, 50, 70, 90, 90]);
        let tall = resize_image(&imageops::rotate90(&wide), [1024, 1024]);
        assert_eq!([tall.get_pixel(5, 0).0[0], tall.get_pixel(5, 1023).0[0]], [9, 90]);
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
    fn what_the_crop_cuts_off_is_not_shown() {
        // 100x40 at 20x20: the columns 30 to 69 stay.
        for (column, shown) in [(0, false), (28, false), (31, true), (69, true), (72, false)] {
            let mask = GrayImage::from_fn(100, 40, |x, _| {
                image::Luma([if x == column || x == column + 1 { 255 } else { 0 }])
            });
            let is_set = |x, y| mask.get_pixel(x, y).0[0] > 0;
            assert_eq!(is_shown([40, 100], [20, 20], is_set), shown, "{column}");
            let resized = resize_nearest(&mask, [20, 20]);
            assert_eq!(resized.iter().any(|value| *value > 0), shown, "{column}");
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
