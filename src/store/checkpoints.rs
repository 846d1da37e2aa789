//! How far the trainings along a trajectory got, by the names of their checkpoints.

use std::fs;

use super::{Fingerprint, Store};

impl Store {
    /// The last step, no later than `most`, that a training along `trajectory` would go on from. The
    /// file is not read: if it turns out damaged, the training goes on from an earlier one.
    pub fn checkpoint_step(&self, trajectory: Fingerprint, most: u64) -> Option<u64> {
        let folder = self.root.join("checkpoints").join(trajectory.to_string());
        let names = fs::read_dir(folder)
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter_map(|name| step(&name)).filter(|step| *step > 0 && *step <= most).max()
    }
}

/// The step in `rolling-00000020-<hash>.safetensors`.
fn step(name: &str) -> Option<u64> {
    let mut parts = name.strip_suffix(".safetensors")?.split('-');
    let (_, step, _) = (parts.next()?, parts.next()?, parts.next()?);
    step.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_step_within_reach_counts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let trajectory = Fingerprint::of(b"t");
        assert_eq!(store.checkpoint_step(trajectory, 100), None);
        let folder = store.checkpoints(trajectory).unwrap();
        for name in ["rolling-00000020-ab", "final-00000010-cd", "final-00000200-ef", "other"] {
            fs::write(folder.join(name).with_extension("safetensors"), "x").unwrap();
        }
        assert_eq!(store.checkpoint_step(trajectory, 100), Some(20));
        assert_eq!(store.checkpoint_step(trajectory, 15), Some(10));
        assert_eq!(store.checkpoint_step(trajectory, 5), None);
    }
}
