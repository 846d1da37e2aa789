//! `pipe cache pin`, `unpin` and `pins`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Write as _,
    path::Path,
};

use super::{NOT_COMPUTED, owner_of, present};
use crate::{
    cli::{
        error::CliError,
        exit,
        session::{PipelineArgs, Session},
    },
    config::Pipeline,
    plan::{self, PlanError},
    report::style::count,
    store::{Fingerprint, Owner, Pin, Pinner, Store},
};

/// Keep results whatever `gc` is asked to remove
///
/// With a stage, that stage and what it needs; else all results of the file.
#[derive(Debug, clap::Args)]
pub(super) struct PinArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage, or a cell of it as in `lora[n=10]`
    stage: Option<String>,
}

/// Let `gc` remove results again
///
/// What `pin` was told with the same file, profile and `--set`; what another pin needs stays
/// pinned.
#[derive(Debug, clap::Args)]
pub(super) struct UnpinArgs {
    #[command(flatten)]
    pinned: PinArgs,
}

pub(super) fn pin(args: &PinArgs, store: &Store, session: &Session) -> Result<(), CliError> {
    // What is found must not go before it is pinned.
    let _use = store.in_use(&|| false)?;
    let pipeline = args.pipeline.load()?;
    let found = present(&pipeline, args.stage.as_slice(), store)?;
    let (owner, set, title) = (owner_of(&pipeline), set(&pipeline), title(&pipeline));
    for (name, record) in &found.results {
        let instance = name.strip_prefix(&title).unwrap_or(name).to_owned();
        let (owner, set, stage) = (owner.clone(), set.clone(), args.stage.clone());
        store.pin(record.fingerprint, &Pinner { owner, set, stage, instance })?;
    }
    if found.results.is_empty() {
        return Err(CliError::Message {
            code: exit::STAGE_FAILED,
            message: "nothing of this is in the cache".to_owned(),
            help: Some(format!("`{}` computes it", args.pipeline.command("run"))),
        });
    }
    session.print(&format!("pinned {}\n", count(found.results.len(), "result")))?;
    found.tell_missing(NOT_COMPUTED, &args.pipeline.command("run"), session);
    Ok(())
}

pub(super) fn unpin(args: &UnpinArgs, store: &Store, session: &Session) -> Result<(), CliError> {
    let pipeline = args.pinned.pipeline.load()?;
    let pins = of_pipeline(&pipeline, store)?;
    if pins.is_empty() {
        return Err(not_unpinned("nothing of this is pinned"));
    }
    let taken = match &args.pinned.stage {
        None => pins,
        Some(stage) => of_stage(&pipeline, stage, pins)?,
    };
    if taken.is_empty() {
        return Err(not_unpinned("nothing of this is pinned but what other pins of the file need"));
    }
    let mut keys = BTreeSet::new();
    for pin in taken {
        store.unpin(&pin)?;
        keys.insert(pin.key);
    }
    let still = store.pinned()?;
    let kept = keys.iter().filter(|key| still.contains(*key)).count();
    session.print(&format!("unpinned {}\n", count(keys.len() - kept, "result")))?;
    match kept {
        0 => {}
        1 => session.talk("1 result stays pinned, because another pin needs it"),
        _ => session.talk(&format!("{kept} results stay pinned, because other pins need them")),
    }
    Ok(())
}

pub(super) fn list(store: &Store, session: &Session) -> Result<(), CliError> {
    // One result may be pinned for several stages of a pipeline.
    let pins: BTreeSet<_> = store.pins()?.into_iter().map(|pin| (pin.name, pin.key)).collect();
    let mut out = String::new();
    for (name, key) in pins {
        let _ = writeln!(out, "{}  {name}", key.short());
    }
    session.print(&out)
}

fn not_unpinned(message: &str) -> CliError {
    CliError::Message {
        code: exit::STAGE_FAILED,
        message: message.to_owned(),
        help: Some("`pipe cache pins` lists what is".to_owned()),
    }
}

/// How the names of a pipeline's results begin.
fn title(pipeline: &Pipeline) -> String {
    format!("{}: ", owner_of(pipeline).title())
}

/// What `--set` says, so that one wish is one, however it is written.
fn set(pipeline: &Pipeline) -> Vec<String> {
    let mut last = BTreeMap::new();
    for text in &pipeline.set {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        last.insert(name.trim(), value.trim());
    }
    last.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// A pin, and which instance of the pipeline it is of.
type Named = (Pin, String);

/// The pins of a file with this profile and `--set`.
fn of_pipeline(pipeline: &Pipeline, store: &Store) -> Result<Vec<Pin>, CliError> {
    let (owner, set) = (owner_of(pipeline), set(pipeline));
    let (known, unknown): (Vec<_>, Vec<_>) =
        store.pins()?.into_iter().partition(|pin| pin.by.is_some());
    let own = |pin: &Pin| {
        let by = pin.by.as_ref()?;
        let is_alike = by.set == set && by.owner.profile == owner.profile;
        is_alike.then(|| likeness(&by.owner, &owner)).flatten()
    };
    let mut pins = older(pipeline, &set, unknown, store)?;
    // Those of another place only where there are none of this one.
    let nearest = known.iter().filter_map(own).min();
    if let Some(nearest) = nearest.filter(|found| *found == Likeness::Same || pins.is_empty()) {
        pins.extend(known.into_iter().filter(|pin| own(pin) == Some(nearest)));
    }
    Ok(pins)
}

/// How sure it is that a pipeline is the one that was pinned.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    /// The same file.
    Same,
    /// A file of the same path, in another container or in a folder that was made anew.
    SamePath,
    /// A file of the same name, where the one that was pinned is gone: it was moved.
    Moved,
}

fn likeness(pinned: &Owner, owner: &Owner) -> Option<Likeness> {
    if pinned.file == owner.file {
        let is_same = pinned.place == owner.place;
        return Some(if is_same { Likeness::Same } else { Likeness::SamePath });
    }
    let is_moved = pinned.name == owner.name && !Path::new(&pinned.file).exists();
    is_moved.then_some(Likeness::Moved)
}

/// Of pins that do not say whose they are, since an older version set them or they are damaged,
/// those of a pipeline: by name, so that what was pinned before the file changed is found, or by
/// what is in the store.
fn older(
    pipeline: &Pipeline,
    set: &[String],
    mut pins: Vec<Pin>,
    store: &Store,
) -> Result<Vec<Pin>, PlanError> {
    if pins.is_empty() {
        return Ok(pins);
    }
    let title = title(pipeline);
    let keys: HashMap<Fingerprint, String> = present(pipeline, &[], store)?
        .results
        .into_iter()
        .map(|(name, record)| (record.fingerprint, name))
        .collect();
    for pin in &mut pins {
        if let (true, Some(name)) = (pin.name.is_empty(), keys.get(&pin.key)) {
            pin.name.clone_from(name);
        }
    }
    // Their names do not tell one `--set` from another.
    pins.retain(|pin| {
        pin.name.starts_with(&title) && (set.is_empty() || keys.contains_key(&pin.key))
    });
    Ok(pins)
}

/// Of the pins of a pipeline those that only these instances of it need: each wish is looked at
/// alone.
fn of_stage(pipeline: &Pipeline, stage: &str, pins: Vec<Pin>) -> Result<Vec<Pin>, CliError> {
    let given: HashSet<usize> =
        plan::select(pipeline, stage).map_err(PlanError::from)?.into_iter().collect();
    let title = title(pipeline);
    let mut wishes: BTreeMap<Option<String>, Vec<Named>> = BTreeMap::new();
    for pin in pins {
        let (wish, instance) = match &pin.by {
            Some(by) => (by.stage.clone(), by.instance.clone()),
            None => (None, pin.name.strip_prefix(&title).unwrap_or(&pin.name).to_owned()),
        };
        wishes.entry(wish).or_default().push((pin, instance));
    }
    let taken = wishes
        .into_iter()
        .flat_map(|(wish, pins)| of_wish(pipeline, wish.as_deref(), stage, &given, pins));
    Ok(taken.collect())
}

/// The pins of one wish, for a stage or the whole pipeline, that are needed for none of the
/// instances that stay.
fn of_wish(
    pipeline: &Pipeline,
    wish: Option<&str>,
    stage: &str,
    given: &HashSet<usize>,
    mut pins: Vec<Named>,
) -> Vec<Pin> {
    let wanted: Vec<usize> = match wish.map(|wish| plan::select(pipeline, wish)) {
        None => (0..pipeline.instances.len()).collect(),
        Some(Ok(wanted)) => wanted,
        // Of a stage that the file has no more, nothing is given up but with the whole pipeline.
        Some(Err(_)) => return Vec::new(),
    };
    if wish != Some(stage) && (wish.is_none() || !wanted.iter().all(|index| given.contains(index)))
    {
        let pinned: HashSet<&str> = pins.iter().map(|(_, instance)| instance.as_str()).collect();
        let stays = |index: &usize| {
            !given.contains(index) && pinned.contains(&*pipeline.instances[*index].to_string())
        };
        let kept = with_needs(pipeline, wanted.into_iter().filter(stays));
        let freed = with_needs(pipeline, given.iter().copied());
        pins.retain(|(_, instance)| freed.contains(instance) && !kept.contains(instance));
    }
    pins.into_iter().map(|(pin, _)| pin).collect()
}

/// The names of these instances and of all that they need.
fn with_needs(pipeline: &Pipeline, instances: impl Iterator<Item = usize>) -> HashSet<String> {
    let mut needed = vec![false; pipeline.instances.len()];
    instances.for_each(|index| needed[index] = true);
    let mut names = HashSet::new();
    // Inputs come before their users.
    for (index, instance) in pipeline.instances.iter().enumerate().rev() {
        if needed[index] {
            instance.inputs.values().for_each(|input| needed[*input] = true);
            names.insert(instance.to_string());
        }
    }
    names
}
