//! `pipe cache push` and `pipe cache pull`.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    path::PathBuf,
    sync::Arc,
};

use tempfile::TempDir;

use super::{NOT_COMPUTED, Present, and_others, present};
use crate::{
    cli::{
        error::{CliError, scratch_folder},
        exit,
        link::warn_of_differing,
        load::{self, Loaded},
        session::{LayerArgs, Session, open_remote, quoted},
        signals::Stop,
    },
    config::{self, Pipeline},
    remote::{Link, Moved, Remote, RemoteError, Scope, Transfer},
    report::style::count,
    store::{Fingerprint, NewResult, Record, Root, Store, StoreError, unnamed},
    units::bytes,
};

/// Send results to the remote cache
///
/// Without files, the present results of every pipeline that was run here. What is there already is
/// not sent again, so a push that was cut off is completed by the next.
#[derive(Debug, clap::Args)]
pub(super) struct PushArgs {
    #[command(flatten)]
    what: TransferArgs,
    /// Replace what the remote has of the files, also where it has other outputs: the first one
    /// stays otherwise
    #[arg(long, requires = "files")]
    replace: bool,
}

/// Fetch results from the remote cache
///
/// With files, what they would compute and the remote has; without, what the pipelines that were
/// run here had last. Everything that arrives is checked against its digest.
#[derive(Debug, clap::Args)]
pub(super) struct PullArgs {
    #[command(flatten)]
    what: TransferArgs,
}

#[derive(Debug, clap::Args)]
struct TransferArgs {
    /// Only the results of these pipeline files
    files: Vec<PathBuf>,
    #[command(flatten)]
    layers: LayerArgs,
    /// Only this stage, or cell, and what it needs; may be given several times
    #[arg(long, value_name = "STAGE", requires = "files")]
    only: Vec<String>,
    /// All results, whosesoever they are
    #[arg(long, conflicts_with = "files")]
    all: bool,
    /// Only say what would be sent or fetched
    #[arg(long)]
    dry_run: bool,
}

impl TransferArgs {
    /// Refuses what is about files where none is named.
    fn check(&self) -> Result<(), CliError> {
        let LayerArgs { profile, set } = &self.layers;
        if self.files.is_empty() && (profile.is_some() || !set.is_empty()) {
            return Err(CliError::usage(
                "`--profile` and `--set` are about pipeline files, and none is named",
            )
            .with_help("name the files whose results are meant"));
        }
        Ok(())
    }

    /// The files, read as `pipe run` reads them.
    fn pipelines(&self, session: &Session) -> Result<Vec<Pipeline>, CliError> {
        let options = self.layers.options();
        if let [file] = &self.files[..] {
            return Ok(vec![config::load(file, &options)?]);
        }
        if !self.only.is_empty() {
            return Err(CliError::usage("`--only` names stages of one file")
                .with_help("name that file alone"));
        }
        let Loaded { pipelines, wrong } = load::several(&self.files, &options, session);
        if wrong.is_empty() { Ok(pipelines) } else { Err(CliError::Told(exit::USAGE)) }
    }

    /// The command that runs what is meant of one of the pipelines.
    fn run(&self, pipeline: &Pipeline) -> String {
        let (profile, set) = (pipeline.profile.clone(), pipeline.set.clone());
        let only = self.only.iter().map(|stage| format!(" --only {}", quoted(stage)));
        LayerArgs { profile, set }.command("run", &pipeline.path) + &only.collect::<String>()
    }
}

/// Results that are left out and named.
const MOST_BROKEN: usize = 20;

/// The remote that is set, which is waited for until somebody wants to stop.
fn remote(session: &Session, stop: &Stop) -> Result<Remote, CliError> {
    let remote = open_remote(&session.settings()?)?.ok_or_else(|| {
        CliError::usage("no remote cache is set")
            .with_help("name one with `--remote URL` or `PIPE_REMOTE`, as in `s3://bucket/folder`")
    })?;
    let flag = stop.flag.clone();
    remote.stopped_by(move || flag.is_cancelled());
    Ok(remote)
}

pub(super) fn push(args: &PushArgs, session: &Session) -> Result<(), CliError> {
    args.what.check()?;
    let stop = Stop::on_signal();
    let remote = remote(session, &stop)?;
    let store = session.store_that_is_there()?;
    let _use = stop.in_use_to_read(&store)?;
    let mut results = to_push(&args.what, &store, session)?;
    add_items(&store, &mut results)?;
    let verb = if args.what.dry_run { "would send" } else { "sent" };
    let moved = with_bar(&args.what, &stop, session, |how| {
        remote.push(&store, &results, &Transfer { replace: args.replace, ..*how })
    })?;
    print(&moved, verb, &remote.to_string(), &stop, session)
}

/// Something was asked about of which nothing is computed yet.
fn nothing(pipeline: &Pipeline, place: &str, what: &TransferArgs) -> CliError {
    CliError::Message {
        code: exit::STAGE_FAILED,
        message: format!("nothing of `{}` is {place}", pipeline.path.display()),
        help: Some(format!("`{}` computes it", what.run(pipeline))),
    }
}

/// The results that are to be sent, by what was asked for.
fn to_push(
    what: &TransferArgs,
    store: &Store,
    session: &Session,
) -> Result<Vec<NewResult>, CliError> {
    if !what.files.is_empty() {
        let mut results = Vec::new();
        for pipeline in what.pipelines(session)? {
            let found = present(&pipeline, &what.only, store)?;
            if found.results.is_empty() && !pipeline.instances.is_empty() {
                return Err(nothing(&pipeline, "in this cache", what));
            }
            found.tell_missing(NOT_COMPUTED, &what.run(&pipeline), session);
            results.extend(found.results.into_iter().map(|(name, record)| made(name, record)));
        }
        return Ok(results);
    }
    let records = if what.all {
        store.records()?
    } else {
        live(store)?.into_iter().filter_map(|key| store.lookup(key).ok()?.found()).collect()
    };
    let names = names(store)?;
    let name = |record: &Record| {
        let known = names.get(&record.fingerprint).cloned();
        known.unwrap_or_else(|| unnamed(&record.ingredients.kind, record.fingerprint))
    };
    Ok(records.into_iter().map(|record| made(name(&record), record)).collect())
}

pub(super) fn pull(args: &PullArgs, session: &Session) -> Result<(), CliError> {
    args.what.check()?;
    let stop = Stop::on_signal();
    let remote = remote(session, &stop)?;
    // Before a cache is made here.
    remote.check_is_there().map_err(|error| stop.named(error.into()))?;
    let (store, _scratch) = pull_into(&args.what, session)?;
    let verb = if args.what.dry_run { "would fetch" } else { "fetched" };
    // Keeps `gc` away from content whose record is still to come.
    let _use = stop.in_use(&store)?;
    if !args.what.files.is_empty() {
        return pull_files(args, store, remote, verb, &stop, session);
    }
    let scope = if args.what.all {
        Scope::All
    } else {
        let names = names(&store)?;
        let name = |key: &Fingerprint| names.get(key).cloned().unwrap_or_else(|| key.short());
        Scope::Keys(live(&store)?.into_iter().map(|key| (key, name(&key))).collect())
    };
    let moved = with_bar(&args.what, &stop, session, |how| remote.pull(&store, &scope, how))?;
    print(&moved, verb, &remote.to_string(), &stop, session)
}

/// The store to fetch into. A dry run keeps the manifests that it asks for: where there is no cache
/// yet, in a folder that goes when the command ends.
fn pull_into(what: &TransferArgs, session: &Session) -> Result<(Store, Option<TempDir>), CliError> {
    let there = session.store()?.must_exist();
    if !what.dry_run || !matches!(there, Err(StoreError::Absent { .. })) {
        return Ok((session.store_to_change()?, None));
    }
    let scratch = scratch_folder("pipe-pull-")?;
    Ok((Store::open(scratch.path())?, Some(scratch)))
}

/// Moves results under a bar and until stopped.
fn with_bar(
    what: &TransferArgs,
    stop: &Stop,
    session: &Session,
    work: impl FnOnce(&Transfer<'_>) -> Result<Moved, RemoteError>,
) -> Result<Moved, CliError> {
    let bar = session.bar("{bar:24} {percent}%  {eta}");
    let moved = work(&Transfer {
        progress: &|done, total| {
            bar.set_length(total);
            bar.set_position(done);
        },
        stopped: &|| stop.flag.is_cancelled(),
        dry_run: what.dry_run,
        replace: false,
    });
    bar.finish_and_clear();
    moved.map_err(|error| stop.named(error.into()))
}

/// A plan that may ask the remote brings what it finds there.
fn pull_files(
    args: &PullArgs,
    store: Store,
    remote: Remote,
    verb: &str,
    stop: &Stop,
    session: &Session,
) -> Result<(), CliError> {
    let (name, flag) = (remote.to_string(), stop.flag.clone());
    let link = Arc::new(Link::new(remote, store.root(), move || flag.is_cancelled())?);
    link.only_fetching();
    if args.what.dry_run {
        link.only_looking();
    }
    let store = store.with_behind(Arc::clone(&link) as _);
    let mut names = HashMap::new();
    let mut asked = Vec::new();
    for pipeline in args.what.pipelines(session)? {
        let found = present(&pipeline, &args.what.only, &store)?;
        let keyed = found.results.iter().map(|(name, record)| (record.fingerprint, name.clone()));
        names.extend(keyed);
        asked.push((pipeline, found));
    }
    let report = link.finish();
    let result = |(key, bytes): (&Fingerprint, &u64)| {
        (names.get(key).cloned().unwrap_or_else(|| key.short()), *bytes)
    };
    let results: Vec<_> = report.brought.iter().map(result).collect();
    let sum = |of: fn(&Present) -> usize| asked.iter().map(|(_, found)| of(found)).sum::<usize>();
    let missing = sum(|found| found.missing.len());
    let moved = Moved {
        there: sum(|found| found.results.len()).saturating_sub(results.len()),
        bytes: results.iter().map(|(_, bytes)| bytes).sum(),
        results,
        broken: report.broken,
        failed: missing,
        // What is all here did not need it.
        error: report.error.filter(|_| missing > 0),
        ..Moved::default()
    };
    print(&moved, verb, &name, stop, session)?;
    let mut all = Ok(());
    for (pipeline, found) in &asked {
        if found.results.is_empty() && !found.missing.is_empty() {
            all = all.and(Err(nothing(pipeline, &format!("here or in `{name}`"), &args.what)));
        } else {
            let absent = format!("neither here nor in `{name}`");
            found.tell_missing(&absent, &args.what.run(pipeline), session);
        }
    }
    all
}

fn print(
    moved: &Moved,
    verb: &str,
    remote: &str,
    stop: &Stop,
    session: &Session,
) -> Result<(), CliError> {
    let mut out = String::new();
    for (name, size) in &moved.results {
        let _ = writeln!(out, "{verb} {name}, {}", bytes(*size));
    }
    let results = count(moved.results.len(), "result");
    let _ =
        writeln!(out, "{verb} {results}, {}; {} there already", bytes(moved.bytes), moved.there);
    session.print(&out)?;
    for (name, wrong) in moved.broken.iter().take(MOST_BROKEN) {
        session.talk(&format!("left out: {name}: {wrong}"));
    }
    if let more @ 1.. = moved.broken.len().saturating_sub(MOST_BROKEN) {
        session.talk(&format!("left out: {more} more"));
    }
    warn_of_differing(moved, remote, session);
    if stop.flag.is_cancelled() {
        return Err(CliError::Told(stop.exit_code()));
    }
    match &moved.error {
        None if !moved.broken.is_empty() => {
            let results = match moved.broken.len() {
                1 => "1 result is".to_owned(),
                results => format!("{results} results are"),
            };
            let (place, help) = match verb {
                "sent" | "would send" => {
                    ("in this cache", "`pipe run` computes again what is not whole")
                }
                _ => (
                    &*format!("in `{remote}`"),
                    "`pipe run` with this remote computes again what is not whole, and replaces it there",
                ),
            };
            Err(CliError::environment(format!("{results} not whole {place}")).with_help(help))
        }
        None => Ok(()),
        Some(error) => Err(CliError::environment(format!(
            "{} did not get through: {error}",
            count(moved.failed, "result")
        ))
        .with_help("what got through is kept; the same command goes on from here")),
    }
}

fn made(name: String, record: Record) -> NewResult {
    NewResult { name, record, items: Vec::new() }
}

/// The present results of every pipeline that was run here.
fn live(store: &Store) -> Result<Vec<Fingerprint>, CliError> {
    let mut live: Vec<_> = store.roots()?.into_iter().flat_map(|root| root.live).collect();
    live.sort();
    live.dedup();
    Ok(live)
}

/// What people call results.
fn names(store: &Store) -> Result<HashMap<Fingerprint, String>, CliError> {
    let roots = store.roots()?;
    let keys: HashSet<Fingerprint> =
        roots.iter().flat_map(|root| root.names.keys()).copied().collect();
    let name = |key| {
        let names = Root::names_among(&roots, key);
        let (first, others) = names.split_first()?;
        Some((key, format!("{first}{}", and_others(others))))
    };
    Ok(keys.into_iter().filter_map(name).collect())
}

/// Adds to each result the items that are part of it.
fn add_items(store: &Store, results: &mut [NewResult]) -> Result<(), CliError> {
    let mut owners = HashMap::new();
    for (index, made) in results.iter().enumerate() {
        let Some(manifest) = store.complete(made.record.output) else { continue };
        for file in manifest.files() {
            owners.entry(file.digest).or_insert(index);
        }
    }
    for (key, files) in store.items()? {
        let owner = |digest| owners.get(digest).copied();
        let mut of: Vec<_> = files.iter().map(owner).collect();
        of.dedup();
        if let [Some(owner)] = *of {
            results[owner].items.push(key);
        }
    }
    Ok(())
}
