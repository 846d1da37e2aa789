//! Exact match of ARC grids: docs/method.md, E.3 and E.4.

use std::collections::BTreeMap;

use image::{RgbImage, imageops};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Case, Metric, Rules, Score, means, score as named};
use crate::data::{
    DataError,
    arc::{ArcGrids, CANVAS, SHIFT_PASSES, decode_in},
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

/// The open choices of the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ArcRule {
    /// How often a constant shift of colours is taken out of an answer before it is read; 0 never.
    #[schemars(range(max = 100))]
    pub shift_passes: usize,
    /// The checkpoint of the first attempt.
    pub start: Start,
    /// Whether, where fewer checkpoints than attempts are left, those before the first one fill up.
    pub fill: bool,
    /// Whether all questions of a solved task must be solved by one attempt.
    pub task: TaskRule,
}

impl Default for ArcRule {
    fn default() -> Self {
        Self {
            shift_passes: SHIFT_PASSES,
            start: Start::default(),
            fill: false,
            task: TaskRule::default(),
        }
    }
}

/// The checkpoint of the first attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// The first that is right on the examples.
    #[default]
    First,
    /// The one after it, if there is one.
    After,
}

/// When a task of several questions is solved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskRule {
    /// Each question is solved by some attempt.
    #[default]
    EachQuestion,
    /// One attempt solves all questions.
    SameAttempt,
}

impl TaskRule {
    /// Whether a task is solved, from the [`EXACT`] of its questions.
    pub fn is_solved(self, exact: &[f64]) -> bool {
        let mut masks = exact.iter().map(|mask| *mask as u32);
        match self {
            Self::EachQuestion => masks.all(|mask| mask != 0),
            Self::SameAttempt => masks.fold(u32::MAX, |all, mask| all & mask) != 0,
        }
    }
}

/// The per-image value that says which attempts are exact: the sum of 1, 2, 4 for the first three.
pub const EXACT: &str = "exact_attempts";

/// `solved` and `cells` of questions; of tasks [`TASKS_SOLVED`] and the lenient curve of Fig. 8:
/// the share of tasks to each of whose questions the best attempt has at least so many percent of
/// its cells right.
pub struct ArcMetric;

/// The share of tasks that are solved.
pub const TASKS_SOLVED: &str = "tasks_solved";

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
            TASKS_SOLVED,
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
        &["arc", "attempts", "examples_right"]
    }

    fn settings(&self, rules: &Rules) -> Vec<(&'static str, Value)> {
        let right = rules.examples_right.unwrap_or_default();
        vec![("arc", json!(rules.arc)), ("examples_right", json!(right))]
    }

    fn attempts(&self) -> usize {
        3
    }

    fn score(&self, case: &Case<'_>, rules: &Rules) -> Result<Option<Score>, DataError> {
        let grids = case.pair.meta.arc.as_ref().ok_or_else(|| {
            DataError::failed("the pair has no ARC grid")
                .with_help("use a data set with `source = \"arc\"`")
        })?;
        Ok(Some(score(case.attempts, grids, rules.arc)))
    }

    fn summary(&self, scores: &[&Score]) -> Score {
        let mut values = means(scores);
        values.remove(EXACT);
        values
    }

    fn revision(&self) -> u32 {
        // 1: the lenient curve counts tasks, no longer questions.
        1
    }
}

/// The scores that are of tasks: by name one value for each task, from those of its questions.
pub fn of_tasks(tasks: &[Vec<&Score>], rule: TaskRule) -> BTreeMap<&'static str, Vec<f64>> {
    let share = |reached: &dyn Fn(&[&Score]) -> bool| {
        tasks.iter().map(|task| if reached(task) { 100.0 } else { 0.0 }).collect()
    };
    let solved = |task: &[&Score]| {
        rule.is_solved(&task.iter().map(|question| question[EXACT]).collect::<Vec<_>>())
    };
    let lenient = LENIENT.map(|(name, least)| {
        (name, share(&|task| task.iter().all(|question| question["cells"] >= least)))
    });
    [(TASKS_SOLVED, share(&solved))].into_iter().chain(lenient).collect()
}

/// `solved` (100 if any attempt is exact), `cells`: the percent of right cells of the best attempt,
/// and [`EXACT`]. The size of the answer is taken as known.
pub fn score(attempts: &[RgbImage], grids: &ArcGrids, rule: ArcRule) -> Score {
    let mut best = 0.0f64;
    let mut exact = 0u32;
    for (place, attempt) in attempts.iter().enumerate() {
        let side = CANVAS as u32;
        let canvas = if attempt.dimensions() == (side, side) {
            attempt.clone()
        } else {
            imageops::resize(attempt, side, side, imageops::FilterType::Triangle)
        };
        let found = decode_in(&canvas, grids.output.size(), grids.cell, rule.shift_passes);
        let [rows, columns] = grids.output.size();
        let right = found.values().zip(grids.output.values()).filter(|(a, b)| a == b).count();
        exact |= u32::from(right == rows * columns) << place;
        best = best.max(right as f64 / (rows * columns) as f64);
    }
    let solved = if exact != 0 { 100.0 } else { 0.0 };
    named([("solved", solved), ("cells", 100.0 * best), (EXACT, exact.into())])
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
        let rule = ArcRule::default();
        assert!((score(std::slice::from_ref(&wrong), &grids, rule)["cells"] - 75.0).abs() < 1e-9);
        let both = score(&[wrong, right], &grids, rule);
        assert!((both["solved"] - 100.0).abs() < 1e-9 && (both[EXACT] - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_shift_of_colours_is_taken_out_unless_it_is_not_to_be() {
        let grid = Grid::try_from(vec![vec![0, 1], vec![2, 3]]).unwrap();
        let grids =
            ArcGrids { task: "t".into(), input: grid.clone(), output: grid.clone(), cell: 60 };
        let mut answer = render(&grid, 60);
        answer.pixels_mut().for_each(|p| p.0 = p.0.map(|v| v.saturating_sub(50)));
        let solved = |shift_passes| {
            let rule = ArcRule { shift_passes, ..ArcRule::default() };
            score(std::slice::from_ref(&answer), &grids, rule)["solved"] > 0.0
        };
        assert!(solved(3) && !solved(0));
    }

    #[test]
    fn one_attempt_or_each_its_own_solves_a_task() {
        for (exact, each, same) in [
            ([1.0, 1.0], true, true),
            ([1.0, 2.0], true, false),
            ([3.0, 2.0], true, true),
            ([1.0, 0.0], false, false),
        ] {
            assert_eq!(TaskRule::EachQuestion.is_solved(&exact), each, "{exact:?}");
            assert_eq!(TaskRule::SameAttempt.is_solved(&exact), same, "{exact:?}");
        }
    }

    #[test]
    fn the_lenient_curve_counts_tasks_all_of_whose_questions_reach_it() {
        let [half, most, all] = [(55.0, 0.0), (92.0, 0.0), (100.0, 1.0)]
            .map(|(cells, exact)| named([("cells", cells), (EXACT, exact)]));
        let tasks = [vec![&half], vec![&most, &all], vec![&all], vec![&all, &half]];
        let found = of_tasks(&tasks, TaskRule::EachQuestion);
        assert_eq!(found[TASKS_SOLVED], [0.0, 0.0, 100.0, 0.0]);
        let reached = |name: &str| found[name].iter().filter(|value| **value > 0.0).count();
        assert_eq!(LENIENT.map(|(name, _)| reached(name)), [4, 2, 2, 2, 2, 1, 1]);
        // What is of questions stays so.
        let questions: Vec<_> = tasks.concat();
        let values = ArcMetric.summary(&questions);
        assert_eq!(values.keys().collect::<Vec<_>>(), ["cells"]);
        assert!((values["cells"] - 502.0 / 6.0).abs() < 1e-9);
    }
}
