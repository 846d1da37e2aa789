//! The devices that `--device` names.

mod cgroup;
mod names;

use std::path::Path;

use burn::tensor::Device;

pub(super) use names::Wanted;

use super::{error::CliError, gpus};
use crate::{config::settings::Settings, device};

/// What a command computes on.
pub(super) struct Chosen {
    /// Where it computes itself.
    pub device: Device,
    /// The name that records and events carry.
    pub name: String,
    /// Devices of which each has a process; none if it computes itself.
    pub processes: Vec<DeviceProcess>,
}

/// A device with a process of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeviceProcess {
    /// Its name among all.
    pub name: String,
    /// What the process calls it.
    pub inside: &'static str,
    /// What `CUDA_VISIBLE_DEVICES` is there, for a card.
    pub visible: Option<String>,
}

impl DeviceProcess {
    /// The card of this number; `list` is `CUDA_VISIBLE_DEVICES`.
    fn of_card(index: usize, list: Option<&str>) -> Self {
        let named = list.and_then(|list| gpus::visible(list).get(index).map(ToString::to_string));
        let visible = Some(named.unwrap_or_else(|| index.to_string()));
        Self { name: format!("cuda:{index}"), inside: "cuda:0", visible }
    }
}

/// Opens what the settings ask for.
pub(super) fn open(settings: &Settings) -> Result<Chosen, CliError> {
    placed(open_named(&settings.device), settings)
}

/// The same for who computes with one device alone: of several the first, and whether there are
/// others.
pub(super) fn open_first(settings: &Settings) -> Result<(Chosen, bool), CliError> {
    placed(open_first_named(&settings.device), settings)
}

/// What a plan can know of the devices that the settings ask for, and what of them is not here: a
/// plan is made all the same, as of data that are not there.
pub(super) fn look(settings: &Settings) -> Result<(Outlook, Option<CliError>), CliError> {
    let wanted = placed(Wanted::parse(&settings.device), settings)?;
    let lack = placed(cards_of(&wanted), settings).err();
    Ok((outlook_of(wanted)?, lack))
}

/// Adds to what is wrong with a device who has asked for it.
fn placed<T>(found: Result<T, CliError>, settings: &Settings) -> Result<T, CliError> {
    found.map_err(|error| match error {
        CliError::Message { code, message, help } => {
            CliError::Message { code, message: message + &settings.set_by("device"), help }
        }
        error => error,
    })
}

fn open_named(name: &str) -> Result<Chosen, CliError> {
    let wanted = Wanted::parse(name)?;
    let cards = match wanted {
        Wanted::Processes(count) => {
            let process = || DeviceProcess { name: "cpu".to_owned(), inside: "cpu", visible: None };
            let processes = std::iter::repeat_with(process).take(count).collect();
            return Ok(Chosen { processes, name: name.to_owned(), ..cpu() });
        }
        Wanted::Cpu => return Ok(cpu()),
        Wanted::Auto => return Ok(cuda(0)?.unwrap_or_else(cpu)),
        Wanted::Cuda(_) | Wanted::Cards(_) | Wanted::All => cards_of(&wanted)?,
    };
    if let [index] = cards[..] {
        return cuda(index)?.ok_or_else(|| no_cuda(Some(index)));
    }
    let list = variable("CUDA_VISIBLE_DEVICES");
    let process = |index: &usize| DeviceProcess::of_card(*index, list.as_deref());
    let processes = cards.iter().map(process).collect();
    Ok(Chosen { processes, name: Wanted::Cards(cards).to_string(), ..cpu() })
}

fn open_first_named(name: &str) -> Result<(Chosen, bool), CliError> {
    match Wanted::parse(name)? {
        Wanted::Processes(_) => Ok((cpu(), true)),
        Wanted::Auto | Wanted::Cpu => Ok((open_named(name)?, false)),
        wanted => {
            let cards = cards_of(&wanted)?;
            Ok((open_named(&format!("cuda:{}", cards[0]))?, cards.len() > 1))
        }
    }
}

/// The cards that are asked for, at least one if any is, all of which are here: whoever asks for
/// one that is not is told so here and nowhere else.
fn cards_of(wanted: &Wanted) -> Result<Vec<usize>, CliError> {
    let cards = match wanted {
        Wanted::Auto | Wanted::Cpu | Wanted::Processes(_) => return Ok(Vec::new()),
        Wanted::Cuda(index) => vec![*index],
        Wanted::Cards(cards) => cards.clone(),
        Wanted::All => all()?,
    };
    let list = variable("CUDA_VISIBLE_DEVICES");
    for index in &cards {
        // Of the parts of cards, a process sees one, so of several its own process will say whether
        // one is there.
        let is_part = list.as_deref().and_then(|list| gpus::visible(list).get(*index).copied());
        let is_part = cards.len() > 1 && is_part.is_some_and(|entry| entry.starts_with("MIG-"));
        if !is_part && cuda(*index)?.is_none() {
            return Err(no_cuda(Some(*index)));
        }
    }
    Ok(cards)
}

/// The cards that a program sees.
fn all() -> Result<Vec<usize>, CliError> {
    if !cfg!(feature = "cuda") {
        return Err(no_cuda(None));
    }
    let count = match variable("CUDA_VISIBLE_DEVICES") {
        Some(list) => gpus::visible(&list).len(),
        None => match gpus::listed() {
            Ok(listed) => listed.len(),
            // Slim containers have the driver alone.
            Err(error) => device::count().ok().filter(|count| *count > 0).ok_or_else(|| {
                let message = format!("cannot ask `nvidia-smi` which GPUs there are: {error}");
                CliError::environment(message).with_help("name them, as in `--device cuda:0,1`")
            })?,
        },
    };
    if count == 0 { Err(no_cuda(None)) } else { Ok((0..count).collect()) }
}

/// Stages that run at once when nobody says: a GPU holds one large model at a time. Where devices
/// have processes, there is one for each, and beside them what needs none.
pub(super) fn default_jobs(chosen: &Chosen) -> usize {
    const MOST: usize = 4;
    let beside = std::thread::available_parallelism().map_or(1, usize::from).min(MOST);
    match chosen.processes.len() {
        0 if chosen.name == "cpu" => beside,
        0 => 1,
        processes => processes + beside,
    }
}

/// What a plan can know of a device that it does not open.
#[derive(Clone, Debug)]
pub(super) struct Outlook {
    /// Whether it is the CPU.
    pub on_host: bool,
    /// Its memory in bytes, on a GPU what is free of it, if the system tells; of several, what the
    /// one has that has the least.
    pub memory: Option<u64>,
    /// The memory of the machine beside it, which stages take that do not use it.
    pub host_memory: Option<u64>,
    /// Each card, as the driver's tool tells of it, where it does.
    pub cards: Vec<Option<gpus::Gpu>>,
}

impl Outlook {
    /// What the driver's tool calls the first card, if there is one and it is known.
    pub fn card(&self) -> Option<String> {
        Some(self.cards.first()?.as_ref()?.uuid.clone())
    }

    /// What it calls cards of their kind, if all are of one and it is known.
    pub fn card_name(&self) -> Option<String> {
        let mut names = self.cards.iter().map(|card| card.as_ref().map(|card| &card.name));
        let first = names.next()??;
        names.all(|name| name == Some(first)).then(|| first.clone())
    }
}

/// The outlook for what was chosen.
pub(super) fn outlook(chosen: &Chosen) -> Result<Outlook, CliError> {
    outlook_of(Wanted::parse(&chosen.name)?)
}

fn outlook_of(wanted: Wanted) -> Result<Outlook, CliError> {
    let host_memory = host_memory();
    let indices = match wanted {
        Wanted::Auto if cuda(0)?.is_some() => vec![0],
        Wanted::Auto | Wanted::Cpu | Wanted::Processes(_) => {
            let memory = host_memory;
            return Ok(Outlook { on_host: true, memory, host_memory, cards: Vec::new() });
        }
        Wanted::Cuda(index) => vec![index],
        Wanted::Cards(cards) => cards,
        // That there are none is told by who needs them.
        Wanted::All => all().unwrap_or_default(),
    };
    let cards = cards(&indices);
    let memory = cards.iter().flatten().filter_map(|card| card.free).min();
    Ok(Outlook { on_host: false, memory, host_memory, cards })
}

/// The memory of the machine, or what a container may use of it.
fn host_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = cgroup::memory_limit(Path::new("/sys/fs/cgroup"), &groups);
    Some(limit.map_or(total, |limit| limit.min(total)))
}

/// GPUs as their driver's tool tells of them; burn does not.
fn cards(indices: &[usize]) -> Vec<Option<gpus::Gpu>> {
    let listed = gpus::listed().unwrap_or_default();
    let [visible, order] = ["CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"].map(variable);
    let card =
        |index: &usize| gpus::find(&listed, visible.as_deref(), order.as_deref(), *index).cloned();
    indices.iter().map(card).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "these variables are the driver's, not settings of ours"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn cpu() -> Chosen {
    Chosen { device: Device::flex(), name: "cpu".to_owned(), processes: Vec::new() }
}

fn cuda(index: usize) -> Result<Option<Chosen>, CliError> {
    let device = device::cuda(index).map_err(|error| {
        CliError::environment(error.to_string())
            .with_help("check the driver with `nvidia-smi`, or use `--device cpu`")
    })?;
    let name = format!("cuda:{index}");
    Ok(device.map(|device| Chosen { device, name, processes: Vec::new() }))
}

/// There is no card of this number, or none at all.
fn no_cuda(index: Option<usize>) -> CliError {
    let name = index.map(|index| format!(" `cuda:{index}`")).unwrap_or_default();
    let error = CliError::environment(format!("there is no CUDA device{name} here"));
    if !cfg!(feature = "cuda") {
        return error.with_help(
            "this `pipe` was built without CUDA: build it with `--features cuda`, or use `--device cpu`",
        );
    }
    let seen = (0..).map_while(|index| cuda(index).ok().flatten().map(|found| found.name));
    let seen: Vec<_> = seen.map(|name| format!("`{name}`")).collect();
    error.with_help(if seen.is_empty() {
        "check the driver with `nvidia-smi`, or use `--device cpu`".to_owned()
    } else {
        format!("there is {}", seen.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_the_card_that_the_users_choice_names() {
        let visible = |index, list| DeviceProcess::of_card(index, list).visible.unwrap();
        assert_eq!(visible(1, None), "1");
        assert_eq!(visible(1, Some("3,5")), "5");
        assert_eq!(visible(0, Some("GPU-5a1b,MIG-0f")), "GPU-5a1b");
        assert_eq!(visible(1, Some("GPU-5a1b, MIG-0f")), "MIG-0f");
    }

    #[test]
    fn a_device_has_a_process_of_its_own_only_beside_others() {
        let chosen = open_named("cpu:2").unwrap();
        assert_eq!((chosen.name.as_str(), chosen.processes.len()), ("cpu:2", 2));
        assert!(default_jobs(&chosen) > 2);
        assert!(open_named("cpu").unwrap().processes.is_empty());
        let (first, others) = open_first_named("cpu:2").unwrap();
        assert_eq!((first.name.as_str(), first.processes.len(), others), ("cpu", 0, true));
    }
}
