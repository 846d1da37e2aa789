//! A pipeline and its results as a folder that explains itself: a Workflow Run RO-Crate, by the
//! profile Provenance Run Crate 0.5.
//!
//! | in the pipeline | in the crate |
//! |---|---|
//! | file, bases | `ComputationalWorkflow`, and `File`s it is based on |
//! | stage | `HowToStep`, with the stages it takes from as `ParameterConnection`s |
//! | stage kind | `SoftwareApplication` with a `FormalParameter` per parameter, port and output |
//! | instance | `CreateAction` with its times, and the `ControlAction` of its step |
//! | parameter of an instance | `PropertyValue` |
//! | artifact | `Dataset` of `File`s, each with size, SHA-256 and blake3 |
//! | outside files that were read | a `File` that lists their paths and blake3; they are not copied |
//! | model | `CreativeWork` with its commit and the blake3 of its parts |
//!
//! The crate `rocrate` reads and checks such folders, but an entity is a map there too, and its
//! macros change features of `syn` that the whole tree is built with; so the entities are types of
//! our own.

mod entities;
mod graph;
mod workflow;
mod write;

pub use write::{Attachment, CrateError, Given, Written, write};
