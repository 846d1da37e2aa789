//! Pairs that are learnt from and answered: not wrong, but seldom meant, so the file is told.

use std::collections::BTreeSet;

use super::Instance;
use crate::stages::Draw;

/// The data behind each instance so far.
#[derive(Default)]
pub(super) struct Leaks {
    draws: Vec<Option<Draw>>,
    /// The instances that draw data, upstream of each instance and itself.
    behind: Vec<Vec<usize>>,
    seen: BTreeSet<(String, String)>,
    warnings: Vec<String>,
}

impl Leaks {
    /// Adds the next instance; `instances` are those before it.
    pub fn add(&mut self, instance: &Instance, instances: &[Instance]) {
        let draw = instance.work.draw();
        let mut behind: Vec<usize> =
            instance.inputs.values().flat_map(|input| self.behind[*input].clone()).collect();
        behind.extend(draw.is_some().then_some(self.draws.len()));
        behind.sort_unstable();
        behind.dedup();
        self.behind.push(behind);
        self.draws.push(draw);
        let port = |name| instance.inputs.get(name).map(|input| &self.behind[*input]);
        let (Some(answered), Some(predicted)) = (port("pairs"), port("predictions")) else {
            return;
        };
        let mut found = Vec::new();
        for test in answered {
            for train in predicted.iter().filter(|train| !answered.contains(train)) {
                if let (Some(a), Some(b)) = (&self.draws[*test], &self.draws[*train])
                    && a.overlaps(b)
                {
                    found.push((*test, *train));
                }
            }
        }
        for (test, train) in found {
            let [test, train] = [&instances[test], &instances[train]];
            if self.seen.insert((test.stage.clone(), train.stage.clone())) {
                self.warnings.push(format!(
                    "`{test}` and `{train}` take some of the same images, so `{}` scores answers that \
                     were learnt",
                    instance.stage
                ));
            }
        }
    }

    pub fn warnings(self) -> Vec<String> {
        self.warnings
    }
}
