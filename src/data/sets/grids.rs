//! `builtin:grids`: tasks in the manner of ARC, made by rule.

use super::{DataSet, Images, Knowledge, arc};
use crate::{
    data::{
        DataError, ParamError, Request,
        arc::{Example, Grid, Task},
        source::TaskRef,
    },
    rng::TorchRng,
    store::SourceReader,
};

/// Demonstrations and questions of a task.
const EXAMPLES: [usize; 2] = [4, 2];

/// A rule from a grid to its answer; the numbers are those of the task, such as its colours.
type Rule = fn(&[Vec<u8>], &[u8]) -> Vec<Vec<u8>>;

/// The concepts: a name and a rule.
const CONCEPTS: [(&str, Rule); 6] = [
    ("recolor", recolor),
    ("mirror", mirror),
    ("border", border),
    ("gravity", gravity),
    ("shift", shift),
    ("mark_rows", mark_rows),
];

pub(super) struct Grids;

impl DataSet for Grids {
    fn name(&self) -> &'static str {
        "builtin:grids"
    }

    fn doc(&self) -> &'static str {
        "Tasks in the manner of ARC, made by rule: `set` is a concept, `task` a number."
    }

    fn params(&self) -> &'static [&'static str] {
        &["source.set", "source.task"]
    }

    fn offers(&self) -> &'static [Knowledge] {
        &[Knowledge::Grids]
    }

    fn is_on_disk(&self) -> bool {
        false
    }

    fn check(&self, request: &Request) -> Vec<ParamError> {
        let names = CONCEPTS.map(|(name, _)| name).join(", ");
        let mut problems = arc::square(request);
        let set = request.source.set.as_deref();
        if !CONCEPTS.iter().any(|(name, _)| Some(*name) == set) {
            let message = format!("`set` must be a concept, but is `{}`", set.unwrap_or_default());
            let help = format!("the concepts are: {names}");
            problems.push(ParamError::new("source", message).help(help));
        }
        if !matches!(request.source.task, Some(TaskRef::Index(_))) {
            let message = "`task` must be a number";
            problems.push(ParamError::new("source", message).help("for example task = 0"));
        }
        problems
    }

    fn open<'a>(
        &self,
        request: &'a Request,
        _: &'a SourceReader,
    ) -> Result<Box<dyn Images + 'a>, DataError> {
        let set = request.source.set.as_deref().unwrap_or_default();
        let place = CONCEPTS
            .iter()
            .position(|(name, _)| *name == set)
            .ok_or_else(|| DataError::failed(format!("there is no concept `{set}`")))?;
        let number = match &request.source.task {
            Some(TaskRef::Index(number)) => *number,
            _ => 0,
        };
        arc::examples(format!("{set}{number}"), task(place, number), request)
    }
}

/// Task `number` of a concept.
fn task(place: usize, number: usize) -> Task {
    let mut rng = TorchRng::new((place * 100_003 + number) as u64);
    let numbers: Vec<u8> = rng.randperm(9).into_iter().map(|color| color as u8 + 1).collect();
    let rule = CONCEPTS[place].1;
    let mut examples = |count: usize| -> Vec<Example> {
        (0..count)
            .map(|_| {
                let input = scatter(&mut rng, &numbers);
                let output = rule(&input, &numbers);
                let grid = |rows| Grid::try_from(rows).expect("rules keep grids in bounds");
                Example { input: grid(input), output: grid(output) }
            })
            .collect()
    };
    let train = examples(EXAMPLES[0]);
    Task { train, test: examples(EXAMPLES[1]) }
}

/// A grid of 3 to 5 cells a side with cells of three colours, at least one of the first.
fn scatter(rng: &mut TorchRng, numbers: &[u8]) -> Vec<Vec<u8>> {
    let side = |rng: &mut TorchRng| rng.randint(3, 1)[0] as usize + 3;
    let (rows, columns) = (side(rng), side(rng));
    let drawn = rng.randint(8, rows * columns);
    let color = |draw: u64| if draw < 3 { numbers[draw as usize] } else { 0 };
    let mut grid: Vec<Vec<u8>> =
        drawn.chunks(columns).map(|row| row.iter().map(|draw| color(*draw)).collect()).collect();
    let place = rng.randint((rows * columns) as u64, 1)[0] as usize;
    grid[place / columns][place % columns] = numbers[0];
    grid
}

/// One colour becomes another.
fn recolor(grid: &[Vec<u8>], numbers: &[u8]) -> Vec<Vec<u8>> {
    let change = |value: u8| if value == numbers[0] { numbers[3] } else { value };
    grid.iter().map(|row| row.iter().map(|value| change(*value)).collect()).collect()
}

/// Left and right change places.
fn mirror(grid: &[Vec<u8>], _: &[u8]) -> Vec<Vec<u8>> {
    grid.iter().map(|row| row.iter().rev().copied().collect()).collect()
}

/// The outermost cells take one colour.
fn border(grid: &[Vec<u8>], numbers: &[u8]) -> Vec<Vec<u8>> {
    let (last_row, last_column) = (grid.len() - 1, grid[0].len() - 1);
    let is_outer = |y: usize, x: usize| y == 0 || x == 0 || y == last_row || x == last_column;
    let cell = |y: usize, x: usize| if is_outer(y, x) { numbers[3] } else { grid[y][x] };
    (0..=last_row).map(|y| (0..=last_column).map(|x| cell(y, x)).collect()).collect()
}

/// Cells fall to the bottom of their column.
fn gravity(grid: &[Vec<u8>], _: &[u8]) -> Vec<Vec<u8>> {
    let mut fallen = vec![vec![0; grid[0].len()]; grid.len()];
    for x in 0..grid[0].len() {
        let column = grid.iter().map(|row| row[x]).filter(|value| *value > 0);
        for (up, value) in column.rev().enumerate() {
            fallen[grid.len() - 1 - up][x] = value;
        }
    }
    fallen
}

/// Everything moves one cell to the right, and round the edge.
fn shift(grid: &[Vec<u8>], _: &[u8]) -> Vec<Vec<u8>> {
    let mut shifted = grid.to_vec();
    for row in &mut shifted {
        row.rotate_right(1);
    }
    shifted
}

/// Rows with a cell of one colour are filled with it.
fn mark_rows(grid: &[Vec<u8>], numbers: &[u8]) -> Vec<Vec<u8>> {
    let mark = |row: &Vec<u8>| {
        if row.contains(&numbers[0]) { vec![numbers[0]; row.len()] } else { row.clone() }
    };
    grid.iter().map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_does_what_it_says() {
        let grid = [vec![1, 0, 2], vec![0, 0, 0], vec![0, 3, 1]];
        let numbers = [1, 2, 3, 7];
        assert_eq!(recolor(&grid, &numbers), [[7, 0, 2], [0, 0, 0], [0, 3, 7]]);
        assert_eq!(mirror(&grid, &numbers), [[2, 0, 1], [0, 0, 0], [1, 3, 0]]);
        assert_eq!(border(&grid, &numbers), [[7, 7, 7], [7, 0, 7], [7, 7, 7]]);
        assert_eq!(gravity(&grid, &numbers), [[0, 0, 0], [0, 0, 2], [1, 3, 1]]);
        assert_eq!(shift(&grid, &numbers), [[2, 1, 0], [0, 0, 0], [1, 0, 3]]);
        assert_eq!(mark_rows(&grid, &numbers), [[1, 1, 1], [0, 0, 0], [1, 1, 1]]);
    }

    #[test]
    fn tasks_differ_and_stay_the_same() {
        let outputs = |place, number| {
            let task = task(place, number);
            assert_eq!([task.train.len(), task.test.len()], EXAMPLES);
            task.train.into_iter().map(|example| Vec::from(example.output)).collect::<Vec<_>>()
        };
        for place in 0..CONCEPTS.len() {
            assert_eq!(outputs(place, 0), outputs(place, 0));
            assert_ne!(outputs(place, 0), outputs(place, 1));
        }
    }
}
