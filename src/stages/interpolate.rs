//! `interpolate`: image pairs to transition clips.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    CheckError, IdleParam, Inputs, Output, OwnSize, ParamError, Port, Ports, Stage, StageContext,
    StageError, StageKind, Surroundings,
    check::{grid_in, refuse},
};
use crate::{
    artifact::{ArtifactKind, Item, pairs::Pair, videos},
    data::interpolation::Interpolation,
    rng::TorchRng,
    store::Digest,
};

/// Turns each image pair into a clip that begins at the input and ends at the target.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interpolate {
    /// How the frames between are made.
    #[serde(default)]
    pub method: Interpolation,
    /// Frames of the clip: 4k + 1, which the video VAEs need.
    #[schemars(range(min = 5, max = 4097))]
    pub frames: usize,
    /// Tiles per side, for `method = "tiles"`.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 64))]
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
            let below = (self.frames.max(5) - 1) / 4 * 4 + 1;
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

    fn idle_params(&self) -> Vec<IdleParam> {
        let tiles = self.method == Interpolation::Tiles;
        IdleParam::unless(tiles, "grid", "method", "`method` is `tiles`").into_iter().collect()
    }

    fn check(&self, around: &Surroundings<'_>) -> Vec<CheckError> {
        around.size.image.and_then(|size| self.check_size(size)).into_iter().collect()
    }

    fn own_size(&self) -> OwnSize {
        OwnSize { frames: Some(("frames", self.frames)), image: None }
    }

    fn effort_params(&self) -> &'static [&'static str] {
        &["frames"]
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
        cx.for_each(inputs.items("pairs"), "clips", |item| {
            let pair = Pair::read(inputs, item)?;
            if pair.input.dimensions() != pair.target.dimensions() {
                return Err(StageError::failed("input and target differ in size"));
            }
            let (width, height) = pair.input.dimensions();
            refuse(self.check_size([height as usize, width as usize]))?;
            let order = self.tile_order(item);
            let frames =
                self.method.clip(&pair.input, &pair.target, self.frames, self.grid, &order);
            let clip = videos::Clip::from_images(&frames).expect("all frames have the pair's size");
            out.item(&item.name, &[(videos::FILE, &clip.to_bytes())])
        })
    }
}

impl Interpolate {
    /// Tiles that images of this height and width do not have.
    fn check_size(&self, size: [usize; 2]) -> Option<CheckError> {
        (self.method == Interpolation::Tiles).then(|| grid_in(self.grid, size))?
    }

    /// The order in which this item's tiles change.
    fn tile_order(&self, item: &Item) -> Vec<usize> {
        TorchRng::new(item_seed(self.seed, item)).randperm(self.grid * self.grid)
    }
}

/// The seed of what is random for one item: by the stage's seed and the item's content, not by its
/// name or place, so that it does not depend on which other items there are.
pub(super) fn item_seed(seed: Option<u64>, item: &Item) -> u64 {
    let key = format!("{}/{}", seed.unwrap_or(0), item.digest());
    u64::from_str_radix(&Digest::of(key.as_bytes()).to_string()[..8], 16)
        .expect("a digest is hexadecimal")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{artifact::frames::to_png, stages::support::Bench};

    fn interpolate(frames: usize) -> Interpolate {
        Interpolate { method: Interpolation::Tiles, frames, grid: 4, seed: Some(1) }
    }

    #[test]
    fn frames_must_be_four_k_and_one() {
        for frames in [5, 9, 49, 81] {
            assert!(interpolate(frames).validate().is_empty(), "{frames}");
        }
        let error = &interpolate(10).validate()[0];
        insta::assert_snapshot!(error.message, @"must be 4k + 1, at least 5, but is 10");
        insta::assert_snapshot!(error.help.as_deref().unwrap(), @"the nearest are 9 and 13");
        assert_eq!(interpolate(0).validate()[0].help.as_deref(), Some("the nearest are 5 and 9"));
    }

    #[test]
    fn a_clip_goes_from_input_to_target_and_does_not_depend_on_its_batch() {
        let bench = Bench::new();
        let image = |value: u8| image::RgbImage::from_pixel(8, 8, image::Rgb([value; 3]));
        let pair = |name: &str, value: u8| {
            let files = [to_png(&image(value)), to_png(&image(255 - value))];
            let meta = br#"{"source_id": "x", "task": "pairs"}"#;
            bench.item(
                name,
                &[("input.png", &files[0]), ("target.png", &files[1]), ("meta.json", meta)],
            )
        };
        let (a, b) = (pair("a", 10), pair("b", 90));
        let run = |items: &[Item]| {
            let inputs = bench.inputs(&[("pairs", ArtifactKind::Pairs, items)]);
            let items = bench.run(&interpolate(9), &inputs).unwrap();
            items.iter().map(|item| (item.name.clone(), item.digest())).collect::<Vec<_>>()
        };
        let both = run(&[a.clone(), b.clone()]);
        assert_eq!(both, [run(std::slice::from_ref(&a)), run(&[b])].concat());
        let inputs = bench.inputs(&[("pairs", ArtifactKind::Pairs, &[a])]);
        let items = bench.run(&interpolate(9), &inputs).unwrap();
        let bytes = inputs.read(&items[0], videos::FILE).unwrap();
        let frames = videos::Clip::from_bytes(&bytes).unwrap().images();
        assert_eq!((frames.len(), &frames[0], &frames[8]), (9, &image(10), &image(245)));
    }

    #[test]
    fn tiles_of_no_pixel_are_refused() {
        let error = |grid| Interpolate { grid, ..interpolate(9) }.check_size([8, 12]);
        assert_eq!(error(8), None);
        let wrong = error(9).unwrap();
        insta::assert_snapshot!(wrong.message, @"`grid` divides a side into 9, but the height has only 8 pixels");
        insta::assert_snapshot!(wrong.help.unwrap(), @"take 8 at most, or larger images");
        let other = Interpolate { method: Interpolation::Linear, grid: 64, ..interpolate(9) };
        assert_eq!(other.check_size([8, 8]), None, "it has no tiles");
    }

    #[test]
    fn the_order_of_tiles_is_a_permutation_by_seed_and_content() {
        let item = |name: &str, content: &[u8]| {
            let file = crate::artifact::FileRef { digest: Digest::of(content), size: 1 };
            Item { name: name.into(), files: BTreeMap::from([("input.png".into(), file)]) }
        };
        let order = interpolate(9).tile_order(&item("a", b"x"));
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..16).collect::<Vec<_>>());
        assert_eq!(order, interpolate(9).tile_order(&item("b", b"x")), "the name does not matter");
        assert_ne!(order, interpolate(9).tile_order(&item("a", b"y")));
        let other = Interpolate { seed: Some(2), ..interpolate(9) };
        assert_ne!(order, other.tile_order(&item("a", b"x")));
    }
}
