//! Colour pictures with the distances a depth camera saw.

use image::DynamicImage;

use super::{DataSet, Images, Knowledge, Listing};
use crate::{
    data::{
        DataError, Depth, Problem, Request, Sample,
        files::{is_picture, list, read_image, read_picture, read_source},
        folder::{self, PairFiles},
    },
    store::SourceReader,
};

const LAYOUT: &str = "colours and depths lie in `rgb/` and `depth/` (TUM, with `rgb.txt` and \
                      `depth.txt`), `color/` and `depth/` (Redwood), `images/` and `annotations/` \
                      (NYU), `image/` and `depth/` (SUN, also in a folder for each scene at any \
                      depth), or side by side as `NAME_color.png` and `NAME_depth.png`";

/// Pictures and depths of TUM belong together if their times differ by less, in seconds.
const SAME_TIME: f64 = 0.02;

pub(super) struct Rgbd;

impl DataSet for Rgbd {
    fn name(&self) -> &'static str {
        "rgbd"
    }

    fn doc(&self) -> &'static str {
        "Pictures with 16-bit depths in the layouts of NYU, TUM, SUN and Redwood."
    }

    fn params(&self) -> &'static [&'static str] {
        &["source.units", "holdout"]
    }

    fn offers(&self) -> &'static [Knowledge] {
        &[Knowledge::Image, Knowledge::Depth]
    }

    fn check(&self, request: &Request) -> Vec<Problem> {
        if request.source.units != Some(0) {
            return Vec::new();
        }
        vec![Problem::new("source", "`units` must be at least 1, but is 0", "1000 is millimetres")]
    }

    fn open<'a>(
        &self,
        request: &'a Request,
        sources: &'a SourceReader,
    ) -> Result<Box<dyn Images + 'a>, DataError> {
        let names = list(sources, "", LAYOUT)?;
        let has = |name: &str| names.iter().any(|found| found == name);
        let is_flat = names.iter().any(|name| is_picture(name));
        let mut is_sun = has("image/") && has("depth/");
        let by_stem = |colors: &str, depths: &str| {
            folder::matched(folder::images(sources, colors)?, folder::images(sources, depths)?)
        };
        let files = if has("rgb.txt") && has("depth.txt") {
            by_time(sources)?
        } else if let Some([colors, depths]) =
            [["rgb", "depth"], ["color", "depth"], ["images", "annotations"], ["image", "depth"]]
                .into_iter()
                .find(|pair| pair.iter().all(|name| has(&format!("{name}/"))))
        {
            by_stem(colors, depths)?
        } else if let Some(scenes) = (!is_flat).then(|| scenes(sources)).transpose()?
            && !scenes.is_empty()
        {
            is_sun = true;
            scenes
        } else {
            folder::side_by_side(sources, "", ["_color", "_depth"])
                .map_err(|e| e.with_help(LAYOUT))?
        };
        let units = request.source.units.unwrap_or(1000);
        let files = request.part(files);
        Ok(Box::new(Listing::new(files, move |files| {
            let image = read_image(sources, &files.input)?;
            let depth = read_depth(sources, &files.target, units, is_sun)?;
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
        })))
    }
}

/// Folders above the scenes of SUN, such as `kv2/kinect2data/`; more is no data set of it.
const MAX_LEVELS: usize = 6;

/// The pictures of all scenes of SUN below the root: folders with `image/` and `depth/` of one file each.
fn scenes(sources: &SourceReader) -> Result<Vec<PairFiles>, DataError> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), 0)];
    while let Some((folder, level)) = open.pop() {
        let names = list(sources, &folder, LAYOUT)?;
        let below = |name: &str| {
            let name = name.trim_end_matches('/');
            if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
        };
        if ["image/", "depth/"].iter().all(|name| names.iter().any(|other| other == name)) {
            let [input, target] = ["image", "depth"].map(|name| only(sources, &below(name)));
            found.push(PairFiles {
                name: folder.replace('/', "-"),
                input: input?,
                target: target?,
            });
        } else if level < MAX_LEVELS {
            let folders = names.iter().filter(|name| name.ends_with('/'));
            open.extend(folders.map(|name| (below(name), level + 1)));
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The only picture of a folder.
fn only(sources: &SourceReader, folder: &str) -> Result<String, DataError> {
    let images = folder::images(sources, folder)?;
    let count = images.len();
    let mut paths = images.into_values();
    match (paths.next(), count) {
        (Some(path), 1) => Ok(path),
        _ => Err(DataError::failed(format!("`{folder}` must hold one picture, but holds {count}"))
            .with_help(LAYOUT)),
    }
}

/// Reads a depth picture; 0 is no value. SUN turns the bits of a value by three places.
fn read_depth(
    sources: &SourceReader,
    path: &str,
    units: u32,
    is_sun: bool,
) -> Result<Depth, DataError> {
    let DynamicImage::ImageLuma16(stored) = read_picture(sources, path, false)? else {
        return Err(DataError::failed(format!("`{path}` must be a 16-bit grey picture"))
            .with_help("depths of 8 bits or in colours are for looking at, not for measuring"));
    };
    let metres = stored.iter().map(|value| {
        let value = if is_sun { value.rotate_right(3) } else { *value };
        f32::from(value) / units as f32
    });
    Ok(Depth::from_raw(stored.width(), stored.height(), metres.collect()).expect("one a pixel"))
}

/// The pairs of a TUM sequence: each picture with the depth nearest in time.
fn by_time(sources: &SourceReader) -> Result<Vec<PairFiles>, DataError> {
    let (colors, depths) = (times(sources, "rgb.txt")?, times(sources, "depth.txt")?);
    let mut found = Vec::new();
    for (time, input) in colors {
        let nearest =
            depths.iter().min_by(|(a, _), (b, _)| (a - time).abs().total_cmp(&(b - time).abs()));
        if let Some((other, target)) = nearest
            && (other - time).abs() < SAME_TIME
        {
            let name = input.rsplit_once('.').map_or(&*input, |(stem, _)| stem).replace('/', "-");
            found.push(PairFiles { name, input, target: target.clone() });
        }
    }
    if found.is_empty() {
        return Err(DataError::failed("no picture of `rgb.txt` has a depth of its time")
            .with_help("both lists hold a time in seconds and a file on each line"));
    }
    Ok(found)
}

fn times(sources: &SourceReader, path: &str) -> Result<Vec<(f64, String)>, DataError> {
    let bytes = read_source(sources, path, "a list of pictures")?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut found = Vec::new();
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.starts_with('#')) {
        let mut fields = line.split_whitespace();
        let time = fields.next().and_then(|time| time.parse().ok());
        match (time, fields.next()) {
            (Some(time), Some(file)) => found.push((time, file.to_owned())),
            (None, None) if line.trim().is_empty() => {}
            _ => {
                return Err(DataError::failed(format!(
                    "line {number} of `{path}` must be a time and a file, but is `{line}`"
                )));
            }
        }
    }
    Ok(found)
}
