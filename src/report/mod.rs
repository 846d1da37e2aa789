//! What a run did and what came of it, for people and machines. Nothing here decides anything.

pub mod cache;
pub mod clip;
pub mod compute;
pub mod doubts;
pub mod human;
pub mod json;
pub mod plan;
pub mod provenance;
pub mod results;
mod same_pictures;
pub mod schemas;
pub mod sheet;
pub mod story;
pub mod style;
pub mod table;
pub mod verify;
pub mod wrong;

use crate::exec::RunEvent;

/// Version of every JSON document and event this program writes.
pub const SCHEMA_VERSION: u32 = 1;

/// Told of everything that happens in a run.
pub trait Reporter {
    /// One event.
    fn on(&mut self, event: &RunEvent);
}
