//! `pipe cache gc`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;

use super::{and_others, fresh};
use crate::{
    cli::{error::CliError, exit, session::Session, signals::Stop, versioned::Versioned},
    config::{self, LoadOptions, Pipeline},
    plan::PlanError,
    report::{SCHEMA_VERSION, style::count},
    store::{Fingerprint, GcPolicy, GcReport, Owner, Removed, Root, Store, unnamed},
    units::bytes,
};

/// Remove what nobody needs
///
/// Kept are the results of every pipeline that was run, each profile for itself: those of its last
/// run, and those that its file states now. Of files of one path in several containers, each counts
/// for itself, for 90 days after its last run where another one was run since. Kept, too, is what
/// is pinned, and for 30 days what a stage that was stopped has left to go on from. Files named
/// here count alone: with `gc a.toml`, the results of all other pipelines go.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct GcArgs {
    /// Keep the results of these pipeline files only; `REVISION:FILE` is a file as it was in git
    files: Vec<PathBuf>,
    /// Profiles of the files whose results are kept though they were never run here
    #[arg(long, short, value_name = "NAME", requires = "files")]
    profile: Vec<String>,
    /// Remove only what was made longer ago, as in `12h`, `30d` or `8 weeks`
    #[arg(long, value_name = "AGE", value_parser = age, allow_hyphen_values = true)]
    older_than: Option<Duration>,
    /// Give up also needed results, least recently used first, until they take at most this, as in
    /// `500MB` or `20GiB`
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    max_size: Option<u64>,
    /// Remove the states that trainings left for longer trainings
    #[arg(long)]
    drop_checkpoints: bool,
    /// Remove what stages that were stopped have left to go on from: items, and states of trainings
    #[arg(long)]
    drop_unfinished: bool,
    /// Only say what would be removed
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Write one document for other programs
    #[arg(long)]
    json: bool,
}

pub(super) fn gc(args: &GcArgs, store: &Store, session: &Session) -> Result<(), CliError> {
    let files: Vec<Versioned> = args.files.iter().map(|file| Versioned::parse(file)).collect();
    let mut keep = Vec::new();
    for file in &files {
        file.check()?;
        for profile in std::iter::once(None).chain(args.profile.iter().cloned().map(Some)) {
            // As it stands, whether or not it was run at this place.
            let pipeline = load(file, &LoadOptions { profile, ..LoadOptions::default() })?;
            keep.extend(keys(&pipeline, store)?);
        }
    }
    if files.is_empty() {
        let roots = store.roots()?;
        check_histories(&roots, store)?;
        keep.extend(as_stated(roots, store, session));
    }
    // What a file is now, it was not in another revision: that alone is kept of it.
    let current = files.iter().filter(|file| file.is_current()).map(|file| file.path.clone());
    let stop = Stop::on_signal();
    let policy = GcPolicy {
        files: (!files.is_empty()).then(|| current.collect()),
        keep,
        min_age: args.older_than,
        max_bytes: args.max_size,
        drop_checkpoints: args.drop_checkpoints,
        drop_unfinished: args.drop_unfinished,
        dry_run: args.dry_run,
    };
    let report =
        store.gc(&policy, &|| stop.flag.is_cancelled()).map_err(|error| stop.told(error))?;
    if args.json {
        return session.print(&json(&report, args));
    }
    let verb = if args.dry_run { "would remove" } else { "removed" };
    let most_listed = if session.global.verbose > 0 { usize::MAX } else { MOST_LISTED };
    session.print(&text(&report, verb, most_listed))
}

/// Without the histories nobody knows what is wanted, and all of it would go.
fn check_histories(roots: &[Root], store: &Store) -> Result<(), CliError> {
    let message = if let Some(root) = roots.iter().find(|root| root.is_damaged) {
        format!(
            "the history `{}` is damaged, so what its pipeline still wants is not known",
            root.path.display()
        )
    } else if roots.is_empty() && store.pinned()?.is_empty() && store.has_results()? {
        "no history says which of these results are still wanted, so all would be removed"
            .to_owned()
    } else {
        return Ok(());
    };
    Err(CliError::Message {
        code: exit::ENVIRONMENT,
        message,
        help: Some(
            "run its pipeline again, which writes a new one, or name the files whose results are kept, as \
             in `pipe cache gc FILE`"
                .to_owned(),
        ),
    })
}

/// The results of every pipeline that was run, as its file states them now: `--set` may have been
/// the last run. A file that is gone states nothing, and so does one whose data or weights cannot
/// be read, which may be somebody else's: what it last was is kept all the same. Of one that is
/// wrong, as in the middle of an edit, all that it ever was is kept.
fn as_stated(roots: Vec<Root>, store: &Store, session: &Session) -> Vec<Fingerprint> {
    // In several places, it states the same.
    let mut files: BTreeMap<_, (Owner, Vec<Fingerprint>)> = BTreeMap::new();
    for Root { owner, names, .. } in roots {
        let Some(owner) = owner else { continue };
        let file = (owner.file.clone(), owner.profile.clone());
        files.entry(file).or_insert_with(|| (owner, Vec::new())).1.extend(names.into_keys());
    }
    let stated = files.into_values().map(|(owner, all)| stated(&owner, all, store, session));
    stated.flatten().collect()
}

/// What one file states now; `all` is what it ever was.
fn stated(
    owner: &Owner,
    all: Vec<Fingerprint>,
    store: &Store,
    session: &Session,
) -> Vec<Fingerprint> {
    let options = LoadOptions { profile: owner.profile.clone(), ..LoadOptions::default() };
    let file = Path::new(&owner.file);
    let pipeline = match config::load(file, &options) {
        Ok(pipeline) => pipeline,
        Err(_) if !file.exists() => return Vec::new(),
        Err(_) => {
            session.caution(&format!(
                "all results of `{}` are kept, since its file `{}` is wrong: `pipe check` says what is",
                owner.title(),
                owner.file
            ));
            return all;
        }
    };
    match keys(&pipeline, store) {
        Ok(keys) => keys.collect(),
        Err(error) => {
            session.caution(&format!(
                "only the results of the last run are kept of `{}` ({}), since what its file states now cannot \
                 be told: {error}",
                owner.title(),
                owner.file,
            ));
            Vec::new()
        }
    }
}

/// The results of a pipeline that are in the store as it stands.
fn keys(
    pipeline: &Pipeline,
    store: &Store,
) -> Result<impl Iterator<Item = Fingerprint>, PlanError> {
    let found = fresh(pipeline, store)?;
    Ok(found.into_iter().map(|(_, record)| record.fingerprint))
}

/// The pipeline of a file; one without stages is a mistake, by which all would be removed.
fn load(file: &Versioned, options: &LoadOptions) -> Result<Pipeline, CliError> {
    if file.is_current() {
        return Ok(config::load(&file.path, options)?);
    }
    let pipeline = file.load(options)?;
    if pipeline.instances.is_empty() {
        let name = file.path.display();
        return Err(CliError::usage(format!("`{name}` has no stages in that revision"))
            .with_help("name a revision in which it has; nothing was removed"));
    }
    Ok(pipeline)
}

/// More results than this are only counted, unless `-v` asks for all.
const MOST_LISTED: usize = 20;

fn text(report: &GcReport, verb: &str, most_listed: usize) -> String {
    let mut out = String::new();
    let mut alike = BTreeMap::new();
    for removed in &report.results {
        *alike.entry(title(removed)).or_insert(0) += 1;
    }
    let listed = report.results.len().min(most_listed);
    for removed in report.results.iter().take(listed) {
        let title = title(removed);
        // What one cell was at different times has one name.
        let which = if alike[&title] == 1 {
            String::new()
        } else {
            let used = removed.used.split(['.', 'Z']).next().unwrap_or_default();
            format!(" ({}, last used {used}Z)", removed.key.short())
        };
        let _ = writeln!(out, "{verb} {title}{which}, {}", bytes(removed.bytes));
    }
    if report.results.len() > listed {
        let more = count(report.results.len() - listed, "more result");
        let rest = report.results[listed..].iter().map(|removed| removed.bytes).sum();
        let _ = writeln!(out, "{verb} {more}, {}  (-v lists all)", bytes(rest));
    }
    for (folder, removed) in report.removed.iter().filter(|(_, removed)| removed.files > 0) {
        let files = count(removed.files as usize, "file");
        let _ = writeln!(out, "{verb} {files} of {folder}, {}", bytes(removed.bytes));
    }
    if out.is_empty() {
        let _ = writeln!(out, "nothing to remove");
    }
    let kept = count(report.kept.files as usize, "object");
    let _ = writeln!(out, "kept {kept}, {}", bytes(report.kept.bytes));
    if report.pinned > 0 {
        let _ = writeln!(out, "kept {} because of pins", count(report.pinned, "result"));
    }
    if report.unfinished > 0 {
        let trainings = count(report.unfinished as usize, "unfinished training");
        let _ = writeln!(out, "kept the checkpoints of {trainings}");
    }
    if report.unfinished_items.files > 0 {
        let items = count(report.unfinished_items.files as usize, "item");
        let size = bytes(report.unfinished_items.bytes);
        let _ = writeln!(out, "kept {items} of unfinished stages, {size}");
    }
    if report.unfinished + report.unfinished_items.files > 0 {
        let _ = writeln!(out, "(--drop-unfinished removes what is kept of what has not ended)");
    }
    out
}

/// `pose_ablation: lora[n=10]`, or what else is known of it.
fn title(removed: &Removed) -> String {
    match &removed.name {
        Some(name) => format!("{name}{}", and_others(&removed.others)),
        None => unnamed(&removed.kind, removed.key),
    }
}

fn json(report: &GcReport, args: &GcArgs) -> String {
    let document = json!({
        "schema_version": SCHEMA_VERSION,
        "dry_run": args.dry_run,
        "gc": report,
    });
    format!("{document:#}\n")
}

/// `30d` as a time; a day has 24 hours.
fn age(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a time such as `12h`, `30d` or `8 weeks`".to_owned();
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let span = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(span).map_err(|_| wrong())
}

/// `20GiB` as bytes. Units are powers of 1024 with `i`, else of 1000; a bare letter is binary.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || "must be a size such as `500MB` or `20GiB`".to_owned();
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim().to_ascii_lowercase();
    let letters = unit.trim_end_matches('b');
    let base: f64 = if unit.ends_with('b') && !unit.ends_with("ib") { 1000.0 } else { 1024.0 };
    let power = match letters.trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(wrong()),
    };
    Ok((number * base.powi(power)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_one_name_are_told_apart() {
        let removed = |name: &str, key: &[u8]| Removed {
            name: Some(name.to_owned()),
            others: Vec::new(),
            kind: "toy".to_owned(),
            key: Fingerprint::of(key),
            bytes: 2048,
            used: "2026-01-01T00:00:00.25Z".to_owned(),
        };
        let results = vec![removed("a: x", b"1"), removed("a: x", b"2"), removed("a: y", b"3")];
        let [one, two] = [results[0].key, results[1].key].map(|key| key.short());
        let told = text(&GcReport { results, ..GcReport::default() }, "removed", MOST_LISTED);
        insta::assert_snapshot!(told.replace(&one, "[ONE]").replace(&two, "[TWO]"), @"
        removed a: x ([ONE], last used 2026-01-01T00:00:00Z), 2.0 KiB
        removed a: x ([TWO], last used 2026-01-01T00:00:00Z), 2.0 KiB
        removed a: y, 2.0 KiB
        kept 0 objects, 0 B
        ");
    }

    #[test]
    fn sizes_and_ages_are_read_as_people_write_them() {
        let sizes = ["0", "512 B", "500MB", "20GiB", "1.5k", "2T"].map(|text| size(text).unwrap());
        assert_eq!(sizes, [0, 512, 500_000_000, 20 << 30, 1536, 2 << 40]);
        assert!(["", "GiB", "-3", "5 parsecs"].iter().all(|text| size(text).is_err()));
        let ages = ["90s", "12h", "30d", "8 weeks"].map(|text| age(text).unwrap().as_secs());
        assert_eq!(ages, [90, 43_200, 2_592_000, 4_838_400]);
        assert!(["", "-3d", "soon", "1 month"].iter().all(|text| age(text).is_err()));
    }
}
