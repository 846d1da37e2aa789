//! Colour pictures with the distances a depth camera saw.

mod layouts;
mod tum;

use image::{DynamicImage, ImageBuffer, Luma};

use self::layouts::{Found, Frame};
use super::{DataSet, Images, Knowledge, Listing};
use crate::{
    data::{
        DataError, Depth, ParamError, Request, Sample,
        files::{read_picture, read_stored_image},
        source::DepthBits,
        tasks::depth::is_known,
    },
    store::SourceReader,
};

const LAYOUT: &str = "colours and depths lie in `rgb/` and `depth/` (TUM, with `rgb.txt` and \
                      `depth.txt`, also in a folder for each sequence), `color/` and `depth/` (Redwood, also in a \
                      folder for each scene), `images/` and `annotations/` (NYU, if wanted with \
                      `train/` and `test/` below both), as `rgb_N.jpg` and `sync_depth_N.png` in a \
                      folder for each scene (NYU), `image/` and `depth/` (SUN, also in a folder for each scene at any \
                      depth), or side by side as `NAME_color.png` and `NAME_depth.png`";

pub(super) struct Rgbd;

impl DataSet for Rgbd {
    fn name(&self) -> &'static str {
        "rgbd"
    }

    fn doc(&self) -> &'static str {
        "Pictures with 16-bit depths in the layouts of NYU, TUM, SUN and Redwood."
    }

    fn params(&self) -> &'static [&'static str] {
        &["source.units", "source.depth_bits", "holdout", "holdout_seed", "without_depth"]
    }

    fn offers(&self) -> &'static [Knowledge] {
        &[Knowledge::Image, Knowledge::Depth]
    }

    fn revision(&self) -> u32 {
        // 1: a depth of TUM goes with one picture.
        1
    }

    fn check(&self, request: &Request) -> Vec<ParamError> {
        if request.source.units != Some(0) {
            return Vec::new();
        }
        vec![
            ParamError::new("source", "`units` must be at least 1, but is 0")
                .help("1000 is millimetres, 5000 TUM's"),
        ]
    }

    fn open<'a>(
        &self,
        request: &'a Request,
        sources: &'a SourceReader,
    ) -> Result<Box<dyn Images + 'a>, DataError> {
        let found = layouts::find(sources, request.without_depth, request.split)?;
        let Found { frames, units, is_sun, divided } = found;
        let code = Code {
            units: request.source.units.unwrap_or(units),
            is_rotated: request.source.depth_bits.map_or(is_sun, |bits| bits == DepthBits::Rotated),
            is_stated: request.source.depth_bits.is_some(),
        };
        let frames = if divided {
            frames
        } else {
            request.part_of_groups(frames, |frame| &frame.sequence)?
        };
        Ok(Box::new(Listing::new(
            frames,
            |Frame { files, .. }| [&files.name, &files.input],
            move |Frame { files, .. }| {
                let image = read_stored_image(sources, &files.input)?;
                let depth = read_depth(sources, &files.target, code)?;
                if request.task.needs() == Knowledge::Depth && !depth.iter().any(|m| is_known(*m)) {
                    let message = format!(
                        "`{}`, the depth of `{}`, is 0 everywhere: no distance is known",
                        files.target, files.input
                    );
                    return Err(DataError::failed(message)
                        .with_help("take the picture and its depth out, or record it anew"));
                }
                if depth.dimensions() != image.dimensions() {
                    return Err(DataError::failed(format!(
                        "`{}` is {}x{}, but `{}` is {}x{}",
                        files.target,
                        depth.width(),
                        depth.height(),
                        files.input,
                        image.width(),
                        image.height()
                    ))
                    .with_help("take the depth that is registered to the colour picture"));
                }
                let id = files.name.clone();
                Ok(Sample { id, image, depth: Some(depth), ..Sample::default() })
            },
        )?))
    }
}

/// How distances are stored.
#[derive(Clone, Copy)]
struct Code {
    /// Per metre.
    units: u32,
    /// Whether bits are turned by three places (SUN).
    is_rotated: bool,
    /// Whether the file says so; else the names of folders do, which others use, too.
    is_stated: bool,
}

/// Reads a depth picture; 0 is no value.
fn read_depth(sources: &SourceReader, path: &str, code: Code) -> Result<Depth, DataError> {
    let DynamicImage::ImageLuma16(stored) = read_picture(sources, path, false)? else {
        return Err(DataError::failed(format!("`{path}` must be a 16-bit grey picture"))
            .with_help("depths of 8 bits or in colours are for looking at, not for measuring"));
    };
    if code.is_rotated && !code.is_stated {
        look_rotated(&stored, path)?;
    }
    let metres = stored.iter().map(|value| {
        let value = if code.is_rotated { value.rotate_right(3) } else { *value };
        f32::from(value) / code.units as f32
    });
    Ok(Depth::from_raw(stored.width(), stored.height(), metres.collect()).expect("one a pixel"))
}

/// Refuses depths that were hardly turned. The three highest bits of a value are its lowest then,
/// and 0 below 8.192 m; of plain millimetres, seven in eight have one of them set.
fn look_rotated(stored: &ImageBuffer<Luma<u16>, Vec<u16>>, path: &str) -> Result<(), DataError> {
    const TURNED: u16 = 0b111;
    let known = stored.iter().filter(|value| **value > 0);
    let (mut count, mut far) = (0usize, 0usize);
    for value in known {
        count += 1;
        far += usize::from(value & TURNED != 0);
    }
    if far * 2 <= count {
        return Ok(());
    }
    let message = format!(
        "`{path}` lies in the layout of SUN, which turns the bits of its depths by three places, but then {far} \
         of its {count} known pixels would be 8.19 m away or more, so they seem to be plain"
    );
    Err(DataError::failed(message).with_help(
        "say what they are in `source`: depth_bits = \"plain\" for plain millimetres (or what `units` says), or \
         depth_bits = \"rotated\" if they are SUN's and as far",
    ))
}

#[cfg(test)]
mod tests;
