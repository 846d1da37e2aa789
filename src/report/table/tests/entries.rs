//! Which entries a table has, and what they stand for.

use super::*;

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
fn the_error_of_a_baseline_is_better_when_smaller_as_that_of_an_answer_is() {
    for name in ["abs_rel", "mean_target_abs_rel"] {
        let scores = [score(Cell::new(), [(name.to_owned(), 0.2)].into())];
        let table = Table { values: vec![("score".to_owned(), name.to_owned())], ..table() };
        let built = build(&table, &Sweep::default(), &scores, None);
        assert!(built.blocks[0].lower_is_better, "{name}");
    }
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
fn a_cell_without_a_score_counts_if_the_table_says_so() {
    let mut table = table();
    table.reference = None;
    let first = |missing| {
        let table = Table { missing, ..table.clone() };
        let built = build(&table, &sweep(), &scores(), None);
        // One of the two subsets was not run.
        let entry = built.blocks[0].rows[0].entries[0].clone();
        (entry.stat.unwrap(), built.notes[entry.note.unwrap()].clone(), built)
    };
    let (stat, note, _) = first(None);
    assert_eq!((stat.n, note.as_str()), (1, "1 of 2 scores, others: not run"));
    let (with, note, built) = first(Some(0.0));
    assert_eq!((with.n, note.as_str()), (2, "1 of 2 scores, others count as 0: not run"));
    assert!((with.mean - stat.mean / 2.0).abs() < 1e-12);
    // What failed altogether has no number, and what the sweep leaves out is not missing.
    assert_eq!(built.blocks[0].rows[0].entries[1].stat, None);
    assert!(built.entries().all(|entry| entry.stat.is_none_or(|stat| stat.n <= entry.expected)));
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
