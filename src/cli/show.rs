//! `pipe show`.

use std::{fmt::Write as _, fs, path::Path};

use serde_json::{Value, json};

use super::{
    error::CliError,
    exit,
    export::{files::training_log, not_there},
    session::{LayerArgs, Session},
};
use crate::{
    artifact::{ArtifactKind, Manifest, adapter, model},
    config::{self, Layer, Shown},
    plan::{self, Plan, PlanError, PlanOptions},
    report::{
        SCHEMA_VERSION,
        doubts::notes,
        provenance,
        results::{Outputs, measured_in},
        style::count,
        table::in_parentheses,
    },
    store::{Digest, Named, Store},
    units::bytes,
};

/// Show a resolved pipeline file, what a stage of it gave, or an artifact of the cache
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// A pipeline file, or a digest or key of the cache or its beginning
    what: String,
    /// Of a pipeline file: the stage, or a cell of it as in `lora[n=10]`, whose artifact to show
    stage: Option<String>,
    #[command(flatten)]
    layers: LayerArgs,
    /// Write one document for other programs
    #[arg(long)]
    json: bool,
}

pub(super) fn show(args: &ShowArgs, session: &Session) -> Result<(), CliError> {
    let path = Path::new(&args.what);
    if let Some(stage) = &args.stage {
        return show_stage(args, stage, session);
    }
    match is_hash(&args.what) && !path.exists() {
        true if args.what.len() < SHORTEST => return Err(too_short(&args.what)),
        true => return show_artifact(args, session),
        false => {}
    }
    let shown = config::show(path, &args.layers.options(), &|path| std::fs::read_to_string(path))?;
    let document = json!({ "schema_version": SCHEMA_VERSION, "pipeline": shown });
    session.print(&if args.json { format!("{document:#}\n") } else { file_text(&shown) })
}

/// A line per value, as TOML with dotted keys, and where the value was written.
fn file_text(shown: &Shown) -> String {
    let lines: Vec<_> = shown
        .values
        .iter()
        .map(|leaf| (format!("{} = {}", leaf.path, toml_text(&leaf.value)), leaf))
        .collect();
    let width = lines.iter().map(|(line, _)| line.chars().count().min(60)).max().unwrap_or(0);
    let mut out = String::new();
    for (line, leaf) in lines {
        let layer = match leaf.layer {
            Layer::File | Layer::Set => "",
            Layer::Base => ", by extends",
            Layer::Profile => ", by profile",
        };
        let _ = writeln!(out, "{line:<width$}  # {}{layer}", leaf.place);
    }
    out
}

/// A value as it stands behind `=` in a TOML file.
pub(super) fn toml_text(value: &Value) -> String {
    match toml::Value::try_from(value) {
        Ok(value) => value.to_string(),
        Err(_) => value.to_string(),
    }
}

/// Files that hold the log of a training.
const TRAINING_LOGS: [&str; 2] = [adapter::TRAIN, model::LOG];

/// Characters of a digest from which on it is looked up.
const SHORTEST: usize = 6;

fn is_hash(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit())
}

fn too_short(what: &str) -> CliError {
    let message = format!("there is no file `{what}`, and it is too short for a digest");
    CliError::usage(message).with_help(format!(
        "give at least {SHORTEST} characters of a digest; `pipe explain FILE STAGE` names those of a \
         stage, and `pipe show FILE STAGE` shows what it gave"
    ))
}

/// Shows what the cells of a stage gave.
fn show_stage(args: &ShowArgs, stage: &str, session: &Session) -> Result<(), CliError> {
    let file = Path::new(&args.what);
    let pipeline = config::load(file, &args.layers.options())?;
    let chosen = plan::select(&pipeline, stage).map_err(PlanError::from)?;
    let store = session.store()?;
    let plan = plan::build(&pipeline, &store, &PlanOptions::default())?;
    let outputs = Outputs::of_plan(&plan);
    let (mut text, mut documents, mut missing) = (String::new(), Vec::new(), Vec::new());
    for index in chosen {
        let Some(digest) = outputs.digest(index) else {
            missing.push(index);
            continue;
        };
        let cell = pipeline.instances[index].to_string();
        let manifest = store.manifest(digest)?;
        let is_score = manifest.kind == ArtifactKind::Metrics;
        let stage = &pipeline.instances[index].stage;
        let notes = is_score.then(|| notes(&pipeline, stage, &outputs, &store)).transpose()?;
        if args.json {
            let mut document = json!({ "stage": cell, "digest": digest, "artifact": *manifest });
            if is_score {
                let log = |digest| training_log(&store, digest);
                document["provenance"] = provenance::of(&plan, index, &log);
                document["notes"] = json!(notes);
            }
            documents.push(document);
        } else {
            let _ = write!(text, "{cell}  {}", artifact_text(&store, digest, &manifest)?);
            for note in notes.iter().flatten() {
                let _ = writeln!(text, "  note: {note}");
            }
            if is_score {
                text.push_str(&made_from(&plan, index, &store));
            }
        }
    }
    if args.json {
        text =
            format!("{:#}\n", json!({ "schema_version": SCHEMA_VERSION, "artifacts": documents }));
    }
    session.print(&text)?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(not_there(&plan, &missing, &args.layers.command("run", file)))
}

/// What a score was made from, a line for each stage.
fn made_from(plan: &Plan<'_>, index: usize, store: &Store) -> String {
    let log = |digest| training_log(store, digest);
    let lines = provenance::lines(plan, index, &log).into_iter();
    lines.fold("  made from\n".to_owned(), |text, line| text + "    " + &line + "\n")
}

fn show_artifact(args: &ShowArgs, session: &Session) -> Result<(), CliError> {
    let store = session.store()?;
    let digest = find(&store, &args.what)?;
    let Ok(manifest) = store.manifest(digest) else { return Err(no_artifact(&store, digest)?) };
    if args.json {
        let document =
            json!({ "schema_version": SCHEMA_VERSION, "digest": digest, "artifact": *manifest });
        return session.print(&format!("{document:#}\n"));
    }
    session.print(&artifact_text(&store, digest, &manifest)?)
}

/// What to say of content that is no list of items; an error, if it is not whole.
fn no_artifact(store: &Store, digest: Digest) -> Result<CliError, CliError> {
    if !store.is_intact(digest)? {
        return Err(CliError::Damaged(digest));
    }
    let path = store.object_path(digest);
    let size = fs::metadata(&path).map_err(|error| CliError::file("read", &path, &error))?.len();
    let size = bytes(size);
    Ok(CliError::Message {
        code: exit::STAGE_FAILED,
        message: format!(
            "{} is not an artifact, but one of the files of an artifact, {size}",
            digest.short()
        ),
        help: Some("`pipe export FILE STAGE --to DIR` writes the files of a stage".to_owned()),
    })
}

fn artifact_text(store: &Store, digest: Digest, manifest: &Manifest) -> Result<String, CliError> {
    let size = bytes(manifest.files().map(|file| file.size).sum());
    let items = count(manifest.items.len(), "item");
    let mut out = format!("{digest}\n{}, {items}, {size}\n", manifest.kind);
    for item in &manifest.items {
        let _ = writeln!(out, "{}", item.name);
        for (name, file) in &item.files {
            let _ = writeln!(out, "  {name}  {}  {}", file.digest.short(), bytes(file.size));
        }
        if let (ArtifactKind::Metrics, Some(file)) = (manifest.kind, item.files.get("metrics.json"))
        {
            out.push_str(&scores_text(&store.read(file)?));
        }
        if let Some(file) = TRAINING_LOGS.iter().find_map(|name| item.files.get(*name)) {
            let log: Value = serde_json::from_slice(&store.read(file)?).unwrap_or_default();
            out.push_str(&training_text(&log));
        }
    }
    Ok(out)
}

/// The scores of `metrics.json`, with their intervals.
fn scores_text(text: &[u8]) -> String {
    let document: Value = serde_json::from_slice(text).unwrap_or_default();
    let intervals = measured_in(text).map(|measured| measured.intervals).unwrap_or_default();
    let mut out = String::new();
    for (name, value) in document["values"].as_object().into_iter().flatten() {
        let interval = intervals.get(name);
        let interval = interval.map_or(String::new(), |interval| format!("  ({interval})"));
        let _ = writeln!(out, "  {name} = {value}{interval}");
    }
    if let Some(interval) = intervals.values().next() {
        let _ = writeln!(out, "  {}", in_parentheses(Some(interval.level), "images"));
    }
    out
}

/// The losses of a training: the first and the last, and those on clips held out by quantile.
fn training_text(log: &Value) -> String {
    let mut out = String::new();
    let losses = log["losses"].as_array().map(Vec::as_slice).unwrap_or_default();
    if let (Some(first), Some(last)) = (losses.first(), losses.last()) {
        let _ = writeln!(out, "  loss = {}, then {}", rounded(first), rounded(last));
    }
    let row = |values: &Value| {
        let values = values.as_array().into_iter().flatten().map(rounded);
        values.fold(String::new(), |row, value| row + &format!("{value:>8}"))
    };
    let held_out = &log["held_out"];
    if held_out.is_object() {
        let _ = writeln!(out, "  held-out loss, by quantile of the timesteps");
        let _ = writeln!(out, "  {:>8}{}", "step", row(&held_out["quantiles"]));
    }
    for evaluation in held_out["losses"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "  {:>8}{}", evaluation["step"], row(&evaluation["losses"]));
    }
    out
}

/// A number to four digits.
fn rounded(value: &Value) -> String {
    let number = value.as_f64().unwrap_or(f64::NAN);
    let text = format!("{number:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The one artifact, or file, that `text` begins the digest of, or the key of the result that it
/// is.
fn find(store: &Store, text: &str) -> Result<Digest, CliError> {
    match store.find(text)[..] {
        [Named::Object(digest)] => Ok(digest),
        [Named::Result(key)] => match store.lookup(key)?.found() {
            Some(record) => Ok(record.output),
            None => Err(CliError::usage(format!("the record of {key} is damaged"))
                .with_help("`pipe cache verify` removes it")),
        },
        [] => Err(CliError::usage(format!("nothing in the cache begins with `{text}`"))
            .with_help("`pipe show FILE STAGE` shows what a stage gave, with its digest")),
        _ => Err(CliError::usage(format!("several hashes in the cache begin with `{text}`"))
            .with_help("give more characters")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_shown_with_their_intervals() {
        let text = br#"{
            "values": { "f1": 24.5, "match_rate": 60.25, "alone": 1.5, "nothing": null },
            "intervals": { "f1": [20.125, 29.0], "match_rate": [55.0, 65.0], "alone": [1.5, 1.5] },
            "per_item": {}, "settings": { "bootstrap": { "level": 0.9, "samples": 10, "seed": 0 } }
        }"#;
        insta::assert_snapshot!(scores_text(text), @"
        alone = 1.5
        f1 = 24.5  (20.1–29.0)
        match_rate = 60.25  (55.0–65.0)
        nothing = null
        in parentheses: 90 % interval, bootstrap over images
        ");
        assert_eq!(scores_text(br#"{ "values": { "f1": 1.0 } }"#), "  f1 = 1.0\n");
    }
}
