//! What is to be known of scores, whatever they are: doubts that the content of the data raises.
//!
//! They show once the data is drawn, so a run tells them before it trains, and every table and
//! score with their results.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{results::Outputs, same_pictures::Sets};
use crate::{
    artifact::pairs::{self, Reach},
    config::{Instance, Pipeline},
    store::{Store, StoreError},
};

/// Pictures with distances that are looked at: wrong units show in each.
const MOST_MEASURED: usize = 8;

/// Something that scores are to be read with.
pub struct Doubt<'a> {
    /// What to say.
    pub warning: String,
    /// The stages that it is about.
    stages: Vec<&'a str>,
}

impl Doubt<'_> {
    /// Whether a stage of these names is made of all that it is about.
    pub fn concerns(&self, pipeline: &Pipeline, names: &[&str]) -> bool {
        let all = (1u8 << self.stages.len()) - 1;
        // Instances come after what they read.
        let mut behind: Vec<u8> = Vec::with_capacity(pipeline.instances.len());
        for instance in &pipeline.instances {
            let own = self.stages.iter().enumerate();
            let own =
                own.filter(|(_, stage)| **stage == instance.stage.as_str()).map(|(at, _)| 1 << at);
            let inputs = instance.inputs.values().map(|input| behind[*input]);
            let found = own.chain(inputs).fold(0, |found, some| found | some);
            if found == all && names.contains(&&*instance.stage) {
                return true;
            }
            behind.push(found);
        }
        false
    }
}

/// Those of a pipeline: once for the same stages, however many cells they have.
pub fn doubts<'a>(
    pipeline: &'a Pipeline,
    outputs: &Outputs,
    store: &Store,
) -> Result<Vec<Doubt<'a>>, StoreError> {
    let mut watch = Watch::new(pipeline);
    let mut found = Vec::new();
    for index in 0..pipeline.instances.len() {
        found.extend(watch.look(index, outputs, store)?);
    }
    Ok(found)
}

/// What is to be said with the scores of one stage.
pub fn notes(
    pipeline: &Pipeline,
    stage: &str,
    outputs: &Outputs,
    store: &Store,
) -> Result<Vec<String>, StoreError> {
    let doubts = doubts(pipeline, outputs, store)?.into_iter();
    let about = doubts.filter(|doubt| doubt.concerns(pipeline, &[stage]));
    Ok(about.map(|doubt| doubt.warning).collect())
}

/// Finds doubts as soon as the data is there that raises them.
pub struct Watch<'a> {
    pipeline: &'a Pipeline,
    /// The instances to be compared, those that ask first, by each of the two.
    compared: HashMap<usize, Vec<[usize; 2]>>,
    sets: Sets,
    /// The stages of which something was said.
    told: BTreeSet<Vec<&'a str>>,
    /// Stages with their sources and ranges of distances that were looked at: their cells show the
    /// same.
    measured: HashSet<String>,
    /// Instances whose output could not be read when it was there.
    unread: Vec<usize>,
}

impl<'a> Watch<'a> {
    /// Nothing is there yet.
    pub fn new(pipeline: &'a Pipeline) -> Self {
        let mut compared: HashMap<usize, Vec<[usize; 2]>> = HashMap::new();
        for &(asked, learnt) in &pipeline.asked_and_learnt {
            for index in BTreeSet::from([asked, learnt]) {
                compared.entry(index).or_default().push([asked, learnt]);
            }
        }
        Self {
            pipeline,
            compared,
            sets: Sets::default(),
            told: BTreeSet::new(),
            measured: HashSet::new(),
            unread: Vec::new(),
        }
    }

    /// What shows now that the output of an instance is known. What is damaged is looked at again
    /// by
    /// [`Self::finish`]: a stage that reads it may have it made anew.
    pub fn on(&mut self, index: usize, outputs: &Outputs, store: &Store) -> Vec<Doubt<'a>> {
        self.look(index, outputs, store).unwrap_or_else(|_| {
            self.unread.push(index);
            Vec::new()
        })
    }

    /// What could not be read before.
    pub fn finish(
        &mut self,
        outputs: &Outputs,
        store: &Store,
    ) -> Result<Vec<Doubt<'a>>, StoreError> {
        let mut found = Vec::new();
        for index in std::mem::take(&mut self.unread) {
            found.extend(self.look(index, outputs, store)?);
        }
        Ok(found)
    }

    fn look(
        &mut self,
        index: usize,
        outputs: &Outputs,
        store: &Store,
    ) -> Result<Vec<Doubt<'a>>, StoreError> {
        let mut found = Vec::new();
        found.extend(self.distances(index, outputs, store)?);
        for pair in self.compared.get(&index).cloned().unwrap_or_default() {
            let stages = pair.map(|at| &*self.pipeline.instances[at].stage).to_vec();
            let is_known = pair.iter().all(|at| outputs.digest(*at).is_some());
            if !is_known || self.told.contains(&stages) {
                continue;
            }
            if let Some(same) = self.sets.same(pair, self.pipeline, outputs, store)? {
                let [test, train] = pair.map(|at| self.pipeline.instances[at].to_string());
                self.told.insert(stages.clone());
                found.push(Doubt { warning: same.told(&test, &train), stages });
            }
        }
        Ok(found)
    }

    /// Distances that mostly lie beyond the range of the colours, as those in other units do.
    fn distances(
        &mut self,
        index: usize,
        outputs: &Outputs,
        store: &Store,
    ) -> Result<Option<Doubt<'a>>, StoreError> {
        let instance = &self.pipeline.instances[index];
        let (Some(output), Some(_)) = (outputs.digest(index), instance.work.source_root()) else {
            return Ok(None);
        };
        let Some(depth) = instance.params.get("depth").filter(|_| is_of_depth(instance)) else {
            return Ok(None);
        };
        let source = instance.params.get("source").unwrap_or(depth);
        let stages = vec![&*instance.stage];
        let looked = format!("{} {source} {depth}", instance.stage);
        if self.told.contains(&stages) || self.measured.contains(&looked) {
            return Ok(None);
        }
        let mut all = None;
        for item in store.manifest(output)?.items.iter().take(MOST_MEASURED) {
            let read = |name: &str| item.files.get(name).map(|file| store.read(file)).transpose();
            let (Some(depth), Some(meta)) = (read(pairs::DEPTH)?, read(pairs::META)?) else {
                return Ok(None);
            };
            all = pairs::reach(&depth, &meta, all);
        }
        self.measured.insert(looked);
        let Some(text) = all.and_then(|(reach, range)| Reach::doubt(reach, range)) else {
            return Ok(None);
        };
        self.told.insert(stages.clone());
        Ok(Some(Doubt { warning: format!("`{instance}` takes pictures with {text}"), stages }))
    }
}

fn is_of_depth(instance: &Instance) -> bool {
    instance.work.task() == Some("depth")
}
