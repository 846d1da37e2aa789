//! `pipe diff`.

mod runs;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::{self, Write as _},
    path::PathBuf,
};

use serde_json::{Value, json};

use self::runs::StageChange;
use super::{
    error::CliError,
    session::{LayerArgs, Session},
    show::toml_text,
    table,
    versioned::Versioned,
};
use crate::{
    config::{self, Place},
    report::{
        SCHEMA_VERSION,
        style::count,
        table::{Entry, ResultTable},
    },
};

/// Compare two pipeline files, runs, or revisions of one: parameters and results
///
/// A run is given by the lock file that `pipe run --lock` wrote of it. Of runs, also the stages are
/// compared that were made from something else or gave something else. A run is compared with a
/// pipeline file as the file would run now.
#[derive(Debug, clap::Args)]
pub(super) struct DiffArgs {
    /// A pipeline file, a lock file, or `REVISION:FILE` for one as it was in git
    a: PathBuf,
    /// The other one
    b: PathBuf,
    #[command(flatten)]
    layers: LayerArgs,
    /// Write one document for other programs
    #[arg(long)]
    json: bool,
}

pub(super) fn diff(args: &DiffArgs, session: &Session) -> Result<(), CliError> {
    let (a, b) = (Versioned::parse(&args.a), Versioned::parse(&args.b));
    a.check()?;
    b.check()?;
    let (lock_a, lock_b) = (runs::lock(&a)?, runs::lock(&b)?);
    let difference = if lock_a.is_some() || lock_b.is_some() {
        runs::diff(args, [(&a, lock_a), (&b, lock_b)], session)?
    } else {
        files(args, [&a, &b], session)?
    };
    session.print(&if args.json { difference.json() } else { difference.text() })?;
    difference.code.map_or(Ok(()), |code| Err(CliError::Told(code)))
}

/// Compares two pipeline files.
fn files(
    args: &DiffArgs,
    [a, b]: [&Versioned; 2],
    session: &Session,
) -> Result<Difference, CliError> {
    let params = changes(&values(a, &args.layers)?, &values(b, &args.layers)?);
    let mut code = None;
    let results = match (tables(a, &args.layers, session), tables(b, &args.layers, session)) {
        (Ok(a), Ok(b)) => results(&numbers(&a), &numbers(&b)),
        (a, b) => {
            for error in [a.err(), b.err()].into_iter().flatten() {
                code = code.max(Some(error.report(session)));
            }
            session.talk("only the parameters are compared");
            Vec::new()
        }
    };
    Ok(Difference { params, stages: None, results, code })
}

/// All that differs.
struct Difference {
    params: Vec<Change>,
    /// Of runs, the stages that differ.
    stages: Option<Vec<StageChange>>,
    results: Vec<ResultChange>,
    /// The exit code, if something could not be compared.
    code: Option<u8>,
}

/// The values of a pipeline file with their places.
type Values = BTreeMap<String, (Value, Place)>;

fn values(file: &Versioned, layers: &LayerArgs) -> Result<Values, CliError> {
    let shown = config::show(&file.path, &layers.options(), &|path| file.read(path))?;
    Ok(shown.values.into_iter().map(|leaf| (leaf.path, (leaf.value, leaf.place))).collect())
}

fn tables(
    file: &Versioned,
    layers: &LayerArgs,
    session: &Session,
) -> Result<Vec<ResultTable>, CliError> {
    table::from_cache(&file.load(&layers.options())?, session)
}

/// A parameter that differs.
struct Change {
    path: String,
    old: Option<(Value, Option<Place>)>,
    new: Option<(Value, Option<Place>)>,
    /// Of runs, the stages in which it does.
    stages: Option<Vec<String>>,
}

fn changes(a: &Values, b: &Values) -> Vec<Change> {
    let mut paths: Vec<&String> = a.keys().chain(b.keys()).collect();
    paths.sort();
    paths.dedup();
    let differ = |path: &&String| a.get(*path).map(|v| &v.0) != b.get(*path).map(|v| &v.0);
    paths
        .into_iter()
        .filter(differ)
        .map(|path| {
            let side = |values: &Values| {
                values.get(path).map(|(value, place)| (value.clone(), Some(place.clone())))
            };
            Change { path: path.clone(), old: side(a), new: side(b), stages: None }
        })
        .collect()
}

/// A number of a table on both sides; `None` where it is not computed.
struct ResultChange {
    name: String,
    old: Option<f64>,
    new: Option<f64>,
}

/// Numbers by name, in the order they are shown in.
type Numbers = Vec<(String, Option<f64>)>;

fn results(a: &Numbers, b: &Numbers) -> Vec<ResultChange> {
    let mut names: Vec<&String> = a.iter().chain(b).map(|(name, _)| name).collect();
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.as_str()));
    let by_name =
        |side: &Numbers| -> HashMap<String, Option<f64>> { side.iter().cloned().collect() };
    let (a, b) = (by_name(a), by_name(b));
    let find = |side: &HashMap<String, Option<f64>>, name| side.get(name).copied().flatten();
    names
        .into_iter()
        .map(|name| ResultChange { name: name.clone(), old: find(&a, name), new: find(&b, name) })
        .filter(|change| change.old != change.new)
        .collect()
}

/// All cells of all tables by a name such as `pose score.f1, rank 32, n 10`.
fn numbers(tables: &[ResultTable]) -> Numbers {
    let mut out = Vec::new();
    for table in tables {
        for block in &table.blocks {
            for row in &block.rows {
                for (column, entry) in table.columns.iter().zip(&row.entries) {
                    let mut name = format!("{} {}", table.name, block.value);
                    for part in table.row_label(row) {
                        let _ = write!(name, ", {part}");
                    }
                    if let Some(axis) = &table.column_axis {
                        let _ = write!(name, ", {axis}={column}");
                    }
                    out.push((name, mean(entry)));
                }
            }
        }
    }
    out
}

fn mean(entry: &Entry) -> Option<f64> {
    entry.stat.map(|stat| stat.mean)
}

impl Difference {
    fn text(&self) -> String {
        let mut out = String::new();
        let same_stages = self.stages.as_ref().is_none_or(Vec::is_empty);
        if self.params.is_empty() {
            let all = same_stages && self.results.is_empty();
            out.push_str(if all { "no difference\n" } else { "no parameter differs\n" });
        }
        for change in &self.params {
            let _ = writeln!(out, "{change}");
        }
        if !same_stages {
            let _ = writeln!(out, "\nstages");
        }
        for line in self.stages.as_deref().map(StageChange::lines).into_iter().flatten() {
            let _ = writeln!(out, "{line}");
        }
        if !self.results.is_empty() {
            let _ = writeln!(out, "\nresults");
        }
        for result in &self.results {
            let _ = writeln!(out, "{result}");
        }
        out
    }

    fn json(&self) -> String {
        let mut document = json!({
            "schema_version": SCHEMA_VERSION,
            "parameters": self.params.iter().map(Change::json).collect::<Vec<_>>(),
            "results": self.results.iter().map(ResultChange::json).collect::<Vec<_>>(),
        });
        if let Some(stages) = &self.stages {
            document["stages"] = json!(stages);
        }
        format!("{document:#}\n")
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |side: &Option<(Value, Option<Place>)>| match side {
            Some((value, _)) => toml_text(value),
            None => "unset".to_owned(),
        };
        let path = match self.stages.as_deref() {
            // `lora.rank` of a single cell: `lora[n=10].rank`.
            Some([one]) => self.path.replacen(runs::stage_of(one), one, 1),
            _ => self.path.clone(),
        };
        write!(f, "{path}  {} -> {}", side(&self.old), side(&self.new))?;
        let place = self.new.as_ref().or(self.old.as_ref()).and_then(|(_, place)| place.as_ref());
        if let Some(place) = place {
            write!(f, "  ({place})")?;
        }
        match self.stages.as_deref() {
            None | Some([] | [_]) => Ok(()),
            Some(stages) => write!(f, "  in {}", count(stages.len(), "cell")),
        }
    }
}

impl Change {
    fn json(&self) -> Value {
        let side = |side: &Option<(Value, Option<Place>)>| {
            side.as_ref().map(|(value, place)| json!({ "value": value, "place": place }))
        };
        let (old, new) = (side(&self.old), side(&self.new));
        let mut change = json!({ "path": self.path, "old": old, "new": new });
        if let Some(stages) = &self.stages {
            change["stages"] = json!(stages);
        }
        change
    }
}

impl fmt::Display for ResultChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = self.old.zip(self.new).map(|(old, new)| new - old);
        let digits = change.map_or(Some(DIGITS), digits_for);
        let number = |value: Option<f64>| match (value, digits) {
            (None, _) => "–".to_owned(),
            (Some(value), Some(digits)) => format!("{value:.digits$}"),
            (Some(value), None) => value.to_string(),
        };
        write!(f, "{}  {} -> {}", self.name, number(self.old), number(self.new))?;
        match (change, digits) {
            (Some(change), Some(digits)) => write!(f, "  ({change:+.digits$})"),
            (Some(change), None) => write!(f, "  ({change:+.1e})"),
            (None, _) => Ok(()),
        }
    }
}

impl ResultChange {
    fn json(&self) -> Value {
        json!({ "name": self.name, "old": self.old, "new": self.new })
    }
}

/// Digits behind the point of a score.
const DIGITS: usize = 4;

/// As many digits behind the point as show two of a change; none where these are so many that all
/// there are say more.
fn digits_for(change: f64) -> Option<usize> {
    const MOST: usize = 12;
    let mut shown = 1e-3;
    (DIGITS..=MOST).find(|_| {
        let is_enough = change.abs() >= shown;
        shown /= 10.0;
        is_enough
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_shown_to_differ() {
        let told = |old, new| {
            ResultChange { name: "f1".into(), old: Some(old), new: Some(new) }.to_string()
        };
        assert_eq!(told(0.5, 0.75), "f1  0.5000 -> 0.7500  (+0.2500)");
        assert_eq!(told(0.000_1, 0.000_12), "f1  0.000100 -> 0.000120  (+0.000020)");
        assert_eq!(told(0.000_12, 0.000_1), "f1  0.000120 -> 0.000100  (-0.000020)");
        assert_eq!(told(70.25, 70.249_6), "f1  70.25000 -> 70.24960  (-0.00040)");
        let next = 0.1_f64.next_up();
        assert_eq!(told(0.1, next), "f1  0.1 -> 0.10000000000000002  (+1.4e-17)");
        let one = ResultChange { name: "f1".into(), old: None, new: Some(0.000_12) };
        assert_eq!(one.to_string(), "f1  – -> 0.0001");
    }
}
