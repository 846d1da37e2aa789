//! `interpolate`: image pairs to transition clips.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Inputs, Output, ParamError, Port, Ports, Stage, StageContext, StageError, StageKind};
use crate::{
    artifact::{ArtifactKind, Item, pairs::Pair, videos},
    data::interpolation::Interpolation,
    store::Digest,
    train::rng::TorchRng,
};

/// Turns each image pair into a clip that begins at the input and ends at the target.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interpolate {
    /// How the frames between are made.
    #[serde(default)]
    pub method: Interpolation,
    /// Frames of the clip: 4k + 1, which the video VAEs need.
    pub frames: usize,
    /// Tiles per side, for `method = "tiles"`.
    #[serde(default = "four")]
    pub grid: usize,
    /// Seed of the order in which tiles change; the pipeline's by default.
    #[serde(default)]
    pub seed: Option<u64>,
}

fn four() -> usize {
    4
}

impl StageKind for Interpolate {
    const KIND: &'static str = "interpolate";
    const VERSION: u32 = 1; // 1: first
    const PORTS: Ports = Ports {
        inputs: &[Port { name: "pairs", kinds: &[ArtifactKind::Pairs], required: true }],
        output: ArtifactKind::Videos,
    };
}

impl Stage for Interpolate {
    fn validate(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        if self.frames < 5 || self.frames % 4 != 1 {
            let below = (self.frames.saturating_sub(1) / 4).max(1) * 4 + 1;
            errors.push(
                ParamError::new(
                    "frames",
                    format!("must be 4k + 1, at least 5, but is {}", self.frames),
                )
                .help(format!("the nearest are {below} and {}", below + 4)),
            );
        }
        if !(1..=64).contains(&self.grid) {
            errors.push(ParamError::new("grid", format!("must be 1 to 64, but is {}", self.grid)));
        }
        errors
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
        let items = inputs.items("pairs");
        for (done, item) in items.iter().enumerate() {
            cx.tick(done as u64, items.len() as u64, "clips")?;
            let pair = Pair::read(inputs, item)?;
            if pair.input.dimensions() != pair.target.dimensions() {
                return Err(
                    StageError::failed("input and target differ in size").on_item(&item.name)
                );
            }
            let order = self.tile_order(item);
            let frames =
                self.method.clip(&pair.input, &pair.target, self.frames, self.grid, &order);
            let clip = videos::Clip::from_images(&frames).expect("all frames have the pair's size");
            out.item(&item.name, &[(videos::FILE, &clip.to_bytes())])?;
        }
        Ok(())
    }
}

impl Interpolate {
    /// The order in which this item's tiles change: by seed and content, not by name or place.
    fn tile_order(&self, item: &Item) -> Vec<usize> {
        let key = format!("{}/{}", self.seed.unwrap_or(0), item.digest());
        let seed = u32::from_str_radix(&Digest::of(key.as_bytes()).to_string()[..8], 16)
            .expect("a digest is hexadecimal");
        let keys = TorchRng::new(u64::from(seed)).uniform(self.grid * self.grid);
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by(|a, b| keys[*a].total_cmp(&keys[*b]).then(a.cmp(b)));
        order
    }
}
