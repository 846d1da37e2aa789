//! Pipeline and store to a plan: what is fresh, stale or pending, and why.

mod freshness;

pub use freshness::{Freshness, StaleReason};

use crate::config::Pipeline;

/// What would happen to each instance of a pipeline.
pub struct Plan<'a> {
    /// The pipeline planned.
    pub pipeline: &'a Pipeline,
    /// One node per instance, in the same order.
    pub nodes: Vec<PlanNode>,
}

/// What would happen to one instance.
#[derive(Debug)]
pub struct PlanNode {
    /// Whether it must run, and why.
    pub freshness: Freshness,
    /// For a mapped stage whose input is known: items cached and items in all.
    pub items: Option<(usize, usize)>,
    /// Seconds it took before, or that its kind takes, if anything is known.
    pub estimate_secs: Option<f64>,
}
