//! Exact match of ARC grids: spec E.3.

use image::{RgbImage, imageops};

use super::{Score, score as named};
use crate::data::arc::{ArcGrids, CANVAS, decode};

/// The names in [`score`], and that of tasks, of which all questions must be solved.
pub const NAMES: &[&str] = &["solved", "cells", "tasks_solved"];

/// `solved` (1 if any attempt is exact, in percent over images), and `cells`: the share of right
/// cells of the best attempt. The size of the answer is taken as known.
pub fn score(attempts: &[RgbImage], grids: &ArcGrids) -> Score {
    let mut best = 0.0f64;
    for attempt in attempts {
        let side = CANVAS as u32;
        let canvas = if attempt.dimensions() == (side, side) {
            attempt.clone()
        } else {
            imageops::resize(attempt, side, side, imageops::FilterType::Triangle)
        };
        let found = decode(&canvas, grids.output.size(), grids.cell);
        let [rows, columns] = grids.output.size();
        let right = found.values().zip(grids.output.values()).filter(|(a, b)| a == b).count();
        best = best.max(right as f64 / (rows * columns) as f64);
    }
    let solved = if best >= 1.0 { 100.0 } else { 0.0 };
    named([("solved", solved), ("cells", 100.0 * best)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::arc::{Grid, render};

    #[test]
    fn the_second_attempt_counts() {
        let grid = |v: u8| Grid::try_from(vec![vec![v, 1], vec![2, 3]]).unwrap();
        let grids = ArcGrids { task: "t".into(), input: grid(0), output: grid(4), cell: 60 };
        let (wrong, right) = (render(&grid(7), 60), render(&grid(4), 60));
        assert!((score(std::slice::from_ref(&wrong), &grids)["cells"] - 75.0).abs() < 1e-9);
        assert!((score(&[wrong, right], &grids)["solved"] - 100.0).abs() < 1e-9);
    }
}
