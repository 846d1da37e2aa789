//! One table in each of its formats.

use super::*;

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
    mean ± sd over subset (1 to 2 scores); * best, ° second of the column; [ ] Table 1
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
    mean ± sd over subset (1 to 2 scores); * best, ° second of the column; [ ] Table 1
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

    mean ± sd over subset (1 to 2 scores); **best** and <u>second</u> of the column; in brackets: Table 1.

    (a) 1 of 2 scores, others: not run

    (b) failed
    ");
}

#[test]
fn latex_uses_booktabs_and_escapes_names() {
    insta::assert_snapshot!(render(&[built()], Format::Latex), @r"
    \begin{table}
    \centering
    \caption{Human pose. \texttt{score.f1}, mean $\pm$ sd over subset (1 to 2 scores), in brackets: Table 1.}
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
    \caption{Human pose. \texttt{score.match\_rate}, mean $\pm$ sd over subset (1 to 2 scores), in brackets: Table 1.}
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
    ");
}

#[test]
fn csv_has_one_line_per_cell() {
    insta::assert_snapshot!(render(&[built()], Format::Csv), @r#"
    table,value,varied,row,column,mean,sd,low,high,n,expected,mark,reference,note,images
    pose,score.f1,interpolation,interpolation=linear,n=1,0.15000000000000002,,,,1,2,second,,"1 of 2 scores, others: not run",
    pose,score.f1,interpolation,interpolation=linear,n=30,,,,,0,1,,,failed,
    pose,score.f1,interpolation,interpolation=quadratic,n=1,0.21000000000000002,0.014142135623730944,,,2,2,best,19.5,,
    pose,score.f1,interpolation,interpolation=quadratic,n=30,0.4,,,,1,1,best,,,
    pose,score.f1,rank,rank=16,n=1,0.11000000000000001,0.014142135623730954,,,2,2,,,,
    pose,score.f1,rank,rank=16,n=30,0.30000000000000004,,,,1,1,second,,,
    pose,score.f1,rank,rank=64,n=1,0.21000000000000002,0.014142135623730944,,,2,2,best,19.5,,
    pose,score.f1,rank,rank=64,n=30,0.4,,,,1,1,best,,,
    pose,score.match_rate,interpolation,interpolation=linear,n=1,0.30000000000000004,,,,1,2,second,41.0,"1 of 2 scores, others: not run",
    pose,score.match_rate,interpolation,interpolation=linear,n=30,,,,,0,1,,,failed,
    pose,score.match_rate,interpolation,interpolation=quadratic,n=1,0.42000000000000004,0.028284271247461888,,,2,2,best,,,
    pose,score.match_rate,interpolation,interpolation=quadratic,n=30,0.8,,,,1,1,best,58.8,,
    pose,score.match_rate,rank,rank=16,n=1,0.22000000000000003,0.02828427124746191,,,2,2,,,,
    pose,score.match_rate,rank,rank=16,n=30,0.6000000000000001,,,,1,1,second,,,
    pose,score.match_rate,rank,rank=64,n=1,0.42000000000000004,0.028284271247461888,,,2,2,best,,,
    pose,score.match_rate,rank,rank=64,n=30,0.8,,,,1,1,best,58.8,,
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
                        "images": null,
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
    mean ± sd over task (2 scores)
    ");
    insta::assert_snapshot!(render(&tables, Format::Markdown), @"
    **Human pose**

    | score | value |
    | --- | ---: |
    | score.solved | 0.500 ± 0.707 |
    | score.cells | 1.500 ± 0.707 |
    | score.mae (lower is better) | 2.500 ± 0.707 |

    mean ± sd over task (2 scores).
    ");
    insta::assert_snapshot!(render(&tables, Format::Latex), @r"
    \begin{table}
    \centering
    \caption{Human pose, mean $\pm$ sd over task (2 scores).}
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
