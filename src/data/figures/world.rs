//! The clips a small model is pretrained on.

use image::RgbImage;

use super::canvas::Canvas;
use super::ramp::{self, RAMPS};
use super::rng::Rng;
use super::scene::Scene;
use super::{WORLD, appearance, motion};

/// What a clip of the procedural world shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClipKind {
    /// Nothing moves; colours, light or texture change, mostly part by part of a figure.
    Appearance,
    /// A figure walks, waves or changes its pose; the camera may pan.
    Motion,
    /// Shapes roll, grow, morph, appear and disappear.
    Shapes,
    /// One scene gives way to another, or to a plain colour.
    Dissolve,
    /// Thin bright drawings in random colours, without which a video VAE blurs them.
    LineArt,
}

/// How often each kind is drawn, in percent.
///
/// Half of the clips change appearance only: without them, adapters of a small model learn
/// nothing from a few pairs. A VAE that never saw line art blurs thin bright lines.
pub const MIXTURE: [(ClipKind, u32); 5] = [
    (ClipKind::Appearance, 54),
    (ClipKind::Motion, 14),
    (ClipKind::Shapes, 10),
    (ClipKind::Dissolve, 10),
    (ClipKind::LineArt, 12),
];

/// The kind of clip `index`.
pub fn clip_kind(seed: u64, index: u64) -> ClipKind {
    Rng::new(WORLD, seed, index).weighted(&MIXTURE)
}

/// Clip `index` of the world: `frames` images of `[height, width]`, first to last.
///
/// The clip depends on its arguments only. No clip holds a target of a task: no skeleton drawing,
/// no mask, no grid of cells.
pub fn world_clip(seed: u64, index: u64, size: [usize; 2], frames: usize) -> Vec<RgbImage> {
    let mut rng = Rng::new(WORLD, seed, index);
    let kind = rng.weighted(&MIXTURE);
    let mut draw = rng.fork(100);
    let draw = &mut draw;
    let images = |canvases: Vec<Canvas>| canvases.iter().map(Canvas::image).collect();
    match kind {
        ClipKind::Appearance => {
            let (before, after) = appearance::change(draw, size);
            ramp(&mut rng, &before, &after, frames)
        }
        ClipKind::Motion => images(motion::figures(draw, size, frames)),
        ClipKind::Shapes => images(motion::toys(draw, size, frames)),
        ClipKind::Dissolve => {
            let mut before = Scene::any(&mut draw.fork(1), size).render(size);
            let mut after = if draw.chance(0.3) {
                motion::veil(draw, size)
            } else {
                Scene::any(&mut draw.fork(2), size).render(size)
            };
            if draw.chance(0.3) {
                std::mem::swap(&mut before, &mut after);
            }
            ramp(&mut rng, &before, &after, frames)
        }
        ClipKind::LineArt => images(motion::lines(draw, size, frames)),
    }
}

fn ramp(rng: &mut Rng, before: &Canvas, after: &Canvas, frames: usize) -> Vec<RgbImage> {
    let method = rng.weighted(&RAMPS);
    ramp::clip(method, &before.image(), &after.image(), frames, rng)
}
