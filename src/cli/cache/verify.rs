//! `pipe cache verify`.

use std::fmt::Write as _;

use serde_json::json;

use super::and_others;
use crate::{
    cli::{error::CliError, exit, session::Session},
    report::{cache::CacheVerifyDocument, style::count},
    store::{Damage, Gone, Store, VerifyReport},
    units::bytes,
};

/// Check all content, checkpoints and pictures against their digests, and all records; remove what
/// is damaged
///
/// In a cache that cannot be written, damage is found and told, and nothing removed. Damage is exit
/// code 4.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// Only say what is damaged, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Write one document for other programs
    #[arg(long)]
    json: bool,
}

pub(super) fn verify(args: &VerifyArgs, store: &Store, session: &Session) -> Result<(), CliError> {
    let report = store.verify(args.dry_run)?;
    if args.json {
        let document = CacheVerifyDocument::new(store.root(), args.dry_run, report.clone());
        session.print(&format!("{:#}\n", json!(document)))?;
    } else {
        session.print(&text(&report))?;
    }
    if report.is_sound() {
        return Ok(());
    }
    for remark in remarks(&report, args) {
        session.talk(&remark);
    }
    Err(CliError::Told(exit::DIFFERENT))
}

/// What was read, and what is wrong with it.
fn text(report: &VerifyReport) -> String {
    let mut text = checked(report);
    for Damage { file, results, removed, unread } in &report.damaged {
        let damaged = match (unread, removed) {
            (Some(_), _) => "cannot be read",
            (None, true) => "damaged and removed",
            (None, false) => "damaged",
        };
        let _ = write!(text, "{damaged}: {}", file.display());
        if let Some((first, more)) = results.split_first() {
            let _ = write!(text, ", of `{first}`{}", and_others(more));
        }
        text.push('\n');
    }
    for Gone { name, others, key, .. } in &report.gone {
        let alike = report.gone.iter().filter(|other| other.name == *name).count();
        // What one cell was at different times has one name.
        let which = if alike > 1 { format!(" ({})", key.short()) } else { String::new() };
        let _ = writeln!(text, "content is gone of `{name}`{}{which}", and_others(others));
    }
    for history in &report.histories {
        let _ = writeln!(text, "damaged: {}", history.display());
    }
    text
}

fn checked(report: &VerifyReport) -> String {
    let mut text = format!("checked {}", count(report.objects, "object"));
    for (number, what) in [(report.checkpoints, "checkpoint"), (report.pictures, "picture")] {
        if number > 0 {
            let _ = write!(text, ", {}", count(number, what));
        }
    }
    let _ = writeln!(text, ", {}, and {}", bytes(report.bytes), count(report.records, "record"));
    text
}

/// What comes of the damage, and what to do.
fn remarks(report: &VerifyReport, args: &VerifyArgs) -> Vec<String> {
    let mut remarks = Vec::new();
    let (unread, damaged): (Vec<&Damage>, Vec<_>) =
        report.damaged.iter().partition(|damage| damage.unread.is_some());
    if let [first, ..] = *unread {
        remarks.push(format!(
            "{} not read, and left, as {} may be whole: {}; if it stays so when you try again, remove what you can \
             have made again",
            count(unread.len(), "file"),
            if unread.len() == 1 { "it" } else { "they" },
            first.unread.as_deref().unwrap_or_default(),
        ));
    }
    let (removed, left): (Vec<_>, Vec<_>) = damaged.into_iter().partition(|damage| damage.removed);
    if !left.is_empty() {
        let files = count(left.len(), "damaged file");
        remarks.push(if args.dry_run {
            format!("{files} not removed; `pipe cache verify` without --dry-run removes what is damaged")
        } else {
            format!(
                "{files} not removed, since the cache cannot be written; `pipe cache verify` where it can be \
                 removes what is damaged"
            )
        });
    }
    if !report.histories.is_empty() {
        remarks.push("the next `pipe run` of the pipeline writes its history anew".to_owned());
    }
    let is_made_again = |damage: &Damage| !damage.is_checkpoint() && !damage.is_picture();
    let (wanted, unwanted): (Vec<_>, Vec<_>) = report.gone.iter().partition(|gone| gone.is_live);
    if !wanted.is_empty() || removed.iter().any(|damage| is_made_again(damage)) {
        remarks.push("the next `pipe run` makes it again".to_owned());
    }
    if !unwanted.is_empty() {
        let results = count(unwanted.len(), "result");
        remarks.push(format!(
            "`pipe cache gc` removes what is left of {results} that no pipeline has any more"
        ));
    }
    if removed.iter().any(|damage| damage.is_picture()) {
        remarks.push("the next `pipe run` of the pipeline draws the pictures again".to_owned());
    }
    if removed.iter().any(|damage| damage.is_checkpoint()) {
        remarks.push(
            "a training that would go on from a checkpoint that is gone goes on from an earlier one, or \
             begins anew"
                .to_owned(),
        );
    }
    remarks
}
