//! Grids, drawings and task files.

use proptest::prelude::*;

use super::*;

fn grid() -> impl Strategy<Value = Grid> {
    (1usize..=30, 1usize..=30).prop_flat_map(|(rows, columns)| {
        proptest::collection::vec(proptest::collection::vec(0u8..10, columns), rows)
            .prop_map(|rows| Grid::try_from(rows).unwrap())
    })
}

fn cell_of(grid: &Grid) -> usize {
    let example = Example { input: grid.clone(), output: grid.clone() };
    Task { train: vec![example], test: vec![] }.cell()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn decoding_a_rendered_grid_gives_the_grid(grid in grid()) {
        let cell = cell_of(&grid);
        prop_assert_eq!(decode(&render(&grid, cell), grid.size(), cell), grid);
    }

    #[test]
    fn any_bytes_give_a_task_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = serde_json::from_slice::<Task>(&bytes);
    }
}

#[test]
fn three_by_three_cells_have_the_published_size_and_place() {
    let grid = Grid::try_from(vec![vec![1, 0, 0], vec![0, 0, 0], vec![0, 0, 2]]).unwrap();
    assert_eq!(cell_of(&grid), 130);
    let canvas = render(&grid, 130);
    // The frame is 3 * 132 + 2 = 398 wide, so it starts at 1.
    assert_eq!(canvas.get_pixel(0, 0).0, [0; 3]);
    assert_eq!(canvas.get_pixel(1, 1).0, [85; 3]);
    assert_eq!(canvas.get_pixel(3, 3).0, PALETTE[1]);
    assert_eq!(canvas.get_pixel(396, 396).0, PALETTE[2]);
    assert_eq!(canvas.get_pixel(398, 398).0, [85; 3]);
}

#[test]
fn the_largest_grid_has_cells_of_eleven_pixels() {
    let grid = Grid::try_from(vec![vec![3; 30]; 30]).unwrap();
    assert_eq!(cell_of(&grid), 11);
}

#[test]
fn a_constant_shift_of_colours_is_undone() {
    let grid = Grid::try_from(vec![vec![0, 5, 8], vec![7, 9, 1]]).unwrap();
    let cell = cell_of(&grid);
    let mut canvas = render(&grid, cell);
    canvas.pixels_mut().for_each(|p| p.0 = p.0.map(|v| v.saturating_add(38)));
    assert_eq!(decode(&canvas, grid.size(), cell), grid);
    // Darkened, red would be read as brown.
    let grid = Grid::try_from(vec![vec![0, 1], vec![2, 3]]).unwrap();
    let cell = cell_of(&grid);
    let mut canvas = render(&grid, cell);
    canvas.pixels_mut().for_each(|p| p.0 = p.0.map(|v| v.saturating_sub(50)));
    assert_eq!(decode(&canvas, grid.size(), cell), grid);
    assert_ne!(decode_in(&canvas, grid.size(), cell, 0), grid);
}

#[test]
fn black_answers_of_several_sizes_turn_grey() {
    let example = |side: usize| Example {
        input: Grid::try_from(vec![vec![1; 3]; 3]).unwrap(),
        output: Grid::try_from(vec![vec![0; side]; side]).unwrap(),
    };
    let task = Task { train: vec![example(1), example(2)], test: vec![example(3)] };
    assert!(task.with_grey_rule().train[0].output.values().all(|v| v == 5));
    let same = Task { train: vec![example(2)], test: vec![example(2)] };
    assert!(same.with_grey_rule().train[0].output.values().all(|v| v == 0));
}

#[test]
fn a_task_is_found_by_name_or_place() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("data/training");
    std::fs::create_dir_all(&folder).unwrap();
    let example = r#"{"input": [[1]], "output": [[2]]}"#;
    let text = format!(r#"{{"train": [{example}], "test": [{example}], "name": "x"}}"#);
    for name in ["b2.json", "a1.json", "c3.json"] {
        std::fs::write(folder.join(name), &text).unwrap();
    }
    std::fs::write(folder.join("d4.json"), r#"{"train": [], "test": []}"#).unwrap();
    std::fs::write(folder.join("e5.json"), r#"{"train": [{"input": [[1], [2, 3]]"#).unwrap();
    let sources = SourceReader::new(root.path());
    let read = |wanted| read_task(&sources, "training", &wanted).map(|(name, _)| name);
    assert_eq!(read(TaskRef::Index(1)).unwrap(), "b2");
    assert_eq!(read(TaskRef::Name("c3".into())).unwrap(), "c3");
    let error = |wanted| read(wanted).unwrap_err().to_string();
    insta::assert_snapshot!(error(TaskRef::Index(9)), @"`data/training` has no task number 9; it holds 5 tasks, such as `a1`");
    insta::assert_snapshot!(error(TaskRef::Name("../../x".into())), @"`data/training` has no task `../../x`; it holds 5 tasks, such as `a1`");
    insta::assert_snapshot!(error(TaskRef::Index(3)), @"`data/training/d4.json` must have train and test examples, but has 0 and 0");
    insta::assert_snapshot!(error(TaskRef::Index(4)), @"`data/training/e5.json` is not an ARC task: row 1 of the grid has 2 values, but the first row has 1 at line 1 column 34");
    std::fs::write(folder.join("e5.json"), format!("[{example}]")).unwrap();
    insta::assert_snapshot!(error(TaskRef::Index(4)), @"`data/training/e5.json` is not an ARC task: it must be an object with `train` and `test`, but is a list");
    // A shell hands a name of digits on as a number.
    std::fs::rename(folder.join("d4.json"), folder.join("50846271.json")).unwrap();
    std::fs::copy(folder.join("a1.json"), folder.join("50846271.json")).unwrap();
    assert_eq!(read(TaskRef::Index(50_846_271)).unwrap(), "50846271");
    assert!(read_task(&sources, "nowhere", &TaskRef::Index(0)).is_err());
}

#[test]
fn ragged_and_coloured_wrong_is_an_error() {
    let parse = |text: &str| serde_json::from_str::<Grid>(text).unwrap_err().to_string();
    assert!(parse("[[1, 2], [3]]").contains("row 1 of the grid has 1 values"));
    assert!(parse("[[12]]").contains("must be 0 to 9"));
    assert!(parse("[]").contains("1 to 30 rows"));
    assert!(parse("[[]]").contains("1 to 30"), "{}", parse("[[]]"));
    let side = |rows: usize, columns: usize| serde_json::to_string(&vec![vec![1; columns]; rows]);
    for (rows, columns) in [(31, 2), (2, 31)] {
        let error = parse(&side(rows, columns).unwrap());
        assert!(error.contains("1 to 30"), "{error}");
    }
    assert!(serde_json::from_str::<Grid>(&side(30, 30).unwrap()).is_ok());
    insta::assert_snapshot!(parse("[[-1]]"), @"the value -1 in row 0 of the grid must be 0 to 9");
    insta::assert_snapshot!(parse("[[1], [300]]"), @"the value 300 in row 1 of the grid must be 0 to 9");
}
