//! `transform`: pairs to pairs, such as a geometric task made from plain images.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Cause, CheckError, IdleParam, Inputs, Output, ParamError, Port, Ports, Stage, StageContext,
    StageError, StageKind, Surroundings,
    check::{grid_in, refuse},
    interpolate::item_seed,
};
use crate::{
    artifact::{
        ArtifactKind,
        pairs::{Pair, PairMeta},
    },
    data::transforms::Change,
};

/// Makes each pair anew from its input image. Its parameters are the [`Change`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Transform(Change);

impl StageKind for Transform {
    const KIND: &'static str = "transform";
    // 1: first · 2: rotations about the middle of the pixels, edges of Rec. 601 luma.
    const VERSION: u32 = 2;
    const PORTS: Ports = Ports {
        inputs: &[Port { name: "pairs", kinds: &[ArtifactKind::Pairs], required: true }],
        output: ArtifactKind::Pairs,
    };
}

impl Stage for Transform {
    fn validate(&self) -> Vec<ParamError> {
        self.0.validate()
    }

    fn idle_params(&self) -> Vec<IdleParam> {
        let mut idle = IdleParam::of_choice("operation", self.0.operation);
        let serves = "`operation` makes one of the images";
        idle.extend(IdleParam::unless(self.0.makes_an_image(), "apply", "operation", serves));
        idle
    }

    fn task(&self) -> Option<&'static str> {
        // Pairs that stay as they are keep the task that they were drawn for.
        (!self.0.operation.keeps()).then(|| self.0.operation.name())
    }

    fn check(&self, around: &Surroundings<'_>) -> Vec<CheckError> {
        around.size.image.and_then(|size| self.check_size(size)).into_iter().collect()
    }

    fn mapped_port(&self) -> Option<&'static str> {
        Some("pairs")
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        cx.for_each(inputs.items("pairs"), "images", |item| {
            let pair = Pair::read(inputs, item)?;
            if self.0.operation.keeps() {
                return pair.write(out, &item.name);
            }
            let (width, height) = pair.input.dimensions();
            refuse(self.check_size([height as usize, width as usize]))?;
            let seed = item_seed(self.0.seed, item);
            let [input, target] = self.0.pair(pair.input, pair.target, seed)?;
            let meta = PairMeta {
                source_id: pair.meta.source_id,
                task: self.0.operation.name().to_owned(),
                ..PairMeta::default()
            };
            Pair { input, target, mask: None, depth: None, meta }.write(out, &item.name)
        })
    }
}

impl Transform {
    /// What the operation cannot take of images of this height and width.
    fn check_size(&self, [height, width]: [usize; 2]) -> Option<CheckError> {
        let operation = self.0.operation;
        if operation.needs_square() && height != width {
            return Some(CheckError::new(
                Cause::Image,
                format!(
                    "`{}` needs square images, but these have height {height} and width {width}",
                    operation.name()
                ),
                "give the data set a `size` of two equal sides",
            ));
        }
        grid_in(operation.needs_side(&self.0), [height, width])
    }
}
