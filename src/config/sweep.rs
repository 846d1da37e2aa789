//! The axes of the ablation and the cells they span.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::{
    Cell, Sweep, exclude,
    origin::{Origin, Sources},
    problem::{Code, Problem, Problems, similar},
    range,
    scope::Scope,
    value::{Data, Node, Table},
};

const SECTIONS: &[&str] = &["baseline", "one_at_a_time", "grid", "exclude", "max_cells"];

/// Cells beyond which a sweep is thought to be a slip, unless it sets `max_cells`.
pub(super) const SANE_CELLS: usize = 10_000;
/// Cells beyond which no sweep goes, whatever it sets.
pub(super) const MAX_CELLS: usize = 1_000_000;

/// Axes as bits, by their position in [`Axes::axes`].
pub(super) type AxisSet = u64;

/// One axis.
pub(super) struct Axis {
    pub name: String,
    pub key: Option<Origin>,
    /// The values; a baseline value that no list has is the last.
    pub values: Vec<Node>,
    pub json: Vec<Value>,
    known: HashMap<String, usize>,
    listed: usize,
    baseline: Option<usize>,
}

/// All axes and cells; a cell is the index of each axis's value.
#[derive(Default)]
pub(super) struct Axes {
    pub list: Vec<Axis>,
    pub cells: Vec<Vec<u32>>,
    /// What of the sweep is not wrong but seldom meant.
    pub warnings: Vec<String>,
    num_grid: usize,
}

impl Axes {
    /// The position of an axis.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|axis| axis.name == name)
    }

    /// The names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|axis| axis.name.as_str())
    }

    /// The part of the sweep that gives an axis its values.
    pub fn section(&self, position: usize) -> &'static str {
        match &self.list[position] {
            _ if position < self.num_grid => "grid",
            axis if axis.listed > 0 => "one_at_a_time",
            _ => "baseline",
        }
    }

    /// An axis of the grid.
    pub fn grid_axis(&self, name: &str) -> Option<&Axis> {
        self.list[..self.num_grid].iter().find(|axis| axis.name == name)
    }

    /// Drops the axes that no set can hold.
    fn cut(&mut self, problems: &mut Problems) {
        let kept = self.list.len().min(AxisSet::BITS as usize);
        for axis in self.list.drain(kept..) {
            problems.lose(&axis.name);
        }
        self.num_grid = self.num_grid.min(kept);
    }

    /// The values of the axes of `set` in a cell.
    pub fn project(&self, cell: &[u32], set: AxisSet) -> Vec<u32> {
        let bits = (0..self.list.len()).filter(|axis| set >> axis & 1 == 1);
        bits.map(|axis| cell[axis]).collect()
    }

    /// The axes of `set` in a cell by name.
    pub fn named(&self, cell: &[u32], set: AxisSet) -> Cell {
        let bits = (0..self.list.len()).filter(|axis| set >> axis & 1 == 1);
        bits.map(|axis| {
            let Axis { name, json, .. } = &self.list[axis];
            (name.clone(), json[cell[axis] as usize].clone())
        })
        .collect()
    }

    /// The sweep as the engine sees it.
    pub fn sweep(&self) -> Sweep {
        let list = |axes: &[Axis]| {
            axes.iter()
                .filter(|axis| axis.listed > 0)
                .map(|axis| (axis.name.clone(), axis.json[..axis.listed].to_vec()))
                .collect()
        };
        let (grid, single) = self.list.split_at(self.num_grid);
        Sweep {
            baseline: single
                .iter()
                .filter_map(|axis| Some((axis.name.clone(), axis.json[axis.baseline?].clone())))
                .collect(),
            one_at_a_time: list(single),
            grid: list(grid),
            cells: self.cells.iter().map(|cell| self.named(cell, AxisSet::MAX)).collect(),
        }
    }
}

/// Reads `[sweep]`, whose values may refer to params.
pub(super) fn read(
    section: Option<&Node>,
    params: &Table,
    sources: &Sources,
    problems: &mut Problems,
) -> Axes {
    let mut axes = Axes { cells: vec![Vec::new()], ..Axes::default() };
    let Some(section) = section else { return axes };
    let none = Axes::default();
    let Some(section) = Scope::new(params, &none, sources).resolve_or_report(section, problems)
    else {
        return axes;
    };
    let Some(table) = section.as_table() else {
        problems.add(Problem::wrong_type(&section, "sweep", "a table"));
        problems.lose_names_in(&section);
        return axes;
    };
    for (key, entry) in table {
        if !SECTIONS.contains(&key.as_str()) {
            let problem = Problem::new(Code::UnknownKey, format!("unknown key `sweep.{key}`"));
            let problem = problem.at(entry.key, "nothing reads this");
            problems.add(problem.suggest(key, SECTIONS.iter().copied()));
            problems.lose_names_in(&entry.node);
        }
    }
    let before = problems.len();
    axes.list = read_axes(table, "grid", problems);
    axes.num_grid = axes.list.len();
    let mut twice = Vec::new();
    for axis in read_axes(table, "one_at_a_time", problems) {
        if let Some(other) = axes.list.iter().find(|other| other.name == axis.name) {
            let message = format!("the axis `{}` is in `grid` and in `one_at_a_time`", axis.name);
            let problem = Problem::new(Code::Sweep, message);
            let problem = problem.at(axis.key, "here again").at(other.key, "first here");
            problems.add(problem.help("take it out of one of them"));
            twice.push(axis.name);
        } else {
            axes.list.push(axis);
        }
    }
    read_baseline(&mut axes, table, &twice, problems);
    if axes.list.len() > AxisSet::BITS as usize {
        let problem = Problem::new(Code::Sweep, "a sweep has at most 64 axes");
        problems.add(problem.at(section.origin, format!("{} axes", axes.list.len())));
    }
    let exclude = exclude::read(&axes, table, problems);
    check_size(&axes, table, problems);
    if problems.len() > before {
        // One cell of values that are there is enough to find the other errors.
        axes.cut(problems);
        axes.cells = vec![vec![0; axes.list.len()]];
        return axes;
    }
    axes.cells = span(&axes);
    axes.warnings = exclude.iter().filter_map(|rule| rule.idle(&axes, sources)).collect();
    axes.cells.retain(|cell| !exclude.iter().any(|rule| rule.matches(&axes.list, cell)));
    if axes.cells.is_empty() {
        let problem = Problem::new(Code::Sweep, "the sweep has no cell left");
        let origin = table.get("exclude").and_then(|entry| entry.node.origin);
        problems.add(problem.at(origin, "excludes every cell"));
    }
    axes
}

fn entries<'a>(table: &'a Table, key: &str, problems: &mut Problems) -> Option<&'a Table> {
    let node = &table.get(key)?.node;
    let entries = node.as_table();
    if entries.is_none() {
        problems.add(
            Problem::wrong_type(node, &format!("sweep.{key}"), "a table of axes")
                .help(format!("write `{key} = {{ <axis> = ... }}`")),
        );
        problems.lose_names_in(node);
    }
    entries
}

fn read_axes(table: &Table, section: &str, problems: &mut Problems) -> Vec<Axis> {
    let mut axes = Vec::new();
    for (name, entry) in entries(table, section, problems).into_iter().flatten() {
        let path = format!("sweep.{section}.{name}");
        let Some(items) = range::values(&entry.node, &path, problems) else {
            problems.lose(name);
            continue;
        };
        if items.is_empty() {
            let problem = Problem::new(Code::Sweep, format!("`{path}` has no values"));
            let problem = problem.at(entry.node.origin, "must have at least one");
            problems.add(problem.help("list its values, or take the axis out"));
            problems.lose(name);
            continue;
        }
        let mut axis = Axis {
            name: name.clone(),
            key: entry.key,
            values: Vec::new(),
            json: Vec::new(),
            known: HashMap::new(),
            listed: 0,
            baseline: None,
        };
        for item in &*items {
            let known = axis.values.len();
            let index = axis.value(item);
            if index < known {
                let message = format!("`{path}` lists {} twice", item.describe());
                let first = axis.values[index].origin;
                let problem = Problem::new(Code::Sweep, message).at(item.origin, "here again");
                problems.add(problem.at(first, "first here").help("take one of them out"));
            }
        }
        axis.listed = axis.values.len();
        axes.push(axis);
    }
    axes
}

impl Axis {
    /// How many values it takes besides its baseline, when it is varied alone.
    fn deviations(&self) -> usize {
        self.listed - usize::from(self.baseline.is_some_and(|baseline| baseline < self.listed))
    }

    /// The index of a value, which is added if it is new.
    fn value(&mut self, node: &Node) -> usize {
        let json = node.to_json();
        *self.known.entry(json.to_string()).or_insert_with(|| {
            self.values.push(node.clone());
            self.json.push(json);
            self.values.len() - 1
        })
    }
}

/// Reads the baseline; of axes that are in two sections, all is said already.
fn read_baseline(axes: &mut Axes, table: &Table, twice: &[String], problems: &mut Problems) {
    let baseline = entries(table, "baseline", problems);
    for (name, entry) in baseline.into_iter().flatten() {
        if twice.contains(name) {
            continue;
        }
        if let Some(meant) = misspelt(name, axes, baseline) {
            let meant = &mut axes.list[meant];
            let message = format!("there is no axis `{name}` to give a baseline");
            let problem = Problem::new(Code::Sweep, message).at(entry.key, "unknown axis");
            problems.add(problem.help(format!("did you mean `{}`?", meant.name)));
            meant.baseline = Some(meant.value(&entry.node));
            continue;
        }
        let position = axes.position(name);
        if position.is_some_and(|position| position < axes.num_grid) {
            let message = format!("the axis `{name}` is in `grid`, so it has no baseline");
            let problem = Problem::new(Code::Sweep, message).at(entry.key, "takes no part");
            problems.add(problem.help("take it out of `baseline` or of `grid`"));
            continue;
        }
        let position = position.unwrap_or_else(|| {
            axes.list.push(Axis {
                name: name.clone(),
                key: entry.key,
                values: Vec::new(),
                json: Vec::new(),
                known: HashMap::new(),
                listed: 0,
                baseline: None,
            });
            axes.list.len() - 1
        });
        let axis = &mut axes.list[position];
        axis.baseline = Some(axis.value(&entry.node));
    }
    for axis in axes.list[axes.num_grid..].iter().filter(|axis| axis.baseline.is_none()) {
        let message = format!("the axis `{}` has no baseline", axis.name);
        problems.add(
            Problem::new(Code::Sweep, message)
                .at(axis.key, "varied one at a time")
                .help(format!("add `{} = ...` to `sweep.baseline`", axis.name)),
        );
    }
}

/// The axis that has no baseline of its own and is most likely meant by a name that no axis has.
fn misspelt(name: &str, axes: &Axes, baseline: Option<&Table>) -> Option<usize> {
    if axes.position(name).is_some() {
        return None;
    }
    let single = axes.list[axes.num_grid..].iter().map(|axis| axis.name.as_str());
    let open: Vec<&str> =
        single.filter(|name| baseline.is_none_or(|table| !table.contains_key(*name))).collect();
    axes.position(similar(name, &open)?)
}

/// Asks back, before any cell is made, where there would be more of them than anybody means to run.
fn check_size(axes: &Axes, table: &Table, problems: &mut Problems) {
    let entry = table.get("max_cells");
    let number = |node: &Node| match node.data {
        Data::Integer(n) => usize::try_from(n).ok().filter(|n| (1..=MAX_CELLS).contains(n)),
        _ => None,
    };
    let most = entry.map(|entry| number(&entry.node));
    if let (Some(entry), Some(None)) = (entry, most) {
        let wanted = format!("a whole number from 1 to {MAX_CELLS}");
        problems.add(Problem::wrong_type(&entry.node, "sweep.max_cells", &wanted));
    }
    let (grid, single) = axes.list.split_at(axes.num_grid);
    let variants = 1 + single.iter().map(Axis::deviations).sum::<usize>();
    let cells = grid.iter().fold(variants, |cells, axis| cells.saturating_mul(axis.values.len()));
    let most = most.flatten().unwrap_or(SANE_CELLS);
    if cells <= most {
        return;
    }
    let mut factors: Vec<String> =
        grid.iter().map(|axis| format!("{} of `{}`", axis.values.len(), axis.name)).collect();
    if variants > 1 {
        factors.push(format!("{variants} around the baseline"));
    }
    let number = if cells == usize::MAX { "more than 10^19".into() } else { cells.to_string() };
    let message = format!("the sweep has {number} cells: {}", factors.join(" x "));
    let help = if cells <= MAX_CELLS {
        format!(
            "if all of them are meant, set `max_cells = {cells}` in `[sweep]`; if not, shorten \
                 an axis, or move some from `grid` to `one_at_a_time`"
        )
    } else {
        format!(
            "a sweep can have {MAX_CELLS}; shorten an axis, or move some from `grid` to \
                 `one_at_a_time`"
        )
    };
    let origin = entry.or(table.get("grid")).and_then(|entry| entry.key);
    let label = format!("more than {most}");
    problems.add(Problem::new(Code::Sweep, message).at(origin, label).help(help));
}

/// Each combination of the grid with the baseline and with each deviation from it.
fn span(axes: &Axes) -> Vec<Vec<u32>> {
    let (grid, single) = axes.list.split_at(axes.num_grid);
    let mut cells = vec![Vec::new()];
    for axis in grid {
        cells = cells
            .iter()
            .flat_map(|cell| {
                (0..axis.values.len() as u32).map(|value| [&cell[..], &[value]].concat())
            })
            .collect();
    }
    let baseline: Vec<u32> =
        single.iter().map(|axis| axis.baseline.expect("checked when read") as u32).collect();
    let mut variants = vec![baseline.clone()];
    for (position, axis) in single.iter().enumerate() {
        for value in 0..axis.listed as u32 {
            let mut variant = baseline.clone();
            variant[position] = value;
            variants.push(variant);
        }
    }
    let mut seen = BTreeSet::new();
    variants.retain(|variant| seen.insert(variant.clone()));
    let join = |cell: &Vec<u32>| {
        let cell = cell.clone();
        variants.iter().map(move |variant| [&cell[..], &variant[..]].concat()).collect::<Vec<_>>()
    };
    cells.iter().flat_map(join).collect()
}
