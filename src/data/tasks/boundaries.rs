//! `boundaries`: lines that people drew, white on black.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Knowledge, Task};
use crate::data::{DataError, Pair, Problem, Request, Sample};

/// Which lines count where several people drew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BoundaryRule {
    /// A pixel is a boundary if at least so many annotators drew it.
    #[schemars(range(min = 1))]
    pub min_annotators: usize,
}

impl Default for BoundaryRule {
    fn default() -> Self {
        Self { min_annotators: 1 }
    }
}

pub(super) struct Boundaries;

impl Task for Boundaries {
    fn name(&self) -> &'static str {
        "boundaries"
    }

    fn doc(&self) -> &'static str {
        "Lines that people drew, white on black."
    }

    fn params(&self) -> &'static [&'static str] {
        &["boundaries"]
    }

    fn needs(&self) -> Knowledge {
        Knowledge::Boundaries
    }

    fn check(&self, request: &Request) -> Vec<Problem> {
        let message = "must be at least 1, but is 0";
        let problem = Problem::new("boundaries.min_annotators", message, "1 takes every line");
        if request.boundaries.min_annotators == 0 { vec![problem] } else { Vec::new() }
    }

    fn draw(&self, sample: Sample, _: &Request) -> Result<Pair, DataError> {
        let mut lines = sample.answer.ok_or_else(|| super::lacks("boundaries"))?;
        // Shrinking averages thin lines with what is beside them; any share of a line is a line.
        for pixel in lines.pixels_mut() {
            pixel.0 = if pixel.0[0] >= 32 { [255; 3] } else { [0; 3] };
        }
        Ok(super::pair(sample.image, lines))
    }
}
