//! What `gc` keeps: the roots that histories are.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    super::{Fingerprint, Store, StoreError},
    Last, Owner, all_lines, header, read,
};

/// How long the results of a pipeline are kept of which only somebody else's under the same path
/// was run since: in another container, or in the folder that took the place of this one.
const ELSEWHERE: Duration = Duration::from_hours(90 * 24);

/// Histories that cannot be read, and why.
type Unread = Vec<(PathBuf, StoreError)>;

/// What one pipeline keeps in the store.
#[derive(Clone, Debug)]
pub struct Root {
    /// Whose it is; unknown where an older version wrote the history.
    pub owner: Option<Owner>,
    /// When it was last run.
    pub used: SystemTime,
    /// What its instances are now; nothing if it is superseded.
    pub live: Vec<Fingerprint>,
    /// Whether another one under the same path was run since, and this one not for long.
    pub is_superseded: bool,
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

impl Root {
    /// What people call a result: its names in the pipelines that it is a present result of, or, if
    /// there is none, in those that it once was one of.
    pub fn names_among(roots: &[Self], key: Fingerprint) -> Vec<String> {
        let named = |root: &Self| root.name_of(key);
        let mut names: Vec<_> =
            roots.iter().filter(|root| root.has(key)).filter_map(named).collect();
        if names.is_empty() {
            names = roots.iter().filter_map(named).collect();
        }
        names.sort();
        names.dedup();
        names
    }

    /// Whether the key is what one of its instances is now.
    fn has(&self, key: Fingerprint) -> bool {
        let last = self.names.get(&key).and_then(|instance| self.last.get(instance));
        !self.is_superseded && last.is_some_and(|last| last.key == key && !last.gone)
    }
}

impl Store {
    /// What every pipeline that was run keeps.
    pub fn roots(&self) -> Result<Vec<Root>, StoreError> {
        let (roots, unread) = self.roots_read()?;
        unread.into_iter().next().map_or(Ok(roots), |(_, error)| Err(error))
    }

    /// The same, as far as it can be read, and which histories cannot.
    pub(in super::super) fn roots_read(&self) -> Result<(Vec<Root>, Unread), StoreError> {
        let dir = self.root.join("history");
        let (mut roots, mut unread) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((roots, unread)),
            Err(e) => return Err(StoreError::read(&dir, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| StoreError::read(&dir, e))?;
            let path = entry.path();
            let used = entry.metadata().and_then(|metadata| metadata.modified());
            let found = match read(&path) {
                Ok(found) => found,
                Err(error) => {
                    unread.push((path, error));
                    continue;
                }
            };
            let live = found.last.values().filter(|last| !last.gone).map(|last| last.key);
            roots.push(Root {
                used: used.unwrap_or_else(|_| super::super::now()),
                live: live.collect(),
                is_superseded: false,
                owner: found.owner,
                names: found.names,
                is_damaged: found.is_damaged,
                last: found.last,
                path,
            });
        }
        roots.sort_by(|a, b| a.path.cmp(&b.path));
        unread.sort_by(|(a, _), (b, _)| a.cmp(b));
        supersede(&mut roots);
        Ok((roots, unread))
    }

    /// Shortens a history to the keys whose record is still there; removes it if none is, or if it
    /// is superseded.
    pub(in super::super) fn compact(
        &self,
        root: &Root,
        kept: &HashSet<Fingerprint>,
    ) -> Result<(), StoreError> {
        let header = root.owner.as_ref().map(header).unwrap_or_default();
        let (lines, any) = all_lines(&root.last, |key| kept.contains(key));
        if !any || root.is_superseded {
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

/// Of the roots of one path and profile, all but the one that was run last keep their results only
/// for a while: nobody can tell whether they are those of somebody else, or of a folder that is
/// gone.
fn supersede(roots: &mut [Root]) {
    let whose =
        |root: &Root| root.owner.as_ref().map(|owner| (owner.file.clone(), owner.profile.clone()));
    let mut latest: HashMap<_, SystemTime> = HashMap::new();
    for root in roots.iter() {
        let used = latest.entry(whose(root)).or_insert(root.used);
        *used = root.used.max(*used);
    }
    for root in roots.iter_mut().filter(|root| root.owner.is_some()) {
        // A time in the future is young, too: clocks jump.
        let is_old = root.used.elapsed().is_ok_and(|age| age >= ELSEWHERE);
        if is_old && root.used < latest[&whose(root)] {
            root.is_superseded = true;
            root.live.clear();
        }
    }
}
