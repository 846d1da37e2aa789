//! `pipe verify`.

use std::{collections::HashSet, fmt::Write as _, num::NonZeroUsize};

use super::{
    device,
    error::{CliError, scratch_folder},
    exit,
    session::{PipelineArgs, Session},
    signals::Stop,
};
use crate::{
    config::Pipeline,
    exec::{
        Difference, ExecOptions, Executor, Outcome, SkipReason, Verdict, Verified, VerifyOptions,
    },
    plan,
    report::{
        style::{count, duration},
        verify::{VerdictCounts, VerifyDocument},
    },
    stages::Progress,
};

/// Execute stages again and compare what they give with the cache
///
/// Each stage gets the inputs it had, so `--jobs` of them are executed at once. Nothing of the
/// cache is changed: results go to a scratch folder, and trainings start from nothing. Says of each
/// artifact whether it is identical, within the tolerance, or different, which is exit code 4.
/// Stages that the cache has no result of, to compare with, make it 1.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Only this stage, or cell, and what it needs
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,
    /// Execute only this share of the stages, from 0 to 1; nothing is said of the others
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share,
        allow_negative_numbers = true)]
    sample: f64,
    /// Choose other stages for --sample
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    sample_seed: u64,
    /// The largest distance of two numbers that counts as reproduced: |a - b| / max(1, |a|, |b|),
    /// for pixels as a part of their range
    #[arg(long, value_name = "DISTANCE", default_value_t = 0.0, value_parser = distance,
        allow_negative_numbers = true)]
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

impl VerifyArgs {
    fn wanted(&self) -> VerifyOptions {
        VerifyOptions {
            only: self.only.clone(),
            sample: self.sample,
            seed: self.sample_seed,
            tolerance: self.tolerance,
            twice: self.twice,
        }
    }
}

pub(super) fn verify(args: &VerifyArgs, session: &Session) -> Result<(), CliError> {
    let pipeline = args.pipeline.load_telling(args.json, session)?;
    let settings = session.settings()?;
    let stop = Stop::on_signal();
    let store = stop.heard_by(session.store()?);
    let (chosen, is_one_of_several) = device::open_first(&settings)?;
    if is_one_of_several {
        session.caution(&format!("stages are executed again on one device, {}", chosen.name));
    }
    let scratch = scratch_folder("pipe-verify-")?;
    let jobs = settings.jobs.map_or_else(|| device::default_jobs(&chosen), NonZeroUsize::get);
    let options = ExecOptions {
        jobs,
        memory: device::outlook(&chosen)?.memory,
        allow_commands: args.allow_commands,
        cancel: stop.flag.clone(),
        ..ExecOptions::new(chosen.device, &chosen.name)
    };
    let wanted = args.wanted();
    let mut printed = Ok(());
    let mut tell = |verified: &Verified| {
        if !args.json && printed.is_ok() {
            printed = session.print(&line(verified));
            tell_failure(verified, session);
        }
    };
    let executor = Executor::new(&store, options);
    let found = executor.verify(&pipeline, scratch.path(), &wanted, &log_progress, &mut tell);
    let found = found.map_err(|error| stop.error_of(error))?;
    let report = if args.json { json(found.clone(), args, &wanted) } else { summary(&found, args) };
    CliError::unless_unread(printed.and_then(|()| session.print(&report)))?;
    if stop.flag.is_cancelled() {
        return Err(CliError::Told(stop.exit_code()));
    }
    match outcome(&found) {
        Outcome::Done => unverified(&pipeline, &found, args).map_or(Ok(()), Err),
        outcome => Err(CliError::Told(stop.code_of(outcome))),
    }
}

fn log_progress(stage: &str, Progress { done, total, message }: Progress) {
    tracing::info!("{stage}: {message} {done} of {total}.");
}

/// The worst that came of a stage.
fn outcome(found: &[Verified]) -> Outcome {
    let outcomes = found.iter().map(|verified| match verified.verdict {
        Verdict::Different { .. } => Outcome::Deviated,
        Verdict::Failed { outcome, .. } => outcome,
        _ => Outcome::Done,
    });
    outcomes.max().unwrap_or_default()
}

/// To have verified nothing, or nothing of a stage that was asked for, is no success, and neither
/// is to have found nothing to compare a stage with. That a command was not allowed was chosen.
fn unverified(pipeline: &Pipeline, found: &[Verified], args: &VerifyArgs) -> Option<CliError> {
    let skipped = |verified: &&Verified| matches!(verified.verdict, Verdict::Skipped { .. });
    if found.iter().all(|verified| skipped(&verified)) {
        return Some(nothing(
            "nothing was verified".to_owned(),
            &found.iter().collect::<Vec<_>>(),
            args,
        ));
    }
    let skipped: HashSet<&str> = found.iter().filter(skipped).map(|v| v.stage.as_str()).collect();
    let is_skipped = |index: usize| skipped.contains(&*pipeline.instances[index].to_string());
    let is_unverified = |asked: &&String| {
        plan::select(pipeline, asked).is_ok_and(|chosen| chosen.into_iter().all(is_skipped))
    };
    if let Some(asked) = args.only.iter().find(is_unverified) {
        let chosen: HashSet<String> = plan::select(pipeline, asked)
            .unwrap_or_default()
            .into_iter()
            .map(|index| pipeline.instances[index].to_string())
            .collect();
        let of: Vec<_> = found.iter().filter(|one| chosen.contains(&one.stage)).collect();
        return Some(nothing(format!("nothing of `{asked}` was verified"), &of, args));
    }
    let has_nothing = |verified: &&Verified| {
        matches!(verified.verdict, Verdict::Skipped { reason: SkipReason::NotUpToDate, .. })
    };
    let nothings: Vec<_> = found.iter().filter(has_nothing).collect();
    let message = match nothings.len() {
        0 => return None,
        1 => "1 stage was not verified, because it is not up to date in the cache".to_owned(),
        several => {
            format!(
                "{several} stages were not verified, because they are not up to date in the cache"
            )
        }
    };
    Some(nothing(message, &nothings, args))
}

/// What to do about stages that were not verified, by why they were not.
fn nothing(message: String, stages: &[&Verified], args: &VerifyArgs) -> CliError {
    let only_allowed = |verified: &&&Verified| {
        matches!(verified.verdict, Verdict::Skipped { reason: SkipReason::Command, .. })
    };
    let run = args.pipeline.command("run");
    let help = match stages.iter().filter(only_allowed).count() {
        0 => format!("`{run}` computes what can be compared"),
        all if all == stages.len() => {
            "read the commands, then verify again with --allow-commands".to_owned()
        }
        _ => format!(
            "`{run}` computes what can be compared; commands are verified with --allow-commands, \
             once you have read them"
        ),
    };
    CliError::Message { code: exit::STAGE_FAILED, message, help: Some(help) }
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
        Verdict::Failed { .. } => ("failed", String::new()),
        Verdict::Skipped { message, .. } => ("skipped", format!("  {message}")),
    };
    let time = match verified.verdict {
        Verdict::Skipped { .. } => String::new(),
        _ => format!("  {}", duration(verified.wall_secs)),
    };
    format!("{verb:<9}  {}{details}{time}\n", verified.stage)
}

/// Why a stage failed, and what to do, as a run tells it.
fn tell_failure(verified: &Verified, session: &Session) {
    if let Verdict::Failed { message, item, help, .. } = &verified.verdict {
        let item = item.as_ref().map(|item| format!(", item `{item}`")).unwrap_or_default();
        let message = format!("stage `{}`{item}: {message}", verified.stage);
        session.talk(session.stderr.message_block(&message, help.as_deref()).trim_end());
    }
}

fn summary(found: &[Verified], args: &VerifyArgs) -> String {
    let counts = VerdictCounts::of(found);
    let mut out = format!("verified {}", count(found.len() - counts.skipped, "stage"));
    if args.twice {
        out.push_str(", each twice");
    }
    let _ = write!(out, ": {} identical", counts.identical);
    if args.tolerance > 0.0 {
        let _ = write!(out, ", {} within {:e}", counts.within_tolerance, args.tolerance);
    }
    let _ = write!(out, ", {} different", counts.different);
    for (number, verdict) in [(counts.failed, "failed"), (counts.skipped, "skipped")] {
        if number > 0 {
            let _ = write!(out, ", {number} {verdict}");
        }
    }
    out + "\n"
}

fn json(found: Vec<Verified>, args: &VerifyArgs, options: &VerifyOptions) -> String {
    let pipeline = args.pipeline.file.to_string_lossy().into_owned();
    let profile = args.pipeline.layers.profile.clone();
    let document = VerifyDocument::new(pipeline, profile, options, found);
    format!("{:#}\n", serde_json::json!(document))
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

fn distance(text: &str) -> Result<f64, String> {
    let distance = text.parse().ok().filter(|d: &f64| *d >= 0.0 && d.is_finite());
    distance.ok_or_else(|| "must be a number, zero or more".to_owned())
}
