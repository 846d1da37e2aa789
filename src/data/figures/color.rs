//! Colours: draws that keep apart, and the task palettes the world must never show.

use super::rng::Rng;

/// Red, green, blue in 0..255.
pub(super) type Color = [f32; 3];

/// The four colours of the pose task: head, torso, arms, legs.
pub(super) const POSE_COLORS: [Color; 4] =
    [[255.0, 255.0, 255.0], [0.0, 0.0, 255.0], [255.0, 0.0, 0.0], [0.0, 255.0, 0.0]];

/// How far (sum over channels) a drawn colour stays from one it must not be.
const KEEP_AWAY: f32 = 150.0;

pub(super) fn blend(from: Color, to: Color, weight: f32) -> Color {
    std::array::from_fn(|channel| from[channel] + (to[channel] - from[channel]) * weight)
}

pub(super) fn scale(color: Color, factor: f32) -> Color {
    color.map(|value| (value * factor).clamp(0.0, 255.0))
}

/// Sum of the channels' differences.
pub(super) fn apart(a: Color, b: Color) -> f32 {
    (a[0] - b[0]).abs() + (a[1] - b[1]).abs() + (a[2] - b[2]).abs()
}

/// Whether two parts wear one colour.
pub(super) fn same(a: Color, b: Color) -> bool {
    apart(a, b) < 0.5
}

pub(super) fn luma(color: Color) -> f32 {
    0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
}

/// Hue in 0..6, saturation and value in 0..1.
pub(super) fn hsv(hue: f32, saturation: f32, value: f32) -> Color {
    let ramp = |shift: f32| {
        let at = (hue + shift) % 6.0;
        let peak = at.min(4.0 - at).clamp(0.0, 1.0);
        255.0 * value * (1.0 - saturation * peak)
    };
    [ramp(5.0), ramp(3.0), ramp(1.0)]
}

/// A colour of clothing: mostly saturated, sometimes grey, black or white.
pub(super) fn cloth(rng: &mut Rng) -> Color {
    if rng.chance(0.15) {
        let value = rng.range(25.0, 240.0);
        return [value + rng.around(8.0), value, value + rng.around(8.0)]
            .map(|v| v.clamp(0.0, 255.0));
    }
    hsv(rng.range(0.0, 6.0), rng.range(0.5, 0.95), rng.range(0.4, 0.95))
}

/// Any flat colour: saturated, pastel, grey or dark.
pub(super) fn any(rng: &mut Rng) -> Color {
    match rng.below(8) {
        0 => [rng.range(0.0, 255.0); 3],
        1 => hsv(rng.range(0.0, 6.0), rng.range(0.15, 0.5), rng.range(0.5, 1.0)),
        2 => hsv(rng.range(0.0, 6.0), rng.range(0.4, 1.0), rng.range(0.15, 0.5)),
        3 => hsv(rng.range(0.0, 6.0), 1.0, 1.0),
        _ => hsv(rng.range(0.0, 6.0), rng.range(0.55, 1.0), rng.range(0.55, 1.0)),
    }
}

/// A quiet colour for walls, floors and skies.
pub(super) fn muted(rng: &mut Rng) -> Color {
    hsv(rng.range(0.0, 6.0), rng.range(0.05, 0.4), rng.range(0.25, 0.92))
}

/// A plain ground: dark a little more often than light, sometimes any colour.
pub(super) fn plain(rng: &mut Rng) -> Color {
    match rng.below(10) {
        0..=1 => [rng.range(0.0, 12.0); 3],
        2..=4 => hsv(rng.range(0.0, 6.0), rng.range(0.0, 0.8), rng.range(0.02, 0.25)),
        5..=6 => hsv(rng.range(0.0, 6.0), rng.range(0.0, 0.15), rng.range(0.85, 1.0)),
        7 => muted(rng),
        _ => any(rng),
    }
}

const SKIN: [Color; 6] = [
    [250.0, 216.0, 190.0],
    [238.0, 190.0, 152.0],
    [218.0, 164.0, 122.0],
    [184.0, 126.0, 86.0],
    [142.0, 92.0, 60.0],
    [100.0, 64.0, 44.0],
];

const HAIR: [Color; 6] = [
    [28.0, 22.0, 20.0],
    [66.0, 42.0, 26.0],
    [112.0, 70.0, 36.0],
    [206.0, 168.0, 92.0],
    [158.0, 70.0, 30.0],
    [150.0, 148.0, 146.0],
];

pub(super) fn skin(rng: &mut Rng) -> Color {
    let (base, factor) = (rng.pick(&SKIN), rng.range(0.92, 1.04));
    scale(base, factor)
}

pub(super) fn hair(rng: &mut Rng) -> Color {
    let (base, factor) = (rng.pick(&HAIR), rng.range(0.85, 1.15));
    scale(base, factor)
}

/// Draws until the colour keeps `least` from all of `others`; after twenty draws, the best one.
pub(super) fn distinct(
    rng: &mut Rng,
    draw: impl Fn(&mut Rng) -> Color,
    others: &[Color],
    least: f32,
) -> Color {
    let mut best = ([0.0; 3], -1.0);
    for _ in 0..20 {
        let color = draw(rng);
        let margin = others.iter().map(|other| apart(color, *other)).fold(f32::MAX, f32::min);
        if margin >= least {
            return color;
        }
        if margin > best.1 {
            best = (color, margin);
        }
    }
    best.0
}

/// Flat colours for ground, head, torso, arms and legs that no pose target or mask has: all five
/// are apart from each other, and no part is near the pose task's colour of that part.
pub(super) fn puppet(rng: &mut Rng) -> [Color; 5] {
    let ground = plain(rng);
    let mut colors = [ground; 5];
    for part in 0..4 {
        let taken: Vec<Color> = colors[..=part].to_vec();
        let mut color = distinct(rng, any, &taken, 130.0);
        for _ in 0..50 {
            if apart(color, POSE_COLORS[part]) >= KEEP_AWAY {
                break;
            }
            color = distinct(rng, any, &taken, 130.0);
        }
        if apart(color, POSE_COLORS[part]) < KEEP_AWAY {
            color = scale(color, 0.5);
        }
        colors[part + 1] = color;
    }
    colors
}

/// Bright colours for line art; one of the four pose colours (drawn) is always kept out, so the
/// four never meet.
pub(super) fn line_colors(rng: &mut Rng, count: usize, ground: Color) -> Vec<Color> {
    let absent = rng.pick(&POSE_COLORS);
    let bright = |rng: &mut Rng| match rng.below(6) {
        0 => [rng.range(225.0, 255.0); 3],
        1 => rng.pick(&POSE_COLORS),
        _ => hsv(rng.range(0.0, 6.0), rng.range(0.75, 1.0), rng.range(0.7, 1.0)),
    };
    (0..count)
        .map(|_| {
            let mut color = distinct(rng, bright, &[ground], 220.0);
            for _ in 0..50 {
                if apart(color, absent) >= KEEP_AWAY {
                    break;
                }
                color = distinct(rng, bright, &[ground], 220.0);
            }
            if apart(color, absent) < KEEP_AWAY { scale(color, 0.5) } else { color }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{POSE_COLORS, apart, hsv, puppet, same};
    use crate::data::figures::rng::Rng;

    #[test]
    fn hsv_hits_the_corners_of_the_cube() {
        assert!(same(hsv(0.0, 1.0, 1.0), [255.0, 0.0, 0.0]));
        assert!(same(hsv(2.0, 1.0, 1.0), [0.0, 255.0, 0.0]));
        assert!(same(hsv(4.0, 1.0, 1.0), [0.0, 0.0, 255.0]));
        assert!(same(hsv(3.3, 0.0, 1.0), [255.0, 255.0, 255.0]));
    }

    #[test]
    fn puppets_never_wear_the_pose_colours() {
        for index in 0..2000 {
            let colors = puppet(&mut Rng::new(9, 1, index));
            for (part, pose) in POSE_COLORS.iter().enumerate() {
                assert!(apart(colors[part + 1], *pose) > 100.0, "{index}: {colors:?}");
            }
        }
    }
}
