//! Classes read off a grid of symbols: docs/method.md, E.5.

use image::{RgbImage, imageops};
use serde_json::{Value, json};

use super::{Case, Metric, Rules, Score, means, percent, sum};
use crate::data::{DataError, Pair, SymbolGrid, tasks::symbols::symbol};

/// `accuracy` over cells, `recall` as the mean over classes, and `shift_accuracy`, with a constant
/// shift of colours taken out first. The confusion matrix is among the details.
pub struct SymbolsMetric;

impl Metric for SymbolsMetric {
    fn name(&self) -> &'static str {
        "symbols"
    }

    fn doc(&self) -> &'static str {
        "Accuracy and confusion of the classes in a grid, each cell as its nearest symbol."
    }

    fn tasks(&self) -> Option<&'static [&'static str]> {
        Some(&["symbols"])
    }

    fn names(&self) -> &'static [&'static str] {
        &["accuracy", "recall", "shift_accuracy"]
    }

    fn score(&self, case: &Case<'_>, _: &Rules) -> Result<Option<Score>, DataError> {
        let grid = case.pair.meta.symbols.as_ref().ok_or_else(|| {
            DataError::failed("the pair has no classes")
                .with_help("use a data set with `task = \"symbols\"`")
        })?;
        Ok(Some(score(case.prediction(), grid)))
    }

    fn summary(&self, scores: &[&Score]) -> Score {
        let mut values = means(scores);
        values.retain(|name, _| ["accuracy", "shift_accuracy"].contains(&name.as_str()));
        let matrix = confusion(scores);
        let shown: Vec<_> = (0..matrix.len())
            .map(|class| (matrix[class][class], matrix[class].iter().sum::<f64>()))
            .filter(|(_, asked)| *asked > 0.0)
            .map(|(right, asked)| percent(right, asked))
            .collect();
        values.insert("recall".to_owned(), shown.iter().sum::<f64>() / shown.len().max(1) as f64);
        values
    }

    fn revision(&self) -> u32 {
        // 1: cells that were never taken for a class count 0, no longer -0.0.
        1
    }

    fn details(&self, scores: &[&Score], pair: &Pair) -> Value {
        let classes = pair.meta.symbols.as_ref().map(|grid| &grid.classes);
        let matrix = confusion(scores);
        let rows = matrix.iter().map(|row| {
            let asked: f64 = row.iter().sum();
            row.iter().map(|n| percent(*n, asked)).collect::<Vec<_>>()
        });
        json!({
            "classes": classes,
            "confusion": matrix,
            "confusion_percent": rows.collect::<Vec<_>>(),
            "about": "rows are true classes, columns predicted ones",
        })
    }
}

/// The numbers of cells by true (row) and found class (column).
fn confusion(scores: &[&Score]) -> Vec<Vec<f64>> {
    let count =
        scores.iter().filter_map(|score| score.get("classes")).fold(0.0, |a: f64, b| a.max(*b));
    let count = count as usize;
    (0..count)
        .map(|row| (0..count).map(|column| sum(scores, &format!("cells:{row}:{column}"))).collect())
        .collect()
}

/// The scores of one grid.
pub fn score(prediction: &RgbImage, grid: &SymbolGrid) -> Score {
    let found = read(prediction, grid, [0.0; 3]);
    let right = |found: &[usize]| {
        let right = found.iter().zip(&grid.cells).filter(|(a, b)| a == b).count();
        percent(right as f64, grid.cells.len() as f64)
    };
    let shifted = read(prediction, grid, shift(prediction, grid, &found));
    let mut scores = super::score([
        ("accuracy", right(&found)),
        ("shift_accuracy", right(&shifted)),
        ("classes", grid.classes.len() as f64),
    ]);
    for (truth, found) in grid.cells.iter().zip(&found) {
        *scores.entry(format!("cells:{truth}:{found}")).or_default() += 1.0;
    }
    scores
}

/// The nearest symbol of each cell, once `shift` is added to its colours.
fn read(prediction: &RgbImage, grid: &SymbolGrid, shift: [f64; 3]) -> Vec<usize> {
    let side = prediction.width() / grid.side as u32;
    let symbols: Vec<_> = (0..grid.classes.len()).map(|class| symbol(class, side)).collect();
    (0..grid.side * grid.side)
        .map(|cell| {
            let patch = cell_of(prediction, grid.side, cell);
            let far = |class: &usize| -> f64 {
                let pixels = patch.pixels().zip(symbols[*class].pixels());
                pixels
                    .flat_map(|(a, b)| {
                        (0..3).map(move |c| f64::from(a.0[c]) + shift[c] - f64::from(b.0[c]))
                    })
                    .map(|d| d * d)
                    .sum()
            };
            (0..symbols.len()).min_by(|a, b| far(a).total_cmp(&far(b))).unwrap_or(0)
        })
        .collect()
}

/// The mean difference of the read symbols and the picture.
fn shift(prediction: &RgbImage, grid: &SymbolGrid, found: &[usize]) -> [f64; 3] {
    let side = prediction.width() / grid.side as u32;
    let mut sum = [0.0; 3];
    for (cell, class) in found.iter().enumerate() {
        let patch = cell_of(prediction, grid.side, cell);
        for (a, b) in patch.pixels().zip(symbol(*class, side).pixels()) {
            for ((sum, a), b) in sum.iter_mut().zip(a.0).zip(b.0) {
                *sum += f64::from(b) - f64::from(a);
            }
        }
    }
    let pixels = f64::from(side * side) * found.len().max(1) as f64;
    sum.map(|sum| sum / pixels)
}

fn cell_of(image: &RgbImage, cells: usize, cell: usize) -> RgbImage {
    let side = image.width() / cells as u32;
    let (x, y) = ((cell % cells) as u32 * side, (cell / cells) as u32 * side);
    imageops::crop_imm(image, x, y, side, side).to_image()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(cells: &[usize]) -> SymbolGrid {
        let classes = (0..7).map(|class| format!("class {class}")).collect();
        SymbolGrid { classes, cells: cells.to_vec(), ids: Vec::new(), side: 2 }
    }

    fn draw(cells: &[usize], lift: u8) -> RgbImage {
        let mut image = RgbImage::new(32, 32);
        for (cell, class) in cells.iter().enumerate() {
            let (x, y) = ((cell % 2) as i64 * 16, (cell / 2) as i64 * 16);
            imageops::replace(&mut image, &symbol(*class, 16), x, y);
        }
        image.pixels_mut().for_each(|pixel| pixel.0 = pixel.0.map(|v| v.saturating_add(lift)));
        image
    }

    #[test]
    fn drawn_symbols_are_read_back_and_mistakes_are_counted() {
        let right = score(&draw(&[0, 3, 5, 6], 40), &grid(&[0, 3, 5, 6]));
        let wrong = score(&draw(&[0, 2, 5, 6], 0), &grid(&[0, 3, 5, 6]));
        let scores = [&right, &wrong];
        let found = SymbolsMetric.summary(&scores);
        assert!((found["accuracy"] - 87.5).abs() < 1e-9, "{found:?}");
        assert!((found["recall"] - (100.0 + 50.0 + 100.0 + 100.0) / 4.0).abs() < 1e-9, "{found:?}");
        let matrix = confusion(&scores);
        assert!(matrix.iter().flatten().all(|count| count.is_sign_positive()));
        assert_eq!((matrix.len(), matrix[3][2] as u32, matrix[3][3] as u32), (7, 1, 1));
    }
}
