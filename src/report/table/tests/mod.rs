use serde_json::{Value, json};

use super::*;
use crate::config::{Reference, Spread, Sweep, Table};

mod entries;
mod formats;
mod intervals;

fn cell(value: &Value) -> Cell {
    value.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn axis(name: &str, values: &Value) -> (String, Vec<Value>) {
    (name.to_owned(), values.as_array().unwrap().clone())
}

/// Two one-at-a-time axes around (quadratic, 64), n and subset as grid, n = 30 on one subset only.
fn sweep() -> Sweep {
    let mut cells = Vec::new();
    for (interpolation, rank) in [("quadratic", 64), ("linear", 64), ("quadratic", 16)] {
        for (n, subset) in [(1, 0), (1, 1), (30, 0)] {
            cells.push(cell(&json!({
                "interpolation": interpolation, "rank": rank, "n": n, "subset": subset
            })));
        }
    }
    Sweep {
        baseline: cell(&json!({ "interpolation": "quadratic", "rank": 64 })),
        one_at_a_time: vec![
            axis("interpolation", &json!(["linear", "quadratic"])),
            axis("rank", &json!([16, 64])),
        ],
        grid: vec![axis("n", &json!([1, 30])), axis("subset", &json!([0, 1]))],
        cells,
    }
}

/// What the stage `score` gave in a cell.
fn score(cell: Cell, values: BTreeMap<String, f64>) -> Score {
    Score {
        stage: "score".to_owned(),
        cell,
        values: Ok(values),
        intervals: BTreeMap::new(),
        images: None,
        remarks: BTreeMap::new(),
    }
}

fn table() -> Table {
    Table {
        name: "pose".to_owned(),
        title: Some("Human pose".to_owned()),
        values: vec![
            ("score".to_owned(), "f1".to_owned()),
            ("score".to_owned(), "match_rate".to_owned()),
        ],
        columns: Some("n".to_owned()),
        rows: vec!["interpolation".to_owned(), "rank".to_owned()],
        average: vec!["subset".to_owned()],
        spread: Spread::Sd,
        mark_best: true,
        missing: None,
        reference: Some(Reference { source: "Table 1".to_owned(), values: "table1.csv".into() }),
    }
}

fn scores() -> Vec<Score> {
    let f1 = |cell: &Cell| {
        let base = if cell["n"] == json!(30) { 0.4 } else { 0.2 };
        let linear = if cell["interpolation"] == json!("linear") { 0.05 } else { 0.0 };
        let small = if cell["rank"] == json!(16) { 0.1 } else { 0.0 };
        base - linear - small + 0.02 * cell["subset"].as_f64().unwrap()
    };
    let mut scores: Vec<_> = sweep()
        .cells
        .into_iter()
        .map(|cell| {
            let values = [("f1".to_owned(), f1(&cell)), ("match_rate".to_owned(), 2.0 * f1(&cell))];
            score(cell, values.into())
        })
        .collect();
    // linear: n = 1 lacks one subset; n = 30 failed.
    scores[4].values = Err("not run".to_owned());
    scores[5].values = Err("failed".to_owned());
    scores
}

fn reference() -> ReferenceNumbers {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table1.csv");
    let text = "interpolation,rank,n,metric,value\n\
                quadratic,64,30,match_rate,58.8\n\
                linear,,1,match_rate,41.0\n\
                quadratic,64,1,,19.5\n";
    std::fs::write(&path, text).unwrap();
    ReferenceNumbers::read(&path).unwrap()
}

fn built() -> ResultTable {
    build(&table(), &sweep(), &scores(), Some(&reference()))
}
