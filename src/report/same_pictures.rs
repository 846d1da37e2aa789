//! Pictures that are learnt from and asked about, whatever they are called.
//!
//! That two stages take the same images of one data set, the file tells before anything runs
//! (`config/leaks.rs`). Where it does not say so, as of two folders, only the content of what was drawn can
//! tell. Which stages to compare is known from there. Grids of small images differ although they share some;
//! they say by name which they show.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry};

use super::{results::Outputs, style::count};
use crate::{
    artifact::pairs,
    config::{Instance, Pipeline},
    store::{Digest, Store, StoreError},
};

/// The inputs of a set of pairs, and an item that has each.
type Inputs = HashMap<Digest, String>;

/// The names of the images that a set of pairs shows, and an item that shows each.
type Shown = BTreeMap<String, String>;

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
    let mut sets = Sets { outputs, store, inputs: BTreeMap::new(), shown: BTreeMap::new() };
    let mut told: BTreeSet<[&str; 2]> = BTreeSet::new();
    let mut leaks = Vec::new();
    for &(asked, learnt) in &pipeline.asked_and_learnt {
        let [test, train] = [asked, learnt].map(|index| &pipeline.instances[index]);
        let stages = [&*test.stage, &*train.stage];
        if told.contains(&stages) {
            continue;
        }
        let mut same = sets.same_inputs([asked, learnt])?;
        if same.is_none() && may_share(test, train) {
            same = sets.same_in_grids([asked, learnt])?;
        }
        if let Some((pictures, such)) = same {
            told.insert(stages);
            let warning = format!(
                "`{test}` asks about {} that `{train}` learns from, such as {such}: its scores are partly those \
                 of answers that were learnt",
                count(pictures, "picture"),
            );
            leaks.push(Leak { warning, stages });
        }
    }
    Ok(leaks)
}

/// What sets of pairs hold, by the instance that drew them; each is read once.
struct Sets<'a> {
    outputs: &'a Outputs,
    store: &'a Store,
    inputs: BTreeMap<usize, Inputs>,
    shown: BTreeMap<usize, Shown>,
}

/// How many pictures are in two sets, and where one of them is.
type Same = Option<(usize, String)>;

impl Sets<'_> {
    /// The inputs that are in both sets.
    fn same_inputs(&mut self, sets: [usize; 2]) -> Result<Same, StoreError> {
        for index in sets {
            if let Entry::Vacant(unread) = self.inputs.entry(index) {
                unread.insert(inputs(self.outputs.digest(index), self.store)?);
            }
        }
        let [asked, learnt] = sets.map(|index| &self.inputs[&index]);
        let same = asked.iter().filter_map(|(digest, a)| Some((a, learnt.get(digest)?)));
        let same: BTreeSet<_> = same.collect();
        Ok(same.first().map(|(a, b)| (same.len(), format!("`{a}`, there `{b}`"))))
    }

    /// The images that both sets show, by their names.
    fn same_in_grids(&mut self, sets: [usize; 2]) -> Result<Same, StoreError> {
        for index in sets {
            if let Entry::Vacant(unread) = self.shown.entry(index) {
                unread.insert(shown(self.outputs.digest(index), self.store)?);
            }
        }
        let [asked, learnt] = sets.map(|index| &self.shown[&index]);
        let mut same = asked.iter().filter_map(|(id, a)| Some((id, a, learnt.get(id)?)));
        let Some((id, a, b)) = same.next() else { return Ok(None) };
        Ok(Some((same.count() + 1, format!("`{id}` in `{a}`, there in `{b}`"))))
    }
}

fn inputs(output: Option<Digest>, store: &Store) -> Result<Inputs, StoreError> {
    let Some(output) = output else { return Ok(Inputs::new()) };
    let manifest = store.manifest(output)?;
    let items = manifest.items.iter();
    let inputs =
        items.filter_map(|item| Some((item.files.get(pairs::INPUT)?.digest, item.name.clone())));
    Ok(inputs.collect())
}

/// Whether grids of one stage may show images that the other shows.
fn may_share(test: &Instance, train: &Instance) -> bool {
    let draws = [test, train].map(|instance| instance.work.draw());
    matches!(draws, [Some(a), Some(b)] if a.may_share_in_grids(&b))
}

fn shown(output: Option<Digest>, store: &Store) -> Result<Shown, StoreError> {
    let mut found = Shown::new();
    let Some(output) = output else { return Ok(found) };
    for item in &store.manifest(output)?.items {
        let Some(file) = item.files.get(pairs::META) else { continue };
        let digest = file.digest;
        let meta: pairs::PairMeta = serde_json::from_slice(&store.read(file)?)
            .map_err(|_| StoreError::Damaged { digest })?;
        for id in meta.image_ids() {
            found.entry(id.clone()).or_insert_with(|| item.name.clone());
        }
    }
    Ok(found)
}
