//! Where the pictures and depths of each published layout lie.

use super::{
    DataError, LAYOUT,
    tum::{self, by_time, is_tum, not_half_tum, sequences},
};
use crate::{
    data::{
        Split, WithoutDepth,
        files::{first_picture, is_any_picture, is_picture, list},
        folder::{self, PairFiles},
    },
    store::SourceReader,
};

/// What to do about pictures without a depth.
pub(super) const SKIP: &str =
    "add what is missing, or leave such pictures out with without_depth = \"skip\"";

/// A picture with its depth.
pub(super) struct Frame {
    pub(super) files: PairFiles,
    /// What it was taken in one go with: neighbours of a video show the same.
    pub(super) sequence: String,
}

impl Frame {
    /// A frame of the sequence whose name is that of the frame without its number, or time.
    fn numbered(files: PairFiles) -> Self {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let sequence = files.name.trim_end_matches(is_number).to_owned();
        Self { files, sequence }
    }
}

/// What a folder holds.
pub(super) struct Found {
    pub(super) frames: Vec<Frame>,
    /// Units of the depths per metre, in this layout.
    pub(super) units: u32,
    /// SUN turns the bits of its depths.
    pub(super) is_sun: bool,
    /// Whether they are those of the split, else they are all there are.
    pub(super) divided: bool,
}

impl Found {
    fn new(frames: Vec<Frame>) -> Self {
        Self { frames, units: 1000, is_sun: false, divided: false }
    }

    fn tum(frames: Vec<Frame>) -> Self {
        Self { units: tum::UNITS, ..Self::new(frames) }
    }

    fn numbered(frames: Vec<PairFiles>) -> Self {
        Self::new(frames.into_iter().map(Frame::numbered).collect())
    }
}

/// Finds the pictures below the root, whatever their layout.
pub(super) fn find(
    sources: &SourceReader,
    without: WithoutDepth,
    split: Split,
) -> Result<Found, DataError> {
    let names = list(sources, "", LAYOUT)?;
    if is_tum(&names) {
        return Ok(Found::tum(by_time(sources, "", without)?));
    }
    let has = |name: &str| names.iter().any(|found| found.strip_suffix('/') == Some(name));
    if let Some(pair) = FOLDERS.into_iter().find(|pair| pair.iter().all(|name| has(name))) {
        not_half_tum(&names, "")?;
        folder::no_picture_beside(&names, "", LAYOUT)?;
        let part = part(sources, pair[0], split)?;
        if !part.is_empty() {
            for name in pair {
                folder::no_picture_beside(&list(sources, name, LAYOUT)?, name, LAYOUT)?;
            }
        }
        let frames = pair_of_folders(sources, pair.map(|name| format!("{name}{part}")))?;
        let is_sun = pair[0] == "image";
        return Ok(Found { is_sun, divided: !part.is_empty(), ..Found::numbered(frames) });
    }
    if is_synced(&names) {
        return Ok(Found::new(synced(sources, "", &names, without)?));
    }
    if !names.iter().any(|name| is_any_picture(name)) {
        let sequences = sequences(sources, &names, without)?;
        if !sequences.is_empty() {
            nothing_beside(sources, &names, &sequences, without)?;
            return Ok(Found::tum(sequences));
        }
        let rooms = rooms(sources, &names, without)?;
        if !rooms.is_empty() {
            nothing_beside(sources, &names, &rooms, without)?;
            return Ok(Found::new(rooms));
        }
        let scenes = scenes(sources, without)?;
        if !scenes.is_empty() {
            return Ok(Found { is_sun: true, ..Found::new(scenes) });
        }
    }
    let frames = folder::side_by_side(sources, "", ["_color", "_depth"], LAYOUT)?;
    folder::no_pictures_below(sources, "")?;
    Ok(Found::numbered(frames))
}

/// A picture in a folder or below it.
fn any_picture(sources: &SourceReader, folder: &str) -> Result<Option<String>, DataError> {
    let names = list(sources, folder, LAYOUT)?;
    match names.iter().find(|name| is_any_picture(name)) {
        Some(name) => Ok(Some(format!("{folder}/{name}"))),
        None => first_picture(sources, folder, LAYOUT),
    }
}

/// Refuses a folder beside those of the frames that holds pictures, none of which is in a frame.
fn nothing_beside(
    sources: &SourceReader,
    names: &[String],
    frames: &[Frame],
    without: WithoutDepth,
) -> Result<(), DataError> {
    if without == WithoutDepth::Skip {
        return Ok(());
    }
    let folders = names.iter().filter(|name| name.ends_with('/') && !name.starts_with('.'));
    for folder in folders {
        if !frames.iter().any(|frame| frame.files.input.starts_with(folder.as_str()))
            && let Some(picture) = any_picture(sources, folder.trim_end_matches('/'))?
        {
            return Err(no_frame_of(folder.trim_end_matches('/'), &picture));
        }
    }
    Ok(())
}

fn no_frame_of(folder: &str, picture: &str) -> DataError {
    let message = format!("`{folder}` holds pictures, such as `{picture}`, but none with a depth");
    DataError::failed(message).with_help(SKIP)
}

/// The folders of pictures and of depths: TUM without lists, Redwood, NYU, SUN.
const FOLDERS: [[&str; 2]; 4] =
    [["rgb", "depth"], ["color", "depth"], ["images", "annotations"], ["image", "depth"]];

/// What a folder of pictures has below it: `/train`, `/test` or `/val` if it is divided, else
/// nothing.
fn part(sources: &SourceReader, folder: &str, split: Split) -> Result<String, DataError> {
    let names = list(sources, folder, LAYOUT)?;
    let has = |name: &&str| names.iter().any(|found| found.strip_suffix('/') == Some(name));
    if !["train", "test", "val"].iter().any(has) {
        return Ok(String::new());
    }
    let wanted: &[&str] = if split == Split::Train { &["train"] } else { &["test", "val"] };
    let found = wanted.iter().find(|name| has(name)).map(|name| format!("/{name}"));
    found.ok_or_else(|| {
        DataError::failed(format!("`{folder}` is divided, but has no `{}`", wanted[0]))
            .with_help(LAYOUT)
    })
}

/// The pictures of one folder with the depths of another, by equal names.
fn pair_of_folders(
    sources: &SourceReader,
    [colors, depths]: [String; 2],
) -> Result<Vec<PairFiles>, DataError> {
    let help = format!(
        "`{colors}` and `{depths}` hold files of equal names; add the missing one, or move the other away"
    );
    let [images, depths_of] =
        [&colors, &depths].map(|folder| folder::only_images(sources, folder, LAYOUT));
    let frames = folder::matched(images?, depths_of?, &help)?;
    if frames.is_empty() {
        return Err(DataError::failed(format!("`{colors}` and `{depths}` hold no pictures"))
            .with_help(LAYOUT));
    }
    Ok(frames)
}

/// How the names of pictures and depths begin that were brought to one time (NYU).
const SYNCED: [&str; 2] = ["rgb_", "sync_depth_"];

/// Whether a folder of these names holds such pictures and depths.
fn is_synced(names: &[String]) -> bool {
    SYNCED.iter().all(|start| names.iter().any(|name| name.starts_with(start) && is_picture(name)))
}

/// The frames of such a folder.
fn synced(
    sources: &SourceReader,
    folder: &str,
    names: &[String],
    without: WithoutDepth,
) -> Result<Vec<Frame>, DataError> {
    folder::no_pictures_below(sources, folder)?;
    let mut files = folder::images(sources, folder)?;
    let mut depths = files.split_off(SYNCED[1]);
    let mut found = Vec::new();
    for (stem, input) in files {
        let number = stem.strip_prefix(SYNCED[0]).ok_or_else(|| {
            DataError::failed(format!(
                "the name of `{input}` begins with neither `rgb_` nor `sync_depth_`"
            ))
            .with_help("name it so, or move it out of the folder")
        })?;
        let depth = depths.remove(&format!("{}{number}", SYNCED[1]));
        match (depth, without) {
            (Some(target), _) => {
                let name = if folder.is_empty() {
                    number.to_owned()
                } else {
                    format!("{}-{number}", folder.replace('/', "-"))
                };
                let files = PairFiles { name, input, target };
                found.push(Frame { files, sequence: folder.to_owned() });
            }
            (None, WithoutDepth::Skip) => {}
            (None, WithoutDepth::Error) => {
                let of = names.iter().filter(|name| name.starts_with(SYNCED[0])).count();
                let message = format!("`{input}`, of {of} pictures, has no `sync_depth_{number}`");
                return Err(DataError::failed(message).with_help(SKIP));
            }
        }
    }
    if let Some(depth) = depths.into_values().next() {
        let message = format!("`{depth}` has no picture whose name begins with `rgb_`");
        return Err(DataError::failed(message).with_help("add it, or move the depth away"));
    }
    Ok(found)
}

/// The frames of folders that are a sequence each: of Redwood, or of NYU brought to one time.
fn rooms(
    sources: &SourceReader,
    names: &[String],
    without: WithoutDepth,
) -> Result<Vec<Frame>, DataError> {
    let mut found = Vec::new();
    for room in names.iter().filter_map(|name| name.strip_suffix('/')) {
        let names = list(sources, room, LAYOUT)?;
        if is_synced(&names) {
            found.extend(synced(sources, room, &names, without)?);
            continue;
        }
        let has = |name: &str| names.iter().any(|found| found.strip_suffix('/') == Some(name));
        // Those of SUN have `image/` and bits turned.
        let pair = FOLDERS[..2].iter().find(|pair| pair.iter().all(|name| has(name)));
        let Some(pair) = pair else { continue };
        not_half_tum(&names, &format!("{room}/"))?;
        let frames = pair_of_folders(sources, pair.map(|name| format!("{room}/{name}")))?;
        found.extend(frames.into_iter().map(|files| {
            let name = format!("{room}-{}", files.name);
            Frame { files: PairFiles { name, ..files }, sequence: room.to_owned() }
        }));
    }
    Ok(found)
}

/// Folders above the scenes of SUN, such as `kv2/kinect2data/`; more is no data set of it.
const MAX_LEVELS: usize = 6;

/// The pictures of all scenes of SUN below the root: folders with `image/` and `depth/` of one file
/// each.
///
/// What lies in one folder is one sequence.
fn scenes(sources: &SourceReader, without: WithoutDepth) -> Result<Vec<Frame>, DataError> {
    let (mut found, mut passed) = (Vec::new(), None);
    let mut open = vec![(String::new(), 0)];
    while let Some((folder, level)) = open.pop() {
        let names = list(sources, &folder, LAYOUT)?;
        let below = |name: &str| {
            let name = name.trim_end_matches('/');
            if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
        };
        let has = |name: &str| names.iter().any(|other| other == name);
        if has("image/") && !has("depth/") && !folder.is_empty() {
            if without == WithoutDepth::Error {
                let message = format!("`{folder}` has `image/`, but no `depth/`");
                return Err(DataError::failed(message).with_help(SKIP));
            }
        } else if has("image/") && has("depth/") {
            let [input, target] = ["image", "depth"].map(|name| only(sources, &below(name)));
            let name = folder.replace('/', "-");
            let sequence = folder.rsplit_once('/').map_or("", |(above, _)| above).to_owned();
            found.push(Frame {
                files: PairFiles { name, input: input?, target: target? },
                sequence,
            });
        } else {
            let own = names.iter().find(|name| is_any_picture(name)).map(|name| below(name));
            if level == MAX_LEVELS {
                passed = passed.or(own).or(first_picture(sources, &folder, LAYOUT)?);
                continue;
            }
            passed = passed.or(own);
            let folders = names.iter().filter(|name| name.ends_with('/') && !name.starts_with('.'));
            open.extend(folders.map(|name| (below(name), level + 1)));
        }
    }
    // Without any scene it is another layout, or none.
    if let Some(picture) = passed.filter(|_| !found.is_empty() && without == WithoutDepth::Error) {
        let folder = picture.rsplit_once('/').map_or("", |(folder, _)| folder);
        return Err(no_frame_of(folder, &picture));
    }
    found.sort_by(|a, b| (&a.files.name, &a.files.input).cmp(&(&b.files.name, &b.files.input)));
    Ok(found)
}

/// The only picture of a folder.
fn only(sources: &SourceReader, folder: &str) -> Result<String, DataError> {
    let images = folder::only_images(sources, folder, LAYOUT)?;
    let count = images.len();
    let mut paths = images.into_values();
    match (paths.next(), count) {
        (Some(path), 1) => Ok(path),
        _ => Err(DataError::failed(format!("`{folder}` must hold one picture, but holds {count}"))
            .with_help(LAYOUT)),
    }
}
