//! Other views of the world of [`super::figure`]: body parts, distances, single shapes.

use image::{Luma, RgbImage};

use super::body::Look;
use super::canvas::{Canvas, Outline, Paint, Shape};
use super::color::{any, distinct};
use super::rng::{Rng, sin_cos};
use super::scene::{Background, Scene};
use super::{FIGURE, PAIRS};
use crate::data::{Depth, Labels};

/// The parts of a figure, in the order of their labels.
pub const PARTS: [&str; 4] = ["head", "torso", "arms", "legs"];

/// The shapes of [`shape`].
pub const SHAPES: [&str; 7] = ["disc", "square", "bar", "triangle", "pentagon", "hexagon", "ring"];

/// Domain of the streams of [`shape`].
const SHAPE: u64 = 3;

/// Colours that no blend of two of them comes near.
const PART_COLORS: [[f32; 3]; 4] =
    [[255.0; 3], [0.0, 0.0, 255.0], [255.0, 0.0, 0.0], [0.0, 255.0, 0.0]];

/// The distance of the wall in metres.
const WALL: f32 = 6.0;

/// Inverse metres by which the floor is nearer, an image height below where it begins: as a camera
/// sees it, whose height times its focal length is one metre.
const FLOOR: f32 = 1.0;

/// The distance in metres of a figure of which a unit is an image height: what stands on the floor
/// of an average picture is as far away by its size as by its place.
const UNIT: f32 = 1.6;

/// The part of a figure at each pixel of [`super::figure`]: a place in [`PARTS`] from 1, or 0.
pub fn part_labels(seed: u64, index: u64, size: [usize; 2]) -> Labels {
    let scene = Scene::figures(&mut Rng::new(FIGURE, seed, index), size, PAIRS);
    let mut canvas = Canvas::new(size, |_| [0.0; 3]);
    for actor in &scene.actors {
        actor.body.paint(&mut canvas, &Look::flat(PART_COLORS, 1.0));
    }
    let drawn = canvas.image();
    Labels::from_fn(drawn.width(), drawn.height(), |x, y| {
        let pixel = drawn.get_pixel(x, y).0.map(f32::from);
        let far = |color: &[f32; 3]| -> f32 {
            pixel.iter().zip(color).map(|(a, b)| (a - b) * (a - b)).sum()
        };
        let mut best = (far(&[0.0; 3]), 0);
        for (part, color) in PART_COLORS.iter().enumerate() {
            if far(color) < best.0 {
                best = (far(color), part as u16 + 1);
            }
        }
        Luma([best.1])
    })
}

/// The distance of each pixel of [`super::figure`]. All of it is to be seen in the picture: the
/// wall is at one distance; the floor, if there is one, comes nearer from its edge on; who stands
/// on it is as far away as where their feet are, others as their size says, and before what they
/// cover.
pub fn depth(seed: u64, index: u64, size: [usize; 2]) -> Depth {
    let scene = Scene::figures(&mut Rng::new(FIGURE, seed, index), size, PAIRS);
    let height = size[0] as f32;
    let edge = scene.background.floor_edge().unwrap_or(1.0);
    let behind = |y: u32| {
        let below = ((y as f32 + 0.5) / height - edge).max(0.0);
        1.0 / (1.0 / WALL + FLOOR * below)
    };
    let mut depth = Depth::from_fn(size[1] as u32, size[0] as u32, |_, y| Luma([behind(y)]));
    let mut canvas = Canvas::new(size, |_| [0.0; 3]);
    for actor in &scene.actors {
        canvas.cover.fill(0.0);
        actor.body.paint(&mut canvas, &Look::flat(PART_COLORS, 1.0));
        let mask = canvas.mask();
        let covered = || mask.enumerate_pixels().filter(|(_, _, cover)| cover.0[0] > 0);
        let feet = covered().map(|(_, y, _)| behind(y)).fold(WALL, f32::min);
        let alone = if feet < WALL { feet } else { UNIT * height / actor.body.place.scale };
        let nearest = covered().map(|(x, y, _)| depth.get_pixel(x, y).0[0]).fold(WALL, f32::min);
        for (x, y, _) in covered() {
            depth.put_pixel(x, y, Luma([alone.min(nearest)]));
        }
    }
    depth
}

/// Image `index` of one shape, a name in [`SHAPES`], before a quiet background.
pub fn shape(seed: u64, index: u64, name: &str, size: [usize; 2]) -> RgbImage {
    let rng = Rng::new(SHAPE, seed, index);
    let [height, width] = size.map(|side| side as f32);
    let background = Background::quiet(&mut rng.fork(1), width / height);
    let mut draw = rng.fork(2);
    let mut canvas = background.canvas(size, [0.0, 0.0]);
    let color = distinct(&mut draw, any, &[background.ground()], 130.0);
    let radius = draw.range(0.28, 0.42) * height.min(width);
    let mut place = |side: f32| draw.range(radius * 1.05, side - radius * 1.05);
    let centre = [place(width), place(height)];
    let turn = sin_cos(draw.range(0.0, 360.0));
    let outline =
        |outline| Shape::Morph { centre, radius, from: outline, to: outline, mix: 0.0, turn };
    let shape = match name {
        "disc" => outline(Outline::Disc),
        "square" => outline(Outline::Box(1.0)),
        "bar" => outline(Outline::Box(0.35)),
        "triangle" => outline(Outline::Regular(3)),
        "pentagon" => outline(Outline::Regular(5)),
        "hexagon" => outline(Outline::Regular(6)),
        _ => Shape::Ring { centre, radius: radius * 0.8, width: radius * 0.35 },
    };
    canvas.fill(&shape, &Paint::flat(color));
    canvas.image()
}
