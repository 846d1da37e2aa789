//! Pictures that are learnt from and asked about, whatever they are called.
//!
//! That two stages take the same images of one data set, the file tells before anything runs
//! (`config/leaks.rs`). Where it does not say so, as of two folders, only the content of what was drawn can
//! tell. Which stages to compare is known from there.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry};

use super::{results::Outputs, style::count};
use crate::{
    artifact::pairs,
    config::Pipeline,
    store::{Digest, Store, StoreError},
};

/// The inputs of a set of pairs, and an item that has each.
type Inputs = HashMap<Digest, String>;

/// Two stages of which one asks about pictures that the other learns from.
pub struct Leak<'a> {
    /// What to warn of.
    pub warning: String,
    /// The stage that asks and the one that is learnt from.
    stages: [&'a str; 2],
}

impl Leak<'_> {
    /// Whether a stage of these names is made of both.
    pub fn concerns(&self, pipeline: &Pipeline, names: &[&str]) -> bool {
        // Instances come after what they read.
        let mut behind: Vec<[bool; 2]> = Vec::with_capacity(pipeline.instances.len());
        for instance in &pipeline.instances {
            let own = self.stages.map(|stage| stage == &*instance.stage);
            let both = instance.inputs.values().fold(own, |[a, b], input| {
                let [c, d] = behind[*input];
                [a || c, b || d]
            });
            if both == [true; 2] && names.contains(&&*instance.stage) {
                return true;
            }
            behind.push(both);
        }
        false
    }
}

/// Those of a pipeline: once for every two stages, however many cells they have.
pub fn leaks<'a>(
    pipeline: &'a Pipeline,
    outputs: &Outputs,
    store: &Store,
) -> Result<Vec<Leak<'a>>, StoreError> {
    let mut read: BTreeMap<usize, Inputs> = BTreeMap::new();
    let mut told: BTreeSet<[&str; 2]> = BTreeSet::new();
    let mut leaks = Vec::new();
    for &(asked, learnt) in &pipeline.asked_and_learnt {
        let [test, train] = [asked, learnt].map(|index| &pipeline.instances[index]);
        let stages = [&*test.stage, &*train.stage];
        if told.contains(&stages) {
            continue;
        }
        for index in [asked, learnt] {
            if let Entry::Vacant(unread) = read.entry(index) {
                unread.insert(inputs(outputs.digest(index), store)?);
            }
        }
        let same =
            read[&asked].iter().filter_map(|(digest, a)| Some((a, read[&learnt].get(digest)?)));
        let same: BTreeSet<_> = same.collect();
        if let Some((a, b)) = same.first() {
            told.insert(stages);
            let warning = format!(
                "`{test}` asks about {} that `{train}` learns from, such as `{a}`, there `{b}`: its scores \
                 are partly those of answers that were learnt",
                count(same.len(), "picture"),
            );
            leaks.push(Leak { warning, stages });
        }
    }
    Ok(leaks)
}

fn inputs(output: Option<Digest>, store: &Store) -> Result<Inputs, StoreError> {
    let Some(output) = output else { return Ok(Inputs::new()) };
    let manifest = store.manifest(output)?;
    let items = manifest.items.iter();
    let inputs =
        items.filter_map(|item| Some((item.files.get(pairs::INPUT)?.digest, item.name.clone())));
    Ok(inputs.collect())
}
