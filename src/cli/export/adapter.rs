//! Adapters as the files of the program that is to load them.

use std::path::Path;

use super::{
    CliError,
    files::{Exporter, broken, folder_of},
    write_file,
};
use crate::{
    artifact::{
        ArtifactKind, FileNames, Manifest,
        adapter::{TRAIN, WEIGHTS},
    },
    config::Pipeline,
    models::{Adapter, family, lora::LoraFamily},
};

/// A program that loads adapters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Program {
    /// Diffusers: one file, whose header states the scale
    #[default]
    Diffusers,
    /// ComfyUI: one file with its names of modules and the scale in the weights
    Comfyui,
    /// Peft: `adapter_model.safetensors` and `adapter_config.json`
    Peft,
}

/// A family of models, whose modules ComfyUI has names of its own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Family {
    /// CogVideoX and CogVideoX 1.5
    #[value(name = "cogvideox")]
    CogVideoX,
    /// LTX-Video
    #[value(name = "ltx-video")]
    LtxVideo,
}

impl From<Family> for LoraFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::CogVideoX => Self::CogVideoX,
            Family::LtxVideo => Self::LtxVideo,
        }
    }
}

/// Writes the adapter and the log of its training.
pub(super) fn export(
    exporter: &Exporter<'_>,
    index: usize,
    manifest: &Manifest,
    folder: &Path,
) -> Result<(), CliError> {
    let mut names = FileNames::default();
    for item in &manifest.items {
        let folder = &folder_of(manifest, item, folder, &mut names);
        if exporter.program == Program::Diffusers {
            exporter.put(item, WEIGHTS, &folder.join(WEIGHTS))?;
        } else {
            let bytes = exporter.read(item, WEIGHTS)?;
            let adapter = Adapter::from_diffusers(&bytes)
                .map_err(|error| broken(&item.name, &error.to_string()))?;
            write(exporter, index, (&item.name, &adapter), folder)?;
        }
        exporter.put(item, TRAIN, &folder.join(TRAIN))?;
    }
    Ok(())
}

fn write(
    exporter: &Exporter<'_>,
    index: usize,
    (name, adapter): (&str, &Adapter),
    folder: &Path,
) -> Result<(), CliError> {
    if exporter.program == Program::Comfyui {
        let bytes = adapter.to_comfyui(family_of(exporter, index, (name, adapter))?);
        return write_file(&folder.join("comfyui_lora.safetensors"), &bytes);
    }
    let (config, weights) = adapter.to_peft();
    write_file(&folder.join("adapter_config.json"), &config)?;
    write_file(&folder.join("adapter_model.safetensors"), &weights)
}

/// The family of an adapter: by what it is made of, by the model that it was trained on in this
/// pipeline, or as the command line says where neither tells.
fn family_of(
    exporter: &Exporter<'_>,
    index: usize,
    (name, adapter): (&str, &Adapter),
) -> Result<LoraFamily, CliError> {
    let stated = exporter.family.map(LoraFamily::from);
    let made_of = adapter.family().map_err(|error| broken(name, &error.to_string()))?;
    let found = made_of.or_else(|| trained_on(exporter.pipeline, index));
    match (stated, found) {
        (Some(stated), Some(found)) if stated != found => Err(CliError::usage(format!(
            "`--family` says {}, but the adapter `{name}` is one of {}",
            stated.name(),
            found.name()
        ))
        .with_help("leave `--family` out")),
        (stated, found) => stated.or(found).ok_or_else(|| unknown_family(name)),
    }
}

fn unknown_family(name: &str) -> CliError {
    let message = format!(
        "of which family of models the adapter `{name}` is cannot be known: both have the modules that it is \
         made of, and ComfyUI loads each by its own names"
    );
    CliError::usage(message).with_help("add `--family cogvideox` or `--family ltx-video`")
}

/// The family of the model on which the adapters behind a stage's output were trained.
fn trained_on(pipeline: &Pipeline, index: usize) -> Option<LoraFamily> {
    let instance = &pipeline.instances[index];
    let of_model = || {
        let model = instance.work.model()?;
        let family = family(&model.resolve().ok()?).ok()?;
        LoraFamily::of_class(family.class_name())
    };
    let of_input = |input: &usize| {
        let gives = pipeline.instances[*input].output() == ArtifactKind::LoraAdapter;
        gives.then(|| trained_on(pipeline, *input))?
    };
    of_model().or_else(|| instance.inputs.values().find_map(of_input))
}
