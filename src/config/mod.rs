//! TOML text to a typed, expanded pipeline.
//!
//! [`load`] merges the layers of a file (`layers`), spans the sweep, resolves `${}` references
//! per cell, parses each stage into its type and checks how the stages fit together. It collects
//! all errors, each with its place.

mod alike;
mod check;
mod error;
mod excerpt;
mod exclude;
mod expand;
mod idle;
mod kinds;
mod layers;
mod leaks;
mod makers;
mod names;
pub mod origin;
pub mod pipeline;
mod problem;
mod range;
pub mod references;
pub mod schema;
mod scope;
mod set;
pub mod settings;
mod show;
mod stages;
mod sweep;
mod tables;
#[cfg(test)]
mod tests;
mod unused;
pub mod value;

pub use error::{ConfigError, ConfigErrors};
pub use layers::ReadFile;
pub use origin::Layer;
pub use pipeline::{Cell, Instance, Pipeline, Place, Places, Reference, Spread, Sweep, Table};
pub use problem::{Code, similar};
pub use show::{Leaf, Shown, show};

use std::{path::Path, sync::Arc};

use self::{
    expand::Expander,
    kinds::Kinds,
    layers::{Merged, PROFILE_SECTIONS},
    origin::Sources,
    problem::{Problem, Problems},
    scope::Scope,
    stages::Definition,
    sweep::Axes,
    unused::UnusedAxes,
    value::{Data, Node, Table as NodeTable},
};
use crate::{
    huge_pages,
    stages::{STAGES, StageEntry},
};

const SECTIONS: &[&str] =
    &["name", "title", "seed", "extends", "params", "profiles", "sweep", "stages", "tables"];

/// What the command line adds to a file.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// `--profile`.
    pub profile: Option<String>,
    /// `--set`, each `key=value` with a key such as `lora.steps`, `params.size` or `seed`.
    pub set: Vec<String>,
    /// Whether data and the files of models are looked at, where they are there: too few images, or
    /// weights that do not fit, are then an error of the file.
    pub look_at_files: bool,
    /// What is to be computed, and so must be more than readable.
    pub to_run: ToRun,
}

/// The stages that a command will run, or asks whether they can be.
#[derive(Clone, Debug, Default)]
pub enum ToRun {
    /// None: it shows, plans or copies.
    #[default]
    None,
    /// All.
    All,
    /// These stages or cells, and what they need.
    Only(Vec<String>),
}

impl ToRun {
    /// What `--only` leaves.
    pub fn only(names: &[String]) -> Self {
        if names.is_empty() { Self::All } else { Self::Only(names.to_owned()) }
    }

    /// Whether a stage of this name is among those named.
    fn names(&self, stage: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Only(names) => names.iter().any(|name| {
                name.trim().strip_prefix(stage).is_some_and(|rest| {
                    let rest = rest.trim_start();
                    rest.is_empty() || rest.starts_with('[')
                })
            }),
        }
    }
}

/// Reads a pipeline file; one without stages is wrong, since there is nothing to do with it.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Pipeline, ConfigErrors> {
    let pipeline = load_with(STAGES, path, options, &|path| {
        let text = std::fs::read_to_string(path)?;
        huge_pages::allow_for(text.len());
        Ok(text)
    })?;
    if !pipeline.instances.is_empty() {
        return Ok(pipeline);
    }
    let name = path.display().to_string();
    let mut problems = Problems::default();
    problems.add(Problem::new(Code::MissingKey, format!("`{name}` has no stages")).help(
        "add a `[stages.<name>]` with a `kind`, or let `pipe init` write a file to start from",
    ));
    Err(problems.finish(&name, &Sources::default()))
}

/// Reads a pipeline whose files come from `read`, with the stage kinds of `registry`.
pub fn load_with(
    registry: &'static [StageEntry],
    path: &Path,
    options: &LoadOptions,
    read: ReadFile<'_>,
) -> Result<Pipeline, ConfigErrors> {
    let mut sources = Sources::default();
    let mut problems = Problems::default();
    let merged = layers::merge(path, options, read, &mut sources, &mut problems);
    let sources = Arc::new(sources);
    let pipeline = merged.and_then(|merged| {
        let builder = Builder { registry, path, options, sources: &sources, read };
        builder.build(&merged, &mut problems)
    });
    match pipeline {
        Some(pipeline) if problems.is_empty() => Ok(pipeline),
        _ => Err(problems.finish(&path.display().to_string(), &sources)),
    }
}

struct Builder<'a> {
    registry: &'static [StageEntry],
    path: &'a Path,
    options: &'a LoadOptions,
    sources: &'a Arc<Sources>,
    read: ReadFile<'a>,
}

impl Builder<'_> {
    fn build(&self, merged: &Merged, problems: &mut Problems) -> Option<Pipeline> {
        let root = merged.root.as_table()?;
        check_sections(root, problems);
        names::check(&merged.root, problems);
        let empty = NodeTable::new();
        let params = section(root, "params", problems).unwrap_or(&empty);
        let stages = section(root, "stages", problems).unwrap_or(&empty);
        let axes = sweep::read(merged.root.get("sweep"), params, self.sources, problems);
        let scope = Scope::new(params, &axes, self.sources);
        check_names(params, &axes, problems);
        check_profiles(&merged.written, problems);
        scope.check_params(problems);
        unused::check_params(params, merged, problems);

        let (registry, kinds) = (self.registry, Kinds::default());
        let reader = stages::Reader { registry, stages, axes: &axes, scope: &scope, kinds };
        let mut definitions = reader.read(problems);
        let seed = read_seed(root, problems);
        let written_tables = merged.root.get("tables");
        let reader = tables::Reader {
            axes: &axes,
            definitions: &definitions,
            sources: self.sources,
            file: self.read,
        };
        let tables = reader.read(written_tables, problems);
        let order = stages::order(&definitions, problems)?;
        stages::reach(&mut definitions, &order);
        self.check_axes(&axes, &definitions, merged, problems);
        let LoadOptions { look_at_files, to_run, .. } = self.options;
        let expander = Expander {
            axes: &axes,
            scope: &scope,
            sources: self.sources,
            seed,
            look_at_files: *look_at_files,
            to_run,
        };
        let (instances, found) = expander.expand(&definitions, &order, problems);
        tables::check_metrics(written_tables, &instances, problems);
        let stem = || self.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        Some(Pipeline {
            path: self.path.to_owned(),
            files: self.sources.files(),
            name: name(root, problems).or_else(stem).unwrap_or_default(),
            title: text(root, "title", problems),
            seed: seed.0,
            profile: self.options.profile.clone(),
            set: self.options.set.clone(),
            instances,
            sweep: axes.sweep(),
            tables,
            root: Arc::clone(&merged.root),
            warnings: axes.warnings.iter().cloned().chain(found.warnings).collect(),
            undecoded: found.undecoded,
            asked_and_learnt: found.asked_and_learnt,
        })
    }

    /// Every axis must reach a stage; where one is wrong, nobody can tell which it would use.
    fn check_axes(
        &self,
        axes: &Axes,
        definitions: &[Definition<'_>],
        merged: &Merged,
        problems: &mut Problems,
    ) {
        let complete = definitions
            .iter()
            .all(|definition| definition.kind.is_some() && definition.dropped.is_empty());
        if complete {
            let used = definitions.iter().fold(0, |used, definition| used | definition.reach);
            UnusedAxes { axes, merged, sources: self.sources }.check(used, problems);
        }
    }
}

fn section<'a>(root: &'a NodeTable, name: &str, problems: &mut Problems) -> Option<&'a NodeTable> {
    let node = &root.get(name)?.node;
    let table = node.as_table();
    if table.is_none() {
        problems.add(Problem::wrong_type(node, name, "a table"));
    }
    table
}

fn text(root: &NodeTable, name: &str, problems: &mut Problems) -> Option<String> {
    let node = &root.get(name)?.node;
    let text = node.as_str().map(str::to_owned);
    if text.is_none() {
        problems.add(Problem::wrong_type(node, name, "a string"));
    }
    text
}

/// The pipeline's name, by which its history is kept and found.
fn name(root: &NodeTable, problems: &mut Problems) -> Option<String> {
    let name = text(root, "name", problems)?;
    if name.trim().is_empty() {
        let problem = Problem::new(Code::BadValue, "`name` must not be empty");
        problems.add(
            problem
                .at(root["name"].node.origin, "empty")
                .help("leave it out to take the file's name"),
        );
    }
    Some(name)
}

fn read_seed(root: &NodeTable, problems: &mut Problems) -> (u64, Option<origin::Origin>) {
    let Some(entry) = root.get("seed") else { return (0, None) };
    let seed = match entry.node.data {
        Data::Integer(seed) => u64::try_from(seed).ok(),
        Data::Unsigned(seed) => Some(seed),
        _ => None,
    };
    if seed.is_none() {
        problems.add(Problem::wrong_type(&entry.node, "seed", "a whole number, zero or more"));
    }
    (seed.unwrap_or(0), entry.node.origin)
}

fn check_sections(root: &NodeTable, problems: &mut Problems) {
    for (key, entry) in root {
        if !SECTIONS.contains(&key.as_str()) {
            let problem = Problem::new(Code::UnknownKey, format!("unknown key `{key}`"));
            let problem = problem.at(entry.key, "nothing reads this");
            problems.add(problem.suggest(key, SECTIONS.iter().copied()));
            problems.lose_names_in(&entry.node);
        }
    }
}

/// A `${name}` must mean one thing, and a profile must be able to set every param.
fn check_names(params: &NodeTable, axes: &Axes, problems: &mut Problems) {
    for (name, entry) in params {
        if let Some(axis) = axes.position(name) {
            let message = format!("`{name}` is both a param and a sweep axis");
            let problem = Problem::new(Code::Sweep, message).at(entry.key, "the param");
            problems.add(problem.at(axes.list[axis].key, "the axis").help("rename one of them"));
        }
        if PROFILE_SECTIONS.contains(&name.as_str()) {
            let message = format!("a param cannot be named `{name}`");
            let problem = Problem::new(Code::Profile, message).at(entry.key, "means a section");
            problems.add(problem.help(format!("in a profile, `{name}` overrides that section")));
        }
    }
}

/// Every profile, chosen or not, may only set params that exist.
fn check_profiles(written: &Node, problems: &mut Problems) {
    let Some(node) = written.get("profiles") else { return };
    let Some(profiles) = node.as_table() else {
        problems.add(Problem::wrong_type(node, "profiles", "a table"));
        return;
    };
    let params = written.get("params").and_then(Node::as_table);
    for (name, entry) in profiles {
        let Some(profile) = entry.node.as_table() else {
            problems.add(Problem::wrong_type(&entry.node, &format!("profiles.{name}"), "a table"));
            continue;
        };
        for (key, entry) in profile {
            let known = PROFILE_SECTIONS.contains(&key.as_str())
                || params.is_some_and(|params| params.contains_key(key));
            if !known {
                let message =
                    format!("profile `{name}` sets the param `{key}`, which is not there");
                let names = params.into_iter().flat_map(|params| params.keys().map(String::as_str));
                problems.add(
                    Problem::new(Code::Profile, message)
                        .at(entry.key, "no such param")
                        .suggest(key, names.chain(PROFILE_SECTIONS.iter().copied())),
                );
            }
        }
    }
}
