//! Declarative, incremental pipelines for few-shot experiments on video diffusion models.
#![doc = include_str!("../ARCHITECTURE.md")]

pub mod config;
pub mod plan;

pub mod exec;

pub mod stages;

pub mod artifact;
pub mod remote;
pub mod store;

pub mod data;
pub mod metrics;

pub mod models;
pub mod train;

pub mod device;
pub mod huge_pages;
mod no_break;
pub mod regular_file;
pub mod rng;
mod sync;
pub mod units;

pub mod cli;
pub mod provenance;
pub mod report;
