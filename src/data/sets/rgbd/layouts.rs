//! Where the pictures and depths of each published layout lie.

use super::{DataError, LAYOUT};
use crate::{
    data::{
        files::{is_picture, list, read_source},
        folder::{self, PairFiles},
    },
    store::SourceReader,
};

/// Pictures and depths of TUM belong together if their times differ by less, in seconds.
const SAME_TIME: f64 = 0.02;

/// Units per metre of the depths of TUM.
const TUM_UNITS: u32 = 5000;

/// What a folder holds.
pub(super) struct Found {
    pub(super) frames: Vec<PairFiles>,
    /// Units of the depths per metre, in this layout.
    pub(super) units: u32,
    /// SUN turns the bits of its depths.
    pub(super) is_sun: bool,
}

impl Found {
    fn new(frames: Vec<PairFiles>) -> Self {
        Self { frames, units: 1000, is_sun: false }
    }
}

/// Finds the pictures below the root, whatever their layout.
pub(super) fn find(sources: &SourceReader) -> Result<Found, DataError> {
    let names = list(sources, "", LAYOUT)?;
    if is_tum(&names) {
        return Ok(Found { units: TUM_UNITS, ..Found::new(by_time(sources)?) });
    }
    let has = |name: &str| names.iter().any(|found| found.strip_suffix('/') == Some(name));
    let pairs =
        [["rgb", "depth"], ["color", "depth"], ["images", "annotations"], ["image", "depth"]];
    if let Some(pair) = pairs.into_iter().find(|pair| pair.iter().all(|name| has(name))) {
        let [colors, depths] = pair.map(|folder| folder::images(sources, folder));
        let is_sun = has("image") && has("depth");
        return Ok(Found { is_sun, ..Found::new(folder::matched(colors?, depths?)?) });
    }
    if !names.iter().any(|name| is_picture(name)) {
        let scenes = scenes(sources)?;
        if !scenes.is_empty() {
            return Ok(Found { is_sun: true, ..Found::new(scenes) });
        }
    }
    let frames = folder::side_by_side(sources, "", ["_color", "_depth"]);
    Ok(Found::new(frames.map_err(|e| e.with_help(LAYOUT))?))
}

/// Whether a folder of these names is a sequence of TUM.
fn is_tum(names: &[String]) -> bool {
    ["rgb.txt", "depth.txt"].iter().all(|list| names.iter().any(|name| name == list))
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
