//! The devices that `--device` names.

mod names;

use burn::tensor::Device;

pub(super) use names::Wanted;

use super::{error::CliError, gpus};
use crate::device;

/// What a command computes on.
pub(super) struct Chosen {
    /// Where it computes itself.
    pub device: Device,
    /// The name that records and events carry.
    pub name: String,
    /// Devices of which each has a process; none if it computes itself.
    pub seats: Vec<Seat>,
}

/// A device with a process of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    /// Its name among all.
    pub name: String,
    /// What the process calls it.
    pub inside: &'static str,
    /// What `CUDA_VISIBLE_DEVICES` is there, for a card.
    pub visible: Option<String>,
}

impl Seat {
    /// The card of this number; `list` is `CUDA_VISIBLE_DEVICES`.
    fn of_card(index: usize, list: Option<&str>) -> Self {
        let named = list.and_then(|list| gpus::visible(list).get(index).map(ToString::to_string));
        let visible = Some(named.unwrap_or_else(|| index.to_string()));
        Self { name: format!("cuda:{index}"), inside: "cuda:0", visible }
    }
}

/// Opens what a name asks for.
pub(super) fn open(name: &str) -> Result<Chosen, CliError> {
    let cards = match Wanted::parse(name)? {
        Wanted::Processes(count) => {
            let seat = || Seat { name: "cpu".to_owned(), inside: "cpu", visible: None };
            let seats = std::iter::repeat_with(seat).take(count).collect();
            return Ok(Chosen { seats, name: name.to_owned(), ..cpu() });
        }
        Wanted::Cpu => return Ok(cpu()),
        Wanted::Auto => return Ok(cuda(0)?.unwrap_or_else(cpu)),
        Wanted::Cuda(index) => vec![index],
        Wanted::Cards(cards) => cards,
        Wanted::All if !cfg!(feature = "cuda") => return Err(no_cuda(name)),
        Wanted::All => all()?,
    };
    if let [index] = cards[..] {
        return cuda(index)?.ok_or_else(|| no_cuda(&format!("cuda:{index}")));
    }
    let list = variable("CUDA_VISIBLE_DEVICES");
    for index in &cards {
        // Of the parts of cards, a process sees one, so its own process will say whether one is there.
        let is_part = list.as_deref().and_then(|list| gpus::visible(list).get(*index).copied());
        if !is_part.is_some_and(|entry| entry.starts_with("MIG-")) && cuda(*index)?.is_none() {
            return Err(no_cuda(&format!("cuda:{index}")));
        }
    }
    let seats = cards.iter().map(|index| Seat::of_card(*index, list.as_deref())).collect();
    Ok(Chosen { seats, name: Wanted::Cards(cards).to_string(), ..cpu() })
}

/// The same for who computes with one device alone: of several the first, and whether there are others.
pub(super) fn open_first(name: &str) -> Result<(Chosen, bool), CliError> {
    let (first, others) = match Wanted::parse(name)? {
        Wanted::Processes(_) => ("cpu".to_owned(), true),
        Wanted::Cards(cards) => (format!("cuda:{}", cards[0]), true),
        Wanted::All => ("cuda:0".to_owned(), true),
        Wanted::Auto | Wanted::Cpu | Wanted::Cuda(_) => (name.to_owned(), false),
    };
    Ok((open(&first)?, others))
}

/// The cards that a program sees.
fn all() -> Result<Vec<usize>, CliError> {
    let count = match variable("CUDA_VISIBLE_DEVICES") {
        Some(list) => gpus::visible(&list).len(),
        None => gpus::listed()
            .map_err(|error| {
                let message = format!("cannot ask `nvidia-smi` which GPUs there are: {error}");
                CliError::environment(message).with_help("name them, as in `--device cuda:0,1`")
            })?
            .len(),
    };
    if count == 0 { Err(no_cuda("all")) } else { Ok((0..count).collect()) }
}

/// Stages that run at once when nobody says: a GPU holds one large model at a time. Where devices have processes,
/// there is one for each, and beside them what needs none.
pub(super) fn default_jobs(chosen: &Chosen) -> usize {
    const MOST: usize = 4;
    let beside = std::thread::available_parallelism().map_or(1, usize::from).min(MOST);
    match chosen.seats.len() {
        0 if chosen.name == "cpu" => beside,
        0 => 1,
        seats => seats + beside,
    }
}

/// What a plan can know of a device that it does not open.
#[derive(Clone, Debug)]
pub(super) struct Outlook {
    /// Whether it is the CPU.
    pub on_host: bool,
    /// Its memory in bytes, on a GPU what is free of it, if the system tells; of several, what the one has that has
    /// the least.
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

/// The outlook for the devices that a run on `name` would open.
pub(super) fn outlook(name: &str) -> Result<Outlook, CliError> {
    let indices = match Wanted::parse(name)? {
        Wanted::Cpu | Wanted::Processes(_) => Vec::new(),
        Wanted::Auto => cuda(0)?.map(|_| 0).into_iter().collect(),
        Wanted::Cuda(index) => vec![index],
        Wanted::Cards(cards) => cards,
        Wanted::All => all()?,
    };
    let host_memory = host_memory();
    if indices.is_empty() {
        return Ok(Outlook { on_host: true, memory: host_memory, host_memory, cards: Vec::new() });
    }
    let cards = cards(&indices);
    let memory = cards.iter().flatten().filter_map(|card| card.free).min();
    Ok(Outlook { on_host: false, memory, host_memory, cards })
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
    Chosen { device: Device::flex(), name: "cpu".to_owned(), seats: Vec::new() }
}

fn cuda(index: usize) -> Result<Option<Chosen>, CliError> {
    let device = device::cuda(index).map_err(|error| {
        CliError::environment(error.to_string())
            .with_help("check the driver with `nvidia-smi`, or use `--device cpu`")
    })?;
    let name = format!("cuda:{index}");
    Ok(device.map(|device| Chosen { device, name, seats: Vec::new() }))
}

fn no_cuda(name: &str) -> CliError {
    let error = CliError::environment(format!("there is no CUDA device `{name}` here"));
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
        let visible = |index, list| Seat::of_card(index, list).visible.unwrap();
        assert_eq!(visible(1, None), "1");
        assert_eq!(visible(1, Some("3,5")), "5");
        assert_eq!(visible(0, Some("GPU-5a1b,MIG-0f")), "GPU-5a1b");
        assert_eq!(visible(1, Some("GPU-5a1b, MIG-0f")), "MIG-0f");
    }

    #[test]
    fn processes_on_the_cpu_are_seats_and_one_device_is_none() {
        let chosen = open("cpu:2").unwrap();
        assert_eq!((chosen.name.as_str(), chosen.seats.len()), ("cpu:2", 2));
        assert!(default_jobs(&chosen) > 2);
        assert!(open("cpu").unwrap().seats.is_empty());
        let (first, others) = open_first("cpu:2").unwrap();
        assert_eq!((first.name.as_str(), first.seats.len(), others), ("cpu", 0, true));
    }
}
