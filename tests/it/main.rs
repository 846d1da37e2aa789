//! Integration tests, one binary.

mod external_golden;
mod golden;
mod parity;
