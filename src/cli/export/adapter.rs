//! Adapters as the files of the program that is to load them.

use std::path::Path;

use super::{
    CliError,
    files::{Exporter, broken},
    write_file,
};
use crate::{
    artifact::{
        Manifest,
        adapter::{TRAIN, WEIGHTS},
    },
    models::Adapter,
};

/// A program that loads adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Program {
    /// Diffusers: one file, whose header states the scale
    Diffusers,
    /// ComfyUI: one file with its names of modules and the scale in the weights
    Comfyui,
    /// Peft: `adapter_model.safetensors` and `adapter_config.json`
    Peft,
}

/// Writes the adapter and the log of its training.
pub(super) fn export(
    exporter: &Exporter<'_>,
    manifest: &Manifest,
    folder: &Path,
) -> Result<(), CliError> {
    for item in &manifest.items {
        if exporter.program == Program::Diffusers {
            exporter.put(item, WEIGHTS, &folder.join(WEIGHTS))?;
        } else {
            let bytes = exporter.read(item, WEIGHTS)?;
            let adapter = Adapter::from_diffusers(&bytes)
                .map_err(|error| broken(&item.name, &error.to_string()))?;
            write(&adapter, exporter.program, folder)?;
        }
        exporter.put(item, TRAIN, &folder.join(TRAIN))?;
    }
    Ok(())
}

fn write(adapter: &Adapter, program: Program, folder: &Path) -> Result<(), CliError> {
    if program == Program::Comfyui {
        return write_file(&folder.join("comfyui_lora.safetensors"), &adapter.to_comfyui());
    }
    let (config, weights) = adapter.to_peft();
    write_file(&folder.join("adapter_config.json"), &config)?;
    write_file(&folder.join("adapter_model.safetensors"), &weights)
}
