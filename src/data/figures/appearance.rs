//! Clips in which nothing moves and everything may look different: the same layout, part by part
//! in new colours. They teach a model that the last frame is a function of the first.

use super::body::Look;
use super::canvas::Canvas;
use super::color::{Color, any, blend, distinct, luma, plain, puppet, same, scale};
use super::rng::{Rng, sin_cos};
use super::scene::{Actor, Background, Scene};

/// What changes between the first and the last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Flat part colours on a plain ground, limbs often thinner.
    Puppet,
    /// Other clothes, perhaps before another background.
    Clothes,
    /// Every colour replaced by a new one, shading kept or dropped.
    Recolor,
    /// The parts exchange their colours.
    Permute,
    /// Only the background: plain, or another one.
    Backdrop,
    /// Shading, pattern and texture go.
    Flatten,
    /// The whole picture: light, blur, hue, contrast.
    Filter,
    /// Shapes instead of figures, each in a new colour.
    Toys,
}

const CHANGES: [(Change, u32); 8] = [
    (Change::Puppet, 27),
    (Change::Clothes, 13),
    (Change::Recolor, 13),
    (Change::Permute, 7),
    (Change::Backdrop, 10),
    (Change::Flatten, 7),
    (Change::Filter, 12),
    (Change::Toys, 11),
];

/// How often the change runs backwards.
const REVERSED: f32 = 0.15;

/// How often a clip has two figures.
const PAIRS: f32 = 0.1;

/// The first and the last picture of an appearance-only clip.
pub(super) fn change(rng: &mut Rng, size: [usize; 2]) -> (Canvas, Canvas) {
    let change = rng.weighted(&CHANGES);
    let mut draw = rng.fork(1);
    let draw = &mut draw;
    let scene = if change == Change::Toys || (change == Change::Filter && draw.chance(0.3)) {
        Scene::toys(&mut rng.fork(2), size)
    } else {
        Scene::figures(&mut rng.fork(2), size, PAIRS)
    };
    let before = scene.render(size);
    let after = match change {
        Change::Puppet => puppets(draw, &scene).render(size),
        Change::Clothes => clothes(draw, &scene, size).render(size),
        Change::Recolor => recolor(draw, &scene).render(size),
        Change::Permute => permute(draw, &scene).render(size),
        Change::Backdrop => backdrop(draw, &scene, size).render(size),
        Change::Flatten => flatten(draw, &scene).render(size),
        Change::Filter => Filter::draw(draw).apply(&before),
        Change::Toys => toys(draw, &scene).render(size),
    };
    if rng.chance(REVERSED) { (after, before) } else { (before, after) }
}

fn puppets(rng: &mut Rng, scene: &Scene) -> Scene {
    let [ground, head, torso, arms, legs] = puppet(rng);
    let limbs = if rng.chance(0.65) { rng.range(0.55, 0.9) } else { rng.range(0.9, 1.25) };
    let mut look = Look::flat([head, torso, arms, legs], limbs);
    if rng.chance(0.3) {
        look.shade = rng.range(0.05, 0.2);
    }
    if rng.chance(0.25) {
        look.hair = distinct(rng, any, &[head, ground], 120.0);
    }
    let background = match rng.below(8) {
        0 => scene.background.simplified(),
        _ => Background::plain(ground),
    };
    dress(scene, background, |_, _| look)
}

/// The same bodies in new looks.
fn dress(
    scene: &Scene,
    background: Background,
    mut look: impl FnMut(usize, &Look) -> Look,
) -> Scene {
    let actors = scene
        .actors
        .iter()
        .enumerate()
        .map(|(at, actor)| Actor { body: actor.body.clone(), look: look(at, &actor.look) })
        .collect();
    Scene { background, toys: scene.toys.clone(), actors }
}

fn wide(size: [usize; 2]) -> f32 {
    size[1] as f32 / size[0] as f32
}

fn clothes(rng: &mut Rng, scene: &Scene, size: [usize; 2]) -> Scene {
    let background = if rng.chance(0.5) {
        scene.background.clone()
    } else {
        Background::quiet(&mut rng.fork(1), wide(size))
    };
    let limbs = if rng.chance(0.4) { rng.range(0.6, 1.4) } else { 1.0 };
    let ground = background.ground();
    dress(scene, background, |_, _| Look { limbs, ..Look::dressed(rng, ground) })
}

fn recolor(rng: &mut Rng, scene: &Scene) -> Scene {
    let background = match rng.below(4) {
        0 => scene.background.clone(),
        _ => Background::plain(plain(rng)),
    };
    let ground = background.ground();
    let flat = rng.chance(0.6);
    dress(scene, background, |_, look| {
        let look = look.recolored(rng, ground);
        if flat { look.flattened() } else { look }
    })
}

fn permute(rng: &mut Rng, scene: &Scene) -> Scene {
    let Some(first) = scene.actors.first() else { return scene.clone() };
    let look = &first.look;
    let ground = scene.background.ground();
    let own = [ground, look.skin, look.shirt, look.trousers, look.sleeves];
    // A rotation by at least one: no part keeps its colour.
    let shift = 1 + rng.below(4);
    let at = |part: usize| own[(part + shift) % 5];
    let background = Background::plain(at(0));
    let flat = rng.chance(0.5);
    dress(scene, background, |_, look| {
        let swapped =
            |color: Color| own.iter().position(|other| same(*other, color)).map_or(color, &at);
        let new = Look {
            skin: swapped(look.skin),
            shirt: swapped(look.shirt),
            sleeves: swapped(look.sleeves),
            forearms: swapped(look.forearms),
            hands: swapped(look.hands),
            trousers: swapped(look.trousers),
            shins: swapped(look.shins),
            ..*look
        };
        if flat { new.flattened() } else { new }
    })
}

fn backdrop(rng: &mut Rng, scene: &Scene, size: [usize; 2]) -> Scene {
    let colors = scene.colors();
    let background = match rng.below(5) {
        0 => Background::quiet(&mut rng.fork(1), wide(size)),
        1 => scene.background.simplified(),
        _ => Background::plain(distinct(rng, plain, &colors[1..], 110.0)),
    };
    Scene { background, ..scene.clone() }
}

fn flatten(rng: &mut Rng, scene: &Scene) -> Scene {
    let background = match rng.below(2) {
        0 => scene.background.simplified(),
        _ => Background::plain(scene.background.ground()),
    };
    let limbs = if rng.chance(0.3) { rng.range(0.6, 1.3) } else { 1.0 };
    dress(scene, background, |_, look| Look { limbs, ..look.flattened() })
}

fn toys(rng: &mut Rng, scene: &Scene) -> Scene {
    let mut scene = scene.clone();
    if rng.chance(0.65) {
        scene.background = Background::plain(plain(rng));
    }
    let ground = scene.background.ground();
    let flat = rng.chance(0.6);
    for toy in &mut scene.toys {
        let old = toy.color;
        toy.color = distinct(rng, any, &[ground, old], 130.0);
        if flat {
            toy.shade = 0.0;
            toy.spot = None;
        }
    }
    scene
}

/// A change of the whole picture.
#[derive(Clone, Copy, Debug)]
enum Filter {
    /// Radius in image heights.
    Blur(f32),
    /// Light falling from one side: direction and strength.
    Light([f32; 2], f32),
    Invert,
    Posterise(f32),
    /// Hue turned by this many degrees.
    Hue(f32),
    /// Contrast around the middle, and brightness.
    Levels(f32, f32),
    /// Toward one colour by luma.
    Tint(Color, f32),
}

impl Filter {
    fn draw(rng: &mut Rng) -> Self {
        match rng.below(7) {
            0 => Self::Blur(rng.range(0.02, 0.06)),
            1 => {
                let (sin, cos) = sin_cos(rng.range(0.0, 360.0));
                Self::Light([cos, sin], rng.range(0.4, 0.9))
            }
            2 => Self::Invert,
            3 => Self::Posterise(rng.range(60.0, 110.0)),
            4 => Self::Hue(rng.range(60.0, 300.0)),
            5 => Self::Levels(rng.range(0.4, 1.8), rng.range(-60.0, 60.0)),
            _ => Self::Tint(any(rng), rng.range(0.5, 0.95)),
        }
    }

    fn apply(self, canvas: &Canvas) -> Canvas {
        let mut changed = canvas.clone();
        if let Self::Blur(radius) = self {
            blur(&mut changed, (radius * canvas.height as f32).round().max(1.0) as usize);
            return changed;
        }
        let (width, height) = (canvas.width as f32, canvas.height as f32);
        for (at, pixel) in changed.pixels.iter_mut().enumerate() {
            let (x, y) = ((at % canvas.width) as f32 / width, (at / canvas.width) as f32 / height);
            *pixel = match self {
                Self::Light([dx, dy], strength) => {
                    scale(*pixel, 1.0 + strength * (dx * (x - 0.5) + dy * (y - 0.5)) * 1.4)
                }
                Self::Invert => pixel.map(|value| 255.0 - value),
                Self::Posterise(step) => {
                    pixel.map(|value| ((value / step).round() * step).min(255.0))
                }
                Self::Hue(degrees) => turn_hue(*pixel, degrees),
                Self::Levels(contrast, brightness) => {
                    pixel.map(|v| ((v - 128.0) * contrast + 128.0 + brightness).clamp(0.0, 255.0))
                }
                Self::Tint(color, weight) => {
                    blend(*pixel, scale(color, 0.2 + luma(*pixel) / 160.0), weight)
                }
                Self::Blur(_) => *pixel,
            };
        }
        changed
    }
}

/// A rotation of the colour cube about its grey diagonal.
fn turn_hue(color: Color, degrees: f32) -> Color {
    let (sin, cos) = sin_cos(degrees);
    let (same, skew) = ((1.0 - cos) / 3.0, sin * 0.577_350_26);
    std::array::from_fn(|channel| {
        let (next, last) = (color[(channel + 1) % 3], color[(channel + 2) % 3]);
        (color[channel] * (cos + same) + next * (same - skew) + last * (same + skew))
            .clamp(0.0, 255.0)
    })
}

/// Two passes of a box filter on each axis, edges repeated.
fn blur(canvas: &mut Canvas, radius: usize) {
    let (width, height) = (canvas.width, canvas.height);
    let weight = 1.0 / (2 * radius + 1) as f32;
    for pass in 0..4 {
        let (lines, length, step, stride) =
            if pass % 2 == 0 { (height, width, 1, width) } else { (width, height, width, 1) };
        let mut line = vec![[0.0; 3]; length];
        for start in (0..lines).map(|line| line * stride) {
            for (at, value) in line.iter_mut().enumerate() {
                *value = canvas.pixels[start + at * step];
            }
            for at in 0..length {
                let mut sum = [0.0; 3];
                for tap in 0..=2 * radius {
                    let from = line[(at + tap).saturating_sub(radius).min(length - 1)];
                    sum = std::array::from_fn(|channel| sum[channel] + from[channel]);
                }
                canvas.pixels[start + at * step] = sum.map(|value| value * weight);
            }
        }
    }
}
