//! Pose drawings: spec A.4, measured on the published 480x720 generations.

use image::{Rgb, RgbImage};
use imageproc::{
    drawing::{draw_filled_circle_mut, draw_polygon_mut},
    point::Point,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Person;

/// The four parts and their pure colours, in painting order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// White dots on nose, eyes and ears.
    Head,
    /// Red: elbows, wrists, and the lines to the shoulders.
    Arms,
    /// Blue: shoulders, hips, and the lines between them.
    Torso,
    /// Green: knees, ankles, and the lines to the hips.
    Legs,
}

impl Part {
    /// All parts, in painting order: head, arms, torso, legs.
    pub const ALL: [Self; 4] = [Self::Head, Self::Arms, Self::Torso, Self::Legs];

    /// The colour it is painted in.
    pub const fn color(self) -> Rgb<u8> {
        match self {
            Self::Head => Rgb([255, 255, 255]),
            Self::Arms => Rgb([255, 0, 0]),
            Self::Torso => Rgb([0, 0, 255]),
            Self::Legs => Rgb([0, 255, 0]),
        }
    }

    /// COCO keypoints drawn as dots.
    pub const fn joints(self) -> &'static [usize] {
        match self {
            Self::Head => &[0, 1, 2, 3, 4],
            Self::Arms => &[7, 8, 9, 10],
            Self::Torso => &[5, 6, 11, 12],
            Self::Legs => &[13, 14, 15, 16],
        }
    }

    /// Pairs of COCO keypoints drawn as lines.
    pub const fn limbs(self) -> &'static [(usize, usize)] {
        match self {
            Self::Head => &[],
            Self::Arms => &[(5, 7), (7, 9), (6, 8), (8, 10)],
            Self::Torso => &[(5, 6), (5, 11), (6, 12), (11, 12)],
            Self::Legs => &[(11, 13), (13, 15), (12, 14), (14, 16)],
        }
    }
}

/// Sizes of the drawing, in pixels of an image 720 wide; they scale with the image's width.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoseStyle {
    /// Radius of a joint's dot.
    pub radius: f64,
    /// Thickness of a limb.
    pub thickness: f64,
    /// Least radius in pixels of the image drawn, so that small images keep their dots.
    pub min_radius: f64,
    /// Least thickness in pixels of the image drawn.
    pub min_thickness: f64,
}

impl Default for PoseStyle {
    /// Radius 5 and thickness 3 at COCO's 640 pixels, so 5.6 and 3.4 at 720.
    fn default() -> Self {
        Self { radius: 5.6, thickness: 3.4, min_radius: 2.0, min_thickness: 2.0 }
    }
}

/// The pose of all persons on black, `[height, width]`.
pub fn draw(persons: &[Person], [height, width]: [usize; 2], style: PoseStyle) -> RgbImage {
    let mut canvas = RgbImage::new(width as u32, height as u32);
    let scale = width as f64 / 720.0;
    let radius = (style.radius * scale).max(style.min_radius);
    let thickness = (style.thickness * scale).max(style.min_thickness);
    for person in persons {
        for part in Part::ALL {
            for (from, to) in part.limbs() {
                if let (Some(from), Some(to)) = (joint(person, *from), joint(person, *to)) {
                    line(&mut canvas, from, to, thickness, part.color());
                }
            }
            for index in part.joints() {
                if let Some([x, y]) = joint(person, *index) {
                    let center = (x.round() as i32, y.round() as i32);
                    draw_filled_circle_mut(
                        &mut canvas,
                        center,
                        radius.round() as i32,
                        part.color(),
                    );
                }
            }
        }
    }
    canvas
}

/// A keypoint that is labelled, visible or not.
fn joint(person: &Person, index: usize) -> Option<[f64; 2]> {
    let [x, y, visibility] = person.keypoints[index];
    (visibility > 0.0).then(|| [f64::from(x), f64::from(y)])
}

/// A line as a filled quadrilateral; one that is shorter than half a pixel is left to its dots.
fn line(canvas: &mut RgbImage, from: [f64; 2], to: [f64; 2], thickness: f64, color: Rgb<u8>) {
    let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
    let length = dx.hypot(dy);
    if length < 0.5 {
        return;
    }
    let half = (thickness - 1.0).max(0.0) / 2.0;
    let (nx, ny) = (-dy / length * half, dx / length * half);
    let corner = |[x, y]: [f64; 2], sign: f64| {
        Point::new((x + sign * nx).round() as i32, (y + sign * ny).round() as i32)
    };
    let mut corners =
        vec![corner(from, 1.0), corner(to, 1.0), corner(to, -1.0), corner(from, -1.0)];
    corners.dedup();
    if corners.len() > 1 && corners.first() == corners.last() {
        corners.pop();
    }
    if corners.len() >= 3 {
        draw_polygon_mut(canvas, &corners, color);
    }
    let ends = |[x, y]: [f64; 2]| (x.round() as f32, y.round() as f32);
    imageproc::drawing::draw_line_segment_mut(canvas, ends(from), ends(to), color);
}
