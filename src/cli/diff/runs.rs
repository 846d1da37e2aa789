//! Runs, as their lock files tell of them, compared with each other or with a pipeline as it is
//! now.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem::take,
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{Change, DiffArgs, Difference, Numbers, results};
use crate::{
    artifact::ArtifactKind,
    cli::{
        error::CliError,
        session::{LayerArgs, Session},
        versioned::Versioned,
    },
    config::{Pipeline, Place},
    plan::{
        self, Freshness, Gatherer, Lock, LockError, LockedModel, LockedStage, PlanOptions, flat,
        place_of,
    },
    report::{results::values, style::count},
    stages::STAGES,
    store::{Digest, Store},
};

/// The lock that a file holds, if it is no pipeline file. No TOML begins with a brace.
pub(super) fn lock(file: &Versioned) -> Result<Option<Lock>, CliError> {
    let is_named = file.path.extension().is_some_and(|extension| extension == "lock");
    let path = || file.path.clone();
    match file.read(&file.path) {
        Ok(text) if is_named || text.trim_start().starts_with('{') => {
            Ok(Some(Lock::parse(&file.path, text.as_bytes())?))
        }
        Err(source) if is_named => Err(LockError::Io { path: path(), source }.into()),
        // A pipeline file, which is read, or cannot be, elsewhere.
        _ => Ok(None),
    }
}

/// Compares two sides of which at least one is a run.
pub(super) fn diff(
    args: &DiffArgs,
    sides: [(&Versioned, Option<Lock>); 2],
    session: &Session,
) -> Result<Difference, CliError> {
    let layered = args.layers.profile.is_some() || !args.layers.set.is_empty();
    if layered && sides.iter().all(|(_, lock)| lock.is_some()) {
        return Err(CliError::usage("`--profile` and `--set` are laid on pipeline files")
            .with_help("a lock file tells of a run as it was; each profile has its own"));
    }
    let store = session.store()?;
    let [a, b] = sides.map(|(file, lock)| Run::of(file, lock, &args.layers, &store));
    let (a, b) = (a?, b?);
    let stages = stages(&a, &b);
    let mut code = None;
    let mut numbers = |run: &Run| {
        let found = run.scores(&stages, &store, session);
        found.unwrap_or_else(|error| {
            code = code.max(Some(error.report(session)));
            Numbers::new()
        })
    };
    let results = results(&numbers(&a), &numbers(&b));
    Ok(Difference { params: params(&a, &b), stages: Some(stages), results, code })
}

/// What a run was made from and gave.
struct Run {
    /// What it is called in messages.
    name: String,
    /// What is not of a stage, such as the commit of a model.
    about: BTreeMap<String, Value>,
    stages: BTreeMap<String, RunStage>,
}

/// One stage of it.
struct RunStage {
    kind: String,
    version: u32,
    /// Nested ones by dotted paths.
    params: BTreeMap<String, (Value, Option<Place>)>,
    /// All else, if it was run.
    made: Option<LockedStage>,
}

impl Run {
    fn of(
        file: &Versioned,
        lock: Option<Lock>,
        layers: &LayerArgs,
        store: &Store,
    ) -> Result<Self, CliError> {
        let name = file.to_string();
        match lock {
            Some(lock) => Ok(Self::of_lock(name, lock)),
            None => Self::of_pipeline(name, &file.load(&layers.options())?, store),
        }
    }

    fn of_lock(name: String, lock: Lock) -> Self {
        let mut about = about(lock.profile.as_ref(), &lock.models);
        about.insert("pipe_version".to_owned(), lock.pipe_version.into());
        let stage = |mut made: LockedStage| {
            let params = take(&mut made.params);
            RunStage {
                kind: made.kind.clone(),
                version: made.version,
                params: flat(&params).into_iter().map(|(k, v)| (k, (v.clone(), None))).collect(),
                made: Some(made),
            }
        };
        let stages = lock.stages.into_iter().map(|(name, made)| (name, stage(made))).collect();
        Self { name, about, stages }
    }

    /// A pipeline as it would run, with what the store has of it.
    fn of_pipeline(name: String, pipeline: &Pipeline, store: &Store) -> Result<Self, CliError> {
        let plan = plan::build(pipeline, store, &PlanOptions::default())?;
        let gatherer = Gatherer::new(store);
        let nodes = plan.nodes.iter().zip(&pipeline.instances);
        let stages = nodes.map(|(node, instance)| {
            let params = gatherer.params(instance);
            let params = flat(&params).into_iter().map(|(path, value)| {
                let place = place_of(instance, &path);
                (path, (value.clone(), place))
            });
            let stage = RunStage {
                kind: instance.entry.kind.to_owned(),
                version: instance.version(),
                params: params.collect(),
                made: match &node.freshness {
                    Freshness::Fresh(record) => Some(LockedStage::of(record)),
                    _ => None,
                },
            };
            (instance.to_string(), stage)
        });
        let about = about(pipeline.profile.as_ref(), &LockedModel::of(pipeline));
        Ok(Self { name, about, stages: stages.collect() })
    }

    /// The scores of the stages that differ, as far as the store has them.
    fn scores(
        &self,
        stages: &[StageChange],
        store: &Store,
        session: &Session,
    ) -> Result<Numbers, CliError> {
        let mut numbers = Numbers::new();
        let mut gone = 0;
        for StageChange { name, .. } in stages {
            let Some(stage) = self.stages.get(name).filter(|stage| stage.gives_scores()) else {
                continue;
            };
            match stage.output() {
                Some(output) if store.complete(output).is_some() => {
                    let values = values(name, output, store)?.into_iter();
                    numbers.extend(values.map(|(score, v)| (format!("{name}.{score}"), Some(v))));
                }
                Some(_) => gone += 1,
                None => {}
            }
        }
        if gone > 0 {
            let stages = count(gone, "stage");
            session.talk(&format!(
                "the cache no longer has the scores of {stages} of `{}`",
                self.name
            ));
        }
        Ok(numbers)
    }
}

impl RunStage {
    fn output(&self) -> Option<Digest> {
        self.made.as_ref().map(|made| made.output)
    }

    fn gives_scores(&self) -> bool {
        let entry = STAGES.iter().find(|entry| entry.kind == self.kind);
        entry.is_some_and(|entry| entry.ports.output == ArtifactKind::Metrics)
    }
}

fn about(
    profile: Option<&String>,
    models: &BTreeMap<String, LockedModel>,
) -> BTreeMap<String, Value> {
    let commits = models.iter().filter_map(|(name, model)| {
        Some((format!("models.{name}.commit"), model.commit.clone()?.into()))
    });
    commits.chain(profile.map(|name| ("profile".to_owned(), name.clone().into()))).collect()
}

/// A stage that was made from something else, gave something else, or is on one side only.
#[derive(Serialize)]
pub(super) struct StageChange {
    /// `lora[n=10]`.
    name: String,
    /// Of what it was made that differs; empty if all of it is the same, or one side lacks the
    /// stage.
    made_from: Vec<String>,
    old: SideOf,
    new: SideOf,
    /// The same in words.
    #[serde(skip)]
    words: String,
}

/// A stage on one side.
#[derive(Clone, Copy, Serialize)]
struct SideOf {
    /// Whether the side has it.
    exists: bool,
    /// What it gave; null if that is not known.
    digest: Option<Digest>,
}

impl StageChange {
    /// One line for all cells of a stage of which the same is to be said; few of them by name.
    pub(super) fn lines(all: &[Self]) -> Vec<String> {
        const NAMED: usize = 3;
        let mut order = Vec::new();
        let mut groups: HashMap<(&str, &str), Vec<&str>> = HashMap::new();
        for Self { name, words, .. } in all {
            let key = (stage_of(name), words.as_str());
            groups.entry(key).or_insert_with(|| {
                order.push(key);
                Vec::new()
            });
            groups.entry(key).or_default().push(name);
        }
        let line = |key: (&str, &str)| {
            let names = &groups[&key];
            let shown = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            match names.len().saturating_sub(NAMED) {
                0 => format!("{shown}  {}", key.1),
                more => format!("{shown} and {more} more  {}", key.1),
            }
        };
        order.into_iter().map(line).collect()
    }
}

/// The stage of an instance such as `lora[n=10]`.
pub(super) fn stage_of(name: &str) -> &str {
    name.split('[').next().unwrap_or(name)
}

/// The stages that differ.
fn stages(a: &Run, b: &Run) -> Vec<StageChange> {
    let names: BTreeSet<&String> = a.stages.keys().chain(b.stages.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        let (old, new) = (a.stages.get(name), b.stages.get(name));
        let made_from = old.zip(new).map_or_else(Vec::new, |(old, new)| made_from(old, new));
        let words = match (old, new) {
            (Some(_), None) => format!("only in `{}`", a.name),
            (None, _) => format!("only in `{}`", b.name),
            (Some(old), Some(new)) => {
                let gave = match (old.output(), new.output()) {
                    (None, None) if made_from.is_empty() => continue,
                    (None, None) => "neither is up to date".to_owned(),
                    (Some(_), None) => format!("not up to date in `{}`", b.name),
                    (None, Some(_)) => format!("not up to date in `{}`", a.name),
                    (Some(old), Some(new)) if old != new => "other output".to_owned(),
                    _ if made_from.is_empty() => continue,
                    _ => "same output".to_owned(),
                };
                made_from.iter().cloned().chain([gave]).collect::<Vec<_>>().join(", ")
            }
        };
        let side = |stage: Option<&RunStage>| SideOf {
            exists: stage.is_some(),
            digest: stage.and_then(RunStage::output),
        };
        let (old, new) = (side(old), side(new));
        found.push(StageChange { name: name.clone(), made_from, old, new, words });
    }
    found
}

/// Of what a stage was made on both sides that differs.
fn made_from(old: &RunStage, new: &RunStage) -> Vec<String> {
    let mut found = Vec::new();
    if old.kind != new.kind {
        found.push(format!("kind {} -> {}", old.kind, new.kind));
    } else if old.version != new.version {
        found.push(format!("version {} -> {}", old.version, new.version));
    }
    let paths = old.params.keys().chain(new.params.keys());
    if paths.into_iter().any(|path| param_differs(old, new, path)) {
        found.push("other parameters".to_owned());
    }
    if let (Some(old), Some(new)) = (&old.made, &new.made) {
        let others = [
            (old.inputs != new.inputs, "other inputs"),
            (old.weights != new.weights, "other weights"),
            (old.sources != new.sources, "other files read"),
            (old.output_format != new.output_format, "other form of output"),
        ];
        found.extend(others.iter().filter(|(is, _)| *is).map(|(_, what)| (*what).to_owned()));
    }
    found
}

fn param_differs(old: &RunStage, new: &RunStage, path: &str) -> bool {
    let value = |stage: &RunStage| stage.params.get(path).map(|(value, _)| value.clone());
    value(old) != value(new)
}

/// The parameters that differ, each once for all cells in which it does so in the same way.
fn params(a: &Run, b: &Run) -> Vec<Change> {
    let mut found = about_changes(a, b);
    let mut known: HashMap<String, usize> = HashMap::new();
    for (name, old) in &a.stages {
        let Some(new) = b.stages.get(name) else { continue };
        for path in old.params.keys().chain(new.params.keys()).collect::<BTreeSet<_>>() {
            if !param_differs(old, new, path) {
                continue;
            }
            let (old, new) = (old.params.get(path), new.params.get(path));
            let value = |side: Option<&(Value, _)>| side.map(|(value, _)| value.clone());
            let key = json!([stage_of(name), path, value(old), value(new)]).to_string();
            let index = *known.entry(key).or_insert_with(|| {
                let path = format!("{}.{path}", stage_of(name));
                let (old, new) = (old.cloned(), new.cloned());
                found.push(Change { path, old, new, stages: Some(Vec::new()) });
                found.len() - 1
            });
            found[index].stages.get_or_insert_default().push(name.clone());
        }
    }
    found
}

fn about_changes(a: &Run, b: &Run) -> Vec<Change> {
    let paths: BTreeSet<&String> = a.about.keys().chain(b.about.keys()).collect();
    let changes = paths.into_iter().filter_map(|path| {
        let (old, new) = (a.about.get(path), b.about.get(path));
        // A pipeline that is yet to run has no version.
        let comparable = path != "pipe_version" || old.is_some() && new.is_some();
        (old != new && comparable).then(|| Change {
            path: path.clone(),
            old: old.map(|value| (value.clone(), None)),
            new: new.map(|value| (value.clone(), None)),
            stages: None,
        })
    });
    changes.collect()
}
