use serde_json::{Value, json};

use super::*;
use crate::config::{Reference, Spread, Sweep, Table};

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
    Score { stage: "score".to_owned(), cell, values: Ok(values), intervals: BTreeMap::new() }
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

#[test]
fn text_shows_groups_spread_marks_and_notes() {
    insta::assert_snapshot!(render(&[built()], Format::Text), @"
    Human pose
    score.f1
    ────────────────────────────────────────────────────────────
     varied          value                       n = 1   n = 30
    ────────────────────────────────────────────────────────────
     interpolation   linear                 0.150° (a)    – (b)
                     quadratic   0.210 ± 0.014* [19.5]   0.400*
     rank            16                  0.110 ± 0.014   0.300°
                     64          0.210 ± 0.014* [19.5]   0.400*
    ────────────────────────────────────────────────────────────

    score.match_rate
    ───────────────────────────────────────────────────────────────
     varied          value                   n = 1          n = 30
    ───────────────────────────────────────────────────────────────
     interpolation   linear      0.300° (a) [41.0]           – (b)
                     quadratic      0.420 ± 0.028*   0.800* [58.8]
     rank            16              0.220 ± 0.028          0.600°
                     64             0.420 ± 0.028*   0.800* [58.8]
    ───────────────────────────────────────────────────────────────
    mean ± sd over subset; * best, ° second of the column; [ ] Table 1
    (a) 1 of 2 scores, others: not run
    (b) failed
    ");
}

#[test]
fn a_baseline_that_is_in_no_list_has_rows_of_its_own() {
    let mut sweep = sweep();
    sweep.one_at_a_time =
        vec![axis("interpolation", &json!(["linear"])), axis("rank", &json!([16]))];
    let table = Table { values: vec![("score".to_owned(), "f1".to_owned())], ..table() };
    let built = build(&table, &sweep, &scores(), Some(&reference()));
    insta::assert_snapshot!(render(std::slice::from_ref(&built), Format::Text), @"
    Human pose
    score.f1
    ───────────────────────────────────────────────────────────────────────────────────
     varied          value                                              n = 1   n = 30
    ───────────────────────────────────────────────────────────────────────────────────
     baseline        interpolation=quadratic, rank=64   0.210 ± 0.014* [19.5]   0.400*
     interpolation   linear                                        0.150° (a)    – (b)
     rank            16                                         0.110 ± 0.014   0.300°
    ───────────────────────────────────────────────────────────────────────────────────
    mean ± sd over subset; * best, ° second of the column; [ ] Table 1
    (a) 1 of 2 scores, others: not run
    (b) failed
    ");
    assert_eq!(built.row_label(&built.blocks[0].rows[0]), ["interpolation=quadratic, rank=64"]);
    assert_eq!(built.row_label(&built.blocks[0].rows[1]), ["interpolation=linear"]);
}

#[test]
fn markdown_marks_best_bold_and_second_underlined() {
    insta::assert_snapshot!(render(&[built()], Format::Markdown), @"
    **Human pose**

    `score.f1`

    | varied | value | n = 1 | n = 30 |
    | --- | --- | ---: | ---: |
    | interpolation | linear | <u>0.150</u> (a) | – (b) |
    |  | quadratic | **0.210 ± 0.014** [19.5] | **0.400** |
    | rank | 16 | 0.110 ± 0.014 | <u>0.300</u> |
    |  | 64 | **0.210 ± 0.014** [19.5] | **0.400** |

    `score.match_rate`

    | varied | value | n = 1 | n = 30 |
    | --- | --- | ---: | ---: |
    | interpolation | linear | <u>0.300</u> (a) [41.0] | – (b) |
    |  | quadratic | **0.420 ± 0.028** | **0.800** [58.8] |
    | rank | 16 | 0.220 ± 0.028 | <u>0.600</u> |
    |  | 64 | **0.420 ± 0.028** | **0.800** [58.8] |

    mean ± sd over subset; **best** and <u>second</u> of the column; in brackets: Table 1.

    (a) 1 of 2 scores, others: not run

    (b) failed
    ");
}

#[test]
fn latex_uses_booktabs_and_escapes_names() {
    insta::assert_snapshot!(render(&[built()], Format::Latex), @r#"
    \begin{table}
    \centering
    \caption{Human pose. \texttt{score.f1}, mean $\pm$ sd over subset, in brackets: Table 1.}
    \begin{tabular}{llrr}
    \toprule
    varied & value & n = 1 & n = 30 \\
    \midrule
    interpolation & linear & \underline{0.150} (a) & -- (b) \\
     & quadratic & \textbf{0.210 $\pm$ 0.014} [19.5] & \textbf{0.400} \\
    \midrule
    rank & 16 & 0.110 $\pm$ 0.014 & \underline{0.300} \\
     & 64 & \textbf{0.210 $\pm$ 0.014} [19.5] & \textbf{0.400} \\
    \bottomrule
    \end{tabular}

    \footnotesize (a) 1 of 2 scores, others: not run

    \footnotesize (b) failed
    \end{table}
    \begin{table}
    \centering
    \caption{Human pose. \texttt{score.match\_rate}, mean $\pm$ sd over subset, in brackets: Table 1.}
    \begin{tabular}{llrr}
    \toprule
    varied & value & n = 1 & n = 30 \\
    \midrule
    interpolation & linear & \underline{0.300} (a) [41.0] & -- (b) \\
     & quadratic & \textbf{0.420 $\pm$ 0.028} & \textbf{0.800} [58.8] \\
    \midrule
    rank & 16 & 0.220 $\pm$ 0.028 & \underline{0.600} \\
     & 64 & \textbf{0.420 $\pm$ 0.028} & \textbf{0.800} [58.8] \\
    \bottomrule
    \end{tabular}

    \footnotesize (a) 1 of 2 scores, others: not run

    \footnotesize (b) failed
    \end{table}
    "#);
}

#[test]
fn csv_has_one_line_per_cell() {
    insta::assert_snapshot!(render(&[built()], Format::Csv), @r#"
    table,value,varied,row,column,mean,sd,low,high,n,expected,mark,reference,note
    pose,score.f1,interpolation,interpolation=linear,n=1,0.15000000000000002,,,,1,2,second,,"1 of 2 scores, others: not run"
    pose,score.f1,interpolation,interpolation=linear,n=30,,,,,0,1,,,failed
    pose,score.f1,interpolation,interpolation=quadratic,n=1,0.21000000000000002,0.014142135623730944,,,2,2,best,19.5,
    pose,score.f1,interpolation,interpolation=quadratic,n=30,0.4,,,,1,1,best,,
    pose,score.f1,rank,rank=16,n=1,0.11000000000000001,0.014142135623730954,,,2,2,,,
    pose,score.f1,rank,rank=16,n=30,0.30000000000000004,,,,1,1,second,,
    pose,score.f1,rank,rank=64,n=1,0.21000000000000002,0.014142135623730944,,,2,2,best,19.5,
    pose,score.f1,rank,rank=64,n=30,0.4,,,,1,1,best,,
    pose,score.match_rate,interpolation,interpolation=linear,n=1,0.30000000000000004,,,,1,2,second,41.0,"1 of 2 scores, others: not run"
    pose,score.match_rate,interpolation,interpolation=linear,n=30,,,,,0,1,,,failed
    pose,score.match_rate,interpolation,interpolation=quadratic,n=1,0.42000000000000004,0.028284271247461888,,,2,2,best,,
    pose,score.match_rate,interpolation,interpolation=quadratic,n=30,0.8,,,,1,1,best,58.8,
    pose,score.match_rate,rank,rank=16,n=1,0.22000000000000003,0.02828427124746191,,,2,2,,,
    pose,score.match_rate,rank,rank=16,n=30,0.6000000000000001,,,,1,1,second,,
    pose,score.match_rate,rank,rank=64,n=1,0.42000000000000004,0.028284271247461888,,,2,2,best,,
    pose,score.match_rate,rank,rank=64,n=30,0.8,,,,1,1,best,58.8,
    "#);
}

#[test]
fn json_carries_a_schema_version() {
    let mut small = built();
    small.blocks.truncate(1);
    small.blocks[0].rows.truncate(1);
    insta::assert_snapshot!(render(&[small], Format::Json), @r#"
    {
      "schema_version": 1,
      "tables": [
        {
          "average": "subset",
          "blocks": [
            {
              "lower_is_better": false,
              "rows": [
                {
                  "entries": [
                    {
                      "expected": 2,
                      "mark": "second",
                      "note": 0,
                      "reference": null,
                      "stat": {
                        "interval": null,
                        "mean": 0.15000000000000002,
                        "n": 1,
                        "sd": null
                      }
                    },
                    {
                      "expected": 1,
                      "mark": null,
                      "note": 1,
                      "reference": null,
                      "stat": null
                    }
                  ],
                  "group": "interpolation",
                  "labels": [
                    "linear"
                  ]
                }
              ],
              "value": "score.f1"
            }
          ],
          "column_axis": "n",
          "columns": [
            "1",
            "30"
          ],
          "name": "pose",
          "notes": [
            "1 of 2 scores, others: not run",
            "failed"
          ],
          "reference": "Table 1",
          "row_axes": [
            "value"
          ],
          "spread": "sd",
          "title": "Human pose"
        }
      ]
    }
    "#);
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
    (table.rows, table.columns, table.average) = (Vec::new(), None, Vec::new());
    table.reference = None;
    let values = [("f1".to_owned(), 0.5), ("match_rate".to_owned(), 0.25)].into();
    let scores = [score(Cell::new(), values)];
    insta::assert_snapshot!(
        render(&[build(&table, &Sweep::default(), &scores, None)], Format::Text), @"
    Human pose
    ──────────────────────────
     score
    ──────────────────────────
     score.f1           0.500
     score.match_rate   0.250
    ──────────────────────────
    ");
}

#[test]
fn a_grid_axis_the_table_leaves_out_labels_rows() {
    let mut table = table();
    table.average = Vec::new();
    table.values.truncate(1);
    let built = build(&table, &sweep(), &scores(), None);
    assert_eq!(built.row_axes, ["subset", "value"]);
    assert_eq!(built.blocks[0].rows.len(), 8);
    assert_eq!(built.notes, ["failed", "not run", "excluded from the sweep"]);
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

/// Each entry against each cell would take many minutes; this takes seconds.
#[test]
fn a_table_of_many_cells_takes_no_product_of_entries_and_cells() {
    const VALUES: usize = 200;
    let cells: Vec<Cell> = (0..VALUES * VALUES)
        .map(|i| cell(&json!({ "n": i / VALUES, "rank": i % VALUES })))
        .collect();
    let values = json!((0..VALUES).collect::<Vec<_>>());
    let sweep = Sweep {
        grid: vec![axis("n", &values), axis("rank", &values)],
        cells: cells.clone(),
        ..Sweep::default()
    };
    let of_cell = |cell: Cell| {
        let value = cell["n"].as_f64().unwrap() * 1000.0 + cell["rank"].as_f64().unwrap();
        score(cell, [("f1".to_owned(), value)].into())
    };
    let scores: Vec<_> = cells.into_iter().map(of_cell).collect();
    let table = Table {
        values: vec![("score".to_owned(), "f1".to_owned())],
        rows: vec!["rank".to_owned()],
        average: Vec::new(),
        reference: None,
        ..table()
    };
    let start = std::time::Instant::now();
    let built = build(&table, &sweep, &scores, None);
    let entry = &built.blocks[0].rows[7].entries[130];
    assert_eq!((entry.stat.unwrap().mean, entry.expected), (130_007.0, 1));
    assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
}

/// As over ARC: many values, all cells in one number.
#[test]
fn values_of_one_number_each_stand_below_each_other() {
    let names = ["solved", "cells", "mae"];
    let values = |subset: f64| {
        let value = |(index, name): (usize, &&str)| ((*name).to_owned(), index as f64 + subset);
        names.iter().enumerate().map(value).collect()
    };
    let scores: Vec<_> = [0, 1]
        .map(|subset| score(cell(&json!({ "task": subset })), values(f64::from(subset))))
        .into();
    let sweep = Sweep {
        grid: vec![axis("task", &json!([0, 1]))],
        cells: scores.iter().map(|score| score.cell.clone()).collect(),
        ..Sweep::default()
    };
    let layout = Table {
        values: names.map(|name| ("score".to_owned(), name.to_owned())).to_vec(),
        columns: None,
        rows: Vec::new(),
        average: vec!["task".to_owned()],
        reference: None,
        ..table()
    };
    let tables = [build(&layout, &sweep, &scores, None)];
    insta::assert_snapshot!(render(&tables, Format::Text), @"
    Human pose
    ─────────────────────────────────────────────
     score
    ─────────────────────────────────────────────
     score.solved                  0.500 ± 0.707
     score.cells                   1.500 ± 0.707
     score.mae (lower is better)   2.500 ± 0.707
    ─────────────────────────────────────────────
    mean ± sd over task
    ");
    insta::assert_snapshot!(render(&tables, Format::Markdown), @"
    **Human pose**

    | score | value |
    | --- | ---: |
    | score.solved | 0.500 ± 0.707 |
    | score.cells | 1.500 ± 0.707 |
    | score.mae (lower is better) | 2.500 ± 0.707 |

    mean ± sd over task.
    ");
    insta::assert_snapshot!(render(&tables, Format::Latex), @r"
    \begin{table}
    \centering
    \caption{Human pose, mean $\pm$ sd over task.}
    \begin{tabular}{lr}
    \toprule
    score & value \\
    \midrule
    score.solved & 0.500 $\pm$ 0.707 \\
    score.cells & 1.500 $\pm$ 0.707 \\
    score.mae (lower is better) & 2.500 $\pm$ 0.707 \\
    \bottomrule
    \end{tabular}
    \end{table}
    ");
    // For programs, each stays a block of its own.
    assert_eq!(tables[0].blocks.len(), 3);
    assert_eq!(render(&tables, Format::Csv).lines().count(), 4);
}

/// Two runs at n = 1, one at n = 30, whose number alone is of its images alone.
fn with_intervals() -> (Sweep, Vec<Score>) {
    let cells = [(1, 0), (1, 1), (30, 0)];
    let cells = cells.map(|(n, subset)| cell(&json!({ "n": n, "subset": subset })));
    let sweep = Sweep {
        grid: vec![axis("n", &json!([1, 30])), axis("subset", &json!([0, 1]))],
        cells: cells.to_vec(),
        ..Sweep::default()
    };
    let scores = cells.map(|cell| {
        let f1 = 40.0 + cell["n"].as_f64().unwrap() + cell["subset"].as_f64().unwrap();
        let values = [("f1".to_owned(), f1), ("explained".to_owned(), -f1)];
        let interval = |low, high| Interval { low, high, level: 0.95 };
        let intervals = [
            ("f1".to_owned(), interval(f1 - 5.125, f1 + 4.0)),
            ("explained".to_owned(), interval(-f1 - 4.0, -f1 + 5.125)),
        ];
        Score { intervals: intervals.into(), ..score(cell, values.into()) }
    });
    (sweep, scores.into())
}

#[test]
fn a_number_of_one_run_has_the_interval_over_its_images() {
    let (sweep, scores) = with_intervals();
    let names = ["f1", "explained"].map(|name| ("score".to_owned(), name.to_owned()));
    let layout = Table { values: names.to_vec(), rows: Vec::new(), reference: None, ..table() };
    let tables = [build(&layout, &sweep, &scores, None)];
    insta::assert_snapshot!(render(&tables, Format::Text), @"
    Human pose
    score.f1
    ───────────────────────────────────
             n = 1              n = 30
    ───────────────────────────────────
     41.50 ± 0.707   70.00 (64.9–74.0)
    ───────────────────────────────────

    score.explained
    ──────────────────────────────────────────
              n = 1                    n = 30
    ──────────────────────────────────────────
     -41.50 ± 0.707   -70.00 (-74.0 to -64.9)
    ──────────────────────────────────────────
    mean ± sd over subset; in parentheses: 95 % interval, bootstrap over images
    ");
    insta::assert_snapshot!(render(&tables, Format::Markdown), @"
    **Human pose**

    `score.f1`

    | n = 1 | n = 30 |
    | ---: | ---: |
    | 41.50 ± 0.707 | 70.00 (64.9–74.0) |

    `score.explained`

    | n = 1 | n = 30 |
    | ---: | ---: |
    | -41.50 ± 0.707 | -70.00 (-74.0 to -64.9) |

    mean ± sd over subset; in parentheses: 95 % interval, bootstrap over images.
    ");
    insta::assert_snapshot!(render(&tables, Format::Latex), @r"
    \begin{table}
    \centering
    \caption{Human pose. \texttt{score.f1}, mean $\pm$ sd over subset, in parentheses: 95 \% interval, bootstrap over images.}
    \begin{tabular}{rr}
    \toprule
    n = 1 & n = 30 \\
    \midrule
    41.50 $\pm$ 0.707 & 70.00 (64.9--74.0) \\
    \bottomrule
    \end{tabular}
    \end{table}
    \begin{table}
    \centering
    \caption{Human pose. \texttt{score.explained}, mean $\pm$ sd over subset, in parentheses: 95 \% interval, bootstrap over images.}
    \begin{tabular}{rr}
    \toprule
    n = 1 & n = 30 \\
    \midrule
    -41.50 $\pm$ 0.707 & -70.00 (-74.0 to -64.9) \\
    \bottomrule
    \end{tabular}
    \end{table}
    ");
    insta::assert_snapshot!(render(&tables, Format::Csv), @"
    table,value,varied,row,column,mean,sd,low,high,n,expected,mark,reference,note
    pose,score.f1,,,n=1,41.5,0.7071067811865476,,,2,2,,,
    pose,score.f1,,,n=30,70,,64.875,74,1,1,,,
    pose,score.explained,,,n=1,-41.5,0.7071067811865476,,,2,2,,,
    pose,score.explained,,,n=30,-70,,-74,-64.875,1,1,,,
    ");
    assert!(render(&tables, Format::Json).contains("\"level\": 0.95"));
}

#[test]
fn intervals_of_unlike_levels_are_not_called_by_one() {
    let (sweep, mut scores) = with_intervals();
    scores[0].intervals.get_mut("f1").unwrap().level = 0.5;
    let layout = Table { average: Vec::new(), reference: None, rows: Vec::new(), ..table() };
    let built = build(&layout, &sweep, &scores, None);
    assert_eq!(built.reading(), ["in parentheses: interval, bootstrap over images"]);
}

/// Tasks are solved or not: the deviation of zeros and hundreds is no interval.
#[test]
fn a_mean_over_tasks_has_the_interval_over_tasks() {
    let tasks: Vec<Cell> = (0..20)
        .map(|i| cell(&json!({ "concept": if i < 10 { "copy" } else { "count" }, "task": i % 10 })))
        .collect();
    let sweep = Sweep {
        grid: vec![
            axis("concept", &json!(["copy", "count"])),
            axis("task", &json!((0..10).collect::<Vec<_>>())),
        ],
        cells: tasks.clone(),
        ..Sweep::default()
    };
    let solved = |(i, cell): (usize, Cell)| {
        let solved = if i < 10 || i % 2 == 0 { 100.0 } else { 0.0 };
        let interval = Interval { low: 0.0, high: 1.0, level: 0.95 };
        let intervals = [("solved".to_owned(), interval)].into();
        Score { intervals, ..score(cell, [("solved".to_owned(), solved)].into()) }
    };
    let scores: Vec<Score> = tasks.into_iter().enumerate().map(solved).collect();
    let concepts = Table {
        values: vec![("score".to_owned(), "solved".to_owned())],
        columns: None,
        rows: vec!["concept".to_owned()],
        average: vec!["task".to_owned()],
        spread: Spread::Bootstrap,
        mark_best: false,
        reference: None,
        ..table()
    };
    let all = Table { average: vec!["concept".to_owned(), "task".to_owned()], ..concepts.clone() };
    let tables = [&concepts, &all].map(|layout| build(layout, &sweep, &scores, None));
    // Where all are solved, samples of them have no spread.
    insta::assert_snapshot!(render(&tables, Format::Text), @"
    Human pose
    score.solved
    ─────────────────────────────
     concept
    ─────────────────────────────
     copy                  100.0
     count     50.00 (20.0–80.0)
    ─────────────────────────────
    mean over task; in parentheses: 95 % interval, bootstrap over task

    Human pose
    score.solved
    ───────────────────

    ───────────────────
     75.00 (55.0–90.0)
    ───────────────────
    mean over concept and task; in parentheses: 95 % interval, bootstrap over concept and task
    ");
    assert_eq!(tables[1].entries().map(|entry| entry.expected).collect::<Vec<_>>(), [20]);
}
