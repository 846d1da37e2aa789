//! Joints: a small three-dimensional skeleton, its poses and how they move.
//!
//! Lengths are in units of roughly one body height; x to the right of the image, y down, z towards
//! the viewer. Side 0 is the figure's own left, which a frontal view shows on the right.

use super::rng::{Rng, sin_cos};

/// A joint in body units.
pub(super) type Joint = [f32; 3];

/// Angles of an arm in degrees; all 0 hangs straight down.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arm {
    /// Upper arm away from the body; 90 horizontal, 180 up.
    pub(super) spread: f32,
    /// Upper arm towards the viewer.
    pub(super) forward: f32,
    /// Forearm further outwards and up (positive) or back to the body (negative).
    pub(super) bend_out: f32,
    /// Forearm further towards the viewer.
    pub(super) bend_forward: f32,
}

/// Angles of a leg in degrees; all 0 stands straight.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leg {
    pub(super) spread: f32,
    pub(super) forward: f32,
    /// How far the knee is bent.
    pub(super) knee: f32,
}

/// All angles of a figure.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pose {
    /// Turn about the vertical axis; positive shows more of the figure's right side.
    pub(super) yaw: f32,
    /// Sideways lean of the torso.
    pub(super) lean: f32,
    /// Sideways tilt of the head on the torso.
    pub(super) tilt: f32,
    pub(super) arms: [Arm; 2],
    pub(super) legs: [Leg; 2],
}

/// Lengths and thicknesses of a figure in body units.
#[derive(Clone, Copy, Debug)]
pub(super) struct Build {
    pub(super) head: f32,
    pub(super) shoulders: f32,
    pub(super) hips: f32,
    pub(super) torso: f32,
    pub(super) upper_arm: f32,
    pub(super) forearm: f32,
    pub(super) thigh: f32,
    pub(super) shin: f32,
    /// Factor on the thickness of the limbs.
    pub(super) girth: f32,
    pub(super) hair: Hair,
}

/// How the hair is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hair {
    Short,
    Long,
    Bun,
    Bald,
}

/// COCO's 17 keypoints and the centre of the head.
#[derive(Clone, Debug)]
pub(super) struct Skeleton {
    pub(super) joints: [Joint; 17],
    pub(super) head: Joint,
}

/// How freely arms are spread: figures that share the image keep to themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Wide,
    Narrow,
}

impl Build {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let legs = rng.range(0.92, 1.08);
        let arms = rng.range(0.94, 1.06);
        Self {
            head: rng.range(0.092, 0.118),
            shoulders: rng.range(0.105, 0.135),
            hips: rng.range(0.07, 0.09),
            torso: rng.range(0.265, 0.31),
            upper_arm: 0.168 * arms,
            forearm: 0.155 * arms,
            thigh: 0.225 * legs,
            shin: 0.215 * legs,
            girth: rng.range(1.0, 1.4),
            hair: rng.weighted(&[
                (Hair::Short, 55),
                (Hair::Long, 25),
                (Hair::Bun, 10),
                (Hair::Bald, 10),
            ]),
        }
    }
}

/// Families of arm poses.
#[derive(Clone, Copy)]
enum Arms {
    Down,
    Out,
    Up,
    Akimbo,
    Wave,
    Front,
}

/// Families of leg poses.
#[derive(Clone, Copy)]
enum Legs {
    Stand,
    Wide,
    Step,
    Kick,
    Squat,
    Stork,
}

impl Arm {
    fn draw(rng: &mut Rng, room: Room) -> Self {
        let wide = u32::from(room == Room::Wide);
        let family = rng.weighted(&[
            (Arms::Down, 24),
            (Arms::Out, 18 * wide),
            (Arms::Up, 16),
            (Arms::Akimbo, 14),
            (Arms::Wave, 18 * wide),
            (Arms::Front, 10),
        ]);
        let mut arm = |spread: [f32; 2], forward: [f32; 2], out: [f32; 2], bend: [f32; 2]| Self {
            spread: rng.range(spread[0], spread[1]),
            forward: rng.range(forward[0], forward[1]),
            bend_out: rng.range(out[0], out[1]),
            bend_forward: rng.range(bend[0], bend[1]),
        };
        match family {
            Arms::Down => arm([8.0, 28.0], [-12.0, 15.0], [-14.0, 6.0], [0.0, 30.0]),
            Arms::Out => arm([55.0, 105.0], [-15.0, 30.0], [-40.0, 40.0], [0.0, 25.0]),
            Arms::Up => arm([125.0, 170.0], [-10.0, 20.0], [-20.0, 45.0], [0.0, 10.0]),
            Arms::Akimbo => arm([38.0, 60.0], [-20.0, 0.0], [-120.0, -85.0], [0.0, 20.0]),
            Arms::Wave => arm([50.0, 95.0], [-5.0, 20.0], [60.0, 110.0], [0.0, 20.0]),
            Arms::Front => arm([10.0, 30.0], [10.0, 60.0], [-70.0, -15.0], [20.0, 60.0]),
        }
    }
}

impl Leg {
    fn pair(rng: &mut Rng, room: Room) -> [Self; 2] {
        let wide = u32::from(room == Room::Wide);
        let family = rng.weighted(&[
            (Legs::Stand, 30),
            (Legs::Wide, 22),
            (Legs::Step, 22),
            (Legs::Kick, 8 * wide),
            (Legs::Squat, 8),
            (Legs::Stork, 8),
        ]);
        let mut leg = |spread: [f32; 2], forward: [f32; 2], knee: [f32; 2]| Self {
            spread: rng.range(spread[0], spread[1]),
            forward: rng.range(forward[0], forward[1]),
            knee: rng.range(knee[0], knee[1]),
        };
        let straight = ([2.0, 9.0], [-4.0, 6.0], [0.0, 8.0]);
        let mut pair = match family {
            Legs::Stand => [(); 2].map(|()| leg(straight.0, straight.1, straight.2)),
            Legs::Wide => [(); 2].map(|()| leg([10.0, 30.0], [-5.0, 10.0], [0.0, 15.0])),
            Legs::Step => [
                leg([2.0, 10.0], [18.0, 42.0], [5.0, 40.0]),
                leg([2.0, 10.0], [-28.0, -8.0], [5.0, 40.0]),
            ],
            Legs::Kick => [
                leg([35.0, 75.0], [0.0, 25.0], [0.0, 40.0]),
                leg([0.0, 8.0], [-5.0, 5.0], [0.0, 8.0]),
            ],
            Legs::Squat => [(); 2].map(|()| leg([22.0, 45.0], [25.0, 55.0], [50.0, 85.0])),
            Legs::Stork => [
                leg([15.0, 45.0], [30.0, 65.0], [60.0, 110.0]),
                leg([0.0, 6.0], [-5.0, 5.0], [0.0, 6.0]),
            ],
        };
        if rng.chance(0.5) {
            pair.swap(0, 1);
        }
        pair
    }
}

impl Pose {
    /// A standing, stepping, squatting or kicking pose, frontal or turned by up to 50 degrees.
    pub(super) fn draw(rng: &mut Rng, room: Room) -> Self {
        let first = Arm::draw(rng, room);
        // People often do the same with both arms.
        let second = if rng.chance(0.35) { first } else { Arm::draw(rng, room) };
        let mut arms = [first, second];
        for arm in &mut arms {
            arm.spread += rng.around(8.0);
            arm.bend_out += rng.around(10.0);
        }
        Self {
            yaw: if rng.chance(0.4) { rng.around(12.0) } else { rng.around(50.0) },
            lean: rng.around(14.0),
            tilt: rng.around(16.0),
            arms,
            legs: Leg::pair(rng, room),
        }
    }

    /// Between two poses.
    pub(super) fn toward(&self, to: &Self, weight: f32) -> Self {
        let mix = |from: f32, to: f32| from + (to - from) * weight;
        Self {
            yaw: mix(self.yaw, to.yaw),
            lean: mix(self.lean, to.lean),
            tilt: mix(self.tilt, to.tilt),
            arms: std::array::from_fn(|side| Arm {
                spread: mix(self.arms[side].spread, to.arms[side].spread),
                forward: mix(self.arms[side].forward, to.arms[side].forward),
                bend_out: mix(self.arms[side].bend_out, to.arms[side].bend_out),
                bend_forward: mix(self.arms[side].bend_forward, to.arms[side].bend_forward),
            }),
            legs: std::array::from_fn(|side| Leg {
                spread: mix(self.legs[side].spread, to.legs[side].spread),
                forward: mix(self.legs[side].forward, to.legs[side].forward),
                knee: mix(self.legs[side].knee, to.legs[side].knee),
            }),
        }
    }

    /// The joints of a figure of this build, the middle of its hips at the origin.
    pub(super) fn skeleton(&self, build: &Build) -> Skeleton {
        let (lean_sin, lean_cos) = sin_cos(self.lean);
        let (tilt_sin, tilt_cos) = sin_cos(self.lean + self.tilt);
        let chest = [lean_sin * build.torso, -lean_cos * build.torso, 0.0];
        let neck = build.head + 0.055;
        let head = [chest[0] + tilt_sin * neck, chest[1] - tilt_cos * neck, 0.01];
        let on_head = |x: f32, y: f32, z: f32| {
            let (x, y) = (x * build.head, y * build.head);
            [
                head[0] + x * tilt_cos - y * tilt_sin,
                head[1] + x * tilt_sin + y * tilt_cos,
                head[2] + z * build.head,
            ]
        };
        let mut joints = [[0.0; 3]; 17];
        joints[0] = on_head(0.0, 0.18, 0.95);
        for side in 0..2 {
            let sign = if side == 0 { 1.0 } else { -1.0 };
            joints[1 + side] = on_head(0.38 * sign, -0.1, 0.85);
            joints[3 + side] = on_head(0.92 * sign, 0.02, 0.0);
            let arm = &self.arms[side];
            let shoulder = [
                chest[0] + sign * build.shoulders * lean_cos,
                chest[1] + sign * build.shoulders * lean_sin,
                0.0,
            ];
            let elbow = reach(shoulder, sign, arm.spread, arm.forward, build.upper_arm);
            let (spread, forward) = (arm.spread + arm.bend_out, arm.forward + arm.bend_forward);
            joints[5 + side] = shoulder;
            joints[7 + side] = elbow;
            joints[9 + side] = reach(elbow, sign, spread, forward, build.forearm);
            let leg = &self.legs[side];
            let hip = [sign * build.hips, sign * build.hips * lean_sin * 0.3, 0.0];
            let knee = reach(hip, sign, leg.spread, leg.forward, build.thigh);
            joints[11 + side] = hip;
            joints[13 + side] = knee;
            joints[15 + side] =
                reach(knee, sign, leg.spread * 0.5, leg.forward - leg.knee, build.shin);
        }
        let (sin, cos) = sin_cos(self.yaw);
        let turned = |p: Joint| [p[0] * cos + p[2] * sin, p[1], p[2] * cos - p[0] * sin];
        Skeleton { joints: joints.map(turned), head: turned(head) }
    }
}

/// The far end of a limb.
fn reach(from: Joint, side: f32, spread: f32, forward: f32, length: f32) -> Joint {
    let (spread_sin, spread_cos) = sin_cos(spread);
    let (forward_sin, forward_cos) = sin_cos(forward);
    [
        from[0] + side * spread_sin * length,
        from[1] + spread_cos * forward_cos * length,
        from[2] + spread_cos.abs() * forward_sin * length,
    ]
}
