//! The states of a stage, and the sentence for each reason to run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::Value;

use super::filled;
use crate::{
    config::{
        Instance, Place,
        pipeline::{one_line, plain},
    },
    plan::Lack,
    stages::StageEntry,
    store::{Digest, Ingredients, Record, is_missing},
};

/// Whether a stage must run.
#[derive(Debug)]
pub enum Freshness {
    /// The store already holds the output.
    Fresh(Box<Record>),
    /// Must run; never empty.
    Stale(Vec<StaleReason>),
    /// Depends on outputs that do not exist yet (indices of instances); decided when they do.
    Pending {
        /// The instances it waits for.
        upstream: Vec<usize>,
    },
    /// Cannot be decided, nor run, before this is there.
    Blocked(Lack),
}

impl Freshness {
    /// That of what waits for these instances.
    pub(crate) fn after(mut upstream: Vec<usize>) -> Self {
        upstream.sort_unstable();
        upstream.dedup();
        Self::Pending { upstream }
    }
}

/// Why a stage must run.
#[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum StaleReason {
    /// No stage like it ever ran.
    NeverRun,
    /// It is of another kind.
    KindChanged {
        /// Before.
        old: String,
        /// Now.
        new: String,
    },
    /// The kind's `VERSION` is another, or the revision of the data set, task or metric that it
    /// names.
    VersionChanged {
        /// Before.
        old: u32,
        /// Now.
        new: u32,
    },
    /// A parameter has another value.
    ParamChanged {
        /// `rank`, `optimizer.lr`.
        path: String,
        /// Before.
        old: String,
        /// Now.
        new: String,
        /// Where the new value was written.
        place: Option<Place>,
    },
    /// An input has other content.
    InputChanged {
        /// The port.
        port: String,
        /// Before.
        old: Digest,
        /// Now.
        new: Digest,
    },
    /// The model's weights are others.
    WeightsChanged {
        /// The model.
        model: String,
    },
    /// A file read from outside has other content.
    SourceChanged {
        /// Path below the source root.
        path: String,
        /// What happened to it.
        change: SourceChange,
    },
    /// The output was made once, but is gone or damaged.
    OutputMissing {
        /// Its digest.
        digest: Digest,
    },
    /// It was run, but the record of it is damaged.
    RecordDamaged,
    /// `--force`.
    Forced,
}

/// What happened to a file outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceChange {
    /// It has other content, or is a folder with other files.
    Changed,
    /// It is there, and was not.
    Added,
    /// It was there.
    Deleted,
}

impl fmt::Display for SourceChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => "changed",
            Self::Added => "added",
            Self::Deleted => "deleted",
        })
    }
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRun => write!(f, "never run"),
            Self::KindChanged { old, new } => {
                write!(f, "kind {} -> {}", one_line(old), one_line(new))
            }
            Self::VersionChanged { old, new } => write!(f, "stage version {old} -> {new}"),
            Self::ParamChanged { path, old, new, place } => {
                write!(f, "{path} {} -> {}", one_line(old), one_line(new))?;
                place.as_ref().map_or(Ok(()), |place| write!(f, " ({place})"))
            }
            Self::InputChanged { port, old, new } => {
                write!(f, "input `{port}` changed ({} -> {})", old.short(), new.short())
            }
            Self::WeightsChanged { model } => write!(f, "the weights of `{model}` changed"),
            Self::SourceChanged { path, change } => write!(f, "`{}` {change}", one_line(path)),
            Self::OutputMissing { digest } => {
                write!(f, "its output {} is gone from the cache or damaged", digest.short())
            }
            Self::RecordDamaged => write!(f, "its record in the cache is damaged"),
            Self::Forced => write!(f, "forced"),
        }
    }
}

impl StaleReason {
    /// Whether it was computed, and what the cache holds of it is not whole.
    pub(crate) fn is_of_damage(&self) -> bool {
        matches!(self, Self::OutputMissing { .. } | Self::RecordDamaged)
    }

    /// Whether the reason lies in a stage above.
    pub(crate) fn is_of_input(&self) -> bool {
        matches!(self, Self::InputChanged { .. })
    }

    /// Without the place and the hashes, where these are told nearby or help nobody.
    pub fn brief(&self) -> String {
        match self {
            Self::NeverRun => "new".to_owned(),
            Self::ParamChanged { path, old, new, .. } => {
                format!("{path} {} -> {}", one_line(old), one_line(new))
            }
            Self::InputChanged { port, .. } => format!("input `{port}` changed"),
            reason => reason.to_string(),
        }
    }
}

/// What of `new` differs from `old`, in the order people look for it.
///
/// Of outside files, no more than the first 20 are named.
pub(super) fn differences(
    old: &Ingredients,
    new: &Ingredients,
    instance: &Instance,
) -> Vec<StaleReason> {
    let mut reasons = Vec::new();
    if old.kind != new.kind {
        // Neither its version nor its parameters mean the same.
        reasons.push(StaleReason::KindChanged { old: old.kind.clone(), new: new.kind.clone() });
        add_inputs(&mut reasons, old, new);
        return reasons;
    }
    if old.version != new.version && !names_another(old, new, instance.entry) {
        reasons.push(StaleReason::VersionChanged { old: old.version, new: new.version });
    }
    if old.output_format != new.output_format {
        reasons.push(changed("output format", &old.output_format, &new.output_format, None));
    }
    add_params(&mut reasons, old, new, instance);
    add_inputs(&mut reasons, old, new);
    if old.weights != new.weights {
        let model = instance.work.model().map(|model| model.0.clone()).unwrap_or_default();
        reasons.push(StaleReason::WeightsChanged { model });
    }
    add_sources(&mut reasons, old, new);
    // A param that stands in several texts is one reason.
    let mut seen: Vec<StaleReason> = Vec::new();
    reasons.retain(|reason| {
        !seen.contains(reason) && {
            seen.push(reason.clone());
            true
        }
    });
    reasons
}

/// Whether versions differ only by what the parameters name: each data set, task and metric has a
/// revision of its own, which is added to the version of the stage. Then the parameter is the
/// reason.
fn names_another(old: &Ingredients, new: &Ingredients, entry: &StageEntry) -> bool {
    let of_stage = |key: &Ingredients| key.version.checked_sub((entry.revision)(&key.params)?);
    of_stage(old).zip(of_stage(new)).is_some_and(|(old, new)| old == new)
}

fn add_params(
    reasons: &mut Vec<StaleReason>,
    old: &Ingredients,
    new: &Ingredients,
    instance: &Instance,
) {
    let (before, now) = (flat(&old.params), flat(&new.params));
    for path in before.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
        let (before, now) = (before.get(path), now.get(path));
        if before == now {
            continue;
        }
        if let (Some(Value::String(before)), Some(Value::String(now))) = (before, now) {
            let values = filled::reasons(instance, path, before, now);
            if !values.is_empty() {
                reasons.extend(values);
                continue;
            }
        }
        let text = |value: Option<&&Value>| value.map_or("unset".to_owned(), |v| plain(v));
        reasons.push(changed(path, &text(before), &text(now), place_of(instance, path)));
    }
}

fn add_inputs(reasons: &mut Vec<StaleReason>, old: &Ingredients, new: &Ingredients) {
    for port in old.inputs.keys().chain(new.inputs.keys()).collect::<BTreeSet<_>>() {
        let path = || format!("inputs.{port}");
        reasons.extend(match (old.inputs.get(port), new.inputs.get(port)) {
            (Some(old), Some(new)) if old != new => {
                Some(StaleReason::InputChanged { port: port.clone(), old: *old, new: *new })
            }
            (Some(old), None) => Some(changed(&path(), &old.short(), &"unset", None)),
            (None, Some(new)) => Some(changed(&path(), &"unset", &new.short(), None)),
            _ => None,
        });
    }
}

fn add_sources(reasons: &mut Vec<StaleReason>, old: &Ingredients, new: &Ingredients) {
    const NAMED_SOURCES: usize = 20;
    let sources = old.sources.keys().chain(new.sources.keys()).collect::<BTreeSet<_>>();
    let differing =
        sources.into_iter().filter(|path| old.sources.get(*path) != new.sources.get(*path));
    reasons.extend(differing.take(NAMED_SOURCES).map(|path| {
        // What only one of both read may have been there all the time.
        let both = old.sources.get(path).zip(new.sources.get(path));
        let change = match both.map(|(old, new)| (is_missing(*old), is_missing(*new))) {
            Some((false, true)) => SourceChange::Deleted,
            Some((true, false)) => SourceChange::Added,
            _ => SourceChange::Changed,
        };
        StaleReason::SourceChanged { path: path.clone(), change }
    }));
}

fn changed(
    path: &str,
    old: &impl ToString,
    new: &impl ToString,
    place: Option<Place>,
) -> StaleReason {
    StaleReason::ParamChanged {
        path: path.to_owned(),
        old: old.to_string(),
        new: new.to_string(),
        place,
    }
}

/// The place of a parameter, or of the nearest table around it that was written as one value.
pub(crate) fn place_of(instance: &Instance, path: &str) -> Option<Place> {
    let mut path = path;
    loop {
        if let Some(place) = instance.places.get(path) {
            return Some(place);
        }
        path = path.rsplit_once('.')?.0;
    }
}

/// Nested tables as dotted paths.
pub(crate) fn flat(params: &serde_json::Map<String, Value>) -> BTreeMap<String, &Value> {
    fn walk<'a>(at: &str, value: &'a Value, out: &mut BTreeMap<String, &'a Value>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    walk(&format!("{at}.{key}"), value, out);
                }
            }
            plain => {
                out.insert(at.to_owned(), plain);
            }
        }
    }
    let mut out = BTreeMap::new();
    for (key, value) in params {
        walk(key, value, &mut out);
    }
    out
}

#[cfg(test)]
mod tests;
