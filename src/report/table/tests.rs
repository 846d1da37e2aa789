use serde_json::{Value, json};

use super::*;
use crate::config::{Reference, Sweep, Table};

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

fn table() -> Table {
    Table {
        name: "pose".to_owned(),
        title: Some("Human pose".to_owned()),
        values: vec![("score".to_owned(), "f1".to_owned()), ("score".to_owned(), "match_rate".to_owned())],
        columns: Some("n".to_owned()),
        rows: vec!["interpolation".to_owned(), "rank".to_owned()],
        average: Some("subset".to_owned()),
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
            Score { stage: "score".to_owned(), cell, values: Ok(values.into()) }
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

#[test]
fn text_shows_groups_spread_marks_and_notes() {
    insta::assert_snapshot!(render(&[built()], Format::Text), @"");
}

#[test]
fn markdown_marks_best_bold_and_second_underlined() {
    insta::assert_snapshot!(render(&[built()], Format::Markdown), @"");
}

#[test]
fn latex_uses_booktabs_and_escapes_names() {
    insta::assert_snapshot!(render(&[built()], Format::Latex), @"");
}

#[test]
fn csv_has_one_line_per_cell() {
    insta::assert_snapshot!(render(&[built()], Format::Csv), @"");
}

#[test]
fn json_carries_a_schema_version() {
    let mut small = built();
    small.blocks.truncate(1);
    small.blocks[0].rows.truncate(1);
    insta::assert_snapshot!(render(&[small], Format::Json), @"");
}

#[test]
fn spread_is_the_sample_standard_deviation() {
    let stat = Stat::of(&[1.0, 3.0]).unwrap();
    assert!((stat.mean - 2.0).abs() < 1e-12);
    assert!((stat.sd.unwrap() - 2.0_f64.sqrt()).abs() < 1e-12);
    assert_eq!(Stat::of(&[1.0]).unwrap().sd, None);
    assert_eq!(Stat::of(&[]), None);
}

#[test]
fn smaller_errors_win() {
    let mut table = table();
    table.values = vec![("score".to_owned(), "rmse".to_owned())];
    table.reference = None;
    let scores: Vec<_> = scores()
        .into_iter()
        .map(|mut score| {
            score.values = score.values.map(|v| [("rmse".to_owned(), v["f1"])].into());
            score
        })
        .collect();
    let built = build(&table, &sweep(), &scores, None);
    let rank_16 = built.blocks[0].rows.iter().find(|row| row.labels == ["16"]).unwrap();
    assert_eq!(rank_16.entries[0].mark, Some(Mark::Best));
}

#[test]
fn a_pipeline_without_sweep_gives_one_cell() {
    let mut table = table();
    (table.rows, table.columns, table.average, table.reference) = (Vec::new(), None, None, None);
    let values = Ok([("f1".to_owned(), 0.5), ("match_rate".to_owned(), 0.25)].into());
    let scores = [Score { stage: "score".to_owned(), cell: Cell::new(), values }];
    insta::assert_snapshot!(
        render(&[build(&table, &Sweep::default(), &scores, None)], Format::Text), @"");
}

#[test]
fn a_grid_axis_the_table_leaves_out_labels_rows() {
    let mut table = table();
    table.average = None;
    table.values.truncate(1);
    let built = build(&table, &sweep(), &scores(), None);
    assert_eq!(built.row_axes, ["subset", "value"]);
    assert_eq!(built.blocks[0].rows.len(), 8);
    assert_eq!(built.notes, ["not run", "failed", "excluded from the sweep"]);
}

#[test]
fn a_table_with_nothing_computed_has_no_values() {
    let scores: Vec<_> = scores()
        .into_iter()
        .map(|score| Score { values: Err("not run".to_owned()), ..score })
        .collect();
    let built = build(&table(), &sweep(), &scores, None);
    assert!(!built.has_values());
    assert_eq!(built.notes, ["not run"]);
}
