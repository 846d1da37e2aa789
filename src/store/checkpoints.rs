//! The checkpoints that trainings along one trajectory leave: their names, and how far they go.

use std::{
    collections::BTreeSet,
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{Digest, Fingerprint, Store, StoreError, scratch, stat_cache::hash_file};

/// What a checkpoint is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Until the next one of this run.
    Rolling,
    /// For longer runs along the same trajectory.
    Final,
}

impl Keep {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Final => "final",
        }
    }
}

/// The name of a checkpoint: `rolling-00000020-<hash>.safetensors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointName {
    /// What it is kept for.
    pub keep: Keep,
    /// The steps done.
    pub step: u64,
    /// The begin of its content's hash.
    pub hash: String,
}

impl CheckpointName {
    /// The name of the file, if it is that of a checkpoint.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".safetensors")?;
        let [keep, step, hash] = name.split('-').collect::<Vec<_>>().try_into().ok()?;
        let keep = [Keep::Rolling, Keep::Final].into_iter().find(|k| k.prefix() == keep)?;
        Some(Self { keep, step: step.parse().ok()?, hash: hash.to_owned() })
    }

    /// How a name tells the content.
    pub fn hash_of(content: Digest) -> String {
        content.to_string()[..16].to_owned()
    }

    /// Whether a file is the one that was named so. Read piece by piece: states are large.
    pub(super) fn is_of(&self, path: &Path) -> io::Result<bool> {
        Ok(Self::hash_of(hash_file(path)?) == self.hash)
    }
}

impl fmt::Display for CheckpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08}-{}.safetensors", self.keep.prefix(), self.step, self.hash)
    }
}

/// Where the checkpoints along one trajectory are.
#[derive(Clone, Debug)]
pub struct CheckpointFolder {
    path: PathBuf,
    /// Where files are that are not whole yet.
    tmp: PathBuf,
}

impl CheckpointFolder {
    /// A folder of its own, outside any store, made if needed.
    pub fn alone(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self { path: path.to_owned(), tmp: path.to_owned() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a checkpoint, which appears under its name when it is whole; gives its path. An error
    /// names it, and says what it takes.
    pub fn write(&self, name: &CheckpointName, bytes: &[u8]) -> io::Result<PathBuf> {
        let path = self.path.join(name.to_string());
        let write = || {
            let mut file = scratch(&self.tmp)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error).map(drop)
        };
        let failed = |error| StoreError::io(&path, error).needing(bytes.len() as u64).into_io();
        write().map_err(failed)?;
        Ok(path)
    }
}

/// The trajectory of a checkpoint.
pub(super) fn trajectory_of(path: &Path) -> Option<Fingerprint> {
    path.parent()?.file_name()?.to_str()?.parse().ok()
}

impl Store {
    /// The folder that outlives runs for the checkpoints of a trajectory, made if needed.
    pub fn checkpoints(&self, trajectory: Fingerprint) -> Result<CheckpointFolder, StoreError> {
        let path = self.root.join("checkpoints").join(trajectory.to_string());
        fs::create_dir_all(&path).map_err(|e| StoreError::io(&path, e))?;
        Ok(CheckpointFolder { path, tmp: self.root.join("tmp") })
    }

    /// The step that a training along `trajectory` goes on from if it needs the state at each of
    /// `stops`, which ascend: the first one that it has to make is the next. None where that is the
    /// first of all. Files are not read: if one turns out damaged, the training goes on from an
    /// earlier one.
    pub fn checkpoint_step(&self, trajectory: Fingerprint, stops: &[u64]) -> Option<u64> {
        let steps = steps(&self.checkpoint_files(trajectory));
        let mut at = 0;
        for &stop in stops {
            at = steps.range(at..=stop).next_back().copied().unwrap_or(at);
            if at < stop {
                break;
            }
        }
        (at > 0).then_some(at)
    }

    /// Reads the checkpoints that such a training goes on from, also those after a stop that it
    /// makes itself, and removes the damaged ones; gives their steps. From what is left it goes on.
    pub fn drop_damaged_checkpoints(
        &self,
        trajectory: Fingerprint,
        stops: &[u64],
    ) -> Result<Vec<u64>, StoreError> {
        let mut files = self.checkpoint_files(trajectory);
        let (mut whole, mut damaged) = (BTreeSet::new(), Vec::new());
        while let Some(step) = used(&steps(&files), stops).find(|step| !whole.contains(step)) {
            let (of_step, others): (Vec<_>, Vec<_>) =
                files.into_iter().partition(|(_, name)| name.step == step);
            files = others;
            let mut unread = false;
            for (path, name) in of_step {
                match name.is_of(&path) {
                    Ok(true) => files.push((path, name)),
                    Ok(false) => drop(super::remove(&path)?),
                    // Gone meanwhile, or not to be read: the training passes over it, too.
                    Err(_) => unread = true,
                }
            }
            if files.iter().any(|(_, name)| name.step == step) {
                whole.insert(step);
            } else if !unread {
                damaged.push(step);
            }
        }
        Ok(damaged)
    }

    fn checkpoint_files(&self, trajectory: Fingerprint) -> Vec<(PathBuf, CheckpointName)> {
        let folder = self.root.join("checkpoints").join(trajectory.to_string());
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let named = entries.map(|entry| entry.path());
        named.filter_map(|path| Some((path.clone(), CheckpointName::of(&path)?))).collect()
    }
}

fn steps(files: &[(PathBuf, CheckpointName)]) -> BTreeSet<u64> {
    files.iter().map(|(_, name)| name.step).collect()
}

/// The steps of the states that a training reads on its way through `stops`.
fn used<'a>(steps: &'a BTreeSet<u64>, stops: &'a [u64]) -> impl Iterator<Item = u64> + 'a {
    let begins = std::iter::once(0).chain(stops.iter().map(|stop| stop + 1));
    let ways = begins.zip(stops).filter(|(begin, stop)| begin <= stop);
    ways.filter_map(|(begin, stop)| steps.range(begin..=*stop).next_back().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let name = CheckpointName { keep: Keep::Final, step: 300, hash: "ab".to_owned() };
        assert_eq!(name.to_string(), "final-00000300-ab.safetensors");
        assert_eq!(CheckpointName::of(Path::new(&name.to_string())), Some(name));
        for other in ["final-300-ab", "first-00000300-ab.safetensors", "final-ab.safetensors"] {
            assert_eq!(CheckpointName::of(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn what_is_not_whole_is_among_the_scratch_files_and_others_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let folder = store.checkpoints(Fingerprint::of(b"t")).unwrap();
        let name = CheckpointName { keep: Keep::Final, step: 1, hash: "ab".to_owned() };
        let written = folder.write(&name, b"state").unwrap();
        assert_eq!(fs::read(&written).unwrap(), b"state");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
            let plain = dir.path().join("plain");
            fs::write(&plain, "").unwrap();
            assert_eq!(mode(&written), mode(&plain));
        }
        fs::remove_dir(dir.path().join("cache/tmp")).unwrap();
        let error = folder.write(&name, b"state").expect_err("begun elsewhere");
        let told = StoreError::io(Path::new("checkpoints"), error).to_string();
        assert!(told.contains("final-00000001-ab.safetensors"), "{told}");
    }

    #[test]
    fn a_training_goes_on_from_the_farthest_state_before_the_first_that_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let trajectory = Fingerprint::of(b"t");
        assert_eq!(store.checkpoint_step(trajectory, &[100]), None);
        let folder = store.checkpoints(trajectory).unwrap().path().to_owned();
        for name in ["rolling-00000020-ab", "final-00000010-cd", "final-00000200-ef", "other"] {
            fs::write(folder.join(name).with_extension("safetensors"), "x").unwrap();
        }
        for (stops, wanted) in [
            (&[100][..], Some(20)),
            (&[15], Some(10)),
            (&[5], None),
            (&[200], Some(200)),
            // The state at 5 must be made, whatever there is beyond.
            (&[5, 10, 200], None),
            (&[10, 15, 200], Some(10)),
            (&[10, 30, 200], Some(20)),
            (&[10, 20, 200], Some(200)),
            (&[], None),
        ] {
            assert_eq!(store.checkpoint_step(trajectory, stops), wanted, "{stops:?}");
        }
    }

    #[test]
    fn damaged_checkpoints_on_the_way_are_removed_and_others_left() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let trajectory = Fingerprint::of(b"t");
        let folder = store.checkpoints(trajectory).unwrap().path().to_owned();
        let save = |step: u64, content: &str| {
            let hash = CheckpointName::hash_of(Digest::of(b"whole"));
            let name = CheckpointName { keep: Keep::Final, step, hash };
            fs::write(folder.join(name.to_string()), content).unwrap();
        };
        for (step, content) in [(10, "whole"), (20, "damaged"), (30, "cut"), (90, "beyond")] {
            save(step, content);
        }
        let dropped = |stops: &[u64]| store.drop_damaged_checkpoints(trajectory, stops).unwrap();
        assert!(dropped(&[15]).is_empty());
        assert_eq!(dropped(&[40]), [30, 20]);
        assert_eq!(store.checkpoint_step(trajectory, &[40]), Some(10));
        assert!(dropped(&[40]).is_empty());
        // A state after a stop that is still to be made is read as well.
        assert_eq!(dropped(&[50, 100]), [90]);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert!(dropped(&[]).is_empty());
    }
}
