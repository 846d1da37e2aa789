//! `pipe plan`.

use std::{collections::HashMap, fmt::Write as _};

use indexmap::IndexSet;

use super::{
    device::{self, Outlook},
    disk,
    error::CliError,
    memory,
    session::{PipelineArgs, Session},
};
use crate::{
    plan::{self, DiskPlan, Freshness, MemoryPlan, Plan, PlanNode, PlanOptions},
    report::{
        plan::PlanDocument,
        story,
        style::{count, duration},
    },
    units::bytes,
};

/// Say what a run would do and why; nothing is run
///
/// It does not look into data sets: whether they hold as many images as are asked for says `pipe
/// check`.
#[derive(Debug, clap::Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Only this stage, or cell, and what it needs; may be given several times
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,
    /// As if this stage, or cell, had to run; may be given several times
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// Write one document for other programs
    #[arg(long)]
    json: bool,
}

pub(super) fn plan(args: &PlanArgs, session: &Session) -> Result<(), CliError> {
    let pipeline = args.pipeline.load_telling(args.json, session)?;
    session.warn(&pipeline);
    let store = session.store()?;
    let options = PlanOptions { force: args.force.clone(), only: args.only.clone() };
    let (outlook, no_device) = device::look(&session.settings()?)?;
    let no_device = no_device.and_then(CliError::into_message);
    let device = if outlook.on_host { "cpu" } else { "cuda" };
    let card = outlook.card_name();
    let here = plan::Here { device, card: card.as_deref() };
    let plan = plan::build_for(&pipeline, &store, &options, Some(here))?;
    let disk = DiskPlan::new(&plan, &store)?;
    let obstacle = store.obstacle();
    // What is free where no cache can be tells nothing.
    let free = if obstacle.is_some() { None } else { store.free_space() };
    session.print(&if args.json {
        let memory = MemoryPlan::new(&pipeline, outlook.on_host);
        let mut document = PlanDocument::new(&plan, &memory, outlook.memory, &disk, free);
        document.disk.no_cache = obstacle.map(|error| error.to_string());
        document.no_device = no_device.map(|(message, _)| message);
        format!("{:#}\n", serde_json::json!(document))
    } else {
        let mut text = text(&plan, &outlook, session.global.verbose > 0);
        if let Some((message, help)) = no_device {
            text += &remedied(&format!("missing: {message}"), help.as_deref());
        }
        let text = text + &disk::line(&disk, free);
        let obstacle = obstacle.map(|error| remedied(&error.to_string(), error.help()));
        text + &obstacle.unwrap_or_default()
    })
}

/// More stages with shell commands than this are only counted.
const MOST_COMMANDS: usize = 12;

fn text(plan: &Plan<'_>, outlook: &Outlook, verbose: bool) -> String {
    let memory = MemoryPlan::new(plan.pipeline, outlook.on_host);
    let mut out = lines(plan, &memory, verbose) + &summary(plan);
    let commands = commands(plan);
    if !commands.is_empty() {
        let named = commands.iter().take(MOST_COMMANDS).copied().collect::<Vec<_>>().join(", ");
        let more = match commands.len().saturating_sub(MOST_COMMANDS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let _ = writeln!(out, "shell commands, which a run must allow: {named}{more}");
    }
    for stage in memory::too_large(plan, outlook) {
        let _ = writeln!(out, "too little memory: {}\n  help: {}", stage.message, stage.help);
    }
    for lacking in plan.lacks() {
        let message = format!("missing: {}", lacking.message());
        out += &remedied(&message, lacking.lack.help().as_deref());
    }
    out
}

/// Cells of a stage with which the same is done up to which each has a line; of those that lack
/// something, one does.
const MOST_CELLS: usize = 12;

/// What a run does with each stage. Many cells with which the same is done are one line, unless all
/// are asked for.
fn lines(plan: &Plan<'_>, memory: &MemoryPlan<'_>, verbose: bool) -> String {
    let instances = &plan.pipeline.instances;
    let all: Vec<_> = (0..instances.len())
        .filter_map(|index| Some((index, does(plan, index, memory, verbose)?)))
        .collect();
    let mut cells: HashMap<_, usize> = HashMap::new();
    for (index, does) in &all {
        *cells.entry((&instances[*index].stage, does)).or_default() += 1;
    }
    let mut out = String::new();
    for (index, does @ (verb, details)) in &all {
        let key = (&instances[*index].stage, does);
        let is_lack = matches!(plan.nodes[*index].freshness, Freshness::Blocked(_));
        let most = if is_lack { 1 } else { MOST_CELLS };
        let more = match cells.get(&key) {
            // The first of them had the line.
            None => continue,
            Some(cells) if verbose || *cells <= most => String::new(),
            Some(cells) => format!(" and {} more", cells - 1),
        };
        if !more.is_empty() {
            cells.remove(&key);
        }
        let _ = writeln!(out, "{verb:<5}  {}{more}{details}", instances[*index]);
    }
    out
}

/// What a run does with a stage, and why; nothing of one that it leaves alone, and of one that is
/// up to date only if that is asked for.
fn does(
    plan: &Plan<'_>,
    index: usize,
    memory: &MemoryPlan<'_>,
    verbose: bool,
) -> Option<(&'static str, String)> {
    let node = &plan.nodes[index];
    if !node.needed {
        return None;
    }
    let verb = story::verb(&node.freshness);
    let details = match &node.freshness {
        Freshness::Fresh(_) => return verbose.then(|| (verb, String::new())),
        Freshness::Stale(reasons) => story::reasons_after(reasons, plan.cause(index).as_ref()),
        Freshness::Pending { upstream } => after(plan, index, upstream),
        Freshness::Blocked(lack) => lack.what(),
    };
    let parts = [details, story::outlook(node), needs(memory, index)];
    let parts = parts.iter().filter(|part| !part.is_empty()).map(|part| format!("  {part}"));
    Some((verb, parts.collect()))
}

/// The memory that a stage takes: of the device, and of the machine where that is another one.
fn needs(memory: &MemoryPlan<'_>, index: usize) -> String {
    let of_device = memory.of(index).map(|memory| bytes(memory.total()));
    let beside = memory.beside_gpu(index);
    let beside = beside.map(|memory| format!("{} beside the GPU", bytes(memory.total())));
    let needs: Vec<_> = of_device.into_iter().chain(beside).collect();
    if needs.is_empty() { String::new() } else { format!("needs {}", needs.join(" and ")) }
}

/// How many stages run, wait and are cached, and how long that takes.
fn summary(plan: &Plan<'_>) -> String {
    let nodes = || plan.nodes.iter().filter(|node| node.needed);
    let number = |verb: &str| nodes().filter(|n| story::verb(&n.freshness) == verb).count();
    let (fresh, run, maybe) = (number("fresh"), number("run"), number("maybe"));
    let waiting = if maybe > 0 { format!(", {maybe} waiting for others") } else { String::new() };
    let lacking = match number("lacks") {
        0 => String::new(),
        lacking => format!(", {lacking} that cannot run here"),
    };
    let run = count(run, "stage");
    format!("{run} to run{waiting}, {fresh} cached{lacking}{}\n", estimate(nodes()))
}

/// What keeps a run from its end, and what to do.
fn remedied(message: &str, help: Option<&str>) -> String {
    let help = help.map(|help| format!("  help: {help}\n")).unwrap_or_default();
    format!("{message}\n{help}")
}

/// The stages that would or may run a shell command.
fn commands<'a>(plan: &Plan<'a>) -> IndexSet<&'a str> {
    let mut stages = IndexSet::new();
    for (node, instance) in plan.nodes.iter().zip(&plan.pipeline.instances) {
        let may_run = node.needed && !matches!(node.freshness, Freshness::Fresh(_));
        if may_run && instance.work.command().is_some() {
            stages.insert(instance.stage.as_str());
        }
    }
    stages
}

/// `after lora and 3 more`, and where the change began, unless that is told already: by a stage
/// that this one waits for itself and that has its own line just above.
fn after(plan: &Plan<'_>, index: usize, upstream: &[usize]) -> String {
    let instances = &plan.pipeline.instances;
    let label = |other: &usize| plan::label(&instances[index], &instances[*other]);
    let mut text = match upstream {
        [] => return String::new(),
        [one] => format!("after {}", label(one)),
        [first, more @ ..] => format!("after {} and {} more", label(first), more.len()),
    };
    if let Some(cause) = plan.cause_beyond(index, upstream) {
        let _ = write!(text, ", {}", cause.brief());
    }
    text
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
        (true, _) => {
            "; how long is not known, as no run of this file and profile timed the like yet"
                .to_owned()
        }
        (false, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        config::{LoadOptions, load_with},
        stages::STAGES,
    };

    #[test]
    fn the_memory_of_the_machine_is_told_beside_that_of_a_gpu() {
        let text = "[stages.prompt]\nkind = \"text_encode\"\nmodel = \"builtin:tiny\"\n\
                    [stages.read]\nkind = \"lora_merge\"\nroot = \"x\"\nfiles = [\"a.safetensors\"]\n\
                    [stages.whole]\nkind = \"lora_merge\"\ninputs = { first = \"read\" }\n\
                    model = \"builtin:tiny\"\n";
        let read = |_: &Path| Ok(text.to_owned());
        let options = LoadOptions::default();
        let pipeline = load_with(STAGES, Path::new("x.toml"), &options, &read).unwrap();
        let find = |stage: &str| pipeline.instances.iter().position(|i| i.stage == stage).unwrap();
        let told = |on_host, stage| {
            let text = needs(&MemoryPlan::new(&pipeline, on_host), find(stage));
            let sizes = regex::Regex::new(r"[0-9.]+ [KM]iB").unwrap();
            sizes.replace_all(&text, "SIZE").into_owned()
        };
        assert_eq!(told(false, "prompt"), "needs SIZE and SIZE beside the GPU");
        assert_eq!(told(false, "whole"), "needs SIZE beside the GPU");
        assert_eq!(told(true, "prompt"), "needs SIZE");
        assert_eq!(told(true, "read"), "");
    }
}
