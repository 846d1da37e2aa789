//! Scenes: a background, and figures or shapes before it.

use super::body::{Body, Look};
use super::canvas::{Canvas, Outline, Paint, Point, Shape, dot};
use super::color::{Color, any, blend, distinct, luma, muted, scale};
use super::pose::Room;
use super::rng::{Rng, sin_cos};

/// Cells of a texture's lattice on each axis; it repeats after them.
const LATTICE: usize = 16;

/// Something soft in the background. Lengths in image heights.
#[derive(Clone, Copy, Debug)]
struct Blob {
    centre: Point,
    half: Point,
    /// An ellipse if true, else a rectangle.
    round: bool,
    softness: f32,
    color: Color,
    opacity: f32,
}

/// Smooth noise on a repeating lattice.
#[derive(Clone, Debug)]
struct Texture {
    lattice: Vec<f32>,
    /// Lattice cells per image height.
    frequency: f32,
    /// Strength in pixel values.
    strength: f32,
}

/// What stands behind figures and shapes; a function of the position in image heights.
#[derive(Clone, Debug)]
pub(super) struct Background {
    /// Colours at both ends of a gradient, and its direction.
    from: Color,
    to: Color,
    direction: Point,
    /// A floor below this height, of this colour, with this softness.
    floor: Option<(f32, Color, f32)>,
    blobs: Vec<Blob>,
    texture: Option<Texture>,
}

/// The width of an image in its heights.
fn wide(size: [usize; 2]) -> f32 {
    size[1] as f32 / size[0] as f32
}

fn smooth(value: f32) -> f32 {
    let value = value.clamp(0.0, 1.0);
    value * value * (3.0 - 2.0 * value)
}

impl Texture {
    fn draw(rng: &mut Rng, frequency: [f32; 2], strength: [f32; 2]) -> Self {
        let lattice = (0..LATTICE * LATTICE).map(|_| rng.around(1.0)).collect();
        Self {
            lattice,
            frequency: rng.range(frequency[0], frequency[1]),
            strength: rng.range(strength[0], strength[1]),
        }
    }

    fn at(&self, p: Point) -> f32 {
        // Far enough to the right that truncating rounds down; a multiple of the lattice.
        let cell = |at: f32| {
            let at = (at * self.frequency + 1024.0).max(0.0);
            let whole = at as usize;
            (whole % LATTICE, (whole + 1) % LATTICE, smooth(at - whole as f32))
        };
        let ((x0, x1, u), (y0, y1, v)) = (cell(p[0]), cell(p[1]));
        let (y0, y1) = (y0 * LATTICE, y1 * LATTICE);
        let upper = self.lattice[y0 + x0] * (1.0 - u) + self.lattice[y0 + x1] * u;
        let lower = self.lattice[y1 + x0] * (1.0 - u) + self.lattice[y1 + x1] * u;
        (upper * (1.0 - v) + lower * v) * self.strength
    }
}

impl Background {
    pub(super) fn plain(color: Color) -> Self {
        let (floor, blobs, texture) = (None, Vec::new(), None);
        Self { from: color, to: color, direction: [0.0, 1.0], floor, blobs, texture }
    }

    /// A quiet background: a gradient, perhaps a floor, a few large soft shapes, a mild texture.
    /// `wide` is how far to the side there is something to see, in image heights.
    pub(super) fn quiet(rng: &mut Rng, wide: f32) -> Self {
        let from = muted(rng);
        let to = blend(from, muted(rng), rng.range(0.1, 0.6));
        let (sin, cos) = sin_cos(rng.range(-60.0, 60.0));
        let floor = rng
            .chance(0.45)
            .then(|| (rng.range(0.55, 0.92), blend(to, muted(rng), 0.7), rng.range(0.01, 0.08)));
        let blobs = (0..rng.below(4))
            .map(|_| Blob {
                centre: [rng.range(-0.1, wide + 0.1), rng.range(-0.1, 0.9)],
                half: [rng.range(0.1, 0.4), rng.range(0.1, 0.4)],
                round: rng.chance(0.6),
                softness: rng.range(0.05, 0.35),
                color: muted(rng),
                opacity: rng.range(0.2, 0.6),
            })
            .collect();
        let texture = rng.chance(0.5).then(|| Texture::draw(rng, [5.0, 14.0], [2.0, 9.0]));
        Self { from, to, direction: [sin, cos], floor, blobs, texture }
    }

    /// A background with much to see when the camera pans.
    pub(super) fn rich(rng: &mut Rng, wide: f32) -> Self {
        let mut background = Self::quiet(rng, wide);
        background.blobs = (0..5 + rng.below(4))
            .map(|_| Blob {
                centre: [rng.range(-0.7, wide + 0.7), rng.range(-0.1, 1.0)],
                half: [rng.range(0.06, 0.25), rng.range(0.08, 0.35)],
                round: rng.chance(0.5),
                softness: rng.range(0.02, 0.15),
                color: if rng.chance(0.5) { muted(rng) } else { any(rng) },
                opacity: rng.range(0.4, 0.9),
            })
            .collect();
        background.texture = Some(Texture::draw(rng, [6.0, 16.0], [8.0, 26.0]));
        background
    }

    /// Where the floor begins, in image heights, if there is one.
    pub(super) fn floor_edge(&self) -> Option<f32> {
        self.floor.map(|(edge, _, _)| edge)
    }

    /// A colour that stands for the whole.
    pub(super) fn ground(&self) -> Color {
        blend(self.from, self.to, 0.5)
    }

    /// The same without texture and shapes.
    pub(super) fn simplified(&self) -> Self {
        Self { blobs: Vec::new(), texture: None, ..self.clone() }
    }

    fn at(&self, p: Point) -> Color {
        let mut color = blend(self.from, self.to, smooth(dot(p, self.direction) * 0.8 + 0.1));
        if let Some((level, floor, softness)) = self.floor {
            color = blend(color, floor, smooth((p[1] - level) / softness + 0.5));
        }
        for blob in &self.blobs {
            let (dx, dy) =
                ((p[0] - blob.centre[0]) / blob.half[0], (p[1] - blob.centre[1]) / blob.half[1]);
            let reach =
                if blob.round { (dx * dx + dy * dy).sqrt() } else { dx.abs().max(dy.abs()) };
            let inside =
                smooth((1.0 - reach) * blob.half[0].min(blob.half[1]) / blob.softness + 0.5);
            if inside > 0.0 {
                color = blend(color, blob.color, inside * blob.opacity);
            }
        }
        if let Some(texture) = &self.texture {
            let lift = texture.at(p);
            color = color.map(|value| (value + lift).clamp(0.0, 255.0));
        }
        color
    }

    /// Drawn with the camera moved by `shift` pixels.
    pub(super) fn canvas(&self, size: [usize; 2], shift: Point) -> Canvas {
        let unit = 1.0 / size[0] as f32;
        Canvas::new(size, |p| self.at([(p[0] + shift[0]) * unit, (p[1] + shift[1]) * unit]))
    }
}

/// A toy: one geometric shape. Lengths in image heights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Toy {
    pub(super) outline: Outline,
    pub(super) centre: Point,
    pub(super) radius: f32,
    /// Degrees.
    pub(super) angle: f32,
    pub(super) color: Color,
    /// A second colour, painted as a smaller shape off the middle: it shows how the toy rolls.
    pub(super) spot: Option<Color>,
    pub(super) shade: f32,
    pub(super) opacity: f32,
}

impl Toy {
    pub(super) fn draw(rng: &mut Rng, wide: f32, ground: Color, radius: [f32; 2]) -> Self {
        let color = distinct(rng, any, &[ground], 130.0);
        let spot = rng.chance(0.5).then(|| distinct(rng, any, &[color], 130.0));
        Self {
            outline: outline(rng),
            centre: [rng.range(0.15, wide - 0.15), rng.range(0.15, 0.85)],
            radius: rng.range(radius[0], radius[1]),
            angle: rng.range(0.0, 360.0),
            color,
            spot,
            shade: if rng.chance(0.5) { rng.range(0.08, 0.25) } else { 0.0 },
            opacity: 1.0,
        }
    }

    /// Paints the toy, on its way (`mix`) to the outline `to`.
    pub(super) fn paint(&self, canvas: &mut Canvas, to: Outline, mix: f32) {
        let unit = canvas.height as f32;
        if self.radius * unit < 0.3 || self.opacity <= 0.0 {
            return;
        }
        let turn = sin_cos(self.angle);
        let centre = [self.centre[0] * unit, self.centre[1] * unit];
        let radius = self.radius * unit;
        let shape = Shape::Morph { centre, radius, from: self.outline, to, mix, turn };
        let paint = Paint {
            shade: self.shade,
            edge: self.shade,
            opacity: self.opacity,
            ..Paint::flat(self.color)
        };
        canvas.fill(&shape, &paint);
        if let Some(color) = self.spot {
            let centre = [centre[0] + turn.1 * radius * 0.4, centre[1] + turn.0 * radius * 0.4];
            let spot = Paint { opacity: self.opacity, ..Paint::flat(color) };
            canvas.fill(&Shape::disc(centre, radius * 0.28), &spot);
        }
    }
}

pub(super) fn outline(rng: &mut Rng) -> Outline {
    match rng.below(5) {
        0 | 1 => Outline::Disc,
        2 => Outline::Box(rng.range(0.6, 1.2)),
        3 => Outline::Regular(3),
        _ => Outline::Regular(5 + rng.below(2) as u8),
    }
}

/// A figure and what it wears.
#[derive(Clone, Debug)]
pub(super) struct Actor {
    pub(super) body: Body,
    pub(super) look: Look,
}

/// A background with toys and figures before it.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) background: Background,
    pub(super) toys: Vec<Toy>,
    pub(super) actors: Vec<Actor>,
}

impl Scene {
    /// One large figure, in `pairs` of the cases two, before a quiet background.
    pub(super) fn figures(rng: &mut Rng, size: [usize; 2], pairs: f32) -> Self {
        let background = Background::quiet(&mut rng.fork(1), wide(size));
        Self::before(background, rng, size, pairs)
    }

    /// The same figures in patterned clothes, where there is much to see behind them.
    pub(super) fn photograph(rng: &mut Rng, size: [usize; 2], pairs: f32) -> Self {
        let mut background = Background::rich(&mut rng.fork(1), wide(size));
        for blob in &mut background.blobs {
            // Sharp enough for edges.
            blob.softness *= 0.4;
            blob.opacity = f32::midpoint(blob.opacity, 0.9);
        }
        let mut scene = Self::before(background, rng, size, pairs);
        for (at, actor) in scene.actors.iter_mut().enumerate() {
            actor.look = actor.look.patterned(&mut rng.fork(20 + at as u64));
        }
        scene
    }

    fn before(mut background: Background, rng: &mut Rng, size: [usize; 2], pairs: f32) -> Self {
        let mut draw = rng.fork(2);
        let mut ground = background.ground();
        // Middle greys leave no room for clothes that stand out: push the wall away from them.
        if luma(ground) > 90.0 && luma(ground) < 150.0 && draw.chance(0.5) {
            let factor = if draw.chance(0.5) { 0.55 } else { 1.45 };
            background.from = scale(background.from, factor);
            background.to = scale(background.to, factor);
            ground = background.ground();
        }
        let spans: &[[f32; 2]] = if draw.chance(pairs) {
            if draw.chance(0.5) {
                &[[0.02, 0.55], [0.45, 0.98]]
            } else {
                &[[0.45, 0.98], [0.02, 0.55]]
            }
        } else {
            &[[0.02, 0.98]]
        };
        let room = if spans.len() == 1 { Room::Wide } else { Room::Narrow };
        let actors = spans
            .iter()
            .enumerate()
            .map(|(at, span)| {
                let mut draw = rng.fork(10 + at as u64);
                let fill = draw.range(0.78, 0.97);
                let body = Body::draw(&mut draw, size, *span, fill, room);
                Actor { body, look: Look::dressed(&mut draw, ground) }
            })
            .collect();
        Self { background, toys: Vec::new(), actors }
    }

    /// A few geometric shapes before a quiet background.
    pub(super) fn toys(rng: &mut Rng, size: [usize; 2]) -> Self {
        let wide = wide(size);
        let background = Background::quiet(&mut rng.fork(1), wide);
        let mut draw = rng.fork(2);
        let ground = background.ground();
        let toys = (0..2 + draw.below(3))
            .map(|_| Toy::draw(&mut draw, wide, ground, [0.1, 0.28]))
            .collect();
        Self { background, toys, actors: Vec::new() }
    }

    /// Either of both.
    pub(super) fn any(rng: &mut Rng, size: [usize; 2]) -> Self {
        if rng.chance(0.6) { Self::figures(rng, size, 0.1) } else { Self::toys(rng, size) }
    }

    pub(super) fn render(&self, size: [usize; 2]) -> Canvas {
        let mut canvas = self.background.canvas(size, [0.0, 0.0]);
        for toy in &self.toys {
            toy.paint(&mut canvas, toy.outline, 0.0);
        }
        for actor in &self.actors {
            actor.body.paint(&mut canvas, &actor.look);
        }
        canvas
    }

    /// The colours that matter in it, the ground first.
    pub(super) fn colors(&self) -> Vec<Color> {
        let mut colors = vec![self.background.ground()];
        colors.extend(self.toys.iter().map(|toy| toy.color));
        for Actor { look, .. } in &self.actors {
            colors.extend([look.skin, look.shirt, look.sleeves, look.trousers]);
        }
        colors
    }
}
