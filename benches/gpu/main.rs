//! Our side of the comparison with PyTorch on a GPU; `run.py` runs both and makes the table.
//!
//! `gpu --device cuda:0 --size full --out DIR [--cases NAME,NAME] [--budget SECONDS] [--only
//! VARIANT]` does each case of `cases.json`, writes what it computed into the folder, and prints a
//! line of JSON when a case begins and when it ends, and, for the memory that it had, at each of
//! its phases. `gpu --version` tells what it was built from.
#![expect(clippy::print_stdout, reason = "the other side reads it")]

mod cases;
mod hashed;
mod work;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::Instant,
};

use cases::{Case, Table};
use serde_json::{Value, json};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use work::{Repeats, Work};

struct Args {
    device: String,
    tiny: bool,
    out: PathBuf,
    budget: f64,
    only: Option<String>,
    cases: Option<Vec<String>>,
}

impl Args {
    fn parse() -> Result<Self, String> {
        let mut parsed = Self {
            device: "cpu".to_owned(),
            tiny: true,
            out: PathBuf::from("."),
            budget: 4.0,
            only: None,
            cases: None,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("`{arg}` needs a value"));
            match arg.as_str() {
                // What cargo adds.
                "--bench" => {}
                "--device" => parsed.device = value()?,
                "--size" => parsed.tiny = value()? == "tiny",
                "--out" => parsed.out = value()?.into(),
                "--budget" => {
                    let text = value()?;
                    parsed.budget = text.parse().map_err(|_| format!("no number: `{text}`"))?;
                }
                "--only" => parsed.only = Some(value()?),
                "--cases" => parsed.cases = Some(value()?.split(',').map(str::to_owned).collect()),
                other => return Err(format!("there is no option `{other}`")),
            }
        }
        Ok(parsed)
    }
}

/// Does a case; its figures, or why there are none.
fn attempt(case: &Case, work: &mut Work<'_>) -> Value {
    match catch_unwind(AssertUnwindSafe(|| work.run(case))) {
        Ok(Ok(figures)) => figures,
        Ok(Err(error)) => json!({ "error": error }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            json!({ "error": text.unwrap_or("panicked").lines().next() })
        }
    }
}

fn main() {
    // What goes by slower kernels is told here: RUST_LOG=pipe=debug.
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy(),
        )
        .with_writer(std::io::stderr)
        .init();
    if std::env::args().any(|arg| arg == "--version") {
        let (version, commit) = (env!("CARGO_PKG_VERSION"), option_env!("PIPE_COMMIT"));
        let cuda = cfg!(feature = "cuda");
        println!("{}", json!({ "version": version, "commit": commit, "cuda": cuda }));
        return;
    }
    let args = Args::parse().unwrap_or_else(|error| panic!("{error}"));
    let table = Table::read();
    let device = pipe::device::named(&args.device)
        .unwrap_or_else(|| panic!("there is no device `{}` here", args.device));
    std::fs::create_dir_all(&args.out).expect("the folder of results can be made");
    let wanted = |case: &&Case| match &args.cases {
        Some(names) => names.contains(&case.name),
        None => true,
    };
    let repeats = Repeats { budget: args.budget, only: args.only.clone() };
    let mut work = Work::new(&table, device, args.tiny, args.out.clone(), repeats);
    for case in table.cases.iter().filter(wanted) {
        println!("{}", json!({ "case": case.name, "event": "start" }));
        let start = Instant::now();
        let figures = attempt(case, &mut work);
        let secs = start.elapsed().as_secs_f64();
        println!(
            "{}",
            json!({ "case": case.name, "event": "end", "secs": secs, "figures": figures })
        );
        // Of a device that is lost this may end the process: the figures are told, and another one
        // goes on.
        work.clean_up();
    }
}
