//! The device that `--device` names.

use burn::tensor::Device;

use super::error::CliError;

/// Opens a device and gives the name that records and events carry.
pub(super) fn open(name: &str) -> Result<(Device, String), CliError> {
    match name {
        "cpu" => Ok(cpu()),
        "auto" => Ok(cuda(0).unwrap_or_else(cpu)),
        _ => {
            let index = match name.strip_prefix("cuda") {
                Some("") => Some(0),
                Some(rest) => rest.strip_prefix(':').and_then(|index| index.parse().ok()),
                None => None,
            };
            let index = index.ok_or_else(|| {
                CliError::usage(format!("there is no device `{name}`"))
                    .with_help("use `auto`, `cpu` or `cuda:N`")
            })?;
            cuda(index).ok_or_else(|| no_cuda(name))
        }
    }
}

fn cpu() -> (Device, String) {
    (Device::flex(), "cpu".to_owned())
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Option<(Device, String)> {
    let found = Device::enumerate(burn::tensor::DeviceType::Cuda);
    (index < found.len()).then(|| (Device::cuda(index), format!("cuda:{index}")))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> Option<(Device, String)> {
    None
}

fn no_cuda(name: &str) -> CliError {
    let error = CliError::environment(format!("there is no CUDA device `{name}` here"));
    error.with_help(if cfg!(feature = "cuda") {
        "check the driver with `nvidia-smi`, or use `--device cpu`"
    } else {
        "this `pipe` was built without CUDA: build it with `--features cuda`, or use `--device cpu`"
    })
}
