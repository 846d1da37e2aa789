//! `pipe verify`.

use std::fmt::Write as _;

use serde_json::json;

use super::{
    device,
    error::CliError,
    exit,
    session::{PipelineArgs, Session, open_store},
    signals::Stop,
};
use crate::{
    config::Pipeline,
    exec::{Difference, ExecOptions, Executor, Verdict, Verified, VerifyOptions},
    report::{
        SCHEMA_VERSION,
        style::{count, duration},
    },
    store::Store,
};

/// Execute stages again and compare what they give with the cache
///
/// Each stage gets the inputs it had. Nothing of the cache is changed: results go to a scratch
/// folder, and trainings start from nothing. Says of each artifact whether it is identical, within
/// the tolerance, or different, which is exit code 4.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Only this stage, or cell, and what it needs
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,
    /// Execute only this share of the stages, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share)]
    sample: f64,
    /// Choose other stages for --sample
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    sample_seed: u64,
    /// The largest distance of two numbers that counts as reproduced: |a - b| / max(1, |a|, |b|),
    /// for pixels as a part of their range
    #[arg(long, value_name = "DISTANCE", default_value_t = 0.0, value_parser = distance)]
    tolerance: f64,
    /// Execute each stage twice and compare both, to find what is not deterministic
    #[arg(long)]
    twice: bool,
    /// Let `command` stages run shell commands
    #[arg(long)]
    allow_commands: bool,
    /// Write one document for other programs
    #[arg(long)]
    json: bool,
}

pub(super) fn verify(args: &VerifyArgs, session: &Session) -> Result<(), CliError> {
    let pipeline = args.pipeline.load()?;
    let settings = session.settings()?;
    let store = open_store(&settings)?;
    let (device, device_name) = device::open(&settings.device)?;
    let scratch = tempfile::Builder::new().prefix("pipe-verify-").tempdir();
    let scratch =
        scratch.map_err(|e| CliError::environment(format!("cannot make a scratch folder: {e}")))?;
    let stop = Stop::on_signal();
    let options = ExecOptions {
        allow_commands: args.allow_commands,
        cancel: stop.flag.clone(),
        ..ExecOptions::new(device, &device_name)
    };
    let wanted = VerifyOptions {
        only: args.only.clone(),
        sample: args.sample,
        seed: args.sample_seed,
        tolerance: args.tolerance,
        twice: args.twice,
    };
    let mut printed = Ok(());
    let found = Executor::new(&store, options).verify(
        &pipeline,
        &Store::open(scratch.path())?,
        &wanted,
        &|stage, progress| {
            tracing::info!(
                "{stage}: {} {} of {}.",
                progress.message,
                progress.done,
                progress.total
            );
        },
        &mut |verified| {
            if !args.json && printed.is_ok() {
                printed = session.print(&line(verified));
            }
        },
    )?;
    printed?;
    session.print(&if args.json { json(&found, args) } else { summary(&found, args) })?;
    if stop.flag.is_cancelled() {
        return Err(CliError::Told(stop.exit_code()));
    }
    let any = |is: fn(&Verdict) -> bool| found.iter().any(|verified| is(&verified.verdict));
    if any(|verdict| matches!(verdict, Verdict::Different { .. })) {
        return Err(CliError::Told(exit::DIFFERENT));
    }
    if any(|verdict| matches!(verdict, Verdict::Failed { .. })) {
        return Err(CliError::Told(exit::STAGE_FAILED));
    }
    if found.iter().all(|verified| matches!(verified.verdict, Verdict::Skipped { .. })) {
        return Err(nothing(&pipeline, args));
    }
    Ok(())
}

/// To have verified nothing is no success.
fn nothing(pipeline: &Pipeline, args: &VerifyArgs) -> CliError {
    let file = args.pipeline.file.display();
    let commands = pipeline.instances.iter().all(|instance| instance.work.command().is_some());
    let help = if commands && !args.allow_commands {
        "read the commands, then verify again with --allow-commands".to_owned()
    } else {
        format!("`pipe run {file}` computes what can be compared")
    };
    CliError::Message {
        code: exit::STAGE_FAILED,
        message: "nothing was verified".to_owned(),
        help: Some(help),
    }
}

/// One line per stage.
fn line(verified: &Verified) -> String {
    let at = |place: &Difference| format!("item `{}`, `{}`", place.item, place.file);
    let (verb, details) = match &verified.verdict {
        Verdict::Identical => ("identical", String::new()),
        Verdict::WithinTolerance { distance, place } => {
            ("within", format!("  {distance:.1e} at most, {}", at(place)))
        }
        Verdict::Different { distance, message, place } => {
            let mut text = format!("  {message}");
            if let Some(distance) = distance {
                let _ = write!(text, " by up to {distance:.1e}");
            }
            if let Some(place) = place {
                let _ = write!(text, ", {}", at(place));
            }
            ("different", text)
        }
        Verdict::Failed { message } => ("failed", format!("  {message}")),
        Verdict::Skipped { message } => ("skipped", format!("  {message}")),
    };
    let time = match verified.verdict {
        Verdict::Skipped { .. } => String::new(),
        _ => format!("  {}", duration(verified.wall_secs)),
    };
    format!("{verb:<9}  {}{details}{time}\n", verified.stage)
}

fn summary(found: &[Verified], args: &VerifyArgs) -> String {
    let number = |verdict: &str| counts(found).into_iter().find(|(name, _)| *name == verdict);
    let mut out = format!("verified {}", count(found.len() - of(number("skipped")), "stage"));
    if args.twice {
        out.push_str(", each twice");
    }
    let _ = write!(out, ": {} identical", of(number("identical")));
    if args.tolerance > 0.0 {
        let _ = write!(out, ", {} within {:e}", of(number("within_tolerance")), args.tolerance);
    }
    let _ = write!(out, ", {} different", of(number("different")));
    for verdict in ["failed", "skipped"] {
        match of(number(verdict)) {
            0 => {}
            n => {
                let _ = write!(out, ", {n} {verdict}");
            }
        }
    }
    out + "\n"
}

fn of(found: Option<(&str, usize)>) -> usize {
    found.map_or(0, |(_, count)| count)
}

/// How often each verdict was given.
fn counts(found: &[Verified]) -> [(&'static str, usize); 5] {
    let number = |is: fn(&Verdict) -> bool| found.iter().filter(|v| is(&v.verdict)).count();
    [
        ("identical", number(|v| matches!(v, Verdict::Identical))),
        ("within_tolerance", number(|v| matches!(v, Verdict::WithinTolerance { .. }))),
        ("different", number(|v| matches!(v, Verdict::Different { .. }))),
        ("failed", number(|v| matches!(v, Verdict::Failed { .. }))),
        ("skipped", number(|v| matches!(v, Verdict::Skipped { .. }))),
    ]
}

fn json(found: &[Verified], args: &VerifyArgs) -> String {
    let counts = counts(found).map(|(name, count)| (name.to_owned(), json!(count)));
    let document = json!({
        "schema_version": SCHEMA_VERSION,
        "pipeline": args.pipeline.file,
        "profile": args.pipeline.layers.profile,
        "tolerance": args.tolerance,
        "twice": args.twice,
        "stages": found,
        "counts": serde_json::Map::from_iter(counts),
    });
    format!("{document:#}\n")
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

fn distance(text: &str) -> Result<f64, String> {
    let distance = text.parse().ok().filter(|d: &f64| *d >= 0.0 && d.is_finite());
    distance.ok_or_else(|| "must be a number, zero or more".to_owned())
}
