//! `builtin:figures`: a procedural world of articulated figures.
//!
//! [`figure`] makes the annotated images that stand in for COCO: large figures with thick limbs
//! and clothes of clearly different colours before a quiet background, with COCO's 17 keypoints
//! and a mask. [`world_clip`] makes the clips a small model is pretrained on.
//!
//! Every item is a function of `(seed, index, size)` alone: indices draw from streams of their
//! own (see `rng`), sines come from a polynomial, and only operations that IEEE 754 rounds
//! exactly are used, so all platforms and thread counts give the same bytes.

mod appearance;
mod body;
mod canvas;
mod color;
mod motion;
mod pose;
mod ramp;
mod rng;
mod scene;
mod views;
mod world;

use image::{GrayImage, RgbImage};

use self::rng::{Rng, mix};
use self::scene::Scene;
use super::{Person, Sample};

pub use self::views::{PARTS, SHAPES, depth, part_labels, shape};
pub use self::world::{ClipKind, MIXTURE, clip_kind, world_clip};

/// Domain of the streams of [`figure`].
const FIGURE: u64 = 1;
/// Domain of the streams of [`world_clip`]: pretraining never sees a figure of a data set.
const WORLD: u64 = 2;

/// How often a sample has two figures.
const PAIRS: f32 = 0.12;

/// The parts of a data set that must not share a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// Figures to learn from.
    Train,
    /// Figures to be scored on.
    Test,
}

impl Split {
    /// The seed of this split's figures, for [`figure`].
    pub fn seed(self, seed: u64) -> u64 {
        match self {
            Self::Train => seed,
            Self::Test => mix(seed ^ 0x7465_7374),
        }
    }
}

/// Figure `index` of the world: an image of `[height, width]` with one figure, now and then two.
///
/// Keypoints outside of the image have visibility 0, hidden ones 1, the others 2.
pub fn figure(seed: u64, index: u64, size: [usize; 2]) -> Sample {
    sample(&Scene::figures(&mut Rng::new(FIGURE, seed, index), size, PAIRS), index, size)
}

/// The picture of [`figure`] with more to see: shapes and texture behind the figure, stripes on its
/// shirt.
pub fn photograph(seed: u64, index: u64, size: [usize; 2]) -> Sample {
    sample(&Scene::photograph(&mut Rng::new(FIGURE, seed, index), size, PAIRS), index, size)
}

fn sample(scene: &Scene, index: u64, size: [usize; 2]) -> Sample {
    let mut canvas = scene.background.canvas(size, [0.0, 0.0]);
    let mut persons = Vec::new();
    let mut mask = GrayImage::new(size[1] as u32, size[0] as u32);
    for actor in &scene.actors {
        canvas.cover.fill(0.0);
        actor.body.paint(&mut canvas, &actor.look);
        // Figures painted before are behind this one.
        for person in &mut persons {
            hide(person, |point| canvas.covered_at(point) >= 0.5);
        }
        persons.push(person(&actor.body, size));
        for (value, own) in mask.iter_mut().zip(canvas.mask().iter()) {
            *value = (*value).max(*own);
        }
    }
    let image: RgbImage = canvas.image();
    let id = format!("figure-{index:06}");
    Sample { id, image, persons, mask: Some(mask), ..Sample::default() }
}

/// The keypoints of a body as COCO annotates them.
fn person(body: &body::Body, [height, width]: [usize; 2]) -> Person {
    let hidden = body.hidden();
    let points = body.keypoints();
    Person {
        keypoints: std::array::from_fn(|at| {
            let [x, y] = points[at];
            let inside = x >= 0.0 && y >= 0.0 && x < width as f32 && y < height as f32;
            match (inside, hidden[at]) {
                (false, _) => [0.0, 0.0, 0.0],
                (true, true) => [x, y, 1.0],
                (true, false) => [x, y, 2.0],
            }
        }),
    }
}

fn hide(person: &mut Person, is_covered: impl Fn([f32; 2]) -> bool) {
    for [x, y, visibility] in &mut person.keypoints {
        if *visibility > 1.0 && is_covered([*x, *y]) {
            *visibility = 1.0;
        }
    }
}

#[cfg(test)]
mod tests;
