//! What `pipe verify` found, as one document for other programs.

use schemars::JsonSchema;
use serde::Serialize;

use super::SCHEMA_VERSION;
use crate::exec::{Verdict, Verified, VerifyOptions};

/// What `pipe verify --json` prints.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct VerifyDocument {
    /// Version of this form.
    pub schema_version: u32,
    /// The pipeline file, as it was named.
    pub pipeline: String,
    /// The profile.
    pub profile: Option<String>,
    /// The largest distance of two numbers that counts as reproduced.
    pub tolerance: f64,
    /// Whether each stage was executed twice and compared with itself, not with the cache.
    pub twice: bool,
    /// What came of each stage.
    pub stages: Vec<Verified>,
    /// How often each verdict was given.
    pub counts: VerdictCounts,
}

/// How often each verdict was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct VerdictCounts {
    /// Every byte is equal.
    pub identical: usize,
    /// Numbers differ by no more than the tolerance.
    pub within_tolerance: usize,
    /// Something differs by more.
    pub different: usize,
    /// The stage failed this time.
    pub failed: usize,
    /// It was not executed.
    pub skipped: usize,
}

impl VerdictCounts {
    /// Counts the verdicts.
    pub fn of(found: &[Verified]) -> Self {
        let mut counts = Self::default();
        for verified in found {
            *match verified.verdict {
                Verdict::Identical => &mut counts.identical,
                Verdict::WithinTolerance { .. } => &mut counts.within_tolerance,
                Verdict::Different { .. } => &mut counts.different,
                Verdict::Failed { .. } => &mut counts.failed,
                Verdict::Skipped { .. } => &mut counts.skipped,
            } += 1;
        }
        counts
    }
}

impl VerifyDocument {
    /// The document of what was found in a pipeline file.
    pub fn new(
        pipeline: String,
        profile: Option<String>,
        options: &VerifyOptions,
        found: Vec<Verified>,
    ) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            pipeline,
            profile,
            tolerance: options.tolerance,
            twice: options.twice,
            counts: VerdictCounts::of(&found),
            stages: found,
        }
    }
}
