//! Which cards there are, and which one `cuda:N` is: `nvidia-smi` lists all cards, a program sees
//! those that `CUDA_VISIBLE_DEVICES` names, in its order.

use std::{
    io::{self, Read},
    process::{Command, Stdio},
    sync::mpsc::channel,
    time::Duration,
};

/// How long the driver's tool may take: where a card hangs, it does, too.
const PATIENCE: Duration = Duration::from_secs(5);

/// All cards that `nvidia-smi` lists.
pub(super) fn listed() -> io::Result<Vec<Gpu>> {
    Ok(parse(&ask(Command::new("nvidia-smi").args(QUERY), PATIENCE)?))
}

/// What a program says within some time. One that does not is left to itself.
fn ask(program: &mut Command, patience: Duration) -> io::Result<String> {
    let mut child =
        program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let Some(mut out) = child.stdout.take() else { return Ok(String::new()) };
    let (sender, said) = channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = out.read_to_end(&mut text);
        // With nobody waiting any more, nobody wants to know.
        let _ = sender.send(read.map(|_| String::from_utf8_lossy(&text).into_owned()));
    });
    let said = said.recv_timeout(patience).unwrap_or_else(|_| {
        Err(io::Error::other(format!("no answer within {} s", patience.as_secs_f64())))
    });
    // It may be stuck in the driver, where no signal reaches it.
    std::thread::spawn(move || {
        let _ = child.kill();
        let _ = child.wait();
    });
    said
}

/// What `CUDA_VISIBLE_DEVICES` leaves to be seen, as it names them: numbers, and UUIDs of cards or
/// of parts of cards. What follows the first entry that is none is not seen.
pub(super) fn visible(list: &str) -> Vec<&str> {
    let is_one = |entry: &&str| {
        entry.parse::<usize>().is_ok() || ["GPU-", "MIG-"].iter().any(|id| entry.starts_with(id))
    };
    list.split(',').map(str::trim).take_while(is_one).collect()
}

/// What [`parse`] reads.
const QUERY: [&str; 2] =
    ["--query-gpu=index,uuid,memory.free,name", "--format=csv,noheader,nounits"];

/// One card as `nvidia-smi` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gpu {
    index: usize,
    /// What it is called among all cards.
    pub uuid: String,
    /// Free memory in bytes; none if the driver does not tell.
    pub free: Option<u64>,
    /// What cards of its kind are called.
    pub name: String,
}

/// Reads the answer to [`QUERY`]; lines that are none of a card are passed over.
fn parse(listing: &str) -> Vec<Gpu> {
    let card = |line: &str| {
        let mut fields = line.splitn(4, ',').map(str::trim);
        let index = fields.next()?.parse().ok()?;
        let uuid = fields.next()?.to_owned();
        let free = fields.next()?.parse::<u64>().ok().map(|mebibytes| mebibytes << 20);
        Some(Gpu { index, uuid, free, name: fields.next()?.to_owned() })
    };
    listing.lines().filter_map(card).collect()
}

/// The card that a program knows as `cuda:<index>`.
///
/// `visible` is `CUDA_VISIBLE_DEVICES`: numbers, or beginnings of a UUID; what follows the first
/// entry that is no card is not seen. `order` is `CUDA_DEVICE_ORDER`: unless it is `PCI_BUS_ID`,
/// numbers count from the fastest card, which is not known where cards differ.
pub(super) fn find<'a>(
    gpus: &'a [Gpu],
    visible: Option<&str>,
    order: Option<&str>,
    index: usize,
) -> Option<&'a Gpu> {
    let by_number = |number: usize| {
        let alike = gpus.windows(2).all(|pair| pair[0].name == pair[1].name);
        let known = alike || order == Some("PCI_BUS_ID");
        gpus.iter().find(|gpu| gpu.index == number).filter(|_| known)
    };
    let Some(visible) = visible else { return by_number(index) };
    let mut seen: Vec<&str> = Vec::new();
    for entry in visible.split(',').map(str::trim) {
        let number = entry.parse::<usize>().ok();
        let mut matching = gpus.iter().filter(|gpu| match number {
            Some(number) => gpu.index == number,
            None => entry.starts_with("GPU-") && gpu.uuid.starts_with(entry),
        });
        let (Some(gpu), None) = (matching.next(), matching.next()) else { return None };
        if seen.contains(&gpu.uuid.as_str()) {
            return None;
        }
        if seen.len() == index {
            return match number {
                Some(number) => by_number(number),
                None => Some(gpu),
            };
        }
        seen.push(&gpu.uuid);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIKE: &str = "0, GPU-5a1b, 81000, NVIDIA H100 80GB HBM3
1, GPU-5a2c, 12, NVIDIA H100 80GB HBM3
2, GPU-9d00, [N/A], NVIDIA H100 80GB HBM3
";

    fn free(listing: &str, visible: Option<&str>, index: usize) -> Option<u64> {
        find(&parse(listing), visible, None, index)?.free.map(|bytes| bytes >> 20)
    }

    #[test]
    fn without_a_choice_cards_are_counted_as_listed() {
        let found: Vec<_> = (0..4).map(|index| free(ALIKE, None, index)).collect();
        assert_eq!(found, [Some(81_000), Some(12), None, None]);
    }

    #[test]
    fn visible_cards_are_counted_in_their_own_order() {
        assert_eq!(free(ALIKE, Some("1,0"), 0), Some(12));
        assert_eq!(free(ALIKE, Some("1, 0"), 1), Some(81_000));
        assert_eq!(free(ALIKE, Some("1"), 1), None, "only one is seen");
        assert_eq!(free(ALIKE, Some("GPU-5a2c"), 0), Some(12));
        assert_eq!(free(ALIKE, Some("GPU-5a2,GPU-5a1b"), 1), Some(81_000));
    }

    #[test]
    fn nothing_is_seen_behind_an_entry_that_is_no_card() {
        assert_eq!(free(ALIKE, Some(""), 0), None);
        assert_eq!(free(ALIKE, Some("0,-1,1"), 0), Some(81_000));
        assert_eq!(free(ALIKE, Some("0,-1,1"), 1), None);
        assert_eq!(free(ALIKE, Some("7,0"), 0), None);
        assert_eq!(free(ALIKE, Some("GPU-5a"), 0), None, "two cards begin so");
        assert_eq!(free(ALIKE, Some("0,0"), 1), None, "twice the same");
        assert_eq!(free(ALIKE, Some("MIG-0f"), 0), None, "part of a card");
    }

    #[test]
    fn numbers_of_unlike_cards_are_known_by_their_bus_alone() {
        let listing = "0, GPU-a, 8000, NVIDIA T400\n1, GPU-b, 80000, NVIDIA H100, PCIe\n";
        assert_eq!(free(listing, None, 0), None);
        assert_eq!(free(listing, Some("1"), 0), None);
        assert_eq!(free(listing, Some("GPU-b"), 0), Some(80_000));
        let gpus = parse(listing);
        let by_bus = find(&gpus, Some("1"), Some("PCI_BUS_ID"), 0);
        assert_eq!(by_bus.and_then(|gpu| gpu.free), Some(80_000 << 20));
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let say = |script: &str| {
            ask(Command::new("sh").args(["-c", script]), Duration::from_millis(500))
                .map_err(|error| error.to_string())
        };
        assert_eq!(say("echo 0, GPU-a"), Ok("0, GPU-a\n".to_owned()));
        assert_eq!(say("exec sleep 60"), Err("no answer within 0.5 s".to_owned()));
        assert!(ask(&mut Command::new("/no/such/tool"), PATIENCE).is_err());
    }

    #[test]
    fn what_the_variable_leaves_to_be_seen() {
        assert_eq!(visible("3, 1"), ["3", "1"]);
        assert_eq!(visible("GPU-5a1b,MIG-0f"), ["GPU-5a1b", "MIG-0f"]);
        assert_eq!(visible("0,-1,1"), ["0"]);
        assert!(visible("").is_empty() && visible("NoDevFiles").is_empty());
    }

    #[test]
    fn what_is_no_listing_gives_no_cards() {
        assert!(parse("NVIDIA-SMI has failed because it could not talk to the driver").is_empty());
        assert!(parse("").is_empty());
    }
}
