//! What a run did and what came of it, for people and machines. Nothing here decides anything.

pub mod table;

/// Version of every JSON document and event this program writes.
pub const SCHEMA_VERSION: u32 = 1;
