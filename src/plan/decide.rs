//! Whether one instance must run, once the content of its inputs is known.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, OnceLock},
};

use super::{
    Lack, Lacking, PlanError, ResumePoint, Selection, StaleReason,
    earlier::Earlier,
    fingerprint::{action_key, trajectory_key},
    freshness::differences,
    gather::Gatherer,
    key::{Found, Key, from_file, with_sources},
    listing,
    missing::Absences,
    model,
    siblings::Siblings,
};
use crate::{
    config::{Instance, Pipeline},
    store::{
        Behind, Digest, Fingerprint, History, Lookup, Owner, Record, Store, StoreError, Trace,
    },
    sync::Unpoisoned,
};

/// Decides instances, for the plan and for the run.
pub(crate) struct Decider<'a> {
    pub(crate) pipeline: &'a Pipeline,
    pub(super) store: &'a Store,
    pub(super) gatherer: Gatherer<'a>,
    history: Mutex<History>,
    /// The instances of the file by name, gathered when something is to be compared with them.
    names: OnceLock<HashSet<String>>,
    /// Of each stage, the cells that ran before.
    cells: Mutex<HashMap<String, Arc<Siblings>>>,
    records: Mutex<HashMap<Fingerprint, Option<Arc<Record>>>>,
    absences: Absences<'a>,
    pub(super) earlier: Mutex<Earlier>,
}

impl<'a> Decider<'a> {
    pub(crate) fn new(pipeline: &'a Pipeline, store: &'a Store) -> Result<Self, PlanError> {
        Ok(Self {
            pipeline,
            store,
            gatherer: Gatherer::new(store),
            history: Mutex::new(store.history(&owner_of(pipeline))?),
            names: OnceLock::new(),
            cells: Mutex::default(),
            records: Mutex::default(),
            absences: Absences::new(pipeline),
            earlier: Mutex::default(),
        })
    }

    fn names(&self) -> &HashSet<String> {
        self.names.get_or_init(|| self.pipeline.instances.iter().map(ToString::to_string).collect())
    }

    /// The key of an instance whose inputs have the content `inputs`.
    pub(crate) fn key(
        &self,
        index: usize,
        inputs: BTreeMap<String, Digest>,
    ) -> Result<Key, PlanError> {
        let instance = &self.pipeline.instances[index];
        let lacks = |lack| PlanError::Lack { stage: instance.to_string(), lack: Box::new(lack) };
        if let Some(lack) = self.absences.data(instance) {
            return Err(lacks(lack));
        }
        let given = self.given_parts(&inputs)?;
        let ingredients = self.gatherer.gather(instance, inputs, &given).map_err(|error| {
            if self.store.is_stopped() {
                return StoreError::Cancelled.into();
            }
            let model = instance.work.model().expect("only weights can fail to be gathered");
            lacks(Lack::weights(model, &error))
        })?;
        let params = instance.work.trajectory_params();
        Ok(Key {
            direct: action_key(&ingredients),
            trajectory: (!params.is_empty()).then(|| trajectory_key(&ingredients, params)),
            ingredients,
        })
    }

    /// The content of the weights of an instance that has not run, as far as that can be said at
    /// once; `last` is what it was.
    pub(super) fn weights_at_hand(&self, index: usize, last: Option<&Record>) -> Option<Digest> {
        let inputs = last.map(|last| &last.ingredients.inputs);
        // Which parts come from an input is known from the last time.
        let given = inputs.and_then(|inputs| self.given_parts(inputs).ok()).unwrap_or_default();
        self.gatherer.weights_at_hand(&self.pipeline.instances[index], &given)
    }

    /// Has weights looked at again that turned out to be others.
    pub(crate) fn forget_weights(&self) {
        self.gatherer.forget_weights();
    }

    /// The parts of a model that come from the input `model`, such as a pretrained `vae`.
    pub(super) fn given_parts(
        &self,
        inputs: &BTreeMap<String, Digest>,
    ) -> Result<Vec<String>, PlanError> {
        let Some(digest) = inputs.get("model") else { return Ok(Vec::new()) };
        let manifest = self.store.manifest(*digest)?;
        Ok(manifest.items.iter().map(|item| item.name.clone()).collect())
    }

    /// Looks the key up. A stage that reads files from outside is looked up with what each earlier
    /// run read, as these files are now.
    pub(crate) fn find(&self, index: usize, key: &Key) -> Result<Found, PlanError> {
        self.find_in(index, key, self.store.behind(), None).map(Option::unwrap_or_default)
    }

    /// The same without a cache behind the store; nothing, if so much would have to be hashed for
    /// that that others should not wait for it.
    pub(crate) fn find_soon(&self, index: usize, key: &Key) -> Result<Option<Found>, PlanError> {
        const MOST: u64 = 64 << 20;
        self.find_in(index, key, None, Some(MOST))
    }

    /// The same, but what the store does not hold itself is not asked for elsewhere.
    pub(super) fn find_here(&self, index: usize, key: &Key) -> Result<Found, PlanError> {
        self.find_in(index, key, None, None).map(Option::unwrap_or_default)
    }

    fn find_in(
        &self,
        index: usize,
        key: &Key,
        behind: Option<&dyn Behind>,
        most: Option<u64>,
    ) -> Result<Option<Found>, PlanError> {
        let Some(root) = self.pipeline.instances[index].work.source_root() else {
            return self.look_up(index, key.direct, behind).map(Some);
        };
        let (mut latest, mut broken) = (None, None);
        let traces = self.store.traces(key.direct)?;
        let mut is_damaged = traces.is_damaged();
        let root_name = Some(Trace::root_name(from_file(self.pipeline, root)));
        let traces = Trace::likely(traces.found().unwrap_or_default(), root_name);
        // What others read is asked for only when nothing is known here that is still so: first
        // what they read in a folder of this name.
        let told = [root_name, None].into_iter().flat_map(|root| {
            behind.map(|behind| behind.traces(key.direct, root)).unwrap_or_default()
        });
        let mut seen = HashSet::new();
        for trace in traces.into_iter().chain(told) {
            if !seen.insert(trace.paths.clone()) {
                continue;
            }
            let sources = self.store.digest_sources_within(root, &trace.paths, most)?;
            let Some(sources) = sources else { return Ok(None) };
            match self.look_up(index, action_key(&with_sources(key, sources.clone())), behind)? {
                found @ Found::Whole(..) => {
                    if behind.is_some() && !trace.is_below(root_name) {
                        // It may have been another folder's. Without it, the next look takes
                        // longer.
                        let _ = self.store.add_trace(key.direct, trace.below(root_name));
                    }
                    return Ok(Some(found));
                }
                found @ Found::Broken(..) => broken = Some(found),
                Found::Nothing { damaged, .. } => is_damaged |= damaged && latest.is_none(),
            }
            latest.get_or_insert(sources);
        }
        let sources = latest.unwrap_or_default();
        Ok(Some(broken.unwrap_or(Found::Nothing { sources, damaged: is_damaged })))
    }

    fn look_up(
        &self,
        index: usize,
        fingerprint: Fingerprint,
        behind: Option<&dyn Behind>,
    ) -> Result<Found, PlanError> {
        let nothing = |damaged| Found::Nothing { sources: BTreeMap::new(), damaged };
        let here = match self.store.lookup(fingerprint)? {
            Lookup::Found(record) if self.store.is_whole(&record) => {
                return Ok(Found::Whole(Box::new(record)));
            }
            Lookup::Found(record) => {
                self.store.check_visible(&record)?;
                Found::Broken(record.output)
            }
            Lookup::Damaged => nothing(true),
            Lookup::Absent => nothing(false),
        };
        let name = &self.pipeline.instances[index];
        let brought = behind.and_then(|behind| behind.bring(self.store, fingerprint, name));
        if let Some(record) = &brought
            && let Err(error) = self.keep_items(index, record)
        {
            tracing::debug!("what was fetched of `{name}` is not known item by item: {error}");
        }
        Ok(brought.map_or(here, |record| Found::Whole(Box::new(record))))
    }

    /// Where a training would go on.
    pub(crate) fn resume_point(&self, index: usize, key: &Key) -> Option<ResumePoint> {
        let stops = self.pipeline.instances[index].work.stops();
        let step = self.store.checkpoint_step(key.trajectory?, &stops)?;
        Some(ResumePoint { step, steps_total: *stops.last()? })
    }

    /// Why an instance runs; never empty.
    pub(crate) fn reasons(&self, index: usize, key: &Key, found: &Found) -> Vec<StaleReason> {
        let sources = match found {
            Found::Whole(..) => return vec![StaleReason::Forced],
            Found::Broken(digest) => return vec![StaleReason::OutputMissing { digest: *digest }],
            Found::Nothing { damaged: true, .. } => return vec![StaleReason::RecordDamaged],
            Found::Nothing { sources, damaged: false } => sources,
        };
        let instance = &self.pipeline.instances[index];
        let reasons = |old: &Record| {
            let before = &old.ingredients.sources;
            // Where nothing is known of what would be read, nothing can be said of it.
            let is_known = !sources.is_empty();
            let now = if is_known { self.as_it_is(before, instance) } else { before.clone() };
            let reasons = differences(&old.ingredients, &with_sources(key, now), instance);
            let reasons = model::named(reasons, old, instance);
            match instance.work.source_root() {
                Some(root) if is_known => listing::named(reasons, &old.ingredients, root),
                _ => reasons,
            }
        };
        let found = match self.last(index) {
            // Of another kind, too: what it was under this name is what people know of it.
            Some(record) => reasons(&record),
            // Of equally many, those of the first: see `siblings`.
            None => self
                .siblings(instance)
                .iter()
                .filter(|record| record.ingredients.kind == key.ingredients.kind)
                .map(|record| reasons(record))
                .min_by_key(Vec::len)
                .unwrap_or_default(),
        };
        if found.is_empty() { vec![StaleReason::NeverRun] } else { found }
    }

    /// What a run read from outside, as it is now. Other stages with the same parameters may have
    /// read something else.
    fn as_it_is(
        &self,
        sources: &BTreeMap<String, Digest>,
        instance: &Instance,
    ) -> BTreeMap<String, Digest> {
        let paths: Vec<String> = sources.keys().cloned().collect();
        let root = instance.work.source_root();
        let now = root.and_then(|root| self.store.digest_sources(root, &paths).ok());
        // What cannot be read is told when the stage runs.
        now.unwrap_or_else(|| sources.clone())
    }

    /// The record of the instance's last run.
    pub(crate) fn last(&self, index: usize) -> Option<Arc<Record>> {
        let history = self.history.lock().unpoisoned();
        if history.is_empty() {
            return None;
        }
        let key = history.of(&self.pipeline.instances[index].to_string())?;
        drop(history);
        self.record(key)
    }

    /// The records of what an instance was before it was what `now` tells, latest first.
    pub(super) fn before(
        &self,
        index: usize,
        now: &Record,
    ) -> impl Iterator<Item = Arc<Record>> + use<'_> {
        /// What lies farther back, hardly anybody still follows.
        const MOST: usize = 16;
        let name = self.pipeline.instances[index].to_string();
        let history = self.history.lock().unpoisoned();
        let earlier = history.before(&name).iter().rev().copied();
        let keys = history.of(&name).into_iter().chain(earlier);
        let keys: Vec<_> = keys.filter(|key| *key != now.fingerprint).take(MOST).collect();
        drop(history);
        keys.into_iter().filter_map(|key| self.record(key))
    }

    /// Remembers what an instance is now.
    pub(crate) fn note(&self, index: usize, fingerprint: Fingerprint) -> Result<(), PlanError> {
        let instance = &self.pipeline.instances[index];
        let name = instance.to_string();
        // What this run does must not explain it.
        self.cells(&instance.stage);
        Ok(self.history.lock().unpoisoned().note(&name, fingerprint)?)
    }

    /// Remembers that the pipeline was run: what it has no more, nobody needs.
    pub(crate) fn ran(&self) -> Result<(), PlanError> {
        Ok(self.history.lock().unpoisoned().ran(self.names())?)
    }

    /// The records that were read for explanations.
    pub(crate) fn records_seen(&self) -> Vec<Arc<Record>> {
        self.records.lock().unpoisoned().values().flatten().cloned().collect()
    }

    /// Records of the same stage in other cells, the one that this cell most likely was before
    /// first: it agrees in most axes, and ran last.
    fn siblings(&self, instance: &Instance) -> Vec<Arc<Record>> {
        let near = self.cells(&instance.stage).nearest(&instance.to_string());
        let mut found: Vec<_> = near
            .into_iter()
            .filter_map(|(near, key)| self.record(key).map(|record| (near, record)))
            .collect();
        let started = |record: &Record| record.started.parse::<jiff::Timestamp>().ok();
        found.sort_by_cached_key(|(near, record)| (*near, Reverse(started(record))));
        found.into_iter().map(|(_, record)| record).collect()
    }

    /// The cells of a stage as they were before this run, gathered once.
    fn cells(&self, stage: &str) -> Arc<Siblings> {
        let mut all = self.cells.lock().unpoisoned();
        if let Some(found) = all.get(stage) {
            return Arc::clone(found);
        }
        let history = self.history.lock().unpoisoned();
        let found = if history.is_empty() {
            Siblings::default()
        } else {
            let (present, gone): (Vec<_>, Vec<_>) =
                history.of_stage(stage).partition(|(name, _)| self.names().contains(*name));
            Siblings::new(gone.into_iter(), present.into_iter())
        };
        let found = Arc::new(found);
        all.insert(stage.to_owned(), Arc::clone(&found));
        found
    }

    /// A record for explanations: one that cannot be read is as good as none.
    fn record(&self, key: Fingerprint) -> Option<Arc<Record>> {
        let mut records = self.records.lock().unpoisoned();
        records
            .entry(key)
            .or_insert_with(|| self.store.lookup(key).ok()?.found().map(Arc::new))
            .clone()
    }

    /// What an instance needs from outside the store and cannot have; nothing is hashed.
    pub(crate) fn lack(&self, instance: &Instance) -> Option<Lack> {
        self.absences.of(instance)
    }

    /// All that the instances asked for lack.
    pub(crate) fn lacks(&self, selection: &Selection) -> Vec<Lacking> {
        let needed = self.pipeline.instances.iter().zip(&selection.needed);
        let needed = needed.filter(|(_, needed)| **needed).map(|(instance, _)| instance);
        self.absences.gather(needed)
    }
}

/// Whose results a pipeline's are.
pub fn owner_of(pipeline: &Pipeline) -> Owner {
    Owner::new(&pipeline.path, pipeline.profile.as_deref(), &pipeline.name)
}
