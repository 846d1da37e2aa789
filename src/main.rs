//! The `pipe` binary: arguments in, exit code out.

fn main() {}
