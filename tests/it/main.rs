//! The integration tests, in one binary.

mod external_golden_text;
mod golden_text;
