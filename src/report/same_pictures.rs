//! Pictures that are learnt from and asked about, whatever they are called.
//!
//! That two stages take the same images of one data set, the file tells before anything runs
//! (`config/leaks.rs`). Where it does not say so, as of two folders, only the content of what was
//! drawn can tell. Which stages to compare is known from there. Grids of small images differ
//! although they share some; they say by name which they show.

use std::collections::{BTreeMap, btree_map::Entry};

use crate::{
    artifact::pairs,
    config::{Instance, Pipeline},
    stages::SamePictures,
    store::{Digest, Store, StoreError},
};

use super::results::Outputs;

/// The inputs of a set of pairs, and the item that has each.
type Inputs = Vec<(Digest, String)>;

/// The names of the images that a set of pairs shows, and an item that shows each.
type Shown = BTreeMap<String, String>;

/// What sets of pairs hold, by the instance that drew them; each is read once.
#[derive(Default)]
pub(super) struct Sets {
    inputs: BTreeMap<usize, Inputs>,
    shown: BTreeMap<usize, Shown>,
}

impl Sets {
    /// The pictures that are both asked about by one instance and learnt from by another.
    pub fn same(
        &mut self,
        [asked, learnt]: [usize; 2],
        pipeline: &Pipeline,
        outputs: &Outputs,
        store: &Store,
    ) -> Result<Option<SamePictures>, StoreError> {
        for index in [asked, learnt] {
            if let Entry::Vacant(unread) = self.inputs.entry(index) {
                unread.insert(inputs(outputs.digest(index), store)?);
            }
        }
        let same = SamePictures::of_content(&self.inputs[&asked], &self.inputs[&learnt]);
        let [test, train] = [asked, learnt].map(|index| &pipeline.instances[index]);
        if same.is_some() || !may_share(test, train) {
            return Ok(same);
        }
        for index in [asked, learnt] {
            if let Entry::Vacant(unread) = self.shown.entry(index) {
                unread.insert(shown(outputs.digest(index), store)?);
            }
        }
        Ok(SamePictures::of_names(&self.shown[&asked], &self.shown[&learnt]))
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
    let selections = [test, train].map(|instance| instance.work.selection());
    matches!(selections, [Some(a), Some(b)] if a.may_share_in_grids(&b))
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
