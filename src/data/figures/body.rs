//! A figure in the image: where its joints lie, what it wears, how it is painted.

use super::canvas::{Canvas, Paint, Point, Shape, Stripes, add, length, mul, sub};
use super::color::{Color, any, apart, blend, cloth, distinct, hair, same, scale, skin};
use super::pose::{Build, Hair, Pose, Room, Skeleton};
use super::rng::Rng;

/// From body units to pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    /// Pixels per body unit.
    pub(super) scale: f32,
    /// Where the middle of the hips lies.
    pub(super) origin: Point,
}

/// What a figure wears: one colour per part, and how the parts are shaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) skin: Color,
    pub(super) hair: Color,
    pub(super) shirt: Color,
    pub(super) sleeves: Color,
    /// Forearms: the sleeve's colour when it is long, else the skin's.
    pub(super) forearms: Color,
    pub(super) hands: Color,
    pub(super) trousers: Color,
    /// Shins: the trousers' colour when they are long, else the skin's.
    pub(super) shins: Color,
    pub(super) shoes: Color,
    /// Colour of the eyes, if there is a face.
    pub(super) eyes: Option<Color>,
    /// Stripes on the shirt: colour, how many along the torso, and their direction.
    pub(super) stripes: Option<(Color, f32, Point)>,
    pub(super) shade: f32,
    pub(super) edge: f32,
    /// Factor on the thickness of arms and legs.
    pub(super) limbs: f32,
}

impl Look {
    /// Clothes in clearly different colours, apart from the `ground` behind them.
    pub(super) fn dressed(rng: &mut Rng, ground: Color) -> Self {
        let skin = distinct(rng, skin, &[ground], 90.0);
        let hair = distinct(rng, hair, &[ground, skin], 90.0);
        let shirt = distinct(rng, cloth, &[ground, skin], 150.0);
        let trousers = distinct(rng, cloth, &[ground, skin, shirt], 150.0);
        let sleeves = if rng.chance(0.3) {
            shirt
        } else {
            distinct(rng, cloth, &[ground, shirt, trousers], 130.0)
        };
        let stripes = rng.chance(0.15).then(|| {
            let across = if rng.chance(0.7) { [0.0, 1.0] } else { [1.0, 0.0] };
            (blend(shirt, distinct(rng, cloth, &[shirt], 100.0), 0.6), rng.range(3.0, 5.0), across)
        });
        Self {
            skin,
            hair,
            shirt,
            sleeves,
            forearms: if rng.chance(0.65) { sleeves } else { skin },
            hands: skin,
            trousers,
            shins: if rng.chance(0.75) { trousers } else { skin },
            shoes: distinct(rng, cloth, &[ground, trousers], 90.0),
            eyes: Some(if apart(skin, [30.0; 3]) > 200.0 { [28.0; 3] } else { [235.0; 3] }),
            stripes,
            shade: rng.range(0.08, 0.24),
            edge: rng.range(0.12, 0.35),
            limbs: 1.0,
        }
    }

    /// Flat colours for head, torso, arms and legs.
    pub(super) fn flat([head, torso, arms, legs]: [Color; 4], limbs: f32) -> Self {
        Self {
            skin: head,
            hair: head,
            shirt: torso,
            sleeves: arms,
            forearms: arms,
            hands: arms,
            trousers: legs,
            shins: legs,
            shoes: legs,
            eyes: None,
            stripes: None,
            shade: 0.0,
            edge: 0.0,
            limbs,
        }
    }

    /// The same clothes with stripes on the shirt.
    pub(super) fn patterned(&self, rng: &mut Rng) -> Self {
        let across = if rng.chance(0.5) { [0.0, 1.0] } else { [1.0, 0.0] };
        let color = blend(self.shirt, distinct(rng, cloth, &[self.shirt], 100.0), 0.8);
        Self { stripes: Some((color, rng.range(2.5, 5.0), across)), ..*self }
    }

    /// The same colours without pattern, shading and face.
    pub(super) fn flattened(&self) -> Self {
        Self { eyes: None, stripes: None, shade: 0.0, edge: 0.0, ..*self }
    }

    /// Each colour of the look replaced by one new colour, wherever it is worn.
    pub(super) fn recolored(&self, rng: &mut Rng, ground: Color) -> Self {
        let skin = distinct(rng, any, &[ground], 130.0);
        let shirt = distinct(rng, any, &[ground, skin], 130.0);
        let trousers = distinct(rng, any, &[ground, skin, shirt], 130.0);
        let sleeves = distinct(rng, any, &[ground, shirt, trousers], 110.0);
        let sleeves = if same(self.sleeves, self.shirt) { shirt } else { sleeves };
        let hair = distinct(rng, any, &[ground, skin], 100.0);
        let follow = |worn: Color, from: Color, to: Color| if same(worn, from) { to } else { skin };
        Self {
            skin,
            hair,
            shirt,
            sleeves,
            forearms: follow(self.forearms, self.sleeves, sleeves),
            hands: skin,
            trousers,
            shins: follow(self.shins, self.trousers, trousers),
            shoes: distinct(rng, any, &[ground, trousers], 80.0),
            stripes: None,
            ..*self
        }
    }
}

/// A posed, placed figure.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) build: Build,
    pub(super) pose: Pose,
    pub(super) place: Placement,
}

impl Body {
    /// A figure that fills `fill` of the image's height where its width allows, its middle in the
    /// part `span` (from, to; 0..1) of the image's width.
    pub(super) fn draw(
        rng: &mut Rng,
        size: [usize; 2],
        span: [f32; 2],
        fill: f32,
        room: Room,
    ) -> Self {
        let build = Build::draw(rng);
        let pose = Pose::draw(rng, room);
        let anchor = [rng.unit(), rng.range(0.3, 1.0)];
        let place = fit(&build, &pose, size, span, fill, anchor);
        Self { build, pose, place }
    }

    /// The same figure in another pose at the same place; with `grounded` its lower foot stays at
    /// its height.
    pub(super) fn posed(&self, pose: Pose, grounded: bool) -> Self {
        let mut place = self.place;
        if grounded {
            let lowest = |pose: &Pose| {
                let joints = pose.skeleton(&self.build).joints;
                joints[15][1].max(joints[16][1])
            };
            place.origin[1] += (lowest(&self.pose) - lowest(&pose)) * place.scale;
        }
        Self { build: self.build, pose, place }
    }

    pub(super) fn moved(&self, by: Point) -> Self {
        let place = Placement { origin: add(self.place.origin, by), ..self.place };
        Self { place, ..self.clone() }
    }

    /// The 17 keypoints in pixels.
    pub(super) fn keypoints(&self) -> [Point; 17] {
        self.pose.skeleton(&self.build).joints.map(|joint| self.project(joint))
    }

    /// Which keypoints the figure's own body hides: the ear that is turned away, and a wrist or
    /// elbow behind the torso.
    pub(super) fn hidden(&self) -> [bool; 17] {
        let skeleton = self.pose.skeleton(&self.build);
        let torso = self.torso(&skeleton);
        std::array::from_fn(|at| {
            let joint = skeleton.joints[at];
            match at {
                3 | 4 => joint[2] - skeleton.head[2] < -0.45 * self.build.head,
                7..=10 => {
                    is_behind(&skeleton, (at + 1) % 2) && torso.sample(self.project(joint)).0 < 0.0
                }
                _ => false,
            }
        })
    }

    fn project(&self, joint: [f32; 3]) -> Point {
        add(self.place.origin, mul([joint[0], joint[1]], self.place.scale))
    }

    fn torso(&self, skeleton: &Skeleton) -> Shape {
        let round = 0.048 * self.place.scale;
        let at = |joint: usize| self.project(skeleton.joints[joint]);
        let middle = mul(add(add(at(5), at(6)), add(at(11), at(12))), 0.25);
        let inset = |joint: usize| {
            let point = at(joint);
            let to = sub(middle, point);
            add(point, mul(to, (round * 0.45 / length(to).max(0.1)).min(0.9)))
        };
        Shape::Quad { corners: [inset(5), inset(6), inset(12), inset(11)], round }
    }

    /// Paints the figure, far limbs first.
    pub(super) fn paint(&self, canvas: &mut Canvas, look: &Look) {
        let skeleton = self.pose.skeleton(&self.build);
        let unit = self.place.scale;
        let paint = |color: Color| Paint {
            color,
            shade: look.shade,
            edge: look.edge,
            stripes: None,
            opacity: 1.0,
        };
        if self.build.hair == Hair::Long {
            let head = self.project(skeleton.head);
            let end = add(head, [0.0, self.build.head * 1.35 * unit]);
            let radius = self.build.head * unit;
            canvas.fill(
                &Shape::Capsule { a: head, b: end, ra: radius * 1.08, rb: radius * 0.95 },
                &paint(scale(look.hair, 0.85)),
            );
        }
        let mut sides = [0, 1];
        if skeleton.joints[13][2] > skeleton.joints[14][2] {
            sides.swap(0, 1);
        }
        for side in [0, 1] {
            if is_behind(&skeleton, side) {
                self.paint_arm(canvas, look, &skeleton, side, &paint);
            }
        }
        for side in sides {
            self.paint_leg(canvas, look, &skeleton, side, &paint);
        }
        let at = |joint: usize| self.project(skeleton.joints[joint]);
        let hips = Shape::line(at(11), at(12), 0.115 * unit);
        canvas.fill(&hips, &paint(look.trousers));
        let chest = mul(add(at(5), at(6)), 0.5);
        let neck = Shape::line(chest, self.project(skeleton.head), 0.075 * unit);
        canvas.fill(&neck, &paint(scale(look.skin, if look.shade > 0.0 { 0.9 } else { 1.0 })));
        let stripes = look.stripes.map(|(color, count, across)| Stripes {
            color,
            period: (self.build.torso * unit / count).max(2.0),
            across,
        });
        canvas.fill(&self.torso(&skeleton), &Paint { stripes, ..paint(look.shirt) });
        self.paint_head(canvas, look, &skeleton, &paint);
        for side in [0, 1] {
            if !is_behind(&skeleton, side) {
                self.paint_arm(canvas, look, &skeleton, side, &paint);
            }
        }
    }

    fn paint_arm(
        &self,
        canvas: &mut Canvas,
        look: &Look,
        skeleton: &Skeleton,
        side: usize,
        paint: &impl Fn(Color) -> Paint,
    ) {
        let thick = self.place.scale * self.build.girth * look.limbs;
        let at = |joint: usize| self.project(skeleton.joints[joint + side]);
        let (shoulder, elbow, wrist) = (at(5), at(7), at(9));
        let (ra, rb, rc) = (0.047 * thick, 0.04 * thick, 0.033 * thick);
        let end = add(wrist, mul(sub(wrist, elbow), 0.18));
        canvas.fill(&Shape::disc(end, 0.042 * thick), &paint(look.hands));
        canvas.fill(&Shape::Capsule { a: elbow, b: wrist, ra: rb, rb: rc }, &paint(look.forearms));
        canvas.fill(&Shape::Capsule { a: shoulder, b: elbow, ra, rb }, &paint(look.sleeves));
    }

    fn paint_leg(
        &self,
        canvas: &mut Canvas,
        look: &Look,
        skeleton: &Skeleton,
        side: usize,
        paint: &impl Fn(Color) -> Paint,
    ) {
        let unit = self.place.scale;
        let thick = unit * self.build.girth * look.limbs;
        let at = |joint: usize| self.project(skeleton.joints[joint + side]);
        let (hip, knee, ankle) = (at(11), at(13), at(15));
        let outward = if side == 0 { 0.035 } else { -0.035 };
        let turn = self.pose.yaw / 50.0 * 0.05;
        let toe = add(ankle, [(outward + turn) * unit, 0.028 * unit]);
        canvas.fill(
            &Shape::Capsule { a: ankle, b: toe, ra: 0.036 * thick, rb: 0.036 * thick },
            &paint(look.shoes),
        );
        let (ra, rb, rc) = (0.062 * thick, 0.051 * thick, 0.037 * thick);
        canvas
            .fill(&Shape::Capsule { a: knee, b: ankle, ra: rb * 0.95, rb: rc }, &paint(look.shins));
        canvas.fill(&Shape::Capsule { a: hip, b: knee, ra, rb }, &paint(look.trousers));
    }

    fn paint_head(
        &self,
        canvas: &mut Canvas,
        look: &Look,
        skeleton: &Skeleton,
        paint: &impl Fn(Color) -> Paint,
    ) {
        let radius = self.build.head * self.place.scale;
        let centre = self.project(skeleton.head);
        let at = |joint: usize| self.project(skeleton.joints[joint]);
        for ear in [3, 4] {
            canvas.fill(&Shape::disc(at(ear), 0.2 * radius), &paint(look.skin));
        }
        if self.build.hair == Hair::Bun {
            let top = sub(centre, [0.0, 1.1 * radius]);
            canvas.fill(&Shape::disc(top, 0.45 * radius), &paint(look.hair));
        }
        if self.build.hair == Hair::Bald {
            canvas.fill(&Shape::disc(centre, radius), &paint(look.skin));
        } else {
            let crown = sub(centre, [0.0, 0.12 * radius]);
            canvas.fill(&Shape::disc(crown, 1.02 * radius), &paint(look.hair));
            let lean = mul(sub(at(0), centre), 0.22);
            let face = add(add(centre, [0.0, 0.16 * radius]), [lean[0], 0.0]);
            let shape = Shape::Ellipse {
                centre: face,
                rx: 0.84 * radius,
                ry: 0.86 * radius,
                turn: (0.0, 1.0),
            };
            canvas.fill(&shape, &paint(look.skin));
        }
        if let Some(color) = look.eyes {
            let dot = (0.13 * radius).max(0.5);
            for eye in [1, 2] {
                canvas.fill(&Shape::disc(at(eye), dot), &Paint::flat(color));
            }
            let shadow = Paint { opacity: 0.5, ..Paint::flat(scale(look.skin, 0.62)) };
            canvas.fill(&Shape::disc(at(0), (0.12 * radius).max(0.5)), &shadow);
            let brow = mul(add(at(1), at(2)), 0.5);
            let mouth = add(at(0), mul(sub(at(0), brow), 1.2));
            canvas.fill(&Shape::disc(mouth, (0.14 * radius).max(0.45)), &shadow);
        }
    }
}

/// Whether the arm of this side runs behind the torso.
fn is_behind(skeleton: &Skeleton, side: usize) -> bool {
    let far = |joint: usize| skeleton.joints[joint + side][2];
    f32::midpoint(far(7), far(9)) < -0.06
}

/// Scale and place so that the figure with its thickness fits the image.
fn fit(
    build: &Build,
    pose: &Pose,
    [height, width]: [usize; 2],
    span: [f32; 2],
    fill: f32,
    anchor: [f32; 2],
) -> Placement {
    let skeleton = pose.skeleton(build);
    let mut low = [skeleton.head[0] - build.head, skeleton.head[1] - 1.18 * build.head];
    let mut high = [skeleton.head[0] + build.head, skeleton.head[1] + build.head];
    for joint in &skeleton.joints[5..] {
        for axis in 0..2 {
            low[axis] = low[axis].min(joint[axis] - 0.065);
            high[axis] = high[axis].max(joint[axis] + 0.065);
        }
    }
    let (height, width) = (height as f32, width as f32);
    let room = width * (span[1] - span[0]);
    let scale = (fill * height / (high[1] - low[1])).min(0.95 * room / (high[0] - low[0]));
    let slack = [room - scale * (high[0] - low[0]), height - scale * (high[1] - low[1])];
    Placement {
        scale,
        origin: [
            span[0] * width + slack[0] * anchor[0] - scale * low[0],
            slack[1] * anchor[1] - scale * low[1],
        ],
    }
}
