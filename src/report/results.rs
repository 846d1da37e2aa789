//! From outputs in the store to result tables.

use std::collections::BTreeMap;

use super::{
    doubts,
    table::{self, Interval, ReferenceError, ReferenceNumbers, ResultTable, Score},
};
use crate::{
    artifact::{ArtifactKind, metrics},
    config::{Instance, Pipeline, Table},
    exec::RunEvent,
    plan::{Freshness, Plan},
    store::{Digest, Store, StoreError},
};

/// What is known of the output of each instance.
#[derive(Clone, Debug)]
pub enum Known {
    /// It is in the store.
    Made(Digest),
    /// It is not, because of this.
    Missing(String),
}

/// The output of each instance of a pipeline.
#[derive(Clone, Debug)]
pub struct Outputs(Vec<Known>);

impl Outputs {
    /// What the store holds without running anything.
    pub fn of_plan(plan: &Plan<'_>) -> Self {
        let known = plan.nodes.iter().map(|node| match &node.freshness {
            Freshness::Fresh(record) => Known::Made(record.output),
            Freshness::Blocked(lack) => Known::Missing(format!("{} is missing", lack.what())),
            Freshness::Stale(_) | Freshness::Pending { .. } => Known::Missing("not run".to_owned()),
        });
        Self(known.collect())
    }

    /// None yet; [`Self::on`] learns of them from a run.
    pub fn none(instances: usize) -> Self {
        Self(vec![Known::Missing("not run".to_owned()); instances])
    }

    /// Learns from an event.
    pub fn on(&mut self, event: &RunEvent) {
        let (index, known) = match event {
            RunEvent::StageReused { index, digest, .. }
            | RunEvent::StageFinished { index, digest, .. } => (*index, Known::Made(*digest)),
            RunEvent::StageFailed { index, .. } => (*index, Known::Missing("failed".to_owned())),
            RunEvent::StageSkipped { index, because, .. } => {
                (*index, Known::Missing(format!("`{because}` failed")))
            }
            _ => return,
        };
        if let Some(slot) = self.0.get_mut(index) {
            *slot = known;
        }
    }

    /// The output of an instance, if it was made.
    pub fn digest(&self, index: usize) -> Option<Digest> {
        match self.0.get(index)? {
            Known::Made(digest) => Some(*digest),
            Known::Missing(_) => None,
        }
    }
}

/// Why results could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The published numbers.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A metric artifact of another form.
    #[error("the scores of `{stage}` cannot be read: {message}")]
    Form {
        /// The instance.
        stage: String,
        /// What is wrong.
        message: String,
    },
}

/// All tables of a pipeline, with the published numbers beside ours.
pub fn tables(
    pipeline: &Pipeline,
    outputs: &Outputs,
    store: &Store,
) -> Result<Vec<ResultTable>, ResultsError> {
    let read = |table: &Table| {
        let reference = table.reference.as_ref();
        reference.map(|reference| ReferenceNumbers::read(&reference.values)).transpose()
    };
    let references = pipeline.tables.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    arrange(pipeline, outputs, store, &references)
}

/// All tables of a pipeline without published numbers, for when those cannot be read.
pub fn tables_of_ours(
    pipeline: &Pipeline,
    outputs: &Outputs,
    store: &Store,
) -> Result<Vec<ResultTable>, ResultsError> {
    arrange(pipeline, outputs, store, &vec![None; pipeline.tables.len()])
}

fn arrange(
    pipeline: &Pipeline,
    outputs: &Outputs,
    store: &Store,
    references: &[Option<ReferenceNumbers>],
) -> Result<Vec<ResultTable>, ResultsError> {
    let wanted = |stage: &str| {
        pipeline.tables.iter().flat_map(|table| &table.values).any(|(name, _)| name == stage)
    };
    let mut scores = Vec::new();
    for (index, instance) in pipeline.instances.iter().enumerate() {
        if wanted(&instance.stage) {
            scores.push(score(instance, &outputs.0[index], store)?);
        }
    }
    let doubts = doubts::doubts(pipeline, outputs, store)?;
    let tables = pipeline.tables.iter().zip(references).map(|(table, reference)| {
        let mut built = table::build(table, &pipeline.sweep, &scores, reference.as_ref());
        if built.has_values() {
            let stages: Vec<&str> = table.values.iter().map(|(stage, _)| stage.as_str()).collect();
            let told = doubts.iter().filter(|doubt| doubt.concerns(pipeline, &stages));
            built.notes.extend(told.map(|doubt| doubt.warning.clone()));
        }
        built
    });
    Ok(tables.collect())
}

fn score(instance: &Instance, known: &Known, store: &Store) -> Result<Score, ResultsError> {
    let (values, Measured { intervals, images, remarks, .. }) = match known {
        Known::Made(digest) => {
            let mut measured = measured(&instance.to_string(), *digest, store)?;
            (Ok(std::mem::take(&mut measured.values)), measured)
        }
        Known::Missing(reason) => (Err(reason.clone()), Measured::default()),
    };
    let (stage, cell) = (instance.stage.clone(), instance.cell.clone());
    Ok(Score { stage, cell, values, intervals, images, remarks })
}

/// What a metric stage found, by name.
#[derive(Default)]
pub(crate) struct Measured {
    /// The scores.
    pub values: BTreeMap<String, f64>,
    /// Their intervals, of those that have one.
    pub intervals: BTreeMap<String, Interval>,
    /// How many images were scored.
    images: Option<usize>,
    /// What is to be known of single scores.
    remarks: BTreeMap<String, String>,
}

/// The form of `metrics.json`, as far as a table needs it.
#[derive(serde::Deserialize)]
struct Document {
    /// `null` where a score is not a number, such as a mean over nothing.
    values: BTreeMap<String, Option<f64>>,
    #[serde(default)]
    intervals: BTreeMap<String, [Option<f64>; 2]>,
    #[serde(default)]
    settings: serde_json::Value,
    #[serde(default)]
    details: serde_json::Value,
}

impl Document {
    fn measured(self) -> Measured {
        let level = self.settings["bootstrap"]["level"].as_f64();
        let interval = |[low, high]: [Option<f64>; 2]| Interval::of(low?, high?, level?);
        let images = self.settings["scored"].as_u64().map(|scored| scored as usize);
        let remarks = self.end_of_thresholds().into_iter().chain(self.one_class()).collect();
        let intervals = self.intervals.into_iter();
        Measured {
            values: self
                .values
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
            intervals: intervals.filter_map(|(name, ends)| Some((name, interval(ends)?))).collect(),
            images,
            remarks,
        }
    }

    /// What to say of edges whose best threshold is at an end of those tried.
    fn end_of_thresholds(&self) -> BTreeMap<String, String> {
        const OF_ALL: [&str; 4] = ["ods_f", "ods_precision", "ods_recall", "ods_threshold"];
        let tried = self.settings["edges"]["thresholds"].as_array();
        let tried: Vec<f64> =
            tried.iter().copied().flatten().filter_map(serde_json::Value::as_f64).collect();
        let Some(best) = self.values.get("ods_threshold").copied().flatten() else {
            return BTreeMap::new();
        };
        let (is_least, is_most) =
            (tried.iter().all(|luma| *luma >= best), tried.iter().all(|luma| *luma <= best));
        let end = match (is_least, is_most) {
            (true, false) => "lowest",
            (false, true) => "highest",
            _ => return BTreeMap::new(),
        };
        let remark = format!(
            "at threshold {best}, the {end} of `edges.thresholds`, so one beyond may be better"
        );
        OF_ALL.map(|name| (name.to_owned(), remark.clone())).into()
    }

    /// What to say of classes where most answers are one of them, though it is right for few.
    fn one_class(&self) -> BTreeMap<String, String> {
        const SCORES: [&str; 3] = ["accuracy", "recall", "shift_accuracy"];
        /// Of fewer cells, most are one class by chance.
        const LEAST_CELLS: f64 = 20.0;
        let confusion = &self.details["confusion"];
        let matrix: Vec<Vec<f64>> = serde_json::from_value(confusion.clone()).unwrap_or_default();
        let read = |class: usize| matrix.iter().filter_map(|row| row.get(class)).sum::<f64>();
        let asked = |class: usize| matrix.get(class).map_or(0.0, |row| row.iter().sum::<f64>());
        let all: f64 = matrix.iter().flatten().sum();
        let most = (0..matrix.len()).max_by(|a, b| read(*a).total_cmp(&read(*b)));
        let is_one = |most: &usize| 3.0 * read(*most) >= 2.0 * all && 3.0 * asked(*most) < all;
        let Some(most) = most.filter(|most| all >= LEAST_CELLS && is_one(most)) else {
            return BTreeMap::new();
        };
        let name = self.details["classes"][most].as_str();
        let name = name.map_or_else(|| format!("class {most}"), |name| format!("`{name}`"));
        let remark = format!(
            "not learnt: at least two thirds of the cells are read as {name}; by chance {:.1} are right",
            100.0 / matrix.len() as f64
        );
        SCORES.map(|name| (name.to_owned(), remark.clone())).into()
    }
}

/// What a `metrics.json` holds.
pub(crate) fn measured_in(text: &[u8]) -> Result<Measured, serde_json::Error> {
    Ok(serde_json::from_slice::<Document>(text)?.measured())
}

/// The scores that the stage `instance` gave.
pub(crate) fn values(
    instance: &str,
    digest: Digest,
    store: &Store,
) -> Result<BTreeMap<String, f64>, ResultsError> {
    Ok(measured(instance, digest, store)?.values)
}

fn measured(instance: &str, digest: Digest, store: &Store) -> Result<Measured, ResultsError> {
    let form = |message: String| ResultsError::Form { stage: instance.to_owned(), message };
    let manifest = store.manifest(digest)?;
    if manifest.kind != ArtifactKind::Metrics {
        return Err(form(format!("it gives {}, not metrics", manifest.kind)));
    }
    let file = manifest.item(metrics::ITEM).and_then(|item| item.files.get(metrics::FILE));
    let file = file.ok_or_else(|| form(format!("there is no `{}`", metrics::FILE)))?;
    measured_in(&store.read(file)?).map_err(|e| form(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Reference, Spread, Sweep, value::Node};

    #[test]
    fn a_reference_that_vanished_hides_no_number_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let table = Table {
            name: "main".into(),
            title: None,
            values: vec![("score".into(), "f1".into())],
            columns: None,
            rows: Vec::new(),
            average: Vec::new(),
            spread: Spread::Sd,
            mark_best: true,
            missing: None,
            reference: Some(Reference {
                source: "Table 1".into(),
                values: dir.path().join("gone.csv"),
            }),
        };
        let pipeline = Pipeline {
            path: "toy.toml".into(),
            files: vec!["toy.toml".into()],
            name: "toy".into(),
            title: None,
            seed: 0,
            profile: None,
            set: Vec::new(),
            instances: Vec::new(),
            sweep: Sweep::default(),
            tables: vec![table],
            root: Node::table().into(),
            warnings: Vec::new(),
            undecoded: false,
            asked_and_learnt: std::collections::BTreeSet::default(),
        };
        let outputs = Outputs::none(0);
        let error = tables(&pipeline, &outputs, &store).unwrap_err();
        assert!(matches!(error, ResultsError::Reference(_)), "{error}");
        assert_eq!(tables_of_ours(&pipeline, &outputs, &store).unwrap().len(), 1);
    }

    #[test]
    fn the_end_of_the_thresholds_tried_is_told() {
        let remarks = |best: f64, tried: &[u8]| {
            let document = serde_json::json!({
                "values": { "ods_f": 20.0, "ods_threshold": best, "drawn": 3.0 },
                "settings": { "edges": { "thresholds": tried }, "scored": 7 },
            });
            let measured = measured_in(document.to_string().as_bytes()).unwrap();
            assert_eq!(measured.images, Some(7));
            measured.remarks
        };
        let found = remarks(32.0, &[32, 64, 96]);
        let wanted =
            "at threshold 32, the lowest of `edges.thresholds`, so one beyond may be better";
        assert_eq!(found["ods_f"], wanted);
        assert!(!found.contains_key("drawn"));
        assert!(remarks(96.0, &[32, 64, 96])["ods_f"].contains("the highest"));
        assert!(remarks(64.0, &[32, 64, 96]).is_empty() && remarks(64.0, &[64]).is_empty());
    }

    #[test]
    fn classes_that_are_all_read_as_one_are_told() {
        let remarks = |confusion: [[u8; 3]; 3]| {
            let document = serde_json::json!({
                "values": { "accuracy": 30.0 },
                "details": { "classes": ["disc", "bar", "ring"], "confusion": confusion },
            });
            measured_in(document.to_string().as_bytes()).unwrap().remarks
        };
        let found = remarks([[0, 9, 0], [1, 6, 0], [0, 7, 2]]);
        insta::assert_snapshot!(found["recall"], @"not learnt: at least two thirds of the cells are read as `bar`; by chance 33.3 are right");
        // What is mostly asked may mostly be read.
        assert!(remarks([[0, 1, 0], [0, 30, 0], [0, 1, 0]]).is_empty());
        assert!(remarks([[9, 0, 0], [1, 8, 0], [0, 1, 8]]).is_empty());
        assert!(remarks([[0, 2, 0], [0, 1, 0], [0, 1, 0]]).is_empty(), "too few to tell");
        assert!(remarks([[0; 3]; 3]).is_empty());
    }
}
