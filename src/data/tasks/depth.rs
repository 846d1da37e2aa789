//! `depth`: distances as grey values or colours.

use image::{Rgb, RgbImage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Knowledge, Task, scene::hue};
use crate::data::{DataError, Depth, Pair, ParamError, Request, Sample};

/// How distances become colours.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DepthCode {
    /// Grey values, or hues, which a change of brightness or contrast leaves as they are.
    pub colors: DepthColors,
    /// What is linear in the colours.
    pub scale: DepthScale,
    /// The nearest and the furthest distance that can be told apart, in metres.
    pub range: [f32; 2],
}

impl Default for DepthCode {
    fn default() -> Self {
        Self { colors: DepthColors::Grey, scale: DepthScale::Linear, range: [0.5, 10.0] }
    }
}

/// The colours of distances; what has none is black.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DepthColors {
    /// White is near, black is far.
    Grey,
    /// Red is near, then yellow, green, cyan, and blue is far.
    Hue,
}

/// What is linear in the colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DepthScale {
    /// The distance.
    Linear,
    /// The logarithm of the distance.
    Log,
    /// One over the distance, as disparity is.
    Inverse,
}

impl DepthCode {
    /// The colour of a distance; black if it is not known.
    pub fn encode(&self, metres: f32) -> [u8; 3] {
        if !is_known(metres) {
            return [0; 3];
        }
        let [near, far] = self.range.map(|end| self.scaled(end));
        let far_share = ((self.scaled(metres) - near) / (far - near)).clamp(0.0, 1.0);
        match self.colors {
            DepthColors::Grey => [(255.0 * (1.0 - far_share)).round() as u8; 3],
            DepthColors::Hue => hue(far_share * 2.0 / 3.0),
        }
    }

    /// The distance that a colour stands for; a colour without hue counts as the furthest.
    pub fn decode(&self, color: [u8; 3]) -> f32 {
        let far_share =
            match self.colors {
                DepthColors::Grey => {
                    1.0 - color.iter().map(|v| f64::from(*v)).sum::<f64>() / (3.0 * 255.0)
                }
                DepthColors::Hue => {
                    // Between blue and red there is no distance; the nearer end counts.
                    turn(color).map_or(1.0, |turn| {
                        if turn > 5.0 / 6.0 { 0.0 } else { (turn * 1.5).min(1.0) }
                    })
                }
            };
        let [near, far] = self.range.map(|end| self.scaled(end));
        let value = near + far_share * (far - near);
        (match self.scale {
            DepthScale::Linear => value,
            DepthScale::Log => value.exp(),
            DepthScale::Inverse => 1.0 / value,
        }) as f32
    }

    fn scaled(&self, metres: f32) -> f64 {
        let metres = f64::from(metres);
        match self.scale {
            DepthScale::Linear => metres,
            DepthScale::Log => metres.max(1e-6).ln(),
            DepthScale::Inverse => 1.0 / metres.max(1e-6),
        }
    }
}

/// Whether a sensor gave a distance.
pub fn is_known(metres: f32) -> bool {
    metres.is_finite() && metres > 0.0
}

/// The place of a colour on the colour circle, from 0 (red) to 1; `None` for grey.
fn turn([r, g, b]: [u8; 3]) -> Option<f64> {
    let [r, g, b] = [r, g, b].map(f64::from);
    let (high, low) = (r.max(g).max(b), r.min(g).min(b));
    let spread = high - low;
    if spread == 0.0 {
        return None;
    }
    let sixths = if r >= g && r >= b {
        ((g - b) / spread).rem_euclid(6.0)
    } else if g >= b {
        (b - r) / spread + 2.0
    } else {
        (r - g) / spread + 4.0
    };
    Some(sixths / 6.0)
}

/// How far the distances of some pictures are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reach {
    /// Pixels whose distance is known.
    pub known: usize,
    /// Those of them that lie beyond the range of the colours, on either side.
    pub beyond: usize,
    /// The furthest, in metres.
    pub furthest: f32,
}

impl Reach {
    /// That of one picture.
    pub fn of(depth: &Depth, [near, far]: [f32; 2]) -> Self {
        let known = || depth.iter().copied().filter(|metres| is_known(*metres));
        Self {
            known: known().count(),
            beyond: known().filter(|metres| !(near..=far).contains(metres)).count(),
            furthest: known().fold(0.0, f32::max),
        }
    }

    /// That of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            known: self.known + other.known,
            beyond: self.beyond + other.beyond,
            furthest: self.furthest.max(other.furthest),
        }
    }

    /// What to say, behind "pictures with", if most distances are drawn as the ends of the range.
    pub fn doubt(self, [near, far]: [f32; 2]) -> Option<String> {
        (2 * self.beyond > self.known).then(|| {
            format!(
                "{:.0} % of the known distances beyond `depth.range` = [{near}, {far}], up to {:.1} m away; they \
                 are drawn as its ends: give a range that holds them or, if they seem wrong, check `units` of \
                 `source`",
                100.0 * self.beyond as f64 / self.known as f64,
                self.furthest
            )
        })
    }
}

/// Refuses an image of which no distance lies in the range: its target would be of one colour, or
/// of two.
fn in_range(depth: &Depth, [near, far]: [f32; 2], id: &str) -> Result<(), DataError> {
    let known = || depth.iter().copied().filter(|metres| is_known(*metres));
    if known().any(|metres| (near..=far).contains(&metres)) {
        return Ok(());
    }
    let (least, most) = (known().fold(f32::MAX, f32::min), known().fold(0.0, f32::max));
    let message = format!(
        "no pixel of `{id}` is as far as `depth.range` = [{near}, {far}] says, but {least:.2} to {most:.2} m"
    );
    Err(DataError::failed(message).with_help(
        "give a range that holds these distances; if they seem wrong, check `units` of `source`",
    ))
}

pub(super) struct DepthTask;

impl Task for DepthTask {
    fn name(&self) -> &'static str {
        "depth"
    }

    fn doc(&self) -> &'static str {
        "The distance of each pixel as a grey value or a colour."
    }

    fn params(&self) -> &'static [&'static str] {
        &["depth"]
    }

    fn needs(&self) -> Knowledge {
        Knowledge::Depth
    }

    fn check(&self, request: &Request) -> Vec<ParamError> {
        let [near, far] = request.depth.range;
        if near > 0.0 && near < far && far.is_finite() {
            return Vec::new();
        }
        let message = format!("must rise from above 0, but is [{near}, {far}]");
        vec![
            ParamError::new("depth.range", message).help("give [near, far] in metres: [0.5, 10.0]"),
        ]
    }

    fn draw(&self, sample: Sample, request: &Request) -> Result<Pair, DataError> {
        let depth = sample.depth.ok_or_else(|| super::lacks("depth"))?;
        if !depth.iter().any(|metres| is_known(*metres)) {
            let message = "no pixel of the depth image has a distance";
            return Err(DataError::failed(message).with_help(
                "0 means that none is known; take the picture and its depth out of the data, or add the \
                 depth that belongs to it",
            ));
        }
        in_range(&depth, request.depth.range, &sample.id)?;
        let code = request.depth;
        let target = RgbImage::from_fn(depth.width(), depth.height(), |x, y| {
            Rgb(code.encode(depth.get_pixel(x, y).0[0]))
        });
        let mut pair = super::pair(sample.image, target);
        pair.meta.depth = Some(code);
        pair.depth = Some(depth);
        Ok(pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes() -> impl Iterator<Item = DepthCode> {
        let scales = [DepthScale::Linear, DepthScale::Log, DepthScale::Inverse];
        [DepthColors::Grey, DepthColors::Hue].into_iter().flat_map(move |colors| {
            scales.map(|scale| DepthCode { colors, scale, range: [0.5, 10.0] })
        })
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same_distance() {
        for code in codes() {
            for step in 0..=100 {
                let metres = 0.5 + 9.5 * step as f32 / 100.0;
                let found = code.decode(code.encode(metres));
                // One grey value of the inverse scale is 2 m wide at 10 m.
                let wide = if code.scale == DepthScale::Inverse { 0.1 } else { 0.035 };
                assert!((found / metres - 1.0).abs() < wide, "{code:?} {metres} {found}");
            }
            assert_eq!(code.encode(0.0), [0; 3]);
            assert_eq!(code.encode(f32::NAN), [0; 3]);
            assert_eq!(code.encode(99.0), code.encode(10.0));
        }
    }

    #[test]
    fn hues_survive_a_change_of_brightness_and_contrast() {
        let code = DepthCode { colors: DepthColors::Hue, ..DepthCode::default() };
        for step in 0..=20 {
            let metres = 0.6 + 9.0 * step as f32 / 20.0;
            let shifted = code.encode(metres).map(|v| (f32::from(v) * 0.7 + 40.0).round() as u8);
            assert!((code.decode(shifted) - metres).abs() < 0.1, "{metres}");
        }
    }
}
