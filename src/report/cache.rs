//! What `pipe cache verify` found, as one document for other programs.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::SCHEMA_VERSION;
use crate::store::VerifyReport;

/// What `pipe cache verify --json` prints.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CacheVerifyDocument {
    /// Version of this form.
    pub schema_version: u32,
    /// The folder of the cache.
    pub cache: String,
    /// Whether only to say what is damaged.
    pub dry_run: bool,
    /// Whether nothing is damaged or gone.
    pub sound: bool,
    /// What was found.
    pub verify: VerifyReport,
}

impl CacheVerifyDocument {
    /// The document of what was found in a cache.
    pub fn new(cache: &Path, dry_run: bool, verify: VerifyReport) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            cache: cache.to_string_lossy().into_owned(),
            dry_run,
            sound: verify.is_sound(),
            verify,
        }
    }
}
