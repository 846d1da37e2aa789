//! What a stage does.
//!
//! A stage is one struct, its parameters, and one `impl`. Adding one is a new file here, or a
//! folder, and one line in [`STAGES`]; the schema and the editor help follow from the struct.
//!
//! Beside the kinds, which [`STAGES`] lists: what is looked at across stages before a run
//! (`check`), what a stage sees while it runs (`context`), its registry line (`entry`), what its
//! memory is estimated by (`estimate`), and what some kinds share (`model`, `predictions`, `rules`,
//! `training`).

mod check;
mod color_correct;
mod command;
mod context;
mod dataset;
mod decode;
mod entry;
mod error;
mod estimate;
mod interpolate;
mod lora_merge;
mod lora_train;
mod metric;
mod model;
mod predictions;
mod pretrain;
mod rules;
mod sample;
#[cfg(test)]
mod support;
mod text_encode;
mod training;
mod transform;
mod vae_encode;

pub use check::{
    AdapterFile, Cause, CheckError, CheckWarning, DataSelection, EncodedText, Examined, IdleParam,
    ImageRecord, ItemSize, KnownAdapters, KnownData, KnownModels, KnownParts, Lineage,
    MOST_DECODED, Mismatch, ModelParts, OwnSize, SamePictures, Surroundings, Trainings,
};
pub use color_correct::ColorCorrect;
pub use command::{CommandGuard, ShellCommand};
pub use context::{CancelFlag, Inputs, OnItem, Output, Progress, StageContext};
pub use dataset::Dataset;
pub use decode::Decode;
pub use entry::{ParsedStage, Port, Ports, StageEntry};
pub use error::StageError;
pub use estimate::{Bulk, Lighter, Workload, given};
pub use interpolate::Interpolate;
pub use lora_merge::LoraMerge;
pub use lora_train::LoraTrain;
pub use metric::Metric;
pub use pretrain::Pretrain;
pub use sample::Sample;
pub use text_encode::TextEncode;
pub use transform::Transform;
pub use vae_encode::VaeEncode;

pub use crate::data::ParamError;

use std::path::Path;

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    artifact::ArtifactKind,
    models::{LoadError, Memory, ModelRef, PartRead},
    store::Digest,
};

/// Every kind a pipeline file can name, in data order.
pub static STAGES: &[StageEntry] = &[
    StageEntry::of::<Dataset>(),
    StageEntry::of::<Transform>(),
    StageEntry::of::<Interpolate>(),
    StageEntry::of::<TextEncode>(),
    StageEntry::of::<VaeEncode>(),
    StageEntry::of::<LoraTrain>(),
    StageEntry::of::<LoraMerge>(),
    StageEntry::of::<Sample>(),
    StageEntry::of::<Decode>(),
    StageEntry::of::<ColorCorrect>(),
    StageEntry::of::<Metric>(),
    StageEntry::of::<Pretrain>(),
    StageEntry::of::<ShellCommand>(),
];

/// The parameters that can hold the model of [`Stage::weights`].
pub const MODEL_PARAMS: [&str; 2] = ["model", "like"];

/// The model whose weights decide what a stage gives.
#[derive(Clone, Copy, Debug)]
pub struct WeightsUsed<'a> {
    /// The model.
    pub model: &'a ModelRef,
    /// What is read of it.
    pub parts: &'static [PartRead],
}

/// Work the executor can do without knowing its kind.
///
/// Only [`run`](Self::run) has no default: a kind overrides what applies to it, most of them a few.
///
/// | method | who calls it |
/// |---|---|
/// | **what it is, and how it runs** | |
/// | `validate`, `revision`, `output` | `config`, when the file is read |
/// | `mapped_port`, `crossed_port` | `config`, `plan` and `exec`, to walk over items |
/// | `side_by_side`, `command`, `uses_device`, `run` | `exec` |
/// | `weights` (`model`), `source_root`, `params_without_effect` | `plan`, for the key; reports |
/// | `trajectory_params`, `stops` | `plan` and `exec`, for checkpoints |
/// | **estimates** | |
/// | `effort_params`, `num_items` | `plan`, for time and disk |
/// | `memory`, `host_memory`, `bulk`, `lighter` | `plan`, for memory and advice on it |
/// | **checks beside other stages, before a run** | |
/// | `idle_params` to `warnings` | `config/check.rs` and `config/expand.rs`, stage by stage |
/// | `adapter_files`, `check_files` | `config` and `plan`, where files of weights are looked at |
/// | `gives_parts`, `parts`, `left_to_model` | `config`, to know what is on a port `model` |
/// | `selection`, `pictures` | `config` and `report`, to tell data learnt from that is asked about |
/// | **reports** | |
/// | `metrics` | `config`, for tables |
pub trait Stage: Send + Sync {
    // What it is, and how it runs.

    /// Checks the rules that no single field can state.
    fn validate(&self) -> Vec<ParamError> {
        Vec::new()
    }

    /// Added to the kind's `VERSION`: how often the output changed for these parameters while it
    /// stayed for others.
    fn revision(&self) -> u32 {
        0
    }

    /// What this stage gives, where that depends on its parameters.
    fn output(&self) -> Option<ArtifactKind> {
        None
    }

    /// The port whose items are mapped one to one, if the stage maps items.
    ///
    /// Such a stage is cached per item: [`Inputs::items`] of this port holds only the items that
    /// are not cached, and the stage writes one item of the same name for each. The result of an
    /// item must not depend on which others are there.
    fn mapped_port(&self) -> Option<&'static str> {
        None
    }

    /// The port of which every item meets every item of the mapped port, such as the adapters that
    /// `sample` generates with.
    ///
    /// The stage runs once per item of this port and sees only that one. Where there are several,
    /// the results are named `<item of this port>/<item of the mapped port>`; see
    /// [`crate::artifact::crossed_name`].
    fn crossed_port(&self) -> Option<&'static str> {
        None
    }

    /// How many items of the mapped port it computes side by side: a call gets a multiple of that,
    /// where so many are to be made.
    fn side_by_side(&self) -> usize {
        1
    }

    /// The model whose weights decide the output, with the parts read.
    fn weights(&self) -> Option<WeightsUsed<'_>> {
        None
    }

    /// The model of [`Self::weights`].
    fn model(&self) -> Option<&ModelRef> {
        self.weights().map(|weights| weights.model)
    }

    /// The folder of files that are read from outside the store through
    /// [`StageContext::sources`]; their content decides the output, the path does not.
    fn source_root(&self) -> Option<&Path> {
        None
    }

    /// The shell command it runs, which a run must allow.
    fn command(&self) -> Option<&str> {
        None
    }

    /// Parameters that only say how far a run goes along one trajectory, such as `steps`.
    ///
    /// When not empty, [`StageContext::checkpoints`] names a folder shared by all stages that
    /// differ in nothing else.
    fn trajectory_params(&self) -> &'static [&'static str] {
        &[]
    }

    /// The steps along its trajectory whose states it gives, in ascending order: it goes as far as
    /// the last, and leaves a checkpoint at each.
    fn stops(&self) -> Vec<u64> {
        Vec::new()
    }

    /// Parameters that do not change the output, each with the value that stands for all in the
    /// key. It is the default, so that leaving the parameter out is no change either.
    fn params_without_effect(&self) -> &'static [(&'static str, Option<usize>)] {
        &[]
    }

    /// Whether it computes on the device: it then runs where that is, which may be a process of its
    /// own.
    fn uses_device(&self) -> bool {
        false
    }

    /// Reads the inputs, writes items to `out`. Nothing else is visible to it.
    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError>;

    // Estimates.

    /// Numbers among its parameters that its time is in proportion to, such as `steps`; for a stage
    /// that maps items, the time of one item. Estimates go by them.
    fn effort_params(&self) -> &'static [&'static str] {
        &[]
    }

    /// How many items it gives, for a stage that maps none and whose parameters say so.
    fn num_items(&self) -> Option<usize> {
        None
    }

    /// The memory of the device that its model takes for this work; none where it runs no model, or
    /// where the size of clips decides and is not known.
    fn memory(&self, _work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        Ok(None)
    }

    /// The memory of the host that it takes for this work where the device is a GPU; none where
    /// that is little.
    fn host_memory(&self, _work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        Ok(None)
    }

    /// How much it gives, by how much is on each of its ports.
    fn bulk(&self, given: &dyn Fn(&str) -> Bulk) -> Bulk {
        Bulk::of_items(self, given)
    }

    /// The stage with each of its parameters that decide its memory one step lighter, such as half
    /// a batch. Those that bring nothing for this work may be among them.
    fn lighter(&self, _work: &Workload<'_>) -> Vec<Lighter> {
        Vec::new()
    }

    // Checks beside other stages, before a run.

    /// Parameters that do nothing beside the others as they are. The file is wrong if it sets one.
    fn idle_params(&self) -> Vec<IdleParam> {
        Vec::new()
    }

    /// What its own parameters say of the size of the items it gives.
    fn own_size(&self) -> OwnSize {
        OwnSize::default()
    }

    /// What the pairs that it gives are examples of, for a stage that gives pairs: a task, or an
    /// operation on images.
    fn task(&self) -> Option<&'static str> {
        None
    }

    /// How the denoiser got its image in the trainings behind what it gives, for a stage that gives
    /// an adapter or a model; or will get it, for one that gives latents.
    fn trainings(&self, _around: &Surroundings<'_>) -> Option<Trainings> {
        None
    }

    /// How the prompt that it gives is encoded, for a stage that encodes one, as far as that is
    /// known.
    fn encoded_text(&self, _around: &Surroundings<'_>) -> Option<EncodedText> {
        None
    }

    /// The parts of models behind what it gives.
    fn lineage(&self, _around: &Surroundings<'_>) -> Option<Lineage> {
        None
    }

    /// What it cannot take of what it will be given, as far as that is known before it runs.
    fn check(&self, _around: &Surroundings<'_>) -> Vec<CheckError> {
        Vec::new()
    }

    /// Parts of different models that it would bring together.
    fn mismatches(&self, _around: &Surroundings<'_>) -> Vec<Mismatch> {
        Vec::new()
    }

    /// What of it is not wrong beside what it will be given, but seldom meant, or cannot be known
    /// to be right: said behind its name.
    fn warnings(&self, _around: &Surroundings<'_>) -> Vec<CheckWarning> {
        Vec::new()
    }

    /// The adapter files that it names, and the folder below which they lie.
    fn adapter_files(&self) -> Option<(&Path, &[String])> {
        None
    }

    /// What is wrong with the files of its model, and with other files of weights that it names, as
    /// far as configurations and headers tell; `on_port` is what is on its port `model`, if that is
    /// known.
    fn check_files(&self, examined: &Examined, on_port: Option<&ModelParts>) -> Vec<CheckError> {
        match self.weights() {
            Some(weights) => examined.model(MODEL_PARAMS[0], weights, on_port),
            None => Vec::new(),
        }
    }

    /// Whether it may give a model.
    fn gives_parts(&self) -> bool {
        false
    }

    /// The configurations of the parts that it gives, for a stage that gives a model, by those on
    /// its port `model`; nothing if one of them is not known before it runs.
    fn parts(&self, _given: &ModelParts) -> Option<ModelParts> {
        None
    }

    /// What its parameters leave to the model of [`Self::weights`], by their names, as that model's
    /// configuration has it; `on_port` is what is on its port `model`.
    fn left_to_model(&self, _on_port: &ModelParts) -> Map<String, Value> {
        Map::new()
    }

    /// The images it takes from outside, for a stage that takes some.
    fn selection(&self) -> Option<DataSelection> {
        None
    }

    /// What the inputs of the pairs that it will give hold, by their names, where it takes them
    /// from outside and they were looked at.
    fn pictures(&self, _known: &KnownData) -> Option<Vec<(Digest, String)>> {
        None
    }

    // Reports.

    /// The names of the scores it gives, for a stage that gives metrics and knows them.
    fn metrics(&self) -> &'static [&'static str] {
        &[]
    }
}

/// A stage that a pipeline file can name. The struct *is* its parameters.
///
/// Fields whose schema has `format = "path"` are left out of the fingerprint and are resolved
/// against the folder of the pipeline file.
pub trait StageKind: Stage + Serialize + DeserializeOwned + JsonSchema + 'static {
    /// The value of `kind` in the file.
    const KIND: &'static str;
    /// Bump when equal parameters and inputs would now give different bytes.
    const VERSION: u32;
    /// What it takes and gives.
    const PORTS: Ports;
}
