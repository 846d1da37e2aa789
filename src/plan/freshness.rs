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
    /// The kind's `VERSION` is another.
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
    if old.version != new.version {
        reasons.push(StaleReason::VersionChanged { old: old.version, new: new.version });
    }
    if old.output_format != new.output_format {
        reasons.push(changed("output format", &old.output_format, &new.output_format, None));
    }
    add_params(&mut reasons, old, new, instance);
    add_inputs(&mut reasons, old, new);
    if old.weights != new.weights {
        let model = instance.work.weights().map(|(model, _)| model.0.clone()).unwrap_or_default();
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

fn add_params(
    reasons: &mut Vec<StaleReason>,
    old: &Ingredients,
    new: &Ingredients,
    instance: &Instance,
) {
    let (before, now) = (flat(&old.params), flat(&new.params));
    for path in before.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
        let (before, now) = (before.get(path), now.get(path));
        if same(before.copied(), now.copied()) {
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

/// Whether an old value, read from JSON, is the new one. `serde_json` may read the last digit of a
/// long number otherwise than it was.
pub(crate) fn same(old: Option<&Value>, new: Option<&Value>) -> bool {
    match (old, new) {
        (Some(Value::Number(a)), Some(Value::Number(b))) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap_or_default(), b.as_f64().unwrap_or_default());
            (a - b).abs() <= 2.0 * f64::EPSILON * a.abs().max(b.abs())
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        _ => old == new,
    }
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
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_a_sentence() {
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let place = Place { file: "pipelines/pose.toml".into(), line: 31, column: 8 };
        let reasons = [
            StaleReason::NeverRun,
            StaleReason::VersionChanged { old: 1, new: 2 },
            changed("rank", &64, &32, Some(place)),
            changed("optimizer.lr", &"unset", &0.001, None),
            StaleReason::InputChanged { port: "pairs".into(), old, new },
            StaleReason::WeightsChanged { model: "builtin:tiny".into() },
            StaleReason::SourceChanged {
                path: "images/1.png".into(),
                change: SourceChange::Changed,
            },
            StaleReason::SourceChanged {
                path: "images/2.png".into(),
                change: SourceChange::Deleted,
            },
            changed("command", &"a\nb", &"c", None),
            StaleReason::SourceChanged {
                path: "images/\n3.png".into(),
                change: SourceChange::Added,
            },
            StaleReason::OutputMissing { digest: old },
            StaleReason::RecordDamaged,
            StaleReason::Forced,
        ];
        let text = reasons.map(|reason| reason.to_string()).join("\n");
        let text = text.replace(&old.short(), "OLD").replace(&new.short(), "NEW");
        insta::assert_snapshot!(text, @r"
        never run
        stage version 1 -> 2
        rank 64 -> 32 (pipelines/pose.toml:31:8)
        optimizer.lr unset -> 0.001
        input `pairs` changed (OLD -> NEW)
        the weights of `builtin:tiny` changed
        `images/1.png` changed
        `images/2.png` deleted
        command a\nb -> c
        `images/\n3.png` added
        its output OLD is gone from the cache or damaged
        its record in the cache is damaged
        forced
        ");
    }

    #[test]
    fn a_number_that_was_stored_is_not_said_to_have_changed() {
        let number = Value::from(261_573_697.235_922_34);
        let stored: Value = serde_json::from_str(&number.to_string()).unwrap();
        assert!(same(Some(&stored), Some(&number)));
        assert!(!same(Some(&Value::from(0.1)), Some(&Value::from(0.100_000_01))));
        assert!(!same(None, Some(&number)));
    }
}
