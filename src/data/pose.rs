//! Pose drawings: docs/method.md, A.4.

use image::{Rgb, RgbImage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Person, resize::cover_scale};

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

/// Which keypoints are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Those with a label, seen or hidden: COCO's visibility 1 and 2.
    #[default]
    Labelled,
    /// Those that can be seen: 2 alone.
    Visible,
}

impl Visibility {
    /// The persons without the keypoints that are not drawn, and without those of whom none is
    /// left.
    pub fn of(self, persons: &[Person]) -> Vec<Person> {
        let least = match self {
            Self::Labelled => 1.0,
            Self::Visible => 2.0,
        };
        let keep = |point: [f32; 3]| if point[2] >= least { point } else { [0.0; 3] };
        persons
            .iter()
            .map(|person| Person { keypoints: person.keypoints.map(keep) })
            .filter(|person| person.keypoints.iter().any(|point| point[2] > 0.0))
            .collect()
    }
}

/// When the pose is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Drawn {
    /// On the photograph's own pixels, and scaled and cropped with it: edges are soft.
    #[default]
    BeforeResize,
    /// At the size asked for: every pixel has a pure colour.
    AfterResize,
}

/// How a pose is drawn; sizes are in pixels of an image of 480x720 and follow [`reference_scale`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoseStyle {
    /// Radius of a joint's dot.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub radius: f64,
    /// Thickness of a limb.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub thickness: f64,
    /// Least radius in pixels of the image drawn, so that small images keep their dots.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub min_radius: f64,
    /// Least thickness in pixels of the image drawn.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub min_thickness: f64,
    /// Which keypoints are drawn.
    pub visibility: Visibility,
    /// Whether the drawing is made before the image is resized, or after.
    pub drawn: Drawn,
}

impl Default for PoseStyle {
    /// Radius 5 and thickness 3 at COCO's 640 pixels, so 5.6 and 3.4 at 720.
    fn default() -> Self {
        Self {
            radius: 5.6,
            thickness: 3.4,
            min_radius: 2.0,
            min_thickness: 2.0,
            visibility: Visibility::default(),
            drawn: Drawn::default(),
        }
    }
}

/// Pixels of a dot's radius, and of half a line.
#[derive(Clone, Copy)]
struct Reach {
    dot: f64,
    line: f64,
}

impl PoseStyle {
    /// The sizes on an image of `[height, width]`.
    fn reach(self, size: [usize; 2]) -> Reach {
        let scale = reference_scale(size);
        Reach {
            dot: (self.radius * scale).max(self.min_radius),
            line: (self.thickness * scale).max(self.min_thickness) / 2.0,
        }
    }
}

/// How large an image of `[height, width]` is beside the reference size of 480x720: the factor by
/// which the same photograph would be scaled to cover it.
pub fn reference_scale([height, width]: [usize; 2]) -> f64 {
    (height as f64 / 480.0).max(width as f64 / 720.0)
}

/// The pose of all persons on black, `[height, width]`.
pub fn draw(persons: &[Person], size: [usize; 2], style: PoseStyle) -> RgbImage {
    draw_with(persons, size, style.reach(size))
}

/// The pose of all persons on black, at the `source` height and width: once it is resized to
/// `size`, dots and lines have the sizes of [`draw`].
pub fn draw_before_resize(
    persons: &[Person],
    source: [u32; 2],
    size: [usize; 2],
    style: PoseStyle,
) -> RgbImage {
    let scale = cover_scale(source, size);
    let Reach { dot, line } = style.reach(size);
    let reach = Reach { dot: dot / scale, line: line / scale };
    draw_with(persons, source.map(|side| side as usize), reach)
}

fn draw_with(persons: &[Person], size: [usize; 2], reach: Reach) -> RgbImage {
    let mut canvas = RgbImage::new(size[1] as u32, size[0] as u32);
    for person in persons {
        for part in Part::ALL {
            for (from, to) in part.limbs() {
                if let (Some(from), Some(to)) = (joint(person, *from), joint(person, *to)) {
                    paint(&mut canvas, from, to, reach.line, part.color());
                }
            }
            for point in part.joints().iter().filter_map(|index| joint(person, *index)) {
                paint(&mut canvas, point, point, reach.dot, part.color());
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

/// Colours the pixels that are at most `reach` away from the segment, which may be one point.
fn paint(canvas: &mut RgbImage, from: [f64; 2], to: [f64; 2], reach: f64, color: Rgb<u8>) {
    let along = [to[0] - from[0], to[1] - from[1]];
    let length = along[0] * along[0] + along[1] * along[1];
    let range = |axis: usize, len: u32| {
        let (low, high) = (from[axis].min(to[axis]) - reach, from[axis].max(to[axis]) + reach);
        let end = (high.floor() + 1.0).clamp(0.0, f64::from(len));
        low.ceil().clamp(0.0, f64::from(len)) as u32..end as u32
    };
    for y in range(1, canvas.height()) {
        for x in range(0, canvas.width()) {
            let [dx, dy] = [f64::from(x) - from[0], f64::from(y) - from[1]];
            let share = if length > 0.0 {
                ((dx * along[0] + dy * along[1]) / length).clamp(0.0, 1.0)
            } else {
                0.0
            };
            let [dx, dy] = [dx - share * along[0], dy - share * along[1]];
            if dx * dx + dy * dy <= reach * reach {
                canvas.put_pixel(x, y, color);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(points: &[(usize, f32, f32, f32)]) -> Person {
        let mut keypoints = [[0.0; 3]; 17];
        for (index, x, y, visibility) in points {
            keypoints[*index] = [*x, *y, *visibility];
        }
        Person { keypoints }
    }

    fn count(image: &RgbImage, part: Part) -> usize {
        image.pixels().filter(|pixel| **pixel == part.color()).count()
    }

    #[test]
    fn a_dot_at_the_reference_size_is_eleven_to_twelve_pixels_wide() {
        let image = draw(&[person(&[(0, 300.0, 200.0, 2.0)])], [480, 720], PoseStyle::default());
        let row = (0..720).filter(|x| image.get_pixel(*x, 200).0 == [255; 3]).count();
        assert_eq!(row, 11);
        assert_eq!(count(&image, Part::Head), 97, "a disc of radius 5.6");
    }

    #[test]
    fn a_line_needs_both_ends_and_hidden_keypoints_count() {
        let style = PoseStyle::default();
        let arm = |visibility| {
            let arm = person(&[(5, 100.0, 100.0, 2.0), (7, 100.0, 200.0, visibility)]);
            draw(&[arm], [480, 720], style)
        };
        assert_eq!(arm(1.0), arm(2.0));
        assert_eq!(arm(2.0).get_pixel(100, 150).0, [255, 0, 0]);
        let width = (90..110).filter(|x| arm(2.0).get_pixel(*x, 150).0[0] > 0).count();
        assert_eq!(width, 3);
        assert_eq!(arm(0.0).get_pixel(100, 150).0, [0; 3]);
        assert_eq!(arm(2.0).get_pixel(100, 100).0, [0, 0, 255], "the shoulder's dot is on top");
    }

    #[test]
    fn head_dots_are_not_joined() {
        let eyes = person(&[(1, 300.0, 200.0, 2.0), (2, 340.0, 200.0, 2.0)]);
        let image = draw(&[eyes], [480, 720], PoseStyle::default());
        assert_eq!(image.get_pixel(320, 200).0, [0; 3]);
    }

    #[test]
    fn sizes_follow_the_image_down_to_the_least() {
        let style = PoseStyle { min_radius: 0.5, ..PoseStyle::default() };
        let half = draw(&[person(&[(0, 99.0, 99.0, 2.0)])], [240, 360], style);
        assert_eq!(count(&half, Part::Head), 21, "a disc of radius 2.8");
        let small = draw(&[person(&[(0, 30.0, 30.0, 2.0)])], [64, 96], PoseStyle::default());
        assert_eq!(count(&small, Part::Head), 13, "a disc of radius 2");
    }

    #[test]
    fn what_is_drawn_before_the_resize_has_the_same_sizes() {
        let style = PoseStyle::default();
        let at = |scale: f32| {
            let points = [(5, 100.0, 90.0), (7, 180.0, 40.0), (0, 60.0, 60.0)];
            person(&points.map(|(index, x, y)| (index, x * scale, y * scale, 2.0)))
        };
        let after = draw(&[at(0.5)], [120, 160], style);
        let before = draw_before_resize(&[at(1.0)], [240, 320], [120, 160], style);
        let before = crate::data::resize::resize_image(&before, [120, 160]);
        let sums = [&after, &before].map(|image| {
            [0, 1, 2].map(|c| image.pixels().map(|pixel| f64::from(pixel.0[c])).sum::<f64>())
        });
        for (a, b) in sums[0].iter().zip(sums[1]) {
            assert!((a - b).abs() < 0.15 * a, "{sums:?}");
        }
        assert!(before.pixels().any(|pixel| (1..255).contains(&pixel.0[0])), "edges are soft");
        assert_eq!(draw_before_resize(&[at(1.0)], [240, 320], [240, 320], style), {
            draw(&[at(1.0)], [240, 320], style)
        });
    }

    #[test]
    fn hidden_keypoints_are_left_out_if_asked_for() {
        let arm = person(&[(5, 10.0, 10.0, 2.0), (7, 10.0, 20.0, 1.0)]);
        let hidden = person(&[(5, 10.0, 10.0, 1.0)]);
        let all = [arm.clone(), hidden];
        assert_eq!(Visibility::Labelled.of(&all), all);
        let seen = Visibility::Visible.of(&all);
        assert_eq!(seen, [person(&[(5, 10.0, 10.0, 2.0)])]);
    }

    #[test]
    fn persons_over_the_edge_are_cut() {
        let off = person(&[(11, -3.0, 20.0, 2.0), (13, 80.0, 90.0, 2.0)]);
        let image = draw(&[off], [64, 64], PoseStyle::default());
        assert!(count(&image, Part::Legs) > 20);
    }
}
