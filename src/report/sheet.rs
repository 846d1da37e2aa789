//! Contact sheets: images of different sizes in rows.

use image::{Rgb, RgbImage, imageops};

const BACKGROUND: Rgb<u8> = Rgb([40, 40, 40]);
const GAP: u32 = 4;

/// Rows of images, aligned in columns, on dark grey.
pub fn contact_sheet(rows: &[Vec<RgbImage>]) -> RgbImage {
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

/// Items of a few images each, such as input, target and prediction, in rows of `per_row` items.
/// Small images are enlarged to `min_size`.
pub fn item_sheet(items: &[Vec<RgbImage>], per_row: usize, min_size: u32) -> RgbImage {
    let rows: Vec<Vec<RgbImage>> = items
        .chunks(per_row.max(1))
        .map(|row| {
            let mut images = Vec::new();
            for item in row {
                if !images.is_empty() {
                    images.push(RgbImage::from_pixel(GAP, 1, BACKGROUND));
                }
                images.extend(item.iter().map(|image| enlarge(image, min_size)));
            }
            images
        })
        .collect();
    contact_sheet(&rows)
}

/// Frames side by side.
pub fn strip(frames: &[RgbImage], min_size: u32) -> RgbImage {
    contact_sheet(&[frames.iter().map(|frame| enlarge(frame, min_size)).collect()])
}

/// Repeats pixels by a whole factor, so that each stays a square, until the longer side has at
/// least `min_size`.
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
        let sheet = contact_sheet(&rows);
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
    fn items_wrap_into_rows_with_a_gap_between() {
        let items = vec![vec![plain(8, 8, 1), plain(8, 8, 2)]; 3];
        let sheet = item_sheet(&items, 2, 8);
        let (four, gaps) = (4 * 8, 6 * GAP + GAP);
        assert_eq!(sheet.dimensions(), (four + gaps, 2 * 8 + 3 * GAP));
    }

    #[test]
    fn an_empty_sheet_is_only_a_margin() {
        assert_eq!(contact_sheet(&[]).dimensions(), (GAP, GAP));
    }
}
