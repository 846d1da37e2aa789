//! COCO's instance masks: polygons and both run-length forms.

use image::{GrayImage, Luma};
use serde::Deserialize;

/// `segmentation` of an instance.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "polygons, or run lengths with `size` and `counts`")]
pub enum Segmentation {
    /// Rings `x, y, x, y, ...` in pixels.
    Polygons(Vec<Vec<f64>>),
    /// Runs down the columns, first of background.
    Runs {
        /// Height and width.
        size: [usize; 2],
        /// The lengths.
        counts: Counts,
    },
}

/// Run lengths, plain or in COCO's text form.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a list of run lengths or a compressed string")]
pub enum Counts {
    /// Uncompressed.
    Plain(Vec<i64>),
    /// Six bits a character, differences to the run before last.
    Compressed(String),
}

/// Why a mask cannot be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// The runs do not fill the image exactly.
    #[error("the run lengths cover {found} pixels, but the mask has {wanted}")]
    Length {
        /// Pixels covered.
        found: usize,
        /// Pixels of the mask.
        wanted: usize,
    },
    /// A run of fewer pixels than none.
    #[error("run length {place} is {run}, but none is below 0")]
    Negative {
        /// From 1.
        place: usize,
        /// What it is.
        run: i64,
    },
    /// The text form is cut short or has a foreign character.
    #[error("the compressed run lengths are damaged at character {at}")]
    Text {
        /// From 0.
        at: usize,
    },
    /// The mask and the image differ in size.
    #[error("the mask is {found:?}, but the image is {wanted:?} (height, width)")]
    Size {
        /// Of the mask.
        found: [usize; 2],
        /// Of the image.
        wanted: [usize; 2],
    },
    /// A ring with an odd number of coordinates, or fewer than three points.
    #[error("a polygon has {count} numbers, but needs an even number of at least 6")]
    Polygon {
        /// Numbers found.
        count: usize,
    },
}

impl Segmentation {
    /// Adds the instance to a mask of the image's size.
    pub fn draw(&self, mask: &mut GrayImage) -> Result<(), MaskError> {
        match self {
            Self::Polygons(rings) => rings.iter().try_for_each(|ring| draw_ring(ring, mask)),
            Self::Runs { size, counts } => draw_runs(*size, counts, mask),
        }
    }
}

/// Sets the pixels of a ring, as COCO's own tools do, to the pixel.
///
/// They walk the outline on a grid five times as fine, note where it crosses the middle of a column
/// of pixels, and fill each column from crossing to crossing.
fn draw_ring(ring: &[f64], mask: &mut GrayImage) -> Result<(), MaskError> {
    if ring.len() < 6 || ring.len() % 2 == 1 || ring.iter().any(|v| !v.is_finite()) {
        return Err(MaskError::Polygon { count: ring.len() });
    }
    let (width, height) = (mask.width() as usize, mask.height() as usize);
    let mut crossings = crossings(&outline(ring), width, height);
    crossings.sort_unstable();
    crossings.push(width * height);
    for span in crossings.chunks_exact(2) {
        for pixel in span[0]..span[1] {
            mask.put_pixel((pixel / height) as u32, (pixel % height) as u32, Luma([255]));
        }
    }
    Ok(())
}

/// Steps of the outline's grid per pixel.
const FINE: f64 = 5.0;

/// The points of a closed ring on the fine grid, each next to the one before.
fn outline(ring: &[f64]) -> Vec<[i64; 2]> {
    // What is far outside of every image is as good as a bit outside.
    const FAR: f64 = 4e4;
    let corner = |xy: &[f64]| [0, 1].map(|axis| (FINE * xy[axis].clamp(-FAR, FAR) + 0.5) as i64);
    let corners: Vec<[i64; 2]> = ring.chunks(2).map(corner).collect();
    let mut points = Vec::new();
    for (from, to) in corners.iter().zip(corners.iter().cycle().skip(1)) {
        // The axis along which every step is one.
        let long = usize::from((to[0] - from[0]).abs() < (to[1] - from[1]).abs());
        let steps = (to[long] - from[long]).abs();
        // Lines are walked from their lower end, so that both directions round alike.
        let (low, high) = if from[long] > to[long] { (to, from) } else { (from, to) };
        let slope = (high[1 - long] - low[1 - long]) as f64 / steps as f64;
        for step in 0..=steps {
            let step = if from[long] > to[long] { steps - step } else { step };
            let mut point = [0; 2];
            point[long] = low[long] + step;
            let across = if steps == 0 { 0.0 } else { slope * step as f64 };
            point[1 - long] = (low[1 - long] as f64 + across + 0.5) as i64;
            points.push(point);
        }
    }
    points
}

/// Where the outline crosses the middles of columns, as places down the columns.
fn crossings(points: &[[i64; 2]], width: usize, height: usize) -> Vec<usize> {
    let middle = |fine: i64| (fine as f64 + 0.5) / FINE - 0.5;
    let mut found = Vec::new();
    for pair in points.windows(2) {
        let ([x0, y0], [x1, y1]) = (pair[0], pair[1]);
        let x = middle(if x1 < x0 { x1 } else { x1 - 1 });
        if x0 == x1 || x.fract() != 0.0 || x < 0.0 || x > (width - 1) as f64 {
            continue;
        }
        let y = middle(y0.min(y1)).clamp(0.0, height as f64).ceil();
        found.push(x as usize * height + y as usize);
    }
    found
}

fn draw_runs(size: [usize; 2], counts: &Counts, mask: &mut GrayImage) -> Result<(), MaskError> {
    let wanted = [mask.height() as usize, mask.width() as usize];
    if size != wanted {
        return Err(MaskError::Size { found: size, wanted });
    }
    let runs = match counts {
        Counts::Plain(runs) => lengths(runs)?,
        Counts::Compressed(text) => decompress(text)?,
    };
    let total = runs.iter().try_fold(0usize, |sum, run| sum.checked_add(*run));
    if total != Some(size[0] * size[1]) {
        return Err(MaskError::Length {
            found: total.unwrap_or(usize::MAX),
            wanted: size[0] * size[1],
        });
    }
    let mut at = 0;
    for (index, run) in runs.iter().enumerate() {
        if index % 2 == 1 {
            for pixel in at..at + run {
                mask.put_pixel((pixel / size[0]) as u32, (pixel % size[0]) as u32, Luma([255]));
            }
        }
        at += run;
    }
    Ok(())
}

/// Plain run lengths, none of which is negative.
fn lengths(runs: &[i64]) -> Result<Vec<usize>, MaskError> {
    let length = |(run, place): (&i64, usize)| {
        usize::try_from(*run).map_err(|_| MaskError::Negative { place, run: *run })
    };
    runs.iter().zip(1..).map(length).collect()
}

/// COCO's `rleFrString`: characters from `0` carry five bits and a continuation bit; from the third
/// run on, values are differences to the run two before.
fn decompress(text: &str) -> Result<Vec<usize>, MaskError> {
    let mut runs: Vec<i64> = Vec::new();
    let mut bytes = text.bytes().enumerate().peekable();
    while bytes.peek().is_some() {
        let (mut value, mut shift) = (0i64, 0);
        loop {
            let (at, byte) = bytes.next().ok_or(MaskError::Text { at: text.len() })?;
            let bits = i64::from(byte) - 48;
            if !(0..64).contains(&bits) || shift > 50 {
                return Err(MaskError::Text { at });
            }
            value |= (bits & 0x1f) << shift;
            shift += 5;
            if bits & 0x20 == 0 {
                if bits & 0x10 != 0 {
                    value |= -1 << shift;
                }
                break;
            }
        }
        let run = if runs.len() > 2 { value + runs[runs.len() - 2] } else { value };
        if run < 0 {
            return Err(MaskError::Text { at: text.len() });
        }
        runs.push(run);
    }
    Ok(runs.into_iter().map(|run| run as usize).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compress(runs: &[usize]) -> String {
        let mut text = String::new();
        for (index, run) in runs.iter().enumerate() {
            let mut value = *run as i64 - if index > 2 { runs[index - 2] as i64 } else { 0 };
            loop {
                let mut bits = value & 0x1f;
                value >>= 5;
                let more = if bits & 0x10 != 0 { value != -1 } else { value != 0 };
                if more {
                    bits |= 0x20;
                }
                text.push(char::from((bits + 48) as u8));
                if !more {
                    break;
                }
            }
        }
        text
    }

    proptest! {
        #[test]
        fn both_run_length_forms_agree(runs in proptest::collection::vec(0usize..5000, 1..40)) {
            prop_assert_eq!(decompress(&compress(&runs)).unwrap(), runs);
        }

        #[test]
        fn any_text_is_runs_or_an_error(text in ".{0,60}") {
            let _ = decompress(&text);
        }
    }

    #[test]
    fn runs_go_down_the_columns() {
        let mut mask = GrayImage::new(3, 2);
        let runs = Segmentation::Runs { size: [2, 3], counts: Counts::Plain(vec![1, 2, 3]) };
        runs.draw(&mut mask).unwrap();
        let set: Vec<_> =
            mask.enumerate_pixels().filter(|p| p.2.0[0] > 0).map(|p| (p.0, p.1)).collect();
        assert_eq!(set, [(1, 0), (0, 1)]);
    }

    #[test]
    fn a_negative_run_is_named() {
        let segmentation: Segmentation =
            serde_json::from_str(r#"{ "size": [2, 3], "counts": [4, -1, 3] }"#).unwrap();
        let error = segmentation.draw(&mut GrayImage::new(3, 2)).unwrap_err();
        insta::assert_snapshot!(error, @"run length 2 is -1, but none is below 0");
    }

    #[test]
    fn a_square_covers_its_area() {
        let mut mask = GrayImage::new(40, 40);
        let ring = vec![5.0, 5.0, 25.0, 5.0, 25.0, 25.0, 5.0, 25.0];
        Segmentation::Polygons(vec![ring]).draw(&mut mask).unwrap();
        let area = mask.pixels().filter(|p| p.0[0] > 0).count();
        assert_eq!(area, 400);
        assert_eq!((mask.get_pixel(5, 5).0, mask.get_pixel(25, 24).0), ([255], [0]));
    }

    #[test]
    fn a_polygon_and_its_runs_give_one_mask() {
        // A triangle over the edge of the image, and its columns counted by hand.
        let ring = vec![0.0, 0.0, 8.0, 4.0, 0.0, 4.0];
        let (mut polygon, mut runs) = (GrayImage::new(4, 4), GrayImage::new(4, 4));
        Segmentation::Polygons(vec![ring]).draw(&mut polygon).unwrap();
        let counts = Counts::Compressed(compress(&[0, 4, 1, 3, 1, 3, 2, 2]));
        Segmentation::Runs { size: [4, 4], counts }.draw(&mut runs).unwrap();
        assert_eq!(polygon, runs);
    }

    #[test]
    fn rings_far_outside_the_image_cost_nothing() {
        let mut mask = GrayImage::new(4, 4);
        let ring = vec![-1e12, -1e12, 1e12, -1e12, 1e12, 1e12, -1e12, 1e12];
        Segmentation::Polygons(vec![ring]).draw(&mut mask).unwrap();
        assert!(mask.pixels().all(|pixel| pixel.0[0] == 255));
    }

    #[test]
    fn runs_that_do_not_fill_the_mask_are_an_error() {
        let mut mask = GrayImage::new(3, 2);
        let runs = Segmentation::Runs { size: [2, 3], counts: Counts::Plain(vec![1, 2]) };
        assert_eq!(runs.draw(&mut mask), Err(MaskError::Length { found: 3, wanted: 6 }));
        let short = Segmentation::Polygons(vec![vec![1.0, 2.0, 3.0]]);
        assert_eq!(short.draw(&mut mask), Err(MaskError::Polygon { count: 3 }));
    }
}
