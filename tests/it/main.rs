//! The integration tests, in one binary.

mod incremental;
mod support;
