//! `pipe explain`.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use super::{
    error::CliError,
    session::{PipelineArgs, Session},
};
use crate::{
    config::{Instance, pipeline::plain},
    models::PartRead,
    plan::{self, Decider, Freshness, Plan, PlanError, PlanOptions, Since},
    provenance::Executed,
    report::style::duration,
    store::{Digest, Record, Store},
};

/// Say what decides a stage's output, and what of it changed
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage, or a cell of it as in `lora[n=10]`
    stage: String,
}

/// More cells than this are only counted.
const MOST_CELLS: usize = 12;

pub(super) fn explain(args: &ExplainArgs, session: &Session) -> Result<(), CliError> {
    let pipeline = args.pipeline.load()?;
    let chosen = plan::select(&pipeline, &args.stage).map_err(PlanError::from)?;
    let store = session.store()?;
    let plan = plan::build(&pipeline, &store, &PlanOptions::default())?;
    let decider = Decider::new(&pipeline, &store)?;
    let mut blocks = Vec::new();
    for &index in chosen.iter().take(MOST_CELLS) {
        blocks.push(Explainer { plan: &plan, decider: &decider, store: &store }.block(index)?);
    }
    session.print(&blocks.join("\n"))?;
    if chosen.len() > MOST_CELLS {
        let more = chosen.len() - MOST_CELLS;
        session.talk(&format!(
            "and {more} more cells; name one as in `{}`",
            pipeline.instances[chosen[0]]
        ));
    }
    Ok(())
}

struct Explainer<'a> {
    plan: &'a Plan<'a>,
    decider: &'a Decider<'a>,
    store: &'a Store,
}

impl Explainer<'_> {
    fn block(&self, index: usize) -> Result<String, CliError> {
        let instance = &self.plan.pipeline.instances[index];
        let entry = instance.entry;
        let node = &self.plan.nodes[index];
        let mut out = String::new();
        let _ = writeln!(out, "{instance}  ({}, version {})", entry.kind, instance.version());
        match &node.freshness {
            Freshness::Fresh(record) => {
                let _ = writeln!(out, "  fresh: {} in the cache", record.output.short());
            }
            Freshness::Stale(reasons) => {
                let _ = writeln!(out, "  will run:");
                for reason in reasons {
                    let _ = writeln!(out, "    {reason}");
                }
                if let Some(cause) = self.plan.cause(index) {
                    let _ = writeln!(out, "    {cause}");
                }
            }
            Freshness::Pending { upstream } => {
                let names = upstream.iter().map(|i| self.plan.pipeline.instances[*i].to_string());
                let names = names.collect::<Vec<_>>().join(", ");
                let _ = writeln!(out, "  will run if what it takes changes, known after: {names}");
                if let Some(cause) = self.plan.cause(index) {
                    let _ = writeln!(out, "    {cause}");
                }
            }
            Freshness::Blocked(lack) => {
                let _ = writeln!(out, "  cannot run here: {lack}");
                if let Some(help) = lack.help() {
                    let _ = writeln!(out, "    help: {help}");
                }
            }
        }
        self.ingredients(index, &mut out)?;
        self.last_run(index, &mut out);
        Ok(out)
    }

    /// All that enters the key.
    fn ingredients(&self, index: usize, out: &mut String) -> Result<(), CliError> {
        let instance = &self.plan.pipeline.instances[index];
        let known = instance.inputs.iter().filter_map(|(port, input)| {
            match &self.plan.nodes[*input].freshness {
                Freshness::Fresh(record) => Some((port.clone(), record.output)),
                _ => None,
            }
        });
        let known: BTreeMap<String, Digest> = known.collect();
        let key = match self.decider.key(index, known.clone()) {
            Err(PlanError::Lack { .. }) => None,
            key => Some(key?.ingredients),
        };

        let _ = writeln!(out, "  parameters:");
        let width = instance.params.keys().map(String::len).max().unwrap_or(0);
        for (name, value) in &*instance.params {
            let place = instance.places.get(name).map(|place| place.to_string());
            let place = place.unwrap_or_else(|| nested_place(instance, name));
            let without_effect = instance.work.params_without_effect();
            let inside = key.as_ref().is_none_or(|key| key.params.contains_key(name))
                && without_effect.iter().all(|(other, _)| *other != name.as_str());
            let outside = if inside { "" } else { "  (not in the key)" };
            let _ = writeln!(out, "    {name:<width$} = {}  {place}{outside}", plain(value));
        }
        for (port, input) in &instance.inputs {
            let from = &self.plan.pipeline.instances[*input];
            let content = known.get(port).map_or("not known yet".to_owned(), Digest::short);
            let _ = writeln!(out, "  input {port}: {content}  from {from}");
        }
        let weights = key.and_then(|key| key.weights);
        if let (Some(used), Some(weights)) = (instance.work.weights(), weights) {
            let parts = PartRead::names(used.parts).join(", ");
            let _ = writeln!(out, "  weights: {}  of {} ({parts})", weights.short(), used.model.0);
        }
        if let Freshness::Fresh(record) = &self.plan.nodes[index].freshness {
            let _ = writeln!(out, "  key: {}", record.fingerprint.short());
            if !record.ingredients.sources.is_empty() {
                let _ = writeln!(out, "  files read: {}", record.ingredients.sources.len());
            }
            adapters(instance, record, out);
        }
        Ok(())
    }

    /// When what it is was computed, if it is up to date, else what it last was; and what changed.
    fn last_run(&self, index: usize, out: &mut String) {
        let Some(last) = self.decider.last(index) else { return };
        let now = |index: usize| match &self.plan.nodes[index].freshness {
            Freshness::Fresh(record) => Some(Arc::new((**record).clone())),
            _ => None,
        };
        let record = now(index).unwrap_or_else(|| Arc::clone(&last));
        let since = self.decider.since(index, &now);
        // The file had another in between, whose run came later.
        let is_taken_back = record.fingerprint != last.fingerprint
            || since.as_ref().is_some_and(|since| since.is_taken_back);
        let what = if is_taken_back { "last run of this key" } else { "last run" };
        let gone = if self.store.complete(record.output).is_some() { "" } else { ", output gone" };
        let _ = writeln!(
            out,
            "  {what}: {} in {} on {} by pipe {} -> {}{gone}",
            record.started,
            duration(record.wall_secs),
            record.computed_on(),
            record.pipe_version,
            record.output.short(),
        );
        let Some(Since { reasons, cause, .. }) = since else { return };
        let before = if is_taken_back {
            "since the file was last run with another one"
        } else {
            "since the one before"
        };
        let _ = writeln!(out, "  {before}:");
        for reason in reasons {
            let _ = writeln!(out, "    {reason}");
        }
        if let Some(cause) = cause {
            let _ = writeln!(out, "    {cause}");
        }
    }
}

/// The adapter files that a stage read, each with its content and the model that it states to be
/// for.
fn adapters(instance: &Instance, record: &Record, out: &mut String) {
    let Some((_, adapters)) = instance.work.adapter_files() else { return };
    let read = Executed { instance, record, is_result: false }.inputs();
    let files = read.into_iter().flat_map(|read| read.files);
    for file in files.filter(|file| adapters.contains(&file.path)) {
        let base = file.base_model.map(|base| format!("  trained on `{base}`"));
        let digest = file.blake3.short();
        let _ = writeln!(out, "  adapter: {digest}  {}{}", file.path, base.unwrap_or_default());
    }
}

/// Where the first part of a nested parameter was written, or that nobody wrote it.
fn nested_place(instance: &Instance, name: &str) -> String {
    instance.places.inside(name).map_or("default".to_owned(), |place| place.to_string())
}
