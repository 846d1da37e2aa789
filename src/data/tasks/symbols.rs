//! `symbols`: a grid of small images to a grid of the symbols of their classes
//! (docs/method.md, A.6).

use image::{Rgb, RgbImage, imageops};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Knowledge, Task};
use crate::{
    data::{DataError, Pair, ParamError, Request, Sample, SymbolGrid, sets::Images},
    rng::TorchRng,
};

/// Classes and cells of a grid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Symbols {
    /// The classes, by the names of the data set; empty takes the first seven.
    pub classes: Vec<String>,
    /// The number of images of each class that are used; all there are by default.
    pub per_class: Option<usize>,
    /// Cells per side of the grid.
    #[schemars(range(min = 1, max = 16))]
    pub side: usize,
}

impl Default for Symbols {
    fn default() -> Self {
        Self { classes: Vec::new(), per_class: None, side: 4 }
    }
}

/// Classes taken where none are named.
const USUAL: usize = 7;

/// The colours of the symbols; each has a shape of its own, too.
const COLORS: [[u8; 3]; 8] = [
    [255, 0, 0],
    [0, 255, 0],
    [0, 0, 255],
    [255, 255, 0],
    [255, 0, 255],
    [0, 255, 255],
    [255, 255, 255],
    [255, 128, 0],
];

impl Symbols {
    /// The classes of the grids among those of a data set.
    pub fn pick(&self, all: &[String]) -> Result<Vec<String>, DataError> {
        if self.classes.is_empty() {
            return Ok(all.iter().take(USUAL).cloned().collect());
        }
        if let Some(unknown) = self.classes.iter().find(|class| !all.contains(class)) {
            return Err(DataError::failed(format!("the data has no class `{unknown}`"))
                .with_help(format!("the classes are: {}", all.join(", "))));
        }
        if let Some((place, class)) = self
            .classes
            .iter()
            .enumerate()
            .find(|(place, class)| self.classes[..*place].contains(class))
        {
            let message =
                format!("`symbols.classes` names `{class}` twice, again at place {place}");
            return Err(DataError::failed(message).with_help("name each class once"));
        }
        Ok(self.classes.clone())
    }
}

/// The symbol of a class, `side` pixels wide, on black.
pub fn symbol(class: usize, side: u32) -> RgbImage {
    RgbImage::from_fn(side, side, |x, y| {
        let place = |at: u32| (2.0 * f64::from(at) + 1.0) / f64::from(side) - 1.0;
        Rgb(if is_inside(class, place(x), place(y)) { COLORS[class % 8] } else { [0; 3] })
    })
}

/// Whether a point of the square from -1 to 1 lies in the shape of a class.
fn is_inside(class: usize, x: f64, y: f64) -> bool {
    let radius = x.hypot(y);
    match class % 8 {
        0 => radius < 0.8,
        1 => x.abs().max(y.abs()) < 0.5,
        2 => (-0.7..0.75).contains(&y) && x.abs() < 0.5 * (y + 0.75),
        3 => x.abs().min(y.abs()) < 0.28 && x.abs().max(y.abs()) < 0.8,
        4 => (0.45..0.85).contains(&radius),
        5 => (0.4..0.85).contains(&(x.abs() + y.abs())),
        6 => y.abs() < 0.8 && (y + 1.0).rem_euclid(0.8) < 0.4,
        _ => (x - y).abs().min((x + y).abs()) < 0.35 && x.abs().max(y.abs()) < 0.8,
    }
}

/// The seed of a grid's images. It differs between splits: the world of [`crate::data::figures`]
/// has an image of the same class at each place of both.
fn layout_seed(request: &Request, place: usize) -> u64 {
    // The generator takes 32 bits of a seed.
    const TEST: u64 = 0x7465_7374;
    let split = if request.is_train() { 0 } else { TEST };
    request.seed() ^ split ^ (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

pub(super) struct SymbolsTask;

impl Task for SymbolsTask {
    fn name(&self) -> &'static str {
        "symbols"
    }

    fn doc(&self) -> &'static str {
        "A grid of small images to a grid of the symbols of their classes."
    }

    fn params(&self) -> &'static [&'static str] {
        &["symbols"]
    }

    fn needs(&self) -> Knowledge {
        Knowledge::Class
    }

    fn image_size(&self, request: &Request) -> [usize; 2] {
        request.size.map(|side| side / request.symbols.side.max(1))
    }

    fn check(&self, request: &Request) -> Vec<ParamError> {
        let Symbols { classes, side, per_class } = &request.symbols;
        let mut problems = Vec::new();
        if request.count.is_none() {
            let message = "there is no end of grids, so `count` must be given";
            problems.push(ParamError::new("count", message).help("for example count = 30"));
        }
        let [height, width] = request.size;
        if !(1..=16).contains(side) || height != width || height % (*side).max(1) != 0 {
            problems.push(
                ParamError::new(
                    "symbols.side",
                    format!("must divide a square `size`, but is {side} of {height}x{width}"),
                )
                .help("for example side = 4 and size = [256, 256]"),
            );
        }
        if classes.len() == 1 || classes.len() > COLORS.len() {
            let message = format!("must be 2 to {}, but are {}", COLORS.len(), classes.len());
            problems
                .push(ParamError::new("symbols.classes", message).help("each class has a symbol"));
        }
        if *per_class == Some(0) {
            let message = "must be at least 1, but is 0";
            problems.push(
                ParamError::new("symbols.per_class", message).help("leave it out to take all"),
            );
        }
        problems
    }

    fn count(&self, _: &dyn Images) -> Option<usize> {
        None
    }

    fn revision(&self) -> u32 {
        // 1: grids say which images they show.
        1
    }

    fn pair(
        &self,
        images: &dyn Images,
        place: usize,
        request: &Request,
    ) -> Result<(String, Pair), DataError> {
        /// Images of an endless world that may be shown.
        const WORLD: u64 = 1 << 20;
        let there = images.count().map_or(WORLD, |count| count as u64);
        if there == 0 {
            return Err(DataError::failed("no image of the data fits the stage's parameters"));
        }
        let side = request.symbols.side;
        let patch = (request.size[0] / side) as u32;
        let [height, width] = request.size.map(|side| side as u32);
        let mut pair = super::pair(RgbImage::new(width, height), RgbImage::new(width, height));
        let (mut cells, mut ids) = (Vec::new(), Vec::new());
        let layout = TorchRng::new(layout_seed(request, place)).randint(there, side * side);
        for (cell, chosen) in layout.into_iter().enumerate() {
            let sample = super::resized(images, chosen as usize, request)?;
            let class = sample.class.ok_or_else(|| super::lacks("class").on_item(&sample.id))?;
            let (x, y) = ((cell % side) as u32 * patch, (cell / side) as u32 * patch);
            imageops::replace(&mut pair.input, &sample.image, i64::from(x), i64::from(y));
            let drawn = symbol(class, patch);
            imageops::replace(&mut pair.target, &drawn, i64::from(x), i64::from(y));
            cells.push(class);
            ids.push(sample.id);
        }
        let name = format!("grid-{place:06}");
        let classes = images.classes().to_vec();
        pair.meta.symbols = Some(SymbolGrid { classes, cells, ids, side });
        self.name().clone_into(&mut pair.meta.task);
        pair.meta.source_id.clone_from(&name);
        Ok((name, pair))
    }

    fn draw(&self, _: Sample, _: &Request) -> Result<Pair, DataError> {
        Err(DataError::failed("a grid is made of several images"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_differ_in_shape_and_colour() {
        let lit = |image: &RgbImage| -> Vec<bool> {
            image.pixels().map(|pixel| pixel.0 != [0; 3]).collect()
        };
        for a in 0..8 {
            for b in 0..a {
                let (one, other) = (symbol(a, 16), symbol(b, 16));
                let apart = lit(&one).iter().zip(lit(&other)).filter(|(a, b)| **a != *b).count();
                assert!(apart >= 16, "{a} {b}: {apart}");
            }
        }
    }

    #[test]
    fn no_grid_of_a_test_is_one_of_the_training() {
        let cells = |split: &str, seed: u64| -> Vec<Vec<usize>> {
            let request: Request = serde_json::from_value(serde_json::json!({
                "source": "builtin:figures", "task": "symbols", "size": [64, 64], "split": split,
                "count": 24, "seed": seed, "symbols": { "side": 4 },
            }))
            .unwrap();
            let nowhere = crate::store::SourceReader::new(std::path::Path::new(""));
            let images = request.source.source.open(&request, &nowhere).unwrap();
            let pair = |place| request.task.pair(&*images, place, &request).unwrap().1;
            (0..24).map(|place| pair(place).meta.symbols.unwrap().cells).collect()
        };
        for seed in [0, 4, 42] {
            let (train, test) = (cells("train", seed), cells("test", seed));
            assert!(test.iter().all(|grid| !train.contains(grid)), "seed {seed}");
        }
    }
}
