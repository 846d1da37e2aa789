//! TOML text to a typed, expanded pipeline.

pub mod pipeline;
pub mod value;

pub use pipeline::{Cell, Instance, Pipeline, Place, Reference, Sweep, Table};
