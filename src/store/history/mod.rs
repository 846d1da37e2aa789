//! What each instance of a pipeline last was, so that a reason to run can say old and new, and so
//! that `gc` knows what is still wanted.

mod file;
mod owner;
mod roots;

pub use owner::Owner;
pub use roots::Root;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
    fs, io,
    path::Path,
    sync::OnceLock,
};

use super::{Fingerprint, Store, StoreError};
use file::Journal;

/// What an instance last was.
#[derive(Clone, Debug)]
struct Last {
    key: Fingerprint,
    /// What it was before that, oldest first.
    before: Vec<Fingerprint>,
    /// Whether the latest run had no such instance any more.
    gone: bool,
}

impl Last {
    /// Says that an instance is `key` now.
    fn set(all: &mut BTreeMap<String, Self>, instance: String, key: Fingerprint) {
        let new = || Self { key, before: Vec::new(), gone: false };
        let last = all.entry(instance).or_insert_with(new);
        if last.key != key {
            last.before.push(last.key);
        }
        (last.key, last.gone) = (key, false);
    }
}

/// The last fingerprint of each instance of one pipeline.
///
/// The file only grows at its end, a line per change, so that two runs at once lose nothing
/// (`file`) and a thousand stages cost a thousand lines. The first line is the [`Owner`]; then
/// `<fingerprint> <instance>` says what an instance is now, `gone <instance>` that the pipeline has
/// it no more. Reading takes the last line of each instance; a last line that was cut short is
/// skipped. Any other line that is none of these is damage, and the next run writes the file anew.
/// The file's time is that of the last run.
#[derive(Debug)]
pub struct History {
    file: Journal,
    owner: Owner,
    /// Whether the file does not begin with its owner yet.
    is_anonymous: bool,
    is_damaged: bool,
    last: BTreeMap<String, Last>,
    /// What the instances were where the pipeline of the same path was last run elsewhere: it
    /// explains, and keeps nothing. Read when something is not known here.
    elsewhere: OnceLock<BTreeMap<String, Last>>,
}

impl History {
    /// Whether nothing of the pipeline was ever run.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty() && self.elsewhere().is_empty()
    }

    /// The last fingerprint of an instance such as `lora[n=10]`.
    pub fn of(&self, instance: &str) -> Option<Fingerprint> {
        self.last_of(instance).map(|last| last.key)
    }

    /// The fingerprints that it had before that, as far as they are known, oldest first.
    pub fn before(&self, instance: &str) -> &[Fingerprint] {
        self.last_of(instance).map_or(&[], |last| &last.before)
    }

    fn last_of(&self, instance: &str) -> Option<&Last> {
        self.last.get(instance).or_else(|| self.elsewhere().get(instance))
    }

    /// Where the folder of the pipeline was made anew, what was known of the one before is still of
    /// use.
    fn elsewhere(&self) -> &BTreeMap<String, Last> {
        self.elsewhere.get_or_init(|| {
            let stem = self.owner.stem();
            let entries = self.file.path.parent().and_then(|dir| fs::read_dir(dir).ok());
            let others = entries.into_iter().flatten().filter_map(|entry| {
                let entry = entry.ok()?;
                let is_other = entry.path() != self.file.path
                    && entry.file_name().to_string_lossy().starts_with(&stem);
                let used = entry.metadata().and_then(|metadata| metadata.modified()).ok()?;
                is_other.then(|| (used, entry.path()))
            });
            let latest = others.max().and_then(|(_, path)| read(&path).ok());
            latest.map(|found| found.last).unwrap_or_default()
        })
    }

    /// All instances of a stage, whatever their cell, with their last fingerprints.
    pub fn of_stage<'a>(
        &'a self,
        stage: &'a str,
    ) -> impl Iterator<Item = (&'a str, Fingerprint)> + 'a {
        let of = move |all: &'a BTreeMap<String, Last>| {
            all.range(stage.to_owned()..)
                .take_while(move |(instance, _)| instance.starts_with(stage))
                .filter(move |(instance, _)| instance.split('[').next() == Some(stage))
                .map(|(instance, last)| (instance.as_str(), last.key))
        };
        let mut here = of(&self.last).peekable();
        let elsewhere = here.peek().is_none().then(|| of(self.elsewhere()));
        here.chain(elsewhere.into_iter().flatten())
    }

    /// Remembers that `instance` is `key` now.
    pub fn note(&mut self, instance: &str, key: Fingerprint) -> Result<(), StoreError> {
        if self.last.get(instance).is_some_and(|last| last.key == key && !last.gone) {
            return Ok(());
        }
        Last::set(&mut self.last, instance.to_owned(), key);
        self.append(&format!("{key} {}\n", quoted(instance)))
    }

    /// Remembers that a run was made, and which instances the pipeline has no more: those that are
    /// not in `present`.
    pub fn ran(&mut self, present: &HashSet<String>) -> Result<(), StoreError> {
        let mut lines = String::new();
        for (instance, last) in &mut self.last {
            if !last.gone && !present.contains(instance) {
                last.gone = true;
                let _ = writeln!(lines, "gone {}", quoted(instance));
            }
        }
        if !lines.is_empty() || self.is_damaged {
            self.append(&lines)?;
        }
        self.file.flush()?;
        // Without the time, what is wanted least recently is only guessed worse.
        if let Ok(file) = fs::File::options().append(true).open(&self.file.path) {
            let _ = file.set_modified(super::now());
        }
        Ok(())
    }

    fn append(&mut self, lines: &str) -> Result<(), StoreError> {
        let begins_anew = std::mem::take(&mut self.is_damaged);
        let lines = if begins_anew {
            self.is_anonymous = true;
            all_lines(&self.last, |_| true).0
        } else {
            lines.to_owned()
        };
        let is_anonymous = std::mem::take(&mut self.is_anonymous);
        let header = if is_anonymous { header(&self.owner) } else { String::new() };
        let text = format!("{header}{lines}");
        if begins_anew { self.file.replace(&text) } else { self.file.add(&text) }
    }
}

/// The lines that say what instances are and were, as far as keys are `kept`; and whether any are.
fn all_lines(last: &BTreeMap<String, Last>, kept: impl Fn(&Fingerprint) -> bool) -> (String, bool) {
    let (mut lines, mut any) = (String::new(), false);
    for (instance, last) in last {
        // Earlier keys name what they were, and tell what changed.
        let keys = last.before.iter().chain([&last.key]).filter(|key| kept(key));
        let name = quoted(instance);
        let mut written = false;
        for key in keys {
            let _ = writeln!(lines, "{key} {name}");
            written = true;
        }
        // An earlier key must not count as what it is now.
        if written && (last.gone || !kept(&last.key)) {
            let _ = writeln!(lines, "gone {name}");
        }
        any |= written;
    }
    (lines, any)
}

impl Store {
    /// The history of a pipeline.
    pub fn history(&self, owner: &Owner) -> Result<History, StoreError> {
        let file = Journal::new(self, &owner.file_name());
        let found = read(&file.path)?;
        Ok(History {
            file,
            is_anonymous: found.owner.as_ref() != Some(owner),
            is_damaged: found.is_damaged,
            owner: owner.clone(),
            last: found.last,
            elsewhere: OnceLock::new(),
        })
    }
}

fn header(owner: &Owner) -> String {
    serde_json::to_string(owner).expect("strings are valid JSON") + "\n"
}

fn quoted(instance: &str) -> String {
    serde_json::to_string(instance).expect("a string is valid JSON")
}

/// What a history file holds.
#[derive(Default)]
struct Found {
    owner: Option<Owner>,
    last: BTreeMap<String, Last>,
    names: HashMap<Fingerprint, String>,
    /// Whether there is a line that says nothing, or none at all.
    is_damaged: bool,
}

impl Found {
    /// Takes a line in; `None` if it is no line of a history.
    fn take(&mut self, line: &str) -> Option<()> {
        if line.starts_with('{') {
            self.owner = Some(serde_json::from_str(line).ok()?);
            return Some(());
        }
        let (what, name) = line.split_once(' ')?;
        let name: String = serde_json::from_str(name).ok()?;
        if what == "gone" {
            if let Some(last) = self.last.get_mut(&name) {
                last.gone = true;
            }
        } else {
            let key = what.parse().ok()?;
            self.names.insert(key, name.clone());
            Last::set(&mut self.last, name, key);
        }
        Some(())
    }
}

fn read(path: &Path) -> Result<Found, StoreError> {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
        Err(e) => return Err(StoreError::read(path, e)),
    };
    let mut found = Found { is_damaged: text.is_empty(), ..Found::default() };
    for line in text.split_inclusive('\n') {
        // A last line may have been cut short by the end of its process.
        let is_whole = line.ends_with('\n');
        if found.take(line.trim_end_matches('\n')).is_none() && is_whole {
            found.is_damaged = true;
        }
    }
    // A run begins with the owner and an instance, in one piece.
    found.is_damaged |= found.last.is_empty();
    Ok(found)
}

#[cfg(test)]
mod tests;
