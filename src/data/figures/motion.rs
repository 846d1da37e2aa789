//! Clips in which something moves: figures, the camera, shapes and bright lines.

use super::canvas::{Canvas, Outline, Paint, Point, Shape, add};
use super::color::{Color, distinct, hsv, line_colors, plain};
use super::pose::{Arm, Pose, Room};
use super::rng::{Rng, sin_cos};
use super::scene::{Background, Scene, Toy, outline};
use crate::data::interpolation::progress;

fn wide(size: [usize; 2]) -> f32 {
    size[1] as f32 / size[0] as f32
}

/// How a figure moves.
#[derive(Clone, Copy)]
enum Move {
    /// Legs and arms swing; the figure may cross the image.
    Walk,
    /// One raised forearm swings.
    Wave,
    /// From one pose to another.
    Change,
    /// The figure stands; only the camera moves.
    Still,
}

/// A figure that walks, waves or changes its pose, often under a panning camera.
pub(super) fn figures(rng: &mut Rng, size: [usize; 2], frames: usize) -> Vec<Canvas> {
    let mut draw = rng.fork(1);
    let draw = &mut draw;
    let mut scene = Scene::figures(&mut rng.fork(2), size, 0.1);
    let action =
        draw.weighted(&[(Move::Walk, 30), (Move::Wave, 20), (Move::Change, 30), (Move::Still, 20)]);
    let pan = if matches!(action, Move::Still) || draw.chance(0.35) {
        scene.background = Background::rich(&mut rng.fork(3), wide(size));
        let (sin, cos) = sin_cos(draw.range(-25.0, 25.0));
        let reach = draw.sign() * draw.range(0.1, 0.4) * size[0] as f32;
        [cos * reach, sin * reach]
    } else {
        [0.0, 0.0]
    };
    // The camera follows the figure, or passes it.
    let follow = draw.chance(0.5);
    let cross = draw.around(0.25) * size[0] as f32;
    let turn = draw.sign() * draw.range(15.0, 50.0);
    let (phase, tempo) = (draw.range(0.0, 360.0), draw.range(120.0, 400.0));
    let next: Vec<Pose> = scene
        .actors
        .iter()
        .map(|actor| {
            let pose = Pose::draw(draw, Room::Wide);
            // Half of the poses change in the arms only.
            if draw.chance(0.5) { Pose { arms: pose.arms, ..actor.body.pose } } else { pose }
        })
        .collect();
    (0..frames)
        .map(|frame| {
            let u = progress(frame, frames);
            let shift = [pan[0] * u, pan[1] * u];
            let mut canvas = scene.background.canvas(size, shift);
            for (actor, next) in scene.actors.iter().zip(&next) {
                let angle = phase + tempo * u;
                let body = match action {
                    Move::Walk => actor
                        .body
                        .posed(walking(&actor.body.pose, angle, turn), true)
                        .moved([cross * (u - 0.5), 0.0]),
                    Move::Wave => actor.body.posed(waving(&actor.body.pose, angle), false),
                    Move::Change => {
                        let weight = u * u * (3.0 - 2.0 * u);
                        actor.body.posed(actor.body.pose.toward(next, weight), true)
                    }
                    Move::Still => actor.body.clone(),
                };
                let body = if follow { body } else { body.moved([-shift[0], -shift[1]]) };
                body.paint(&mut canvas, &actor.look);
            }
            canvas
        })
        .collect()
}

/// One step of a walk, turned towards where it goes.
fn walking(rest: &Pose, phase: f32, yaw: f32) -> Pose {
    let swing = sin_cos(phase).0;
    let mut pose = Pose { yaw, lean: rest.lean * 0.3, ..*rest };
    for side in 0..2 {
        let along = if side == 0 { swing } else { -swing };
        pose.legs[side].spread = 4.0;
        pose.legs[side].forward = 32.0 * along;
        pose.legs[side].knee = 12.0 + 22.0 * (-along).max(0.0);
        pose.arms[side] =
            Arm { spread: 10.0, forward: -30.0 * along, bend_out: 0.0, bend_forward: 20.0 };
    }
    pose
}

fn waving(rest: &Pose, phase: f32) -> Pose {
    let mut pose = *rest;
    pose.arms[0] = Arm {
        spread: 95.0,
        forward: 5.0,
        bend_out: 65.0 + 40.0 * sin_cos(phase).0,
        bend_forward: 5.0,
    };
    pose
}

/// How a toy changes over a clip.
struct Play {
    toy: Toy,
    to: Outline,
    travel: Point,
    roll: f32,
    /// Radius at the end, as a factor.
    growth: f32,
    /// Opacity at the start and at the end.
    fade: [f32; 2],
    /// When a fading toy starts and ends to fade.
    window: [f32; 2],
}

/// Shapes that roll, slide, grow, shrink, morph, appear and disappear.
pub(super) fn toys(rng: &mut Rng, size: [usize; 2], frames: usize) -> Vec<Canvas> {
    let mut draw = rng.fork(1);
    let draw = &mut draw;
    let wide = wide(size);
    let background = if draw.chance(0.3) {
        Background::plain(plain(draw))
    } else {
        Background::quiet(&mut rng.fork(2), wide)
    };
    let still = background.canvas(size, [0.0, 0.0]);
    let plays: Vec<Play> =
        (0..=draw.below(4)).map(|_| play(draw, wide, background.ground())).collect();
    (0..frames)
        .map(|frame| {
            let u = progress(frame, frames);
            let mut canvas = still.clone();
            for play in &plays {
                let mut toy = play.toy;
                toy.centre = add(toy.centre, [play.travel[0] * u, play.travel[1] * u]);
                toy.angle += play.roll * u;
                toy.radius *= 1.0 + (play.growth - 1.0) * u;
                let when =
                    ((u - play.window[0]) / (play.window[1] - play.window[0])).clamp(0.0, 1.0);
                toy.opacity = play.fade[0] + (play.fade[1] - play.fade[0]) * when;
                toy.paint(&mut canvas, play.to, u);
            }
            canvas
        })
        .collect()
}

fn play(rng: &mut Rng, wide: f32, ground: Color) -> Play {
    let toy = Toy::draw(rng, wide, ground, [0.08, 0.26]);
    let mut play = Play {
        to: toy.outline,
        toy,
        travel: [0.0; 2],
        roll: 0.0,
        growth: 1.0,
        fade: [1.0; 2],
        window: [0.0, 1.0],
    };
    match rng.below(6) {
        0 => {
            // Rolling without slipping: the angle follows from the way.
            let way = rng.sign() * rng.range(0.15, 0.6);
            play.travel = [way, 0.0];
            play.roll = way / play.toy.radius * 57.295_78;
        }
        1 => play.travel = [rng.around(0.6), rng.around(0.6)],
        2 => play.growth = if rng.chance(0.5) { rng.range(1.4, 2.4) } else { rng.range(0.0, 0.6) },
        3 => {
            play.fade = if rng.chance(0.5) { [0.0, 1.0] } else { [1.0, 0.0] };
            let start = rng.range(0.0, 0.5);
            play.window = [start, start + rng.range(0.2, 0.5)];
        }
        4 => {
            play.to = outline(rng);
            play.roll = rng.around(120.0);
        }
        _ => {
            play.to = outline(rng);
            play.travel = [rng.around(0.4), rng.around(0.4)];
            play.growth = rng.range(0.6, 1.6);
        }
    }
    play
}

/// One bright stroke.
struct Stroke {
    shapes: Vec<Shape>,
    color: Color,
}

/// Thin bright drawings on a plain ground: polylines, dots, circles; never a figure. They appear
/// over the frames, drift, or are there from the start.
pub(super) fn lines(rng: &mut Rng, size: [usize; 2], frames: usize) -> Vec<Canvas> {
    let mut draw = rng.fork(1);
    let draw = &mut draw;
    let unit = size[0] as f32;
    let ground = match draw.below(10) {
        0..=4 => [draw.range(0.0, 6.0); 3],
        5..=6 => hsv(draw.range(0.0, 6.0), draw.range(0.2, 0.8), draw.range(0.05, 0.25)),
        7..=8 => [draw.range(235.0, 255.0); 3],
        _ => plain(draw),
    };
    let count = 2 + draw.below(6);
    let colors = line_colors(draw, count, ground);
    let strokes: Vec<Stroke> = colors.into_iter().map(|color| stroke(draw, size, color)).collect();
    let drift = if draw.chance(0.5) {
        [draw.around(0.3) * unit, draw.around(0.3) * unit]
    } else {
        [0.0, 0.0]
    };
    let appear = draw.chance(0.5);
    // Half of the appearing drawings come over a scene, which goes to the ground meanwhile.
    let first =
        (appear && draw.chance(0.5)).then(|| Scene::any(&mut rng.fork(2), size).render(size));
    let early = draw.chance(0.5);
    (0..frames)
        .map(|frame| {
            let u = progress(frame, frames);
            let weight = if early { u.sqrt() } else { u * u };
            let mut canvas = Canvas::new(size, |_| ground);
            let shift = [drift[0] * u, drift[1] * u];
            for stroke in &strokes {
                let opacity = if appear && first.is_none() { weight } else { 1.0 };
                let paint = Paint { opacity, ..Paint::flat(stroke.color) };
                for shape in &stroke.shapes {
                    canvas.fill(&shape.moved(shift), &paint);
                }
            }
            if let Some(first) = &first {
                canvas.toward(first, 1.0 - weight);
            }
            canvas
        })
        .collect()
}

fn stroke(rng: &mut Rng, size: [usize; 2], color: Color) -> Stroke {
    let unit = size[0] as f32;
    let anywhere =
        |rng: &mut Rng| [rng.range(0.06, 0.94) * size[1] as f32, rng.range(0.06, 0.94) * unit];
    let width = rng.range(1.0, 2.8) * unit / 64.0;
    let start = anywhere(rng);
    let shapes = match rng.below(4) {
        0 => (0..=rng.below(3))
            .map(|_| {
                let centre = anywhere(rng);
                Shape::disc(centre, rng.range(0.01, 0.05) * unit)
            })
            .collect(),
        1 => {
            let radius = rng.range(0.05, 0.25) * unit;
            vec![Shape::Ring { centre: start, radius, width }]
        }
        _ => {
            let mut from = start;
            let mut shapes = Vec::new();
            for _ in 0..=rng.below(4) {
                let (sin, cos) = sin_cos(rng.range(0.0, 360.0));
                let reach = rng.range(0.1, 0.4) * unit;
                let to = [
                    (from[0] + cos * reach).clamp(0.0, size[1] as f32),
                    (from[1] + sin * reach).clamp(0.0, unit),
                ];
                shapes.push(Shape::line(from, to, width));
                if rng.chance(0.4) {
                    shapes.push(Shape::disc(to, width * rng.range(0.7, 1.6)));
                }
                from = to;
            }
            shapes
        }
    };
    Stroke { shapes, color }
}

/// A colour that a clip fades to or from.
pub(super) fn veil(rng: &mut Rng, size: [usize; 2]) -> Canvas {
    let color = distinct(rng, plain, &[[128.0; 3]], 60.0);
    Canvas::new(size, |_| color)
}
