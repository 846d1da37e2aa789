//! A small rasteriser: signed distances of a few shapes, and one pixel of smooth coverage.

use image::{GrayImage, Luma, Rgb, RgbImage};

use super::color::{Color, blend, scale};
use crate::data::round;

/// A point or vector in pixels: x, y.
pub(super) type Point = [f32; 2];

pub(super) fn add(a: Point, b: Point) -> Point {
    [a[0] + b[0], a[1] + b[1]]
}

pub(super) fn sub(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1]]
}

pub(super) fn mul(a: Point, factor: f32) -> Point {
    [a[0] * factor, a[1] * factor]
}

pub(super) fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1]
}

pub(super) fn length(a: Point) -> f32 {
    dot(a, a).sqrt()
}

/// A convex outline in its own unit frame; two of them blend into each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outline {
    Disc,
    /// A rectangle of height 1 and this width.
    Box(f32),
    /// A regular polygon of 3, 5 or 6 corners.
    Regular(u8),
}

impl Outline {
    /// Signed distance of `p`, in units of the shape's radius.
    fn distance(self, p: Point) -> f32 {
        match self {
            Self::Disc => length(p) - 1.0,
            Self::Box(width) => {
                let (dx, dy) = (p[0].abs() - width * 0.85, p[1].abs() - 0.85);
                length([dx.max(0.0), dy.max(0.0)]) + dx.max(dy).min(0.0)
            }
            Self::Regular(corners) => {
                // Sine and cosine of the angle from one side to the next.
                let ((sin, cos), apothem) = match corners {
                    3 => ((0.866_025_4, -0.5), 0.58),
                    5 => ((0.951_056_5, 0.309_017), 0.85),
                    _ => ((0.866_025_4, 0.5), 0.85),
                };
                let (mut normal, mut furthest) = ([0.0, 1.0], f32::MIN);
                for _ in 0..corners {
                    furthest = furthest.max(dot(p, normal));
                    normal = [normal[0] * cos - normal[1] * sin, normal[0] * sin + normal[1] * cos];
                }
                furthest - apothem
            }
        }
    }
}

/// What can be filled.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// A line from `a` to `b` with round ends, `ra` and `rb` thick on either side.
    Capsule { a: Point, b: Point, ra: f32, rb: f32 },
    /// A convex quadrilateral, rounded outwards.
    Quad { corners: [Point; 4], round: f32 },
    /// An ellipse with half axes `rx`, `ry`, turned by the angle whose sine and cosine is `turn`.
    Ellipse { centre: Point, rx: f32, ry: f32, turn: (f32, f32) },
    /// A circle line.
    Ring { centre: Point, radius: f32, width: f32 },
    /// A blend of two outlines, `mix` from 0 to 1, turned and scaled.
    Morph { centre: Point, radius: f32, from: Outline, to: Outline, mix: f32, turn: (f32, f32) },
}

impl Shape {
    pub(super) fn disc(centre: Point, radius: f32) -> Self {
        Self::Capsule { a: centre, b: centre, ra: radius, rb: radius }
    }

    pub(super) fn line(a: Point, b: Point, width: f32) -> Self {
        Self::Capsule { a, b, ra: width / 2.0, rb: width / 2.0 }
    }

    /// The same shape elsewhere.
    pub(super) fn moved(&self, by: Point) -> Self {
        let mut shape = self.clone();
        match &mut shape {
            Self::Capsule { a, b, .. } => (*a, *b) = (add(*a, by), add(*b, by)),
            Self::Quad { corners, .. } => *corners = corners.map(|corner| add(corner, by)),
            Self::Ellipse { centre, .. }
            | Self::Ring { centre, .. }
            | Self::Morph { centre, .. } => *centre = add(*centre, by),
        }
        shape
    }

    /// The smallest and largest corner of a box around it.
    pub(super) fn bounds(&self) -> (Point, Point) {
        let around = |points: &[Point], reach: f32| {
            let mut low = points[0];
            let mut high = points[0];
            for point in points {
                for axis in 0..2 {
                    low[axis] = low[axis].min(point[axis]);
                    high[axis] = high[axis].max(point[axis]);
                }
            }
            (sub(low, [reach, reach]), add(high, [reach, reach]))
        };
        match self {
            Self::Capsule { a, b, ra, rb } => around(&[*a, *b], ra.max(*rb)),
            Self::Quad { corners, round } => around(corners, *round),
            Self::Ellipse { centre, rx, ry, .. } => around(&[*centre], rx.max(*ry)),
            Self::Ring { centre, radius, width } => around(&[*centre], radius + width),
            Self::Morph { centre, radius, .. } => around(&[*centre], radius * 2.1),
        }
    }

    /// Signed distance in pixels, and where across the shape the point lies (-1..1 on each axis).
    pub(super) fn sample(&self, p: Point) -> (f32, Point) {
        match self {
            Self::Capsule { a, b, ra, rb } => {
                let axis = sub(*b, *a);
                let along = (dot(sub(p, *a), axis) / dot(axis, axis).max(1e-9)).clamp(0.0, 1.0);
                let radius = ra + (rb - ra) * along;
                let offset = sub(p, add(*a, mul(axis, along)));
                (length(offset) - radius, mul(offset, 1.0 / radius.max(0.3)))
            }
            Self::Quad { corners, round } => {
                let mut nearest = f32::MAX;
                let (mut left, mut right) = (true, true);
                for side in 0..4 {
                    let (a, b) = (corners[side], corners[(side + 1) % 4]);
                    let (edge, to) = (sub(b, a), sub(p, a));
                    let along = (dot(to, edge) / dot(edge, edge).max(1e-9)).clamp(0.0, 1.0);
                    let offset = sub(to, mul(edge, along));
                    nearest = nearest.min(dot(offset, offset));
                    let cross = edge[0] * to[1] - edge[1] * to[0];
                    left &= cross >= 0.0;
                    right &= cross <= 0.0;
                }
                let inside = if left || right { -1.0 } else { 1.0 };
                let (low, high) = self.bounds();
                let (centre, half) = (mul(add(low, high), 0.5), mul(sub(high, low), 0.5));
                let offset = sub(p, centre);
                (
                    inside * nearest.sqrt() - round,
                    [offset[0] / half[0].max(0.3), offset[1] / half[1].max(0.3)],
                )
            }
            Self::Ellipse { centre, rx, ry, turn: (sin, cos) } => {
                let offset = sub(p, *centre);
                let local = [offset[0] * cos + offset[1] * sin, offset[1] * cos - offset[0] * sin];
                let once = [local[0] / rx, local[1] / ry];
                let twice = [once[0] / rx, once[1] / ry];
                let (near, slope) = (length(once), length(twice));
                let distance =
                    if slope > 1e-6 { near * (near - 1.0) / slope } else { -rx.min(*ry) };
                (distance, [offset[0] / rx, offset[1] / ry])
            }
            Self::Ring { centre, radius, width } => {
                let offset = sub(p, *centre);
                ((length(offset) - radius).abs() - width / 2.0, mul(offset, 1.0 / radius))
            }
            Self::Morph { centre, radius, from, to, mix, turn: (sin, cos) } => {
                let radius = radius.max(0.05);
                let offset = mul(sub(p, *centre), 1.0 / radius);
                let local = [offset[0] * cos + offset[1] * sin, offset[1] * cos - offset[0] * sin];
                let distance = if *mix <= 0.0 || from == to {
                    from.distance(local)
                } else if *mix >= 1.0 {
                    to.distance(local)
                } else {
                    from.distance(local) * (1.0 - mix) + to.distance(local) * mix
                };
                (distance * radius, local)
            }
        }
    }
}

/// Stripes across a part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stripes {
    pub(super) color: Color,
    /// Pixels from one stripe to the next.
    pub(super) period: f32,
    /// Unit vector across the stripes.
    pub(super) across: Point,
}

/// How a shape is filled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    pub(super) color: Color,
    /// 0 flat; 0.3 strongly round, lit from the upper left.
    pub(super) shade: f32,
    /// How much darker the last pixel before the edge is; parts of one colour stay apart by it.
    pub(super) edge: f32,
    pub(super) stripes: Option<Stripes>,
    pub(super) opacity: f32,
}

impl Paint {
    pub(super) fn flat(color: Color) -> Self {
        Self { color, shade: 0.0, edge: 0.0, stripes: None, opacity: 1.0 }
    }
}

/// Pixels in f32 (0..255), and how much of each one shapes have covered.
#[derive(Clone, Debug)]
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) pixels: Vec<Color>,
    pub(super) cover: Vec<f32>,
}

impl Canvas {
    /// A canvas of `[height, width]`, each pixel from `color_at` its centre.
    pub(super) fn new(size: [usize; 2], color_at: impl Fn(Point) -> Color) -> Self {
        let [height, width] = size;
        let pixels = (0..width * height)
            .map(|at| color_at([(at % width) as f32 + 0.5, (at / width) as f32 + 0.5]))
            .collect();
        Self { width, height, pixels, cover: vec![0.0; width * height] }
    }

    pub(super) fn fill(&mut self, shape: &Shape, paint: &Paint) {
        let (low, high) = shape.bounds();
        let clip = |value: f32, limit: usize| (value.max(0.0) as usize).min(limit);
        let (x0, x1) = (clip(low[0] - 1.0, self.width), clip(high[0] + 2.0, self.width));
        let (y0, y1) = (clip(low[1] - 1.0, self.height), clip(high[1] + 2.0, self.height));
        for y in y0..y1 {
            for x in x0..x1 {
                let p = [x as f32 + 0.5, y as f32 + 0.5];
                let (distance, across) = shape.sample(p);
                let coverage = (0.5 - distance).clamp(0.0, 1.0) * paint.opacity;
                if coverage <= 0.0 {
                    continue;
                }
                let mut color = paint.color;
                if let Some(stripes) = &paint.stripes {
                    let at = dot(p, stripes.across) / stripes.period;
                    if at - at.floor() < 0.5 {
                        color = stripes.color;
                    }
                }
                let light = 1.0 - paint.shade * (0.55 * across[0] + 0.85 * across[1]);
                let rim = 1.0 - paint.edge * (1.0 + distance / 1.6).clamp(0.0, 1.0);
                let color = scale(color, light * rim);
                let at = y * self.width + x;
                self.pixels[at] = blend(self.pixels[at], color, coverage);
                self.cover[at] += (1.0 - self.cover[at]) * coverage;
            }
        }
    }

    /// Blends in another canvas of the same size.
    pub(super) fn toward(&mut self, other: &Self, weight: f32) {
        for (pixel, to) in self.pixels.iter_mut().zip(&other.pixels) {
            *pixel = blend(*pixel, *to, weight);
        }
    }

    pub(super) fn image(&self) -> RgbImage {
        RgbImage::from_fn(self.width as u32, self.height as u32, |x, y| {
            let pixel = self.pixels[y as usize * self.width + x as usize];
            Rgb(pixel.map(|value| round(value.clamp(0.0, 255.0))))
        })
    }

    /// White where shapes cover at least half of the pixel.
    pub(super) fn mask(&self) -> GrayImage {
        GrayImage::from_fn(self.width as u32, self.height as u32, |x, y| {
            Luma([if self.cover[y as usize * self.width + x as usize] >= 0.5 { 255 } else { 0 }])
        })
    }

    /// How much of the pixel at `p` is covered; nothing outside the image.
    pub(super) fn covered_at(&self, p: Point) -> f32 {
        if p[0] < 0.0 || p[1] < 0.0 {
            return 0.0;
        }
        let (x, y) = (p[0] as usize, p[1] as usize);
        if x < self.width && y < self.height { self.cover[y * self.width + x] } else { 0.0 }
    }
}
