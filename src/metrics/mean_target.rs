//! What an answer is worth that never looks at its question: the mean of the targets that were
//! learnt from.

use image::RgbImage;

use crate::data::{DataError, Depth, Pair, tasks::depth::is_known};

/// The mean of targets, pixel by pixel, and of the logarithms of their distances. Where a distance
/// is not known, a target has no colour either.
#[derive(Debug, Default)]
pub struct MeanTarget {
    /// Width and height.
    size: (u32, u32),
    count: f64,
    sums: Vec<f64>,
    /// How many targets have a colour at a pixel.
    colors: Vec<f64>,
    /// By pixel the sum of the logarithms, and how many there are.
    logs: Vec<(f64, f64)>,
}

impl MeanTarget {
    /// Takes the target of one more pair into the mean; all must have one size.
    pub fn add(&mut self, pair: &Pair) -> Result<(), DataError> {
        let target = &pair.target;
        if self.count == 0.0 {
            self.size = target.dimensions();
            self.sums = vec![0.0; target.as_raw().len()];
            self.colors = vec![0.0; self.sums.len() / 3];
            self.logs = vec![(0.0, 0.0); self.sums.len() / 3];
        }
        self.check_size(target)?;
        self.count += 1.0;
        let pixels = self.sums.chunks_exact_mut(3).zip(&mut self.colors).zip(target.pixels());
        for ((sums, count), color) in
            pixels.zip(pair.known()).filter(|(_, known)| *known).map(|(pixel, _)| pixel)
        {
            *count += 1.0;
            for (sum, value) in sums.iter_mut().zip(color.0) {
                *sum += f64::from(value);
            }
        }
        for ((sum, count), metres) in
            self.logs.iter_mut().zip(pair.depth.iter().flat_map(|depth| depth.iter()))
        {
            if is_known(*metres) {
                *sum += f64::from(*metres).ln();
                *count += 1.0;
            }
        }
        Ok(())
    }

    /// The sum of squared differences from a target where that has a colour, over values in [0, 1].
    pub fn squares(&self, pair: &Pair) -> Result<f64, DataError> {
        self.check_size(&pair.target)?;
        let overall = self.mean_color();
        let pixels = self.sums.chunks_exact(3).zip(&self.colors).zip(pair.target.pixels());
        let pixels = pixels.zip(pair.known()).filter(|(_, known)| *known);
        let differences = pixels.flat_map(|(((sums, count), color), _)| {
            [0, 1, 2].map(|channel| {
                let mean = if *count > 0.0 { sums[channel] / count } else { overall[channel] };
                (mean - f64::from(color.0[channel])) / 255.0
            })
        });
        Ok(differences.map(|d| d * d).sum())
    }

    /// The mean of all colours, for pixels that have one in no target.
    fn mean_color(&self) -> [f64; 3] {
        let count: f64 = self.colors.iter().sum();
        [0, 1, 2].map(|channel| {
            let sum: f64 = self.sums.iter().skip(channel).step_by(3).sum();
            sum / count.max(1.0)
        })
    }

    /// The distance at each pixel, in metres: where none was known, the mean of all; `None` if
    /// there are none at all.
    pub fn depth(&self) -> Option<Depth> {
        let (sum, count) =
            self.logs.iter().fold((0.0, 0.0), |all, one| (all.0 + one.0, all.1 + one.1));
        if count == 0.0 {
            return None;
        }
        let at = |(log, known): &(f64, f64)| {
            let mean = if *known > 0.0 { log / known } else { sum / count };
            mean.exp() as f32
        };
        Depth::from_raw(self.size.0, self.size.1, self.logs.iter().map(at).collect())
    }

    /// Refuses a target of another size.
    pub fn check_size(&self, target: &RgbImage) -> Result<(), DataError> {
        let ((width, height), found) = (self.size, target.dimensions());
        if found == self.size {
            return Ok(());
        }
        Err(DataError::failed(format!(
            "the target is {}x{}, but the examples' targets are {width}x{height}",
            found.0, found.1
        ))
        .with_help("draw the pairs of `pairs` and `examples` at one `size`"))
    }
}

#[cfg(test)]
mod tests {
    use image::{Luma, Rgb};

    use super::*;

    fn pair(value: u8, metres: [f32; 2]) -> Pair {
        let target = RgbImage::from_fn(2, 1, |x, _| Rgb([if x == 0 { value } else { 10 }; 3]));
        let depth = Depth::from_fn(2, 1, |x, _| Luma([metres[x as usize]]));
        Pair { target, depth: Some(depth), ..Pair::default() }
    }

    #[test]
    fn the_mean_of_two_is_between_them() {
        let mut mean = MeanTarget::default();
        mean.add(&pair(0, [1.0, 0.0])).unwrap();
        mean.add(&pair(102, [4.0, 0.0])).unwrap();
        let squares = |colors: [u8; 2], metres| {
            let target = RgbImage::from_fn(2, 1, |x, _| Rgb([colors[x as usize]; 3]));
            mean.squares(&Pair { target, ..pair(0, metres) }).unwrap()
        };
        // Only the first pixel of the targets has a distance, and so a colour.
        assert!(squares([51, 99], [1.0, 0.0]) < 1e-12);
        assert!((squares([0, 99], [1.0, 0.0]) - 3.0 * 0.04).abs() < 1e-9);
        // What has none anywhere is of the mean colour.
        assert!((squares([0, 51], [1.0, 1.0]) - 3.0 * 0.04).abs() < 1e-9);
        // What is not known anywhere is as far as the rest is on average.
        let depth = mean.depth().unwrap();
        assert!(depth.iter().all(|metres| (metres - 2.0).abs() < 1e-6), "{depth:?}");
        let other = Pair { target: RgbImage::new(2, 2), ..Pair::default() };
        let error = mean.squares(&other).unwrap_err();
        insta::assert_snapshot!(error, @"the target is 2x2, but the examples' targets are 2x1");
        let mut blind = MeanTarget::default();
        blind.add(&pair(0, [0.0, f32::NAN])).unwrap();
        assert!(blind.depth().is_none());
    }
}
