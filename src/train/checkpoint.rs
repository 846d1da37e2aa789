//! The state of a training run on disk.
//!
//! A checkpoint is one safetensors file: parameters (`param.`), moments (`first.`, `second.`),
//! average (`ema.`), the losses so far, those on clips held out (`held_out.`), and the step in the
//! header. Randomness needs no state (see [`super::order`]). The file name carries step and content
//! hash, so a file that was cut short or changed is not taken for a checkpoint; it appears under
//! its name only when it is whole.
//!
//! One folder holds the checkpoints of all runs along one trajectory. A run that ends leaves its
//! last state for longer runs; the ones in between replace each other.

use std::{collections::BTreeMap, fs, ops::RangeInclusive, path::PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{held_out::Evaluation, optimizer::Moments};
use crate::{
    device::lasting,
    models::{Params, params::Param},
    store::{CheckpointFolder, CheckpointName, Digest, Keep},
};

const LOSSES: &str = "losses";
const HELD_OUT: &str = "held_out";

/// Everything that decides how a run goes on.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Steps done.
    pub step: usize,
    /// The trained parameters.
    pub params: Params,
    /// The optimizer's memory.
    pub moments: Moments,
    /// The running average of the parameters, if one is kept.
    pub ema: Option<Params>,
    /// The loss of each step.
    pub losses: Vec<f32>,
    /// The losses on clips that are not trained on.
    pub held_out: Vec<Evaluation>,
}

impl State {
    /// What training would give now: the average of the parameters if one is kept.
    pub fn result(&self) -> &Params {
        self.ema.as_ref().unwrap_or(&self.params)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        let mut add = |prefix: &str, name: &str, shape: &[usize], flat: &Tensor<1>| {
            let values = flat.to_data().try_into_vec::<f32>().expect("training is in f32");
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.push((format!("{prefix}.{name}"), shape.to_vec(), bytes));
        };
        for (prefix, params) in [("param", Some(&self.params)), ("ema", self.ema.as_ref())] {
            for (name, param) in params.iter().flat_map(|params| &params.0) {
                add(prefix, name, &param.shape, &param.flat);
            }
        }
        for (prefix, moments) in [("first", &self.moments.first), ("second", &self.moments.second)]
        {
            for (name, flat) in moments {
                add(prefix, name, &flat.dims(), flat);
            }
        }
        let losses = self.losses.iter().flat_map(|v| v.to_le_bytes()).collect();
        tensors.push((LOSSES.to_owned(), vec![self.losses.len()], losses));
        for Evaluation { step, losses } in &self.held_out {
            let bytes = losses.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.push((format!("{HELD_OUT}.{step:09}"), vec![losses.len()], bytes));
        }
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("shape fits");
            (name, view)
        });
        let header = [("step".to_owned(), self.step.to_string())].into();
        safetensors::serialize(views, Some(header)).expect("names are unique and shapes fit")
    }

    /// `None` if the bytes are not a checkpoint of this form.
    fn from_bytes(bytes: &[u8], device: &Device) -> Option<Self> {
        let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
        let step = header.metadata().as_ref()?.get("step")?.parse().ok()?;
        let file = SafeTensors::deserialize(bytes).ok()?;
        let mut state = Self { step, ..Self::default() };
        let mut ema = Params::default();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return None;
            }
            let values: Vec<f32> =
                view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            if name == LOSSES {
                state.losses = values;
                continue;
            }
            let (prefix, name) = name.split_once('.')?;
            let len = values.len();
            let flat =
                lasting(device, || Tensor::<1>::from_data(TensorData::new(values, [len]), device));
            let name = name.to_owned();
            let param = |flat| Param { flat, shape: view.shape().to_vec() };
            match prefix {
                HELD_OUT => {
                    let losses = view.data().as_chunks::<4>().0.iter();
                    let losses = losses.map(|b| f32::from_le_bytes(*b)).collect();
                    state.held_out.push(Evaluation { step: name.parse().ok()?, losses });
                }
                "param" => drop(state.params.0.insert(name, param(flat))),
                "ema" => drop(ema.0.insert(name, param(flat))),
                "first" => drop(state.moments.first.insert(name, flat)),
                "second" => drop(state.moments.second.insert(name, flat)),
                _ => return None,
            }
        }
        state.held_out.sort_by_key(|evaluation| evaluation.step);
        state.ema = (!ema.0.is_empty()).then_some(ema);
        Some(state)
    }
}

/// A folder of checkpoints along one trajectory.
#[derive(Debug)]
pub struct Checkpoints {
    folder: CheckpointFolder,
    /// The rolling checkpoint this run wrote or went on from.
    rolling: Option<PathBuf>,
}

impl Checkpoints {
    /// The checkpoints in the folder.
    pub fn open(folder: &CheckpointFolder) -> Self {
        Self { folder: folder.clone(), rolling: None }
    }

    /// Those in a folder of its own.
    #[cfg(test)]
    pub(super) fn alone(folder: &std::path::Path) -> Self {
        Self::open(&CheckpointFolder::alone(folder).unwrap())
    }

    /// The state nearest to `steps`, not beyond it. Files that are not whole are passed over.
    pub fn latest(&mut self, steps: usize, device: &Device) -> std::io::Result<Option<State>> {
        self.latest_in(0..=steps, device)
    }

    /// The state farthest along in a range of steps.
    pub fn latest_in(
        &mut self,
        range: RangeInclusive<usize>,
        device: &Device,
    ) -> std::io::Result<Option<State>> {
        let mut found: BTreeMap<usize, Vec<(PathBuf, String, bool)>> = BTreeMap::new();
        for entry in fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if let Some(CheckpointName { keep, step, hash }) = CheckpointName::of(&path)
                && let Ok(step) = usize::try_from(step)
                && range.contains(&step)
            {
                let rolling = keep == Keep::Rolling;
                found.entry(step).or_default().push((path, hash, rolling));
            }
        }
        for (path, hash, rolling) in found.into_values().rev().flatten() {
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) => {
                    // Another run may have replaced its rolling checkpoint since.
                    if error.kind() != std::io::ErrorKind::NotFound {
                        tracing::warn!(
                            "The training does not go on from `{}`, which cannot be read: {error}.",
                            path.display()
                        );
                    }
                    continue;
                }
            };
            if short_hash(&bytes) != hash {
                tracing::warn!(path = %path.display(), "a damaged checkpoint was removed");
                let _ = fs::remove_file(&path);
                continue;
            }
            if let Some(state) = State::from_bytes(&bytes, device) {
                self.rolling = rolling.then_some(path);
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// Saves the state; it replaces the last rolling checkpoint of this run.
    pub fn save(&mut self, state: &State, keep: Keep) -> std::io::Result<()> {
        let bytes = state.to_bytes();
        let name = CheckpointName { keep, step: state.step as u64, hash: short_hash(&bytes) };
        let path = self.folder.write(&name, &bytes)?;
        let replaced = match keep {
            Keep::Rolling => self.rolling.replace(path.clone()),
            Keep::Final => self.rolling.take(),
        };
        match replaced {
            Some(old) if old != path => match fs::remove_file(&old) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

fn short_hash(bytes: &[u8]) -> String {
    CheckpointName::hash_of(Digest::of(bytes))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn state(step: usize) -> State {
        let device = Device::flex();
        let flat = Tensor::from_data(TensorData::new(vec![step as f32, -0.5], [2]), &device);
        let param = |flat: &Tensor<1>| Param { flat: flat.clone() * 3.0, shape: vec![1, 2] };
        State {
            step,
            params: Params([("a.weight".to_owned(), param(&flat))].into()),
            moments: Moments {
                first: [("a.weight".to_owned(), flat.clone())].into(),
                second: [("a.weight".to_owned(), flat.clone() * 2.0)].into(),
            },
            ema: Some(Params([("a.weight".to_owned(), param(&flat))].into())),
            losses: vec![0.5; step],
            held_out: (0..step).map(|step| Evaluation { step, losses: vec![0.25, -0.0] }).collect(),
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy()[..12].to_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_saved_state_is_read_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::alone(folder.path());
        checkpoints.save(&state(3), Keep::Rolling).unwrap();
        let read = checkpoints.latest(9, &Device::flex()).unwrap().unwrap();
        assert_eq!(read.to_bytes(), state(3).to_bytes());
        assert_eq!(read.params.0["a.weight"].shape, [1, 2]);
        assert_eq!(read.held_out, state(3).held_out);
    }

    #[test]
    fn the_nearest_state_not_beyond_the_goal_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        for step in [2, 4, 8] {
            let mut run = Checkpoints::alone(folder.path());
            run.save(&state(step), Keep::Final).unwrap();
        }
        let mut run = Checkpoints::alone(folder.path());
        let mut step = |goal| run.latest(goal, &Device::flex()).unwrap().map(|s| s.step);
        assert_eq!([step(1), step(3), step(7), step(8)], [None, Some(2), Some(4), Some(8)]);
    }

    #[test]
    fn rolling_checkpoints_replace_each_other_and_final_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Checkpoints::alone(folder.path());
        run.save(&state(1), Keep::Rolling).unwrap();
        run.save(&state(2), Keep::Rolling).unwrap();
        assert_eq!(names(folder.path()), ["rolling-0000"]);
        run.save(&state(3), Keep::Final).unwrap();
        run.save(&state(4), Keep::Rolling).unwrap();
        assert_eq!(names(folder.path()), ["final-000000", "rolling-0000"]);
    }

    #[test]
    fn a_damaged_checkpoint_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Checkpoints::alone(folder.path());
        run.save(&state(1), Keep::Final).unwrap();
        run.save(&state(2), Keep::Final).unwrap();
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains("00000002") {
                let mut bytes = fs::read(&path).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(&path, bytes).unwrap();
            }
        }
        let found = run.latest(9, &Device::flex()).unwrap().unwrap();
        assert_eq!(found.step, 1);
    }
}
