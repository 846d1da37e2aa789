//! Intervals: over the images of one run, and over tasks.

use super::*;

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
    mean ± sd over subset (1 to 2 scores); in parentheses: 95 % interval, bootstrap over images
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

    mean ± sd over subset (1 to 2 scores); in parentheses: 95 % interval, bootstrap over images.
    ");
    insta::assert_snapshot!(render(&tables, Format::Latex), @r"
    \begin{table}
    \centering
    \caption{Human pose. \texttt{score.f1}, mean $\pm$ sd over subset (1 to 2 scores), in parentheses: 95 \% interval, bootstrap over images.}
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
    \caption{Human pose. \texttt{score.explained}, mean $\pm$ sd over subset (1 to 2 scores), in parentheses: 95 \% interval, bootstrap over images.}
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
    table,value,varied,row,column,mean,sd,low,high,n,expected,mark,reference,note,images
    pose,score.f1,,,n=1,41.5,0.7071067811865476,,,2,2,,,,
    pose,score.f1,,,n=30,70,,64.875,74,1,1,,,,
    pose,score.explained,,,n=1,-41.5,0.7071067811865476,,,2,2,,,,
    pose,score.explained,,,n=30,-70,,-74,-64.875,1,1,,,,
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
        missing: None,
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
    mean over task (10 scores); in parentheses: 95 % interval, bootstrap over task

    Human pose
    score.solved
    ───────────────────

    ───────────────────
     75.00 (55.0–90.0)
    ───────────────────
    mean over concept and task (20 scores); in parentheses: 95 % interval, bootstrap over concept and task
    ");
    assert_eq!(tables[1].entries().map(|entry| entry.expected).collect::<Vec<_>>(), [20]);
}

#[test]
fn an_interval_over_few_images_is_told_so() {
    let (sweep, mut scores) = with_intervals();
    scores[2].images = Some(12);
    let built = build(&table(), &sweep, &scores, None);
    assert_eq!(built.whole_notes(), [""; 0], "twelve are not few");
    scores[2].images = Some(3);
    scores[2].remarks = [("f1".to_owned(), "at the end".to_owned())].into();
    let built = build(&table(), &sweep, &scores, None);
    let note = "an interval over few images, here 3, tells little of other images";
    assert_eq!(built.whole_notes(), [note]);
    let text = render(std::slice::from_ref(&built), Format::Text);
    assert!(
        text.contains("(a) at the end\n") && text.contains(&format!("note: {note}\n")),
        "{text}"
    );
    let csv = render(&[built], Format::Csv);
    let line = csv.lines().find(|line| line.contains("at the end")).unwrap();
    assert!(line.ends_with(&format!("\"at the end; {note}\",3")), "{line}");
}
