//! The checkpoints that trainings along one trajectory leave: their names, and how far they go.

use std::{fmt, fs, path::Path};

use super::{Fingerprint, Store};

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
}

impl fmt::Display for CheckpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08}-{}.safetensors", self.keep.prefix(), self.step, self.hash)
    }
}

impl Store {
    /// The step that a training along `trajectory` goes on from if it needs the state at each of
    /// `stops`, which ascend: the first one that it has to make is the next. None where that is the
    /// first of all. Files are not read: if one turns out damaged, the training goes on from an
    /// earlier one.
    pub fn checkpoint_step(&self, trajectory: Fingerprint, stops: &[u64]) -> Option<u64> {
        let folder = self.root.join("checkpoints").join(trajectory.to_string());
        let names = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let steps: Vec<u64> =
            names.filter_map(|path| CheckpointName::of(&path)).map(|name| name.step).collect();
        let mut at = 0;
        for &stop in stops {
            let within = steps.iter().copied().filter(|step| (at..=stop).contains(step));
            at = within.max().unwrap_or(at);
            if at < stop {
                break;
            }
        }
        (at > 0).then_some(at)
    }
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
    fn a_training_goes_on_from_the_farthest_state_before_the_first_that_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let trajectory = Fingerprint::of(b"t");
        assert_eq!(store.checkpoint_step(trajectory, &[100]), None);
        let folder = store.checkpoints(trajectory).unwrap();
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
}
