//! `scene`: every class of the scene in a colour of its own.

use std::collections::BTreeSet;

use image::{Rgb, RgbImage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Knowledge, Task};
use crate::data::{DataError, Pair, Request, Sample, SceneColor, SceneLabels, class_names};

/// Classes and colours of a scene.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SceneStyle {
    /// The classes that are painted; all others stay black. Empty paints all. Where a class has
    /// several names, one of them will do.
    pub classes: Vec<String>,
    /// Where the colours come from.
    pub palette: Palette,
}

/// Colours by the number of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Palette {
    /// The colour map of PASCAL VOC: the bits of the number spread over the channels.
    #[default]
    Voc,
    /// Full colours with hues spread evenly over the painted classes.
    Hues,
}

impl Palette {
    /// The colour of painted class `place` (from 0) of `count`, whose number is `number`.
    fn color(self, number: usize, place: usize, count: usize) -> [u8; 3] {
        match self {
            Self::Voc => voc(number),
            Self::Hues => hue(place as f64 / count.max(1) as f64),
        }
    }
}

/// The colour map of PASCAL VOC: bit `3 k + c` of the number is bit `7 - k` of channel `c`.
fn voc(number: usize) -> [u8; 3] {
    let mut color = [0u8; 3];
    for bit in 0..8 {
        for (channel, value) in color.iter_mut().enumerate() {
            *value |= ((number >> (3 * bit + channel) & 1) as u8) << (7 - bit);
        }
    }
    color
}

/// The full colour at a turn of the colour circle: 0 is red, 1/3 green, 2/3 blue.
pub(super) fn hue(turn: f64) -> [u8; 3] {
    [0.0, 1.0, 2.0].map(|third: f64| {
        // The distance to the channel's own place on the circle, in sixths.
        let far = ((turn * 6.0 - third * 2.0 + 3.0).rem_euclid(6.0) - 3.0).abs();
        (255.0 * (2.0 - far).clamp(0.0, 1.0)).round() as u8
    })
}

pub(super) struct Scene;

impl Task for Scene {
    fn name(&self) -> &'static str {
        "scene"
    }

    fn doc(&self) -> &'static str {
        "Every class of the scene in a colour of its own, on black."
    }

    fn params(&self) -> &'static [&'static str] {
        &["scene"]
    }

    fn needs(&self) -> Knowledge {
        Knowledge::Scene
    }

    fn draw(&self, sample: Sample, request: &Request) -> Result<Pair, DataError> {
        let SceneLabels { labels, names } = sample.scene.ok_or_else(|| super::lacks("scene"))?;
        let painted = painted(&names, &request.scene)?;
        let mut colors = vec![[0; 3]; names.len() + 1];
        for (number, SceneColor { color, .. }) in &painted {
            colors[*number] = *color;
        }
        let target = RgbImage::from_fn(labels.width(), labels.height(), |x, y| {
            Rgb(colors[usize::from(labels.get_pixel(x, y).0[0])])
        });
        let mut pair = super::pair(sample.image, target);
        pair.meta.scene = painted.into_iter().map(|(_, class)| class).collect();
        Ok(pair)
    }
}

/// The numbers and colours of the painted classes.
fn painted(names: &[String], style: &SceneStyle) -> Result<Vec<(usize, SceneColor)>, DataError> {
    let chosen = style.classes.iter().map(|class| class_names::find(names, class));
    let chosen: BTreeSet<usize> = chosen.collect::<Result<_, _>>()?;
    let is_painted = |place: &usize| style.classes.is_empty() || chosen.contains(place);
    let numbers: Vec<_> = (0..names.len()).filter(is_painted).map(|place| place + 1).collect();
    let classes = numbers.iter().enumerate().map(|(place, number)| {
        let color = style.palette.color(*number, place, numbers.len());
        (*number, SceneColor { name: names[number - 1].clone(), color })
    });
    Ok(classes.collect())
}

#[cfg(test)]
mod tests {
    use image::Luma;

    use super::*;
    use crate::data::Labels;

    #[test]
    fn the_colour_map_is_that_of_voc() {
        let first: Vec<_> = (0..6).map(voc).collect();
        assert_eq!(first[..3], [[0, 0, 0], [128, 0, 0], [0, 128, 0]]);
        assert_eq!(first[3..], [[128, 128, 0], [0, 0, 128], [128, 0, 128]]);
        assert_eq!((voc(15), voc(20), voc(255)), ([192, 128, 128], [0, 64, 128], [224, 224, 192]));
    }

    #[test]
    fn hues_go_round_the_circle() {
        let sixths: Vec<_> = (0..6).map(|n| hue(f64::from(n) / 6.0)).collect();
        assert_eq!(sixths[..3], [[255, 0, 0], [255, 255, 0], [0, 255, 0]]);
        assert_eq!(sixths[3..], [[0, 255, 255], [0, 0, 255], [255, 0, 255]]);
    }

    fn draw(style: &serde_json::Value) -> Result<Pair, DataError> {
        let request = serde_json::from_value(serde_json::json!({
            "source": "builtin:figures", "task": "scene", "size": [8, 8], "count": 1, "scene": style,
        }))
        .unwrap();
        let labels = Labels::from_fn(8, 8, |x, _| Luma([x as u16 / 2]));
        let names = ["a", "b", "c"].map(str::to_owned).into();
        let scene = Some(SceneLabels { labels, names });
        Scene.draw(Sample { image: RgbImage::new(8, 8), scene, ..Sample::default() }, &request)
    }

    #[test]
    fn chosen_classes_keep_their_number_and_others_are_black() {
        let all = draw(&serde_json::json!({})).unwrap();
        assert_eq!(all.target.get_pixel(7, 0).0, voc(3));
        assert_eq!(all.meta.scene.len(), 3);
        let some = draw(&serde_json::json!({ "classes": ["c"] })).unwrap();
        assert_eq!(some.target.get_pixel(7, 0).0, voc(3));
        assert_eq!(some.target.get_pixel(3, 0).0, [0; 3]);
        let error = draw(&serde_json::json!({ "classes": ["d"] })).unwrap_err();
        assert_eq!(error.to_string(), "the data has no class `d`");
    }
}
