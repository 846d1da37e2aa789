//! The models embedded in the binary.

/// Files of `builtin:tiny` by their path in diffusers' layout; empty in a build without its assets.
pub static BUILTIN_TINY: &[(&str, &[u8])] = &[];

/// Every built-in model by name.
pub static BUILTINS: &[(&str, &[(&str, &[u8])])] = &[("tiny", BUILTIN_TINY)];
