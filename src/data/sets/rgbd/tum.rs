//! Sequences of TUM: lists of pictures and of depths, which go together by their times.

use std::collections::BTreeSet;

use super::{
    DataError, LAYOUT,
    layouts::{Frame, SKIP},
};
use crate::{
    data::{
        WithoutDepth,
        files::{is_any_picture, list, read_source},
        folder::PairFiles,
    },
    store::SourceReader,
};

/// Pictures and depths of TUM belong together if their times differ by less, in seconds.
const SAME_TIME: f64 = 0.02;

const UNLISTED: &str = "add its time to the list, move it out of the folder, or leave such pictures out with \
                        without_depth = \"skip\"";

/// Units per metre of the depths of TUM.
pub(super) const UNITS: u32 = 5000;

/// Whether a folder of these names is a sequence of TUM.
pub(super) fn is_tum(names: &[String]) -> bool {
    ["rgb.txt", "depth.txt"].iter().all(|list| names.iter().any(|name| name == list))
}

/// Refuses a sequence of TUM that lacks one of its lists: by its folders alone, its depths would be
/// read as millimetres.
pub(super) fn not_half_tum(names: &[String], folder: &str) -> Result<(), DataError> {
    let lists = ["rgb.txt", "depth.txt"];
    let has = |list: &&str| names.iter().any(|name| name == list);
    let (Some(there), Some(lacking)) =
        (lists.iter().find(|list| has(list)), lists.iter().find(|list| !has(list)))
    else {
        return Ok(());
    };
    let message = format!("there is `{folder}{there}`, but no `{folder}{lacking}`");
    Err(DataError::failed(message).with_help(
        "add the list, by which pictures and depths of TUM go together; without both, files of equal names \
         do, and depths are millimetres unless `units` of `source` says otherwise",
    ))
}

/// The frames of all sequences of TUM among these folders.
pub(super) fn sequences(
    sources: &SourceReader,
    names: &[String],
    without: WithoutDepth,
) -> Result<Vec<Frame>, DataError> {
    let mut found = Vec::new();
    for folder in names.iter().filter_map(|name| name.strip_suffix('/')) {
        if is_tum(&list(sources, folder, LAYOUT)?) {
            found.extend(by_time(sources, folder, without)?);
        }
    }
    Ok(found)
}

/// The frames of the TUM sequence in a folder: each picture with a depth of its own near in time.
pub(super) fn by_time(
    sources: &SourceReader,
    folder: &str,
    without: WithoutDepth,
) -> Result<Vec<Frame>, DataError> {
    let below =
        |file: &str| if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") };
    let (list, depth_list) = (below("rgb.txt"), below("depth.txt"));
    let (colors, depths) = (times(sources, &list)?, times(sources, &depth_list)?);
    for (list, files) in [(&list, &colors), (&depth_list, &depths)] {
        all_there(sources, folder, list, files)?;
    }
    if without == WithoutDepth::Error {
        all_listed(sources, folder, &list, &colors)?;
    }
    let (mut found, mut alone) = (Vec::new(), Vec::new());
    let count = colors.len();
    let partners = partners(&colors, &depths);
    for ((_, input), partner) in colors.into_iter().zip(partners) {
        if let Some(partner) = partner {
            let (input, target) = (below(&input), below(&depths[partner].1));
            let name = input.rsplit_once('.').map_or(&*input, |(stem, _)| stem).replace('/', "-");
            let files = PairFiles { name, input, target };
            found.push(Frame { files, sequence: folder.to_owned() });
        } else {
            alone.push(input);
        }
    }
    if found.is_empty() {
        return Err(DataError::failed(format!("no picture of `{list}` has a depth of its time"))
            .with_help("both lists hold a time in seconds and a file on each line"));
    }
    match alone.first() {
        Some(first) if without == WithoutDepth::Error => {
            let alone = alone.len();
            let message = format!(
                "{alone} of the {count} pictures of `{list}` have no depth of their own within {SAME_TIME} s, \
                 the first is `{first}`"
            );
            Err(DataError::failed(message).with_help(SKIP))
        }
        _ => Ok(found),
    }
}

/// For each picture the place of its depth. Of all that are near enough, the nearest two go
/// together first, and each once, as in TUM's own `associate.py`.
fn partners(colors: &[(f64, String)], depths: &[(f64, String)]) -> Vec<Option<usize>> {
    let mut by_time: Vec<usize> = (0..depths.len()).collect();
    by_time.sort_by(|a, b| depths[*a].0.total_cmp(&depths[*b].0));
    let mut near = Vec::new();
    for (color, (time, _)) in colors.iter().enumerate() {
        let first = by_time.partition_point(|depth| depths[*depth].0 <= time - SAME_TIME);
        let window = by_time[first..].iter().map(|depth| (*depth, (depths[*depth].0 - time).abs()));
        // What is above by rounding alone is left out by its distance.
        let window = window.take_while(|(depth, _)| depths[*depth].0 < time + SAME_TIME);
        let window = window.filter(|(_, apart)| *apart < SAME_TIME);
        near.extend(window.map(|(depth, apart)| (apart, color, depth)));
    }
    let times = |&(_, color, depth): &(f64, usize, usize)| (colors[color].0, depths[depth].0);
    near.sort_by(|a, b| {
        let ((color_a, depth_a), (color_b, depth_b)) = (times(a), times(b));
        let by_time = color_a.total_cmp(&color_b).then(depth_a.total_cmp(&depth_b));
        a.0.total_cmp(&b.0).then(by_time)
    });
    let (mut found, mut taken) = (vec![None; colors.len()], vec![false; depths.len()]);
    for (_, color, depth) in near {
        if found[color].is_none() && !taken[depth] {
            (found[color], taken[depth]) = (Some(depth), true);
        }
    }
    found
}

/// Refuses a picture that the list does not name, beside those that it does: it would be passed
/// over.
fn all_listed(
    sources: &SourceReader,
    folder: &str,
    list: &str,
    files: &[(f64, String)],
) -> Result<(), DataError> {
    let listed: BTreeSet<&str> = files.iter().map(|(_, file)| file.as_str()).collect();
    let folders = listed.iter().filter_map(|file| Some(file.rsplit_once('/')?.0));
    for parent in folders.collect::<BTreeSet<_>>() {
        let below =
            if folder.is_empty() { parent.to_owned() } else { format!("{folder}/{parent}") };
        let Ok(names) = sources.list(&below) else { continue };
        let pictures = names.iter().filter(|name| is_any_picture(name));
        let paths: Vec<_> = pictures.map(|name| format!("{parent}/{name}")).collect();
        let mut unlisted = paths.iter().filter(|path| !listed.contains(path.as_str()));
        let Some(first) = unlisted.next() else { continue };
        let count = 1 + unlisted.count();
        let message = format!(
            "`{list}` names {} of the {} pictures of `{below}`; the first that it does not is `{first}`",
            paths.len() - count,
            paths.len()
        );
        return Err(DataError::failed(message).with_help(UNLISTED));
    }
    Ok(())
}

/// Refuses a list that names a file which is not there. What it names outside of the data is
/// refused when it is read.
fn all_there(
    sources: &SourceReader,
    folder: &str,
    list: &str,
    files: &[(f64, String)],
) -> Result<(), DataError> {
    let parent = |file: &str| file.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
    let parents: BTreeSet<String> = files.iter().map(|(_, file)| parent(file)).collect();
    for parent in parents {
        let below = [folder, &parent].into_iter().filter(|part| !part.is_empty());
        let Ok(names) = sources.list(&below.collect::<Vec<_>>().join("/")) else { continue };
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let of_it = files.iter().map(|(_, file)| file.as_str());
        let inside = of_it.filter_map(|file| {
            let name = if parent.is_empty() {
                file
            } else {
                file.strip_prefix(&parent)?.strip_prefix('/')?
            };
            (!name.contains('/')).then_some((file, name))
        });
        if let Some((file, _)) = inside.into_iter().find(|(_, name)| !names.contains(name)) {
            let message = format!("`{list}` names `{file}`, which is not there");
            return Err(DataError::environment(message)
                .with_help("the download may be cut short; add the file, or take its line out"));
        }
    }
    Ok(())
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
                ))
                .with_help(
                    "write it as `1305031102.175304 rgb/1305031102.175304.png`, or take the line out; `#` begins \
                     a comment",
                ));
            }
        }
    }
    Ok(found)
}
