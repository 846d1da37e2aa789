//! Optimisation: noise, losses, gradients, checkpoints.

pub mod batch;
pub mod checkpoint;
pub mod denoiser;
pub mod gradient;
pub mod held_out;
pub mod loss;
pub mod optimizer;
pub mod order;
pub mod schedule;
pub mod shards;
pub mod steps;
pub mod vae;
