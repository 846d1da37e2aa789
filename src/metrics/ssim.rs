//! The structural similarity of two images, as `skimage.metrics.structural_similarity`.
//!
//! A uniform window of 7 pixels, sample variances, the mean over the windows that lie wholly within
//! the image, and then over the channels. The crates that offer it use other windows, and so give
//! other numbers than the ones in papers.

use image::RgbImage;

/// Pixels on a side of the window.
const WINDOW: usize = 7;

/// The similarity over the windows of which all pixels are `known`, at most 1; `None` without such
/// a window, as for smaller images.
pub fn ssim_where(a: &RgbImage, b: &RgbImage, known: &[bool]) -> Option<f64> {
    let (width, height) = (a.width() as usize, a.height() as usize);
    if width < WINDOW || height < WINDOW {
        return None;
    }
    let holes: Vec<f64> = known.iter().map(|known| if *known { 0.0 } else { 1.0 }).collect();
    let holes = window_sums(&holes, width, height);
    let windows: Vec<usize> = (0..holes.len()).filter(|i| holes[*i] < 0.5).collect();
    if windows.is_empty() {
        return None;
    }
    let channel = |image: &RgbImage, channel: usize| -> Vec<f64> {
        image.pixels().map(|pixel| f64::from(pixel.0[channel])).collect()
    };
    let of_channel = |c| similarity(&channel(a, c), &channel(b, c), [width, height], &windows);
    Some((0..3).map(of_channel).sum::<f64>() / 3.0)
}

fn similarity(a: &[f64], b: &[f64], [width, height]: [usize; 2], windows: &[usize]) -> f64 {
    const C1: f64 = (0.01 * 255.0) * (0.01 * 255.0);
    const C2: f64 = (0.03 * 255.0) * (0.03 * 255.0);
    let count = (WINDOW * WINDOW) as f64;
    let mean = |value: &dyn Fn(usize) -> f64| -> Vec<f64> {
        let values: Vec<f64> = (0..a.len()).map(value).collect();
        window_sums(&values, width, height).into_iter().map(|sum| sum / count).collect()
    };
    let (ma, mb) = (mean(&|i| a[i]), mean(&|i| b[i]));
    let (aa, bb, ab) = (mean(&|i| a[i] * a[i]), mean(&|i| b[i] * b[i]), mean(&|i| a[i] * b[i]));
    let sample = count / (count - 1.0);
    let total: f64 = windows
        .iter()
        .map(|&i| {
            let (va, vb) = (sample * (aa[i] - ma[i] * ma[i]), sample * (bb[i] - mb[i] * mb[i]));
            let cov = sample * (ab[i] - ma[i] * mb[i]);
            (2.0 * ma[i] * mb[i] + C1) * (2.0 * cov + C2)
                / ((ma[i] * ma[i] + mb[i] * mb[i] + C1) * (va + vb + C2))
        })
        .sum();
    total / windows.len() as f64
}

/// The sum over each window that lies wholly within the image.
fn window_sums(values: &[f64], width: usize, height: usize) -> Vec<f64> {
    // Sums of everything above and to the left. Products of bytes stay exact in an f64.
    let mut sums = vec![0.0; (width + 1) * (height + 1)];
    for y in 0..height {
        let mut row = 0.0;
        for x in 0..width {
            row += values[y * width + x];
            sums[(y + 1) * (width + 1) + x + 1] = sums[y * (width + 1) + x + 1] + row;
        }
    }
    let at = |x: usize, y: usize| sums[y * (width + 1) + x];
    (0..=height - WINDOW)
        .flat_map(|y| (0..=width - WINDOW).map(move |x| (x, y)))
        .map(|(x, y)| at(x + WINDOW, y + WINDOW) - at(x, y + WINDOW) - at(x + WINDOW, y) + at(x, y))
        .collect()
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn ssim(a: &RgbImage, b: &RgbImage) -> Option<f64> {
        ssim_where(a, b, &vec![true; a.pixels().len()])
    }

    #[test]
    fn an_image_is_like_itself_and_unlike_its_negative() {
        let image = RgbImage::from_fn(20, 16, |x, y| {
            Rgb([(x * 12) as u8, (y * 15) as u8, ((x * y) % 256) as u8])
        });
        let negative =
            RgbImage::from_fn(20, 16, |x, y| Rgb(image.get_pixel(x, y).0.map(|v| 255 - v)));
        assert!((ssim(&image, &image).unwrap() - 1.0).abs() < 1e-12);
        assert!(ssim(&image, &negative).unwrap() < 0.3);
        assert!(ssim(&RgbImage::new(6, 9), &RgbImage::new(6, 9)).is_none());
    }
}
