//! What each instance of a pipeline last was, so that a reason to run can say old and new, and so
//! that `gc` knows what is still wanted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use super::{Fingerprint, Store, StoreError};
use crate::artifact::file_name;

/// Whose results a history holds: one pipeline file under one profile. Two files of one name, or
/// two profiles of one file, have nothing to do with each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The file's path, absolute, with links followed.
    pub file: String,
    /// The profile.
    pub profile: Option<String>,
    /// The pipeline's name, for people.
    pub name: String,
}

impl Owner {
    /// The owner of the results of a pipeline file under a profile.
    pub fn new(file: &Path, profile: Option<&str>, name: &str) -> Self {
        let path = fs::canonicalize(file).or_else(|_| std::path::absolute(file));
        let path = path.unwrap_or_else(|_| file.to_owned());
        Self {
            file: path.to_string_lossy().into_owned(),
            profile: profile.map(str::to_owned),
            name: name.to_owned(),
        }
    }

    /// The name of its history: the pipeline's name is for people and may change.
    fn file_name(&self) -> String {
        let key = serde_json::to_vec(&(&self.file, &self.profile)).expect("strings are valid JSON");
        Fingerprint::of(&key).to_string()
    }

    /// `pose`, `pose.paper`: a folder for what people look at.
    pub fn folder_name(&self) -> String {
        let stem = Path::new(&self.file).file_stem().unwrap_or_default().to_string_lossy();
        let profile = self.profile.iter().map(|profile| format!(".{profile}"));
        file_name(&std::iter::once(stem.into_owned()).chain(profile).collect::<String>())
    }

    /// `pose_ablation`, or `pose_ablation --profile paper`.
    pub fn title(&self) -> String {
        match &self.profile {
            Some(profile) => format!("{} --profile {profile}", self.name),
            None => self.name.clone(),
        }
    }
}

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
/// The file only grows at its end, a line per change, so that two runs at once lose nothing and a
/// thousand stages cost a thousand lines. The first line is the [`Owner`]; then `<fingerprint>
/// <instance>` says what an instance is now, `gone <instance>` that the pipeline has it no more.
/// Reading takes the last line of each instance; a last line that was cut short is skipped. Any other
/// line that is none of these is damage, and the next run writes the file anew. The file's time is that
/// of the last run.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    owner: Owner,
    /// Whether the file does not begin with its owner yet.
    is_anonymous: bool,
    is_damaged: bool,
    last: BTreeMap<String, Last>,
}

impl History {
    /// Whether nothing of the pipeline was ever run.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// The last fingerprint of an instance such as `lora[n=10]`.
    pub fn of(&self, instance: &str) -> Option<Fingerprint> {
        self.last.get(instance).map(|last| last.key)
    }

    /// The fingerprints that it had before that, as far as they are known, oldest first.
    pub fn before(&self, instance: &str) -> &[Fingerprint] {
        self.last.get(instance).map_or(&[], |last| &last.before)
    }

    /// All instances of a stage, whatever their cell, with their last fingerprints.
    pub fn of_stage<'a>(
        &'a self,
        stage: &'a str,
    ) -> impl Iterator<Item = (&'a str, Fingerprint)> + 'a {
        self.last
            .range(stage.to_owned()..)
            .take_while(move |(instance, _)| instance.starts_with(stage))
            .filter(move |(instance, _)| instance.split('[').next() == Some(stage))
            .map(|(instance, last)| (instance.as_str(), last.key))
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
        // Without the time, what is wanted least recently is only guessed worse.
        if let Ok(file) = fs::File::options().append(true).open(&self.path) {
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
        fs::OpenOptions::new()
            .append(!begins_anew)
            .write(true)
            .truncate(begins_anew)
            .create(true)
            .open(&self.path)
            .and_then(|mut file| file.write_all(format!("{header}{lines}").as_bytes()))
            .map_err(|e| StoreError::io(&self.path, e))
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

/// What one pipeline keeps in the store.
#[derive(Clone, Debug)]
pub struct Root {
    /// Whose it is; unknown where an older version wrote the history.
    pub owner: Option<Owner>,
    /// When it was last run.
    pub used: SystemTime,
    /// What its instances are now.
    pub live: Vec<Fingerprint>,
    /// Every key that it ever had, with the instance's name.
    pub names: HashMap<Fingerprint, String>,
    /// Whether something of it cannot be read, so that more may be live.
    pub is_damaged: bool,
    /// Its file.
    pub path: PathBuf,
    last: BTreeMap<String, Last>,
}

impl Root {
    /// Whether this is the history of a pipeline file.
    pub fn is_of(&self, file: &Path) -> bool {
        let wanted = Owner::new(file, None, "").file;
        self.owner.as_ref().is_some_and(|owner| owner.file == wanted)
    }

    /// `pose_ablation: lora[n=10]`, if the key was one of its instances.
    pub fn name_of(&self, key: Fingerprint) -> Option<String> {
        let instance = self.names.get(&key)?;
        Some(match &self.owner {
            Some(owner) => format!("{}: {instance}", owner.title()),
            None => instance.clone(),
        })
    }
}

impl Store {
    /// The history of a pipeline.
    pub fn history(&self, owner: &Owner) -> Result<History, StoreError> {
        let path = self.root.join("history").join(owner.file_name());
        let found = read(&path)?;
        Ok(History {
            path,
            is_anonymous: found.owner.as_ref() != Some(owner),
            is_damaged: found.is_damaged,
            owner: owner.clone(),
            last: found.last,
        })
    }

    /// What every pipeline that was run keeps.
    pub fn roots(&self) -> Result<Vec<Root>, StoreError> {
        let dir = self.root.join("history");
        let mut roots = Vec::new();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(roots),
            Err(e) => return Err(StoreError::io(&dir, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| StoreError::io(&dir, e))?;
            let path = entry.path();
            let used = entry.metadata().and_then(|metadata| metadata.modified());
            let found = read(&path)?;
            let live = found.last.values().filter(|last| !last.gone).map(|last| last.key);
            roots.push(Root {
                used: used.unwrap_or_else(|_| super::now()),
                live: live.collect(),
                owner: found.owner,
                names: found.names,
                is_damaged: found.is_damaged,
                last: found.last,
                path,
            });
        }
        roots.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(roots)
    }

    /// Shortens a history to the keys whose record is still there; removes it if none is.
    pub(super) fn compact(
        &self,
        root: &Root,
        kept: &HashSet<Fingerprint>,
    ) -> Result<(), StoreError> {
        let header = root.owner.as_ref().map(header).unwrap_or_default();
        let (lines, any) = all_lines(&root.last, |key| kept.contains(key));
        if !any {
            return fs::remove_file(&root.path).map_err(|e| StoreError::io(&root.path, e));
        }
        match self.write(&root.path, (header + &lines).as_bytes()) {
            // It only stays as long as it was.
            Err(StoreError::Full { .. }) => return Ok(()),
            written => written?,
        }
        if let Ok(file) = fs::File::options().append(true).open(&root.path) {
            let _ = file.set_modified(root.used);
        }
        Ok(())
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
        Err(e) => return Err(StoreError::io(path, e)),
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
mod tests {
    use super::*;

    fn owner(file: &str, profile: Option<&str>) -> Owner {
        Owner::new(Path::new(file), profile, "toy")
    }

    fn key(text: &str) -> Fingerprint {
        Fingerprint::of(text.as_bytes())
    }

    #[test]
    fn the_last_line_wins_and_a_torn_one_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut history = store.history(&owner("a.toml", None)).unwrap();
        history.note("lora[n=1]", key("1")).unwrap();
        history.note("lora[n=1]", key("2")).unwrap();
        history.note("lora[n=3]", key("3")).unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(&history.path).unwrap();
        file.write_all(b"0123 \"lor").unwrap();
        let history = store.history(&owner("a.toml", None)).unwrap();
        assert_eq!(history.of("lora[n=1]"), Some(key("2")));
        assert_eq!(history.before("lora[n=1]"), [key("1")]);
        assert_eq!(history.before("lora[n=3]"), []);
        assert_eq!(history.of_stage("lora").count(), 2);
        assert_eq!(history.of_stage("lor").count(), 0);
        let [root] = &store.roots().unwrap()[..] else { panic!() };
        assert_eq!(root.live.len(), 2);
        assert_eq!(root.name_of(key("1")).unwrap(), "toy: lora[n=1]");
    }

    #[test]
    fn a_damaged_file_is_known_and_written_anew_by_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let owner = owner("a.toml", None);
        let mut history = store.history(&owner).unwrap();
        let instances = ["lora[n=1]", "lora[n=3]"];
        for instance in instances {
            history.note(instance, key(instance)).unwrap();
        }
        let (path, whole) = (history.path.clone(), fs::read(&history.path).unwrap());
        assert!(!store.roots().unwrap()[0].is_damaged);
        let cut = |from: usize, to: usize| [&whole[..from], &whole[to..]].concat();
        for damage in [Vec::new(), b"{}\n".to_vec(), b"\0\x01".to_vec(), cut(5, 9), cut(150, 190)] {
            fs::write(&path, damage).unwrap();
            assert!(store.roots().unwrap()[0].is_damaged);
            let mut history = store.history(&owner).unwrap();
            for instance in instances {
                history.note(instance, key(instance)).unwrap();
            }
            history.ran(&instances.map(str::to_owned).into()).unwrap();
            let [root] = &store.roots().unwrap()[..] else { panic!() };
            assert!(!root.is_damaged);
            assert_eq!((root.owner.clone(), root.live.len()), (Some(owner.clone()), 2));
        }
    }

    #[test]
    fn files_and_profiles_of_one_name_are_kept_apart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let owners = [owner("a.toml", None), owner("a.toml", Some("paper")), owner("b.toml", None)];
        for owner in &owners {
            let key = key(&owner.file_name());
            store.history(owner).unwrap().note("lora", key).unwrap();
        }
        for owner in &owners {
            let found = store.history(owner).unwrap().of("lora");
            assert_eq!(found, Some(key(&owner.file_name())));
        }
        let roots = store.roots().unwrap();
        assert_eq!(roots.len(), 3);
        assert_eq!(roots.iter().filter(|root| root.is_of(Path::new("a.toml"))).count(), 2);
    }

    #[test]
    fn an_instance_that_is_gone_explains_but_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let owner = owner("a.toml", None);
        let mut history = store.history(&owner).unwrap();
        history.note("lora[n=1]", key("1")).unwrap();
        history.note("lora[n=3]", key("3")).unwrap();
        history.ran(&["lora[n=1]".to_owned()].into()).unwrap();
        let mut history = store.history(&owner).unwrap();
        assert_eq!(history.of("lora[n=3]"), Some(key("3")));
        assert_eq!(store.roots().unwrap()[0].live, [key("1")]);
        // It comes back when the pipeline has it again.
        history.note("lora[n=3]", key("3")).unwrap();
        assert_eq!(store.roots().unwrap()[0].live.len(), 2);
    }

    #[test]
    fn what_an_instance_was_stays_in_order_when_some_of_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let owner = owner("a.toml", None);
        let mut history = store.history(&owner).unwrap();
        for text in ["4", "1", "3", "2"] {
            history.note("lora", key(text)).unwrap();
        }
        assert_eq!(history.before("lora"), ["4", "1", "3"].map(key));
        let root = |store: &Store| store.roots().unwrap().remove(0);
        let kept = ["4", "3", "2"].map(key);
        store.compact(&root(&store), &kept.into()).unwrap();
        let history = store.history(&owner).unwrap();
        assert_eq!(history.before("lora"), ["4", "3"].map(key));
        assert_eq!((history.of("lora"), root(&store).live), (Some(key("2")), vec![key("2")]));
        // Without what it is now, nothing of it counts as that.
        store.compact(&root(&store), &[key("4")].into()).unwrap();
        assert!(root(&store).live.is_empty());
    }

    #[test]
    fn what_an_older_version_wrote_keeps_its_results() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        fs::write(dir.path().join("history/toy"), format!("{} \"lora\"\n", key("1"))).unwrap();
        let [root] = &store.roots().unwrap()[..] else { panic!() };
        assert_eq!((root.owner.clone(), root.live.clone()), (None, vec![key("1")]));
    }
}
