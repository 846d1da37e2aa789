//! What is looked at across stages before a run: sizes, tasks, prompts, trainings, models,
//! adapters, data.
//!
//! The pipeline is followed from the first stage on (`config/check.rs`). Each stage is told its
//! [`Surroundings`] and answers with what is wrong, by methods of [`Stage`](super::Stage) that
//! stand with its kind. Here is what they share: what is known so far (`Known*`, [`Examined`],
//! [`ModelParts`]), the rules that several kinds have, and how an error says where to look
//! ([`Cause`]).

mod adapter_files;
pub(super) mod agreement;
mod data_facts;
mod error;
mod examined;
mod idle;
mod known_models;
mod model_facts;
mod model_parts;
mod same_pictures;
mod selection;
mod size;
mod surroundings;

pub use adapter_files::{AdapterFile, KnownAdapters};
pub use agreement::{ImageRecord, Lineage, Mismatch, Trainings};
pub use data_facts::{KnownData, MOST_DECODED};
pub use error::{Cause, CheckError, CheckWarning};
pub(super) use error::{not_known, refuse};
pub use examined::Examined;
pub use idle::IdleParam;
pub(super) use idle::is_one_of;
pub use known_models::KnownModels;
pub(super) use model_facts::Facts;
pub use model_parts::{KnownParts, ModelParts};
pub use same_pictures::SamePictures;
pub use selection::DataSelection;
pub(super) use size::{grid_in, pixels};
pub use surroundings::{EncodedText, ItemSize, OwnSize, Surroundings};
