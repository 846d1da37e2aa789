//! `pipe attest --verify`: whether things are as a statement says.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{AttestArgs, ENVELOPE, PUBLIC, read, wrong};
use crate::{
    cli::{error::CliError, exit, session::Session},
    config,
    plan::{self, Freshness, Plan, PlanOptions},
    provenance::{
        Facts, PipelineFile,
        envelope::{Envelope, public_key},
        statement::{Held, Resource, Statement, check, files_as_materials, materials},
    },
    report::style::count,
    store::{Fingerprint, Record, Store},
};

pub(super) fn verify(
    args: &AttestArgs,
    path: &Path,
    file: Option<&Path>,
    session: &Session,
) -> Result<(), CliError> {
    let key = public_key(&read(&args.key, PUBLIC)?).map_err(|error| wrong(&args.key, &error))?;
    let envelope = Envelope::parse(&read(path, ENVELOPE)?).map_err(|error| wrong(path, &error))?;
    let payload = envelope.open(&key).map_err(|error| wrong(path, &error))?;
    let statement = Statement::parse(&payload)
        .map_err(|message| CliError::usage(format!("`{}`: {message}", path.display())))?;
    let store = session.store()?;
    let _use = store.in_use_to_read(&|| false)?;
    let mut found = subjects(&statement, &store)?;
    if let Some(file) = file {
        let pipeline = config::load(file, &args.layers.options())?;
        let plan = plan::build(&pipeline, &store, &PlanOptions::default())?;
        found.merge(stages(&statement, &plan));
        found.merge(inputs(&statement, &plan, &args.layers.command("run", file))?);
    }
    found.report(&statement, path, file, session)
}

/// Results named when many disagree.
const MOST_NAMED: usize = 20;

/// What does not agree with a statement.
#[derive(Debug, Default)]
struct Disagreement {
    differs: Vec<String>,
    missing: Vec<String>,
}

impl Disagreement {
    fn merge(&mut self, other: Self) {
        self.differs.extend(other.differs);
        self.missing.extend(other.missing);
    }

    fn report(
        self,
        statement: &Statement,
        path: &Path,
        file: Option<&Path>,
        session: &Session,
    ) -> Result<(), CliError> {
        let Self { differs, missing } = self;
        if differs.is_empty() && missing.is_empty() {
            let files = count(statement.subject.len(), "file");
            let made = file.map(|_| {
                let stages = count(statement.outputs().len(), "stage");
                format!(
                    ", {stages} and {} as attested",
                    count(statement.num_materials(), "material")
                )
            });
            let made = made.unwrap_or_default();
            return session.print(&format!("good signature; {files} in the cache{made}\n"));
        }
        let code = if differs.is_empty() { exit::STAGE_FAILED } else { exit::DIFFERENT };
        let all: Vec<String> = differs.into_iter().chain(missing).collect();
        let more = all.len().saturating_sub(MOST_NAMED);
        let more = (more > 0).then(|| format!("{} that disagree", count(more, "more result")));
        let named = all.into_iter().take(MOST_NAMED).chain(more);
        let parts = named.map(|message| (message, None));
        let last =
            format!("the signature is good, but this is not what `{}` attests", path.display());
        let help = match (code, file) {
            (exit::DIFFERENT, _) => "`pipe explain FILE STAGE` says what a result is made from now",
            _ => "`pipe run FILE` computes what is not in the cache",
        };
        Err(CliError::Messages {
            code,
            parts: parts.chain([(last, Some(help.to_owned()))]).collect(),
        })
    }
}

/// Which subjects the cache does not hold.
fn subjects(statement: &Statement, store: &Store) -> Result<Disagreement, CliError> {
    let mut found = Disagreement::default();
    for subject in &statement.subject {
        let name = subject.name.as_deref().unwrap_or("a file without a name");
        match check(subject, store)? {
            Held::Whole => {}
            Held::Damaged => found.missing.push(format!("`{name}`: damaged in the cache")),
            Held::Missing => found.missing.push(format!("`{name}`: not in the cache")),
            Held::Differs => found.differs.push(format!("`{name}`: its SHA-256 is another")),
            Held::Unknown => found.differs.push(format!("`{name}`: no blake3 is stated")),
        }
    }
    Ok(found)
}

/// Which stages of a pipeline give something else than what is stated, or were made from something
/// else.
fn stages(statement: &Statement, plan: &Plan<'_>) -> Disagreement {
    let (mut stated, keys) = (statement.outputs(), statement.keys());
    let mut found = Disagreement::default();
    for (index, node) in plan.nodes.iter().enumerate() {
        let stage = plan.pipeline.instances[index].to_string();
        let wanted = stated.remove(stage.as_str()).flatten();
        match (&node.freshness, wanted) {
            (Freshness::Fresh(record), Some(wanted)) if record.output == wanted => {
                found.differs.extend(made_otherwise(&stage, record, &keys));
            }
            (Freshness::Fresh(record), Some(wanted)) => found.differs.push(format!(
                "`{stage}`: its output is {}, but {} is attested",
                record.output.short(),
                wanted.short()
            )),
            (_, Some(_)) => {
                let broken = plan.damage_note(index);
                found.missing.push(format!("`{stage}`: not up to date in the cache{broken}"));
            }
            (_, None) => found.differs.push(format!("`{stage}`: not attested")),
        }
    }
    let gone =
        stated.into_keys().map(|stage| format!("`{stage}`: attested, but not in the pipeline"));
    found.differs.extend(gone);
    found
}

/// What there is to say of a stage that gave what is stated.
fn made_otherwise(
    stage: &str,
    record: &Record,
    keys: &BTreeMap<&str, Option<Fingerprint>>,
) -> Option<String> {
    let now = record.fingerprint;
    match keys.get(stage).copied().flatten() {
        Some(key) if key == now => None,
        Some(key) => Some(format!(
            "`{stage}`: the same output, but made otherwise: its key is {}, but {} is attested",
            now.short(),
            key.short()
        )),
        None => Some(format!("`{stage}`: the same output, but its key is not attested")),
    }
}

/// Which pipeline files, models and data are others than those that are stated. Before all stages
/// are up to date, models and data are not known.
fn inputs(statement: &Statement, plan: &Plan<'_>, run: &str) -> Result<Disagreement, CliError> {
    let mut found = Disagreement::default();
    let is_fresh = |node: &plan::PlanNode| matches!(node.freshness, Freshness::Fresh(_));
    let of_facts = |error| CliError::of_facts(&error, run);
    let all = plan.nodes.iter().all(is_fresh);
    let now = if all {
        materials(&Facts::gather(plan).map_err(of_facts)?)
    } else {
        files_as_materials(&PipelineFile::all_of(plan.pipeline).map_err(of_facts)?)
    };
    let name = |material: &Resource| {
        material.name.clone().unwrap_or_else(|| "a material without a name".to_owned())
    };
    let gone = statement.materials_not_in(&now);
    let new: BTreeSet<_> = statement.materials_beyond(&now).into_iter().map(name).collect();
    let mut gone: BTreeSet<_> = gone.into_iter().map(name).collect();
    if !all {
        gone.retain(|material| new.contains(material));
    }
    for material in &new {
        found.differs.push(if gone.contains(material) {
            format!("`{material}`: another content than attested")
        } else {
            format!("`{material}`: goes in, but is not attested")
        });
    }
    let gone = gone.difference(&new);
    found.differs.extend(
        gone.map(|material| format!("`{material}`: attested, but does not go in any more")),
    );
    Ok(found)
}
