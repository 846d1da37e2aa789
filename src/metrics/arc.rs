//! Exact match of ARC grids: spec E.3 and E.4.

use image::{RgbImage, imageops};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Case, Metric, Rules, Score, means, score as named};
use crate::data::{
    DataError,
    arc::{ArcGrids, CANVAS, decode},
};

/// How many examples must be right for a checkpoint to be the first attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExamplesRight {
    /// Every one.
    #[default]
    All,
    /// At least one.
    Any,
}

/// `solved`, `cells`, and the lenient curve of Fig. 8: the share of questions whose best attempt
/// has at least so many percent of its cells right.
pub struct ArcMetric;

/// The points of the lenient curve.
const LENIENT: [(&str, f64); 7] = [
    ("lenient_50", 50.0),
    ("lenient_60", 60.0),
    ("lenient_70", 70.0),
    ("lenient_80", 80.0),
    ("lenient_90", 90.0),
    ("lenient_95", 95.0),
    ("lenient_99", 99.0),
];

impl Metric for ArcMetric {
    fn name(&self) -> &'static str {
        "arc"
    }

    fn doc(&self) -> &'static str {
        "Exact match of ARC grids in up to three attempts, right cells, and the lenient curve."
    }

    fn tasks(&self) -> Option<&'static [&'static str]> {
        Some(&["arc"])
    }

    fn names(&self) -> &'static [&'static str] {
        &[
            "solved",
            "cells",
            "tasks_solved",
            "lenient_50",
            "lenient_60",
            "lenient_70",
            "lenient_80",
            "lenient_90",
            "lenient_95",
            "lenient_99",
        ]
    }

    fn params(&self) -> &'static [&'static str] {
        &["attempts", "examples_right"]
    }

    fn attempts(&self) -> usize {
        3
    }

    fn score(&self, case: &Case<'_>, _: &Rules) -> Result<Option<Score>, DataError> {
        let grids = case.pair.meta.arc.as_ref().ok_or_else(|| {
            DataError::failed("the pair has no ARC grid")
                .with_help("use a data set with `source = \"arc\"`")
        })?;
        Ok(Some(score(case.attempts, grids)))
    }

    fn summary(&self, scores: &[&Score]) -> Score {
        let mut values = means(scores);
        for (name, least) in LENIENT {
            let reached = scores.iter().filter(|score| score["cells"] >= least).count();
            values.insert(name.to_owned(), 100.0 * reached as f64 / scores.len() as f64);
        }
        values
    }
}

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

    #[test]
    fn the_lenient_curve_falls() {
        let scores = [55.0, 92.0, 100.0].map(|cells| named([("cells", cells), ("solved", 0.0)]));
        let found = ArcMetric.summary(&scores.iter().collect::<Vec<_>>());
        let third = |name: &str| (found[name] * 3.0 / 100.0).round() as u32;
        let curve: Vec<_> = LENIENT.iter().map(|(name, _)| third(name)).collect();
        assert_eq!(curve, [3, 2, 2, 2, 2, 1, 1]);
    }
}
