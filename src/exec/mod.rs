//! Plan to events and new records.

mod event;

pub use event::{Outcome, RunEvent, RunSummary};
