//! Pairs that are learnt from and answered, as far as the file tells: not wrong, but seldom meant.
//!
//! It follows data to where it is learnt from and to where it is asked about, and compares what the
//! parameters take of it. Of pairs that look different by these, [`Found::asked_and_learnt`] says
//! whose content is to be compared when a run has drawn them (`report/same_pictures.rs`).

use std::collections::BTreeSet;

use super::Instance;
use crate::stages::DataSelection;

/// The ports through which what was learnt reaches an answer.
const TRAINED: [&str; 3] = ["lora", "model", "examples"];
const NONE: Vec<usize> = Vec::new();

fn set(instances: impl Iterator<Item = usize>) -> Vec<usize> {
    instances.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The data behind each instance so far.
#[derive(Default)]
pub(super) struct Leaks {
    selections: Vec<Option<DataSelection>>,
    /// The instances that draw data, upstream of each instance and itself.
    behind: Vec<Vec<usize>>,
    /// Those of them that an adapter or a model was trained on.
    learnt: Vec<Vec<usize>>,
    seen: BTreeSet<(String, String)>,
    found: Found,
}

/// What is to be told of a pipeline, and what only its data can tell.
#[derive(Default)]
pub(super) struct Found {
    pub warnings: Vec<String>,
    /// Whether images that are here were not decoded, because a stage takes too many.
    pub undecoded: bool,
    /// Instances that draw data: those asked about, and those learnt from for it.
    pub asked_and_learnt: BTreeSet<(usize, usize)>,
}

impl Leaks {
    /// Adds the next instance; `instances` are those before it. Gives those of them that are asked
    /// about and learnt from for it, but are parts of one source that is divided otherwise for
    /// each.
    pub fn add(&mut self, instance: &Instance, instances: &[Instance]) -> Vec<(usize, usize)> {
        let mut divided = Vec::new();
        let selection = instance.work.selection();
        let own = selection.is_some().then_some(self.selections.len());
        let behind = || instance.inputs.values().flat_map(|input| self.behind[*input].clone());
        let learnt = instance.inputs.iter().flat_map(|(port, input)| {
            let here = if TRAINED.contains(&port.as_str()) { &self.behind[*input] } else { &NONE };
            self.learnt[*input].iter().chain(here).copied().collect::<Vec<_>>()
        });
        let (behind, learnt) = (set(behind().chain(own)), set(learnt));
        self.behind.push(behind);
        self.learnt.push(learnt);
        self.selections.push(selection);
        let inputs = &instance.inputs;
        let (Some(pairs), Some(predicted)) = (inputs.get("pairs"), inputs.get("predictions"))
        else {
            return divided;
        };
        let mut found = Vec::new();
        for test in &self.behind[*pairs] {
            for train in &self.learnt[*predicted] {
                let (Some(a), Some(b)) = (&self.selections[*test], &self.selections[*train]) else {
                    continue;
                };
                if a.overlaps(b) {
                    found.push((*test, *train));
                } else if a.divides_otherwise(b) {
                    divided.push((*test, *train));
                } else {
                    self.found.asked_and_learnt.insert((*test, *train));
                }
            }
        }
        for (test, train) in found {
            let [test, train] = [&instances[test], &instances[train]];
            if self.seen.insert((test.stage.clone(), train.stage.clone())) {
                let what = if test.stage == train.stage {
                    format!("`{test}` is learnt from and answered")
                } else {
                    format!("`{test}` and `{train}` take some of the same images")
                };
                let stage = &instance.stage;
                let warning = format!("{what}, so `{stage}` scores answers that were learnt");
                self.found.warnings.push(warning);
            }
        }
        divided
    }

    pub fn found(self) -> Found {
        self.found
    }
}
