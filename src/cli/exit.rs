//! What the exit codes mean; scripts depend on them.

/// Everything is up to date, or the question was answered.
pub const DONE: u8 = 0;
/// A stage failed, or there is no result to show.
pub const STAGE_FAILED: u8 = 1;
/// The arguments or the pipeline file are wrong.
pub const USAGE: u8 = 2;
/// The machine lacks something: a device, space, weights, data.
pub const ENVIRONMENT: u8 = 3;
/// `verify` or `attest --verify` found a difference, `cache verify` damage, or `--locked` a
/// deviation.
pub const DIFFERENT: u8 = 4;
/// A bug of ours; also what the runtime gives for a panic.
pub const BUG: u8 = 101;
/// The user interrupted with Ctrl-C. Another signal gives 128 and its number: 143 for SIGTERM, 129
/// for SIGHUP.
pub const INTERRUPTED: u8 = 130;
