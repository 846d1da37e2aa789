//! What a name of devices asks for.

use std::fmt;

use crate::cli::error::CliError;

/// More processes than this on one CPU are a slip.
const MOST_PROCESSES: usize = 64;

/// What a name of devices asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Wanted {
    /// The first card, or the CPU.
    Auto,
    Cpu,
    /// So many processes on the CPU.
    Processes(usize),
    /// One card.
    Cuda(usize),
    /// Several, each once.
    Cards(Vec<usize>),
    /// All cards that are seen.
    All,
}

impl Wanted {
    pub(in crate::cli) fn parse(name: &str) -> Result<Self, CliError> {
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "all" => Ok(Self::All),
            _ if name.contains(',') => cards(name).map(Self::Cards),
            _ => match name.strip_prefix("cpu:") {
                Some(count) => processes(name, count).map(Self::Processes),
                None => card(name).map(Self::Cuda).ok_or_else(|| no_device(name)),
            },
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::All => f.write_str("all"),
            Self::Processes(count) => write!(f, "cpu:{count}"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Cards(cards) => {
                let numbers: Vec<_> = cards.iter().map(ToString::to_string).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

/// The number of `cuda` or `cuda:N`.
fn card(name: &str) -> Option<usize> {
    match name.strip_prefix("cuda")? {
        "" => Some(0),
        rest => rest.strip_prefix(':')?.parse().ok(),
    }
}

/// The cards of `cuda:0,1` or `cuda:0,cuda:1`.
fn cards(list: &str) -> Result<Vec<usize>, CliError> {
    let mut found = Vec::new();
    for (place, name) in list.split(',').map(str::trim).enumerate() {
        if name.is_empty() {
            return Err(CliError::usage(format!(
                "`{list}` has a comma without a device beside it"
            ))
            .with_help("name each card, as in `cuda:0,1`"));
        }
        let number = if place == 0 { None } else { name.parse().ok() };
        let Some(index) = number.or_else(|| card(name)) else {
            let is_other =
                ["auto", "cpu", "all"].contains(&name) || name.strip_prefix("cpu:").is_some();
            if !is_other {
                return Err(no_device(name));
            }
            return Err(CliError::usage(format!("`{name}` cannot stand among the devices of `{list}`"))
                .with_help(
                    "several devices are GPUs, as in `cuda:0,1`, or processes on the CPU, as in `cpu:2`",
                ));
        };
        if found.contains(&index) {
            let message = format!("`{list}` names `cuda:{index}` twice");
            return Err(CliError::usage(message).with_help("name each card once"));
        }
        found.push(index);
    }
    Ok(found)
}

fn processes(name: &str, count: &str) -> Result<usize, CliError> {
    let count = count.parse().ok().filter(|count| (1..=MOST_PROCESSES).contains(count));
    count.ok_or_else(|| {
        CliError::usage(format!("`{name}` does not say how many processes are to be on the CPU"))
            .with_help(format!("use `cpu:N` with 1 to {MOST_PROCESSES}, or `cpu` for none"))
    })
}

fn no_device(name: &str) -> CliError {
    CliError::usage(format!("there is no device `{name}`")).with_help(
        "use `auto`, `cpu`, `cuda:N`, several GPUs as `cuda:0,1` or `all`, or `cpu:N` for N processes",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (name, wanted, again) in [
            ("auto", Wanted::Auto, "auto"),
            ("all", Wanted::All, "all"),
            ("cpu", Wanted::Cpu, "cpu"),
            ("cpu:2", Wanted::Processes(2), "cpu:2"),
            ("cuda", Wanted::Cuda(0), "cuda:0"),
            ("cuda:7", Wanted::Cuda(7), "cuda:7"),
            ("cuda:0,1", Wanted::Cards(vec![0, 1]), "cuda:0,1"),
            ("cuda:2, cuda:0", Wanted::Cards(vec![2, 0]), "cuda:2,0"),
            ("cuda,3", Wanted::Cards(vec![0, 3]), "cuda:0,3"),
        ] {
            let found = Wanted::parse(name).unwrap();
            assert_eq!(found, wanted);
            assert_eq!(found.to_string(), again);
            assert_eq!(Wanted::parse(again).unwrap(), wanted);
        }
    }

    #[test]
    fn wrong_names_are_told_with_a_remedy() {
        let told = |name: &str| match Wanted::parse(name) {
            Err(CliError::Message { code, message, help }) => {
                format!("{code} {message} | {}", help.unwrap_or_default())
            }
            other => format!("{other:?}"),
        };
        let names = [
            "cuda:0,0",
            "cuda:1,cuda:1",
            "cuda:0,cpu",
            "cpu,cuda:0",
            "cuda:0,",
            ",",
            "cuda:0,x",
            "0,1",
            "cpu:0",
            "cpu:x",
            "cpu:65",
            "cuda:-1",
            "gpu",
            "",
        ];
        insta::assert_snapshot!(names.map(told).join("\n"), @r"
        2 `cuda:0,0` names `cuda:0` twice | name each card once
        2 `cuda:1,cuda:1` names `cuda:1` twice | name each card once
        2 `cpu` cannot stand among the devices of `cuda:0,cpu` | several devices are GPUs, as in `cuda:0,1`, or processes on the CPU, as in `cpu:2`
        2 `cpu` cannot stand among the devices of `cpu,cuda:0` | several devices are GPUs, as in `cuda:0,1`, or processes on the CPU, as in `cpu:2`
        2 `cuda:0,` has a comma without a device beside it | name each card, as in `cuda:0,1`
        2 `,` has a comma without a device beside it | name each card, as in `cuda:0,1`
        2 there is no device `x` | use `auto`, `cpu`, `cuda:N`, several GPUs as `cuda:0,1` or `all`, or `cpu:N` for N processes
        2 there is no device `0` | use `auto`, `cpu`, `cuda:N`, several GPUs as `cuda:0,1` or `all`, or `cpu:N` for N processes
        2 `cpu:0` does not say how many processes are to be on the CPU | use `cpu:N` with 1 to 64, or `cpu` for none
        2 `cpu:x` does not say how many processes are to be on the CPU | use `cpu:N` with 1 to 64, or `cpu` for none
        2 `cpu:65` does not say how many processes are to be on the CPU | use `cpu:N` with 1 to 64, or `cpu` for none
        2 there is no device `cuda:-1` | use `auto`, `cpu`, `cuda:N`, several GPUs as `cuda:0,1` or `all`, or `cpu:N` for N processes
        2 there is no device `gpu` | use `auto`, `cpu`, `cuda:N`, several GPUs as `cuda:0,1` or `all`, or `cpu:N` for N processes
        2 there is no device `` | use `auto`, `cpu`, `cuda:N`, several GPUs as `cuda:0,1` or `all`, or `cpu:N` for N processes
        ");
    }
}
