//! The integration tests, in one binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures and skips are told")]
#![expect(clippy::disallowed_methods, reason = "folders of test data are named by variables")]

mod behind;
mod citations;
mod cli;
mod damage;
mod estimates;
mod execution;
mod external_golden;
mod external_golden_text;
mod failures;
#[expect(unused_attributes, reason = "fuzz targets are programs without a `main`")]
mod fuzz_targets;
mod golden;
mod golden_adapters;
mod golden_text;
mod held_out;
mod hub;
mod hub_server;
mod incremental;
mod json_schema;
mod layering;
mod ltx_stages;
mod ltx_text;
mod ltx_video;
mod mutated;
mod outside;
mod paper;
mod parity;
mod parity_table;
mod real_arc;
mod real_data;
mod real_sets;
mod scale;
mod shapes;
mod support;
mod together;
mod toys;
mod training;
mod training_batches;
mod training_stages;

// Fuzz targets take their macro from `libfuzzer-sys`, for which this crate stands.
extern crate self as libfuzzer_sys;
use fuzz_targets::fuzz_target;
