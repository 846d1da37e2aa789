//! ARC-AGI and `ConceptARC`: tasks, rendering and decoding, bit-exact (docs/method.md, A.5).

use image::{Rgb, RgbImage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DataError, files::instead_of_object, source::TaskRef};
use crate::store::SourceReader;

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

/// Where the grey rule applies: [`Task::with_grey_rule`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GreyRule {
    /// To the tasks of `ConceptARC`, which are known by their files: `Count/Count9.json`.
    #[default]
    Auto,
    /// To every task.
    On,
    /// To none.
    Off,
}

impl GreyRule {
    /// Whether it applies to the task `name` of the folder `set`.
    pub fn applies(self, set: &str, name: &str) -> bool {
        let folder = set.trim_end_matches('/').rsplit('/').next().unwrap_or(set);
        let number = name.strip_prefix(folder).unwrap_or_default();
        let is_concept = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        self == Self::On || self == Self::Auto && is_concept
    }
}

/// A grid of values 0 to 9, row by row; rectangular and not empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Values", into = "Vec<Vec<u8>>")]
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
        value: i64,
        /// From 0.
        row: usize,
    },
}

/// The values of a grid as a file has them.
#[derive(Deserialize)]
#[serde(transparent)]
struct Values(Vec<Vec<i64>>);

impl TryFrom<Vec<Vec<u8>>> for Grid {
    type Error = GridError;

    fn try_from(rows: Vec<Vec<u8>>) -> Result<Self, GridError> {
        let rows = rows.into_iter().map(|row| row.into_iter().map(i64::from).collect());
        Values(rows.collect()).try_into()
    }
}

impl TryFrom<Values> for Grid {
    type Error = GridError;

    fn try_from(Values(rows): Values) -> Result<Self, GridError> {
        let columns = rows.first().map_or(0, Vec::len);
        if !(1..=30).contains(&rows.len()) || !(1..=30).contains(&columns) {
            return Err(GridError::Size { rows: rows.len(), columns });
        }
        for (row, values) in rows.iter().enumerate() {
            if values.len() != columns {
                return Err(GridError::Ragged { row, found: values.len(), wanted: columns });
            }
            if let Some(value) = values.iter().find(|value| !(0..=9).contains(*value)) {
                return Err(GridError::Value { value: *value, row });
            }
        }
        let bytes = |row: Vec<i64>| row.into_iter().map(|value| value as u8).collect();
        Ok(Self(rows.into_iter().map(bytes).collect()))
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
#[serde(expecting = "a pair with `input` and `output`")]
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
) -> Result<(String, Task), DataError> {
    let folder = sources
        .list(set)
        .map(|names| (set.to_owned(), names))
        .or_else(|_| {
            let nested = format!("data/{set}");
            sources.list(&nested).map(|names| (nested, names))
        })
        .map_err(|_| {
            DataError::environment(format!(
                "`{}` has no folder `{set}` or `data/{set}`",
                sources.root().display()
            ))
            .with_help("`set` is the folder of task files, such as \"training\" or \"evaluation\"")
        })?;
    let (folder, names) = folder;
    let names: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".json")).collect();
    let named = |wanted: &str| names.iter().find(|name| **name == wanted).copied();
    let name = match wanted {
        // A name of digits alone, which no folder has so many files to count to.
        TaskRef::Index(index) => names.get(*index).copied().or_else(|| named(&index.to_string())),
        TaskRef::Name(wanted) => named(wanted),
    };
    let Some(name) = name else {
        let wanted = match wanted {
            TaskRef::Index(index) => format!("number {index}"),
            TaskRef::Name(name) => format!("`{name}`"),
        };
        let near = names.first().map_or(String::new(), |first| format!(", such as `{first}`"));
        return Err(DataError::failed(format!(
            "`{folder}` has no task {wanted}; it holds {} tasks{near}",
            names.len()
        ))
        .with_help("name the file without `.json`, or count from 0 in the order of names"));
    };
    let path = format!("{folder}/{name}.json");
    let bytes = super::files::read_source(sources, &path, "an ARC task")?;
    let read = match instead_of_object(&bytes) {
        Some(found) => Err(format!("it must be an object with `train` and `test`, but {found}")),
        None => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
    };
    let task: Task = read.map_err(|reason| {
        DataError::failed(format!("`{path}` is not an ARC task: {reason}")).with_help(FORM)
    })?;
    if task.train.is_empty() || task.test.is_empty() {
        return Err(DataError::failed(format!(
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

/// How often a constant shift of colours is taken out before a grid is read: docs/method.md, A.5.
pub const SHIFT_PASSES: usize = 3;

/// Reads a grid of known size off a canvas, undoing a constant shift of colours.
pub fn decode(canvas: &RgbImage, size: [usize; 2], cell: usize) -> Grid {
    decode_in(canvas, size, cell, SHIFT_PASSES)
}

/// As [`decode`], with at most so many passes that take out a shift of colours.
pub fn decode_in(canvas: &RgbImage, size: [usize; 2], cell: usize, passes: usize) -> Grid {
    let mut pixels: Vec<f32> = canvas.as_raw().iter().map(|value| f32::from(*value)).collect();
    let mut before = 0.0;
    for _ in 0..passes {
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
mod tests;
