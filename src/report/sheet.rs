//! Contact sheets: images of different sizes in rows.

use image::{Rgb, RgbImage, imageops};

const BACKGROUND: Rgb<u8> = Rgb([40, 40, 40]);
const GAP: u32 = 4;

/// Rows of images, aligned in columns, on dark grey. Images smaller than `min_size` pixels on their
/// longer side are enlarged by a whole factor, so that each of their pixels stays a square.
pub fn contact_sheet(rows: &[Vec<RgbImage>], min_size: u32) -> RgbImage {
    let rows: Vec<Vec<RgbImage>> =
        rows.iter().map(|row| row.iter().map(|image| enlarge(image, min_size)).collect()).collect();
    let num_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<u32> = (0..num_columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(RgbImage::width).max())
        .map(Option::unwrap_or_default)
        .collect();
    let heights: Vec<u32> =
        rows.iter().map(|row| row.iter().map(RgbImage::height).max().unwrap_or(0)).collect();

    let total = |sizes: &[u32]| sizes.iter().map(|size| size + GAP).sum::<u32>() + GAP;
    let mut sheet = RgbImage::from_pixel(total(&widths), total(&heights), BACKGROUND);
    let mut top = GAP;
    for (row, height) in rows.iter().zip(&heights) {
        let mut left = GAP;
        for (image, width) in row.iter().zip(&widths) {
            imageops::replace(&mut sheet, image, i64::from(left), i64::from(top));
            left += width + GAP;
        }
        top += height + GAP;
    }
    sheet
}

/// Frames side by side.
pub fn strip(frames: &[RgbImage], min_size: u32) -> RgbImage {
    contact_sheet(&[frames.to_vec()], min_size)
}

/// Repeats pixels until the longer side has at least `min_size`.
pub fn enlarge(image: &RgbImage, min_size: u32) -> RgbImage {
    let longer = image.width().max(image.height()).max(1);
    match min_size.div_ceil(longer) {
        0 | 1 => image.clone(),
        factor => {
            let (width, height) = (image.width() * factor, image.height() * factor);
            imageops::resize(image, width, height, imageops::FilterType::Nearest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(width: u32, height: u32, value: u8) -> RgbImage {
        RgbImage::from_pixel(width, height, Rgb([value; 3]))
    }

    #[test]
    fn images_of_a_column_share_its_left_edge() {
        let rows = vec![vec![plain(8, 4, 1), plain(8, 6, 2)], vec![plain(2, 4, 3), plain(8, 4, 4)]];
        let sheet = contact_sheet(&rows, 0);
        assert_eq!(sheet.dimensions(), (8 + 8 + 3 * GAP, 6 + 4 + 3 * GAP));
        let second = GAP + 8 + GAP;
        assert_eq!(sheet.get_pixel(second, GAP), &Rgb([2; 3]));
        assert_eq!(sheet.get_pixel(second, GAP + 6 + GAP), &Rgb([4; 3]));
        assert_eq!(sheet.get_pixel(GAP + 2, GAP + 6 + GAP), &BACKGROUND);
    }

    #[test]
    fn small_images_grow_by_a_whole_factor() {
        assert_eq!(enlarge(&plain(64, 48, 9), 128).dimensions(), (128, 96));
        assert_eq!(enlarge(&plain(64, 48, 9), 100).dimensions(), (128, 96));
        assert_eq!(enlarge(&plain(720, 480, 9), 128).dimensions(), (720, 480));
    }

    #[test]
    fn an_empty_sheet_is_only_a_margin() {
        assert_eq!(contact_sheet(&[], 128).dimensions(), (GAP, GAP));
    }
}
