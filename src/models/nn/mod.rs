//! Layers that two models need.

mod linear;

pub use linear::{Conv3d, Linear, LoraBranch};
