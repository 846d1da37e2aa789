//! `dataset`: image pairs of a task from a data set, or clips of the procedural world.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    CheckError, CheckWarning, DataSelection, IdleParam, Inputs, KnownData, Output, OwnSize,
    ParamError, Ports, Stage, StageContext, StageError, StageKind, Surroundings, check::is_one_of,
};
use crate::{
    artifact::{ArtifactKind, videos},
    data::{
        Request,
        choice::Choice,
        figures,
        sets::Knowledge,
        source::DataSource,
        tasks::{Task, names_for},
    },
    store::{Digest, SourceReader},
};

/// Reads images and makes the pairs of a task. Its parameters are the [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Dataset(Request);

impl StageKind for Dataset {
    const KIND: &'static str = "dataset";
    // 1: first · 2: a folder that is not divided keeps a part for tests · 3: ADE20K's classes are
    // numbered over all splits · 4: classes that the crop takes away are not asked for, poses are
    // drawn before the resize, sequences of depths stay whole, those of TUM have its units, the
    // grey rule is ConceptARC's · 5: built-in images have textures, their depths follow what is
    // drawn, grids of symbols differ between splits.
    const VERSION: u32 = 5;
    const PORTS: Ports = Ports { inputs: &[], output: ArtifactKind::Pairs };
}

/// A parameter that is read where the task needs one of these.
fn idle_beside(
    task: Choice<dyn Task>,
    param: &'static str,
    read_for: &[Knowledge],
) -> Option<IdleParam> {
    let serves = is_one_of("task", &names_for(read_for));
    IdleParam::unless(read_for.contains(&task.needs()), param, "task", serves)
}

impl Stage for Dataset {
    fn validate(&self) -> Vec<ParamError> {
        self.0.validate()
    }

    fn revision(&self) -> u32 {
        self.0.task.revision() + self.0.source.source.revision()
    }

    fn idle_params(&self) -> Vec<IdleParam> {
        let Request { task, source, .. } = &self.0;
        let mut idle = IdleParam::of_choice("task", *task);
        idle.extend(IdleParam::of_choice("source.source", source.source));
        // Of the regions of images, beside data sets that have such; which those are, these say.
        idle.extend(idle_beside(*task, "min_share", &[Knowledge::Persons, Knowledge::Mask]));
        let regions = [Knowledge::Persons, Knowledge::Mask, Knowledge::Scene];
        idle.extend(idle_beside(*task, "crowd", &regions));
        idle
    }

    fn task(&self) -> Option<&'static str> {
        Some(self.0.task.name())
    }

    fn check(&self, around: &Surroundings<'_>) -> Vec<CheckError> {
        around.data.check(&self.0).into_iter().collect()
    }

    fn warnings(&self, around: &Surroundings<'_>) -> Vec<CheckWarning> {
        around.data.warning(&self.0).into_iter().collect()
    }

    fn pictures(&self, known: &KnownData) -> Option<Vec<(Digest, String)>> {
        known.pictures(&self.0)
    }

    fn selection(&self) -> Option<DataSelection> {
        Some(DataSelection::of(&self.0))
    }

    fn own_size(&self) -> OwnSize {
        let frames = self.is_world().then_some(("frames", self.0.frames));
        OwnSize { frames, image: Some(("size", self.0.size)) }
    }

    fn effort_params(&self) -> &'static [&'static str] {
        &["count"]
    }

    fn num_items(&self) -> Option<usize> {
        self.0.count
    }

    fn source_root(&self) -> Option<&Path> {
        // A profile that puts built-in data in the place of another leaves that one's folder
        // behind.
        let DataSource { source, root, .. } = &self.0.source;
        root.as_deref().filter(|_| source.is_on_disk()).map(Path::new)
    }

    fn output(&self) -> Option<ArtifactKind> {
        self.is_world().then_some(ArtifactKind::Videos)
    }

    fn run(
        &self,
        _: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        if self.is_world() {
            return self.world(out, cx);
        }
        // What is built in reads no files.
        let nowhere = SourceReader::new(Path::new(""));
        let request = &self.0;
        let images = request.source.source.open(request, cx.sources.unwrap_or(&nowhere))?;
        let chosen = request.choose(request.task.count(&*images))?;
        for (done, place) in chosen.iter().enumerate() {
            cx.tick(done as u64, chosen.len() as u64, "images")?;
            let (name, pair) = request.task.pair(&*images, *place, request)?;
            pair.write(out, &name)?;
        }
        Ok(())
    }
}

impl Dataset {
    fn is_world(&self) -> bool {
        self.0.task.needs() == Knowledge::Clips
    }

    fn world(&self, out: &mut Output<'_>, cx: &StageContext<'_>) -> Result<(), StageError> {
        let Request { size, frames, .. } = self.0;
        let chosen = self.0.choose(None)?;
        for (done, index) in chosen.iter().enumerate() {
            cx.tick(done as u64, chosen.len() as u64, "clips")?;
            let clip = figures::world_clip(self.0.seed(), *index as u64, size, frames);
            let clip = videos::Clip::from_images(&clip).expect("all frames have one size");
            out.item(&format!("world-{index:06}"), &[(videos::FILE, &clip.to_bytes())])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
