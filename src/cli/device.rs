//! The device that `--device` names.

use burn::tensor::Device;

use super::{error::CliError, gpus};
use crate::device;

/// Opens a device and gives the name that records and events carry.
pub(super) fn open(name: &str) -> Result<(Device, String), CliError> {
    match Wanted::parse(name)? {
        Wanted::Cpu => Ok(cpu()),
        Wanted::Auto => Ok(cuda(0)?.unwrap_or_else(cpu)),
        Wanted::Cuda(index) => cuda(index)?.ok_or_else(|| no_cuda(name)),
    }
}

/// What a name of a device asks for.
enum Wanted {
    Auto,
    Cpu,
    Cuda(usize),
}

impl Wanted {
    fn parse(name: &str) -> Result<Self, CliError> {
        let index = match (name, name.strip_prefix("cuda")) {
            ("auto", _) => return Ok(Self::Auto),
            ("cpu", _) => return Ok(Self::Cpu),
            (_, Some("")) => Some(0),
            (_, Some(rest)) => rest.strip_prefix(':').and_then(|index| index.parse().ok()),
            (_, None) => None,
        };
        index.map(Self::Cuda).ok_or_else(|| {
            CliError::usage(format!("there is no device `{name}`"))
                .with_help("use `auto`, `cpu` or `cuda:N`")
        })
    }
}

/// Stages that run at once when nobody says: a GPU holds one large model at a time.
pub(super) fn default_jobs(device_name: &str) -> usize {
    const MOST: usize = 4;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if device_name == "cpu" { cores.min(MOST) } else { 1 }
}

/// What a plan can know of a device that it does not open.
#[derive(Clone, Debug)]
pub(super) struct Outlook {
    /// Whether it is the CPU.
    pub on_host: bool,
    /// Its memory in bytes, on a GPU what is free of it, if the system tells.
    pub memory: Option<u64>,
    /// The memory of the machine beside it, which stages take that do not use it.
    pub host_memory: Option<u64>,
    /// What the driver's tool calls the card, if it is one and known.
    pub card: Option<String>,
}

/// The outlook for the device that a run on `name` would open.
pub(super) fn outlook(name: &str) -> Result<Outlook, CliError> {
    let cuda = match Wanted::parse(name)? {
        Wanted::Cpu => None,
        Wanted::Auto => cuda(0)?.is_some().then_some(0),
        Wanted::Cuda(index) => Some(index),
    };
    Ok(match cuda {
        None => {
            Outlook { on_host: true, memory: host_memory(), host_memory: host_memory(), card: None }
        }
        Some(index) => {
            let card = card(index);
            let memory = card.as_ref().and_then(|card| card.free);
            let card = card.map(|card| card.uuid);
            Outlook { on_host: false, memory, host_memory: host_memory(), card }
        }
    })
}

/// The memory of the machine, or what a container may use of it.
fn host_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max");
    let limit = limit.ok().and_then(|text| text.trim().parse::<u64>().ok());
    Some(limit.map_or(total, |limit| limit.min(total)))
}

/// A GPU as its driver's tool tells of it; burn does not.
#[expect(
    clippy::disallowed_methods,
    reason = "these variables are the driver's, not settings of ours"
)]
fn card(index: usize) -> Option<gpus::Gpu> {
    let output = std::process::Command::new("nvidia-smi").args(gpus::QUERY).output().ok()?;
    let listing = String::from_utf8(output.stdout).ok()?;
    let [visible, order] =
        ["CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"].map(|name| std::env::var(name).ok());
    let cards = gpus::parse(&listing);
    gpus::find(&cards, visible.as_deref(), order.as_deref(), index).cloned()
}

fn cpu() -> (Device, String) {
    (Device::flex(), "cpu".to_owned())
}

fn cuda(index: usize) -> Result<Option<(Device, String)>, CliError> {
    let device = device::cuda(index).map_err(|error| {
        CliError::environment(error.to_string())
            .with_help("check the driver with `nvidia-smi`, or use `--device cpu`")
    })?;
    Ok(device.map(|device| (device, format!("cuda:{index}"))))
}

fn no_cuda(name: &str) -> CliError {
    let error = CliError::environment(format!("there is no CUDA device `{name}` here"));
    error.with_help(if cfg!(feature = "cuda") {
        "check the driver with `nvidia-smi`, or use `--device cpu`"
    } else {
        "this `pipe` was built without CUDA: build it with `--features cuda`, or use `--device cpu`"
    })
}
