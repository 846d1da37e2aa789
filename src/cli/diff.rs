//! `pipe diff`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use super::{
    error::CliError,
    session::{LayerArgs, Session},
    show::toml_text,
    table,
};
use crate::{
    config::{self, Place},
    report::{
        SCHEMA_VERSION,
        table::{Entry, ResultTable},
    },
    stages::STAGES,
};

/// Compare two pipeline files, or revisions of one: parameters and results
#[derive(Debug, clap::Args)]
pub(super) struct DiffArgs {
    /// A file, or `REVISION:FILE` for a file as it was in git
    a: String,
    /// The other one
    b: String,
    #[command(flatten)]
    layers: LayerArgs,
    /// Write one document for other programs
    #[arg(long)]
    json: bool,
}

pub(super) fn diff(args: &DiffArgs, session: &Session) -> Result<(), CliError> {
    let (a, b) = (Side::parse(&args.a), Side::parse(&args.b));
    a.check()?;
    b.check()?;
    let changes = changes(&a.values(&args.layers)?, &b.values(&args.layers)?);
    let mut code = None;
    let results = match (a.tables(&args.layers, session), b.tables(&args.layers, session)) {
        (Ok(a), Ok(b)) => results(&a, &b),
        (a, b) => {
            for error in [a.err(), b.err()].into_iter().flatten() {
                code = code.max(Some(error.report(session)));
            }
            session.talk("only the parameters are compared");
            Vec::new()
        }
    };
    session.print(&if args.json { json(&changes, &results) } else { text(&changes, &results) })?;
    code.map_or(Ok(()), |code| Err(CliError::Told(code)))
}

/// One of the two things compared.
struct Side {
    revision: Option<String>,
    path: PathBuf,
}

type Values = BTreeMap<String, (Value, Place)>;

impl Side {
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((revision, path)) if !Path::new(text).exists() => {
                Self { revision: Some(revision.to_owned()), path: path.into() }
            }
            _ => Self { revision: None, path: text.into() },
        }
    }

    /// Whether git has the revision, and the file in it.
    fn check(&self) -> Result<(), CliError> {
        let Some(revision) = &self.revision else { return Ok(()) };
        let (commit, path) = (format!("{revision}^{{commit}}"), self.path.display());
        let folder = folder_of(&self.path);
        let asked = git(folder, &["rev-parse", "--git-dir"]).map_err(|error| {
            CliError::environment(format!("git cannot be run: {error}"))
                .with_help(format!("install git to read `{path}` as it was in `{revision}`"))
        })?;
        let folder = folder.display();
        if !asked.status.success() {
            return Err(CliError::usage(format!("`{folder}` is in no git repository"))
                .with_help(format!("`{revision}:` names a revision in git; name a file instead")));
        }
        let has = |args: &[&str]| {
            git(folder_of(&self.path), args).is_ok_and(|output| output.status.success())
        };
        if !has(&["rev-parse", "--verify", "--quiet", &commit]) {
            return Err(CliError::usage(format!("git has no revision `{revision}` in `{folder}`"))
                .with_help(format!("`git log --oneline -- {path}` lists those of the file")));
        }
        if !has(&["cat-file", "-e", &object(revision, &self.path)]) {
            return Err(CliError::usage(format!("`{path}` is not in the revision `{revision}`"))
                .with_help(format!("`git ls-tree --name-only {revision}` lists what is there")));
        }
        Ok(())
    }

    /// Reads a file, and what it extends, at this side's revision.
    fn read(&self, path: &Path) -> io::Result<String> {
        let Some(revision) = &self.revision else { return std::fs::read_to_string(path) };
        let output = git(folder_of(path), &["show", &object(revision, path)])?;
        if output.status.success() {
            return String::from_utf8(output.stdout).map_err(io::Error::other);
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(io::Error::other(message))
    }

    fn values(&self, layers: &LayerArgs) -> Result<Values, CliError> {
        let shown = config::show(&self.path, &layers.options(), &|path| self.read(path))?;
        Ok(shown.values.into_iter().map(|leaf| (leaf.path, (leaf.value, leaf.place))).collect())
    }

    fn tables(&self, layers: &LayerArgs, session: &Session) -> Result<Vec<ResultTable>, CliError> {
        let options = layers.options();
        let pipeline = config::load_with(STAGES, &self.path, &options, &|path| self.read(path))?;
        table::from_cache(&pipeline, session)
    }
}

/// The folder of a file, if it is there now, else the current one.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| folder.is_dir()).unwrap_or(Path::new("."))
}

/// A file as it was in a revision, by its name in git, asked in its folder.
fn object(revision: &str, path: &Path) -> String {
    let below = path.strip_prefix(folder_of(path)).unwrap_or(path);
    format!("{revision}:./{}", below.display())
}

fn git(folder: &Path, args: &[&str]) -> io::Result<Output> {
    Command::new("git").arg("-C").arg(folder).args(args).output()
}

/// A parameter that differs.
struct Change {
    path: String,
    old: Option<(Value, Place)>,
    new: Option<(Value, Place)>,
}

fn changes(a: &Values, b: &Values) -> Vec<Change> {
    let mut paths: Vec<&String> = a.keys().chain(b.keys()).collect();
    paths.sort();
    paths.dedup();
    let differ = |path: &&String| a.get(*path).map(|v| &v.0) != b.get(*path).map(|v| &v.0);
    paths
        .into_iter()
        .filter(differ)
        .map(|path| Change {
            path: path.clone(),
            old: a.get(path).cloned(),
            new: b.get(path).cloned(),
        })
        .collect()
}

/// A number of a table on both sides; `None` where it is not computed.
struct ResultChange {
    name: String,
    old: Option<f64>,
    new: Option<f64>,
}

fn results(a: &[ResultTable], b: &[ResultTable]) -> Vec<ResultChange> {
    let (a, b) = (numbers(a), numbers(b));
    let mut names: Vec<&String> = a.iter().chain(&b).map(|(name, _)| name).collect();
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.as_str()));
    let find = |side: &[(String, Option<f64>)], wanted: &String| {
        side.iter().find(|(name, _)| name == wanted).and_then(|(_, number)| *number)
    };
    names
        .into_iter()
        .map(|name| ResultChange { name: name.clone(), old: find(&a, name), new: find(&b, name) })
        .filter(|change| change.old != change.new)
        .collect()
}

/// All cells of all tables by a name such as `pose score.f1, rank 32, n 10`.
fn numbers(tables: &[ResultTable]) -> Vec<(String, Option<f64>)> {
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

fn text(changes: &[Change], results: &[ResultChange]) -> String {
    let mut out = String::new();
    match (changes, results) {
        ([], []) => out.push_str("no difference\n"),
        ([], _) => out.push_str("no parameter differs\n"),
        _ => {}
    }
    for change in changes {
        let side = |side: &Option<(Value, Place)>| match side {
            Some((value, _)) => toml_text(value),
            None => "unset".to_owned(),
        };
        let place = change.new.as_ref().or(change.old.as_ref()).map(|(_, place)| place.to_string());
        let place = place.unwrap_or_default();
        let _ = writeln!(
            out,
            "{}  {} -> {}  ({place})",
            change.path,
            side(&change.old),
            side(&change.new)
        );
    }
    if !results.is_empty() {
        let _ = writeln!(out, "\nresults");
    }
    for result in results {
        let number = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:.4}"));
        let change = match (result.old, result.new) {
            (Some(old), Some(new)) => format!("  ({:+.4})", new - old),
            _ => String::new(),
        };
        let _ = writeln!(
            out,
            "{}  {} -> {}{change}",
            result.name,
            number(result.old),
            number(result.new)
        );
    }
    out
}

fn json(changes: &[Change], results: &[ResultChange]) -> String {
    let side = |side: &Option<(Value, Place)>| {
        side.as_ref().map(|(value, place)| json!({ "value": value, "place": place }))
    };
    let params = changes.iter().map(
        |change| json!({ "path": change.path, "old": side(&change.old), "new": side(&change.new) }),
    );
    let results = results
        .iter()
        .map(|result| json!({ "name": result.name, "old": result.old, "new": result.new }));
    let document = json!({
        "schema_version": SCHEMA_VERSION,
        "parameters": params.collect::<Vec<_>>(),
        "results": results.collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}
