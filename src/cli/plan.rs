//! `pipe plan`.

use std::fmt::Write as _;

use serde_json::json;

use super::{
    error::CliError,
    session::{PipelineArgs, Session},
};
use crate::{
    plan::{self, Freshness, Plan, PlanNode, PlanOptions},
    report::{
        SCHEMA_VERSION, story,
        style::{count, duration},
    },
};

/// Say what a run would do and why; nothing is run
#[derive(Debug, clap::Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Only this stage, or cell, and what it needs
    #[arg(long, value_name = "STAGE")]
    only: Option<String>,
    /// As if this stage, or cell, had to run
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// Write one document for other programs
    #[arg(long)]
    json: bool,
}

pub(super) fn plan(args: &PlanArgs, session: &Session) -> Result<(), CliError> {
    let pipeline = args.pipeline.load()?;
    let store = session.store()?;
    let options = PlanOptions { force: args.force.clone(), only: args.only.clone() };
    let plan = plan::build(&pipeline, &store, &options)?;
    session.print(&if args.json { json(&plan) } else { text(&plan, session.global.verbose > 0) })
}

fn text(plan: &Plan<'_>, verbose: bool) -> String {
    let mut out = String::new();
    let nodes = || plan.nodes.iter().zip(&plan.pipeline.instances).filter(|(node, _)| node.needed);
    for (node, instance) in nodes() {
        let verb = story::verb(&node.freshness);
        let details = match &node.freshness {
            Freshness::Fresh(_) if !verbose => continue,
            Freshness::Fresh(_) => String::new(),
            Freshness::Stale(reasons) => story::reasons(reasons),
            Freshness::Pending { upstream } => after(plan, upstream),
        };
        let _ = write!(out, "{verb:<5}  {instance}");
        for part in [details, story::outlook(node)] {
            if !part.is_empty() && verb != "fresh" {
                let _ = write!(out, "  {part}");
            }
        }
        out.push('\n');
    }
    let number = |verb: &str| nodes().filter(|(n, _)| story::verb(&n.freshness) == verb).count();
    let (fresh, run, maybe) = (number("fresh"), number("run"), number("maybe"));
    let _ = write!(
        out,
        "{} to run, {maybe} more if their inputs change, {fresh} cached",
        count(run, "stage")
    );
    let _ = writeln!(out, "{}", estimate(nodes().map(|(node, _)| node)));
    out
}

/// `after lora[n=10] and 3 more`.
fn after(plan: &Plan<'_>, upstream: &[usize]) -> String {
    let name = |index: &usize| plan.pipeline.instances[*index].to_string();
    match upstream {
        [] => String::new(),
        [one] => format!("after {}", name(one)),
        [first, more @ ..] => format!("after {} and {} more", name(first), more.len()),
    }
}

/// The time of all that must or may run, if the time of all of it is known.
fn estimate<'a>(nodes: impl Iterator<Item = &'a PlanNode>) -> String {
    let (mut secs, mut unknown, mut any) = (0.0, 0, false);
    for node in nodes.filter(|node| !matches!(node.freshness, Freshness::Fresh(_))) {
        any = true;
        match node.estimate_secs {
            Some(estimate) => secs += estimate,
            None => unknown += 1,
        }
    }
    match (any, unknown) {
        (true, 0) => format!("; at most about {} of stage time", duration(secs)),
        (true, _) if secs > 0.0 => {
            format!("; about {} of stage time, and {unknown} never timed", duration(secs))
        }
        _ => String::new(),
    }
}

fn json(plan: &Plan<'_>) -> String {
    let nodes = plan.nodes.iter().zip(&plan.pipeline.instances).map(|(node, instance)| {
        let (digest, reasons, upstream) = match &node.freshness {
            Freshness::Fresh(record) => (Some(record.output), None, None),
            Freshness::Stale(reasons) => (None, Some(reasons), None),
            Freshness::Pending { upstream } => {
                let names = upstream.iter().map(|i| plan.pipeline.instances[*i].to_string());
                (None, None, Some(names.collect::<Vec<_>>()))
            }
        };
        json!({
            "stage": instance.stage,
            "cell": instance.cell,
            "name": instance.to_string(),
            "kind": instance.entry.kind,
            "state": match &node.freshness {
                Freshness::Fresh(_) => "fresh",
                Freshness::Stale(_) => "stale",
                Freshness::Pending { .. } => "pending",
            },
            "needed": node.needed,
            "digest": digest,
            "reasons": reasons,
            "upstream": upstream,
            "items_cached": node.items.map(|(cached, _)| cached),
            "items_total": node.items.map(|(_, total)| total),
            "estimate_secs": node.estimate_secs,
        })
    });
    let document = json!({
        "schema_version": SCHEMA_VERSION,
        "pipeline": plan.pipeline.name,
        "profile": plan.pipeline.profile,
        "stages": nodes.collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}
