//! ARC-AGI and `ConceptARC`: tasks, rendering and decoding, bit-exact (spec A.5).

use image::{Rgb, RgbImage};
use serde::{Deserialize, Serialize};

use super::source::TaskRef;
use crate::{stages::StageError, store::SourceReader};

/// Side of the canvas the authors render to.
pub const CANVAS: usize = 400;
/// Width of a grid line.
const LINE: usize = 2;
const LINE_COLOR: Rgb<u8> = Rgb([85, 85, 85]);
/// The colours of the values 0 to 9.
pub const PALETTE: [[u8; 3]; 10] = [
    [0, 0, 0],
    [0, 116, 217],
    [255, 65, 54],
    [46, 204, 64],
    [255, 220, 0],
    [170, 170, 170],
    [240, 18, 190],
    [255, 133, 27],
    [127, 219, 255],
    [135, 12, 37],
];

/// A grid of values 0 to 9, row by row; rectangular and not empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<u8>>", into = "Vec<Vec<u8>>")]
pub struct Grid(Vec<Vec<u8>>);

/// A table that is no ARC grid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GridError {
    /// No rows, or rows without values.
    #[error("a grid must have 1 to 30 rows of 1 to 30 values, but has {rows} rows of {columns}")]
    Size {
        /// Rows found.
        rows: usize,
        /// Values in the first row.
        columns: usize,
    },
    /// Rows of several lengths.
    #[error("row {row} of the grid has {found} values, but the first row has {wanted}")]
    Ragged {
        /// From 0.
        row: usize,
        /// Its length.
        found: usize,
        /// The first row's length.
        wanted: usize,
    },
    /// A value that is no colour.
    #[error("the value {value} in row {row} of the grid must be 0 to 9")]
    Value {
        /// The value.
        value: u8,
        /// From 0.
        row: usize,
    },
}

impl TryFrom<Vec<Vec<u8>>> for Grid {
    type Error = GridError;

    fn try_from(rows: Vec<Vec<u8>>) -> Result<Self, GridError> {
        let columns = rows.first().map_or(0, Vec::len);
        if !(1..=30).contains(&rows.len()) || !(1..=30).contains(&columns) {
            return Err(GridError::Size { rows: rows.len(), columns });
        }
        for (row, values) in rows.iter().enumerate() {
            if values.len() != columns {
                return Err(GridError::Ragged { row, found: values.len(), wanted: columns });
            }
            if let Some(value) = values.iter().find(|value| **value > 9) {
                return Err(GridError::Value { value: *value, row });
            }
        }
        Ok(Self(rows))
    }
}

impl From<Grid> for Vec<Vec<u8>> {
    fn from(grid: Grid) -> Self {
        grid.0
    }
}

impl Grid {
    /// Rows and columns.
    pub fn size(&self) -> [usize; 2] {
        [self.0.len(), self.0[0].len()]
    }

    /// The values, row by row.
    pub fn values(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.iter().flatten().copied()
    }

    fn is_zero(&self) -> bool {
        self.values().all(|value| value == 0)
    }
}

/// One example: a grid and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Example {
    /// What is given.
    pub input: Grid,
    /// What is asked for.
    pub output: Grid,
}

/// A task file.
#[derive(Clone, Debug, Deserialize)]
pub struct Task {
    /// The demonstrations.
    pub train: Vec<Example>,
    /// The questions, with their answers.
    pub test: Vec<Example>,
}

/// What a pair of an ARC task carries for its metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArcGrids {
    /// The task's name.
    pub task: String,
    /// The input grid.
    pub input: Grid,
    /// The answer, after the grey rule.
    pub output: Grid,
    /// Side of a cell on the canvas, one for the whole task.
    pub cell: usize,
}

impl Task {
    /// Side of a cell in pixels of the canvas: the largest that lets every grid of the task fit.
    pub fn cell(&self) -> usize {
        let grids =
            self.train.iter().chain(&self.test).flat_map(|e| [e.input.size(), e.output.size()]);
        let largest = grids.fold([1, 1], |a, b| [a[0].max(b[0]), a[1].max(b[1])]);
        largest.map(|n| (CANVAS - LINE * (n + 1)) / n).into_iter().min().expect("two sides")
    }

    /// The grey rule: where every answer is all black and the answers differ in size, they are
    /// painted grey, since black on black would show nothing.
    #[must_use]
    pub fn with_grey_rule(mut self) -> Self {
        let mut outputs = self.train.iter().chain(&self.test).map(|example| &example.output);
        let first = outputs.next().map(Grid::size);
        let all_zero = self.train.iter().chain(&self.test).all(|example| example.output.is_zero());
        if all_zero && outputs.any(|grid| Some(grid.size()) != first) {
            for example in self.train.iter_mut().chain(&mut self.test) {
                example.output.0.iter_mut().flatten().for_each(|value| *value = 5);
            }
        }
        self
    }
}

const FORM: &str = "a task has `train` and `test`, lists of pairs of an `input` and an `output` \
                    grid of colours 0 to 9, as in the public data";

/// Reads a task of the set `set`, a folder of task files below the root or its `data/`, and
/// returns its name with it.
pub fn read_task(
    sources: &SourceReader,
    set: &str,
    wanted: &TaskRef,
) -> Result<(String, Task), StageError> {
    let folder = sources
        .list(set)
        .map(|names| (set.to_owned(), names))
        .or_else(|_| {
            let nested = format!("data/{set}");
            sources.list(&nested).map(|names| (nested, names))
        })
        .map_err(|_| {
            StageError::environment(format!(
                "`{}` has no folder `{set}` or `data/{set}`",
                sources.root().display()
            ))
            .with_help("`set` is the folder of task files, such as \"training\" or \"evaluation\"")
        })?;
    let (folder, names) = folder;
    let names: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".json")).collect();
    let name = match wanted {
        TaskRef::Index(index) => names.get(*index).copied(),
        TaskRef::Name(wanted) => names.iter().find(|name| *name == wanted).copied(),
    };
    let Some(name) = name else {
        let wanted = match wanted {
            TaskRef::Index(index) => format!("number {index}"),
            TaskRef::Name(name) => format!("`{name}`"),
        };
        let near = names.first().map_or(String::new(), |first| format!(", such as `{first}`"));
        return Err(StageError::failed(format!(
            "`{folder}` has no task {wanted}; it holds {} tasks{near}",
            names.len()
        ))
        .with_help("name the file without `.json`, or count from 0 in the order of names"));
    };
    let path = format!("{folder}/{name}.json");
    let bytes = super::read_source(sources, &path, "an ARC task")?;
    let task: Task = serde_json::from_slice(&bytes).map_err(|e| {
        StageError::failed(format!("`{path}` is not an ARC task: {e}")).with_help(FORM)
    })?;
    if task.train.is_empty() || task.test.is_empty() {
        return Err(StageError::failed(format!(
            "`{path}` must have train and test examples, but has {} and {}",
            task.train.len(),
            task.test.len()
        ))
        .with_help(FORM));
    }
    Ok((name.to_owned(), task))
}

/// Top-left corner of the grid's frame on the canvas.
fn origin([rows, columns]: [usize; 2], cell: usize) -> [usize; 2] {
    [rows, columns].map(|n| (CANVAS - (n * (cell + LINE) + LINE)) / 2)
}

/// The pixels of a cell: `(top, left)`.
fn corner(size: [usize; 2], cell: usize, row: usize, column: usize) -> [usize; 2] {
    let [top, left] = origin(size, cell);
    [top + row * (cell + LINE) + LINE, left + column * (cell + LINE) + LINE]
}

/// Draws a grid on the canvas.
pub fn render(grid: &Grid, cell: usize) -> RgbImage {
    let mut canvas = RgbImage::new(CANVAS as u32, CANVAS as u32);
    let size @ [rows, columns] = grid.size();
    let [top, left] = origin(size, cell);
    let frame = [rows, columns].map(|n| n * (cell + LINE) + LINE);
    fill(&mut canvas, [top, left], frame, LINE_COLOR);
    for (index, value) in grid.values().enumerate() {
        let place = corner(size, cell, index / columns, index % columns);
        fill(&mut canvas, place, [cell, cell], Rgb(PALETTE[value as usize]));
    }
    canvas
}

fn fill(
    canvas: &mut RgbImage,
    [top, left]: [usize; 2],
    [height, width]: [usize; 2],
    color: Rgb<u8>,
) {
    for y in top..top + height {
        for x in left..left + width {
            canvas.put_pixel(x as u32, y as u32, color);
        }
    }
}

/// Reads a grid of known size off a canvas, undoing a constant shift of colours.
pub fn decode(canvas: &RgbImage, size: [usize; 2], cell: usize) -> Grid {
    let mut pixels: Vec<f32> = canvas.as_raw().iter().map(|value| f32::from(*value)).collect();
    let mut before = 0.0;
    for _ in 0..3 {
        let cells = read_cells(&pixels, size, cell);
        let total: f32 = cells.iter().map(|(mean, k)| norm(difference(PALETTE[*k], *mean))).sum();
        if (before - total).abs() < 1.0 {
            break;
        }
        before = total;
        let mut shift = [0.0f32; 3];
        for (mean, k) in &cells {
            for (shift, d) in shift.iter_mut().zip(difference(PALETTE[*k], *mean)) {
                *shift += d / cells.len() as f32;
            }
        }
        for (index, pixel) in pixels.iter_mut().enumerate() {
            *pixel = (*pixel + shift[index % 3]).clamp(0.0, 255.0);
        }
    }
    let values: Vec<u8> = read_cells(&pixels, size, cell).iter().map(|(_, k)| *k as u8).collect();
    Grid(values.chunks(size[1]).map(<[u8]>::to_vec).collect())
}

/// The truncated mean colour of each cell and the nearest palette entry.
fn read_cells(pixels: &[f32], size: [usize; 2], cell: usize) -> Vec<([f32; 3], usize)> {
    let [rows, columns] = size;
    (0..rows * columns)
        .map(|index| {
            let [top, left] = corner(size, cell, index / columns, index % columns);
            let mut sum = [0.0f64; 3];
            for y in top..top + cell {
                for x in left..left + cell {
                    let pixel = &pixels[(y * CANVAS + x) * 3..][..3];
                    for (sum, value) in sum.iter_mut().zip(pixel) {
                        *sum += f64::from(*value);
                    }
                }
            }
            let mean = sum.map(|sum| (sum / (cell * cell) as f64).trunc() as f32);
            let distance = |k: &usize| norm(difference(PALETTE[*k], mean));
            let nearest = (0..PALETTE.len())
                .min_by(|a, b| distance(a).total_cmp(&distance(b)))
                .expect("the palette is not empty");
            (mean, nearest)
        })
        .collect()
}

fn difference(color: [u8; 3], mean: [f32; 3]) -> [f32; 3] {
    [0, 1, 2].map(|c| f32::from(color[c]) - mean[c])
}

fn norm(d: [f32; 3]) -> f32 {
    d.iter().map(|d| d * d).sum::<f32>().sqrt()
}

#[cfg(test)]
mod tests {
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
        assert!(read_task(&sources, "nowhere", &TaskRef::Index(0)).is_err());
    }

    #[test]
    fn ragged_and_coloured_wrong_is_an_error() {
        let parse = |text: &str| serde_json::from_str::<Grid>(text).unwrap_err().to_string();
        assert!(parse("[[1, 2], [3]]").contains("row 1 of the grid has 1 values"));
        assert!(parse("[[12]]").contains("must be 0 to 9"));
        assert!(parse("[]").contains("1 to 30 rows"));
    }
}
