//! Integration tests, one binary.

mod external_golden;
mod external_golden_text;
mod golden;
mod golden_text;
mod parity;
mod real_data;
