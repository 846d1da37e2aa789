//! Sequences of TUM: lists of pictures and of depths, which go together by their times.

use std::collections::BTreeSet;

use super::{
    DataError, LAYOUT,
    layouts::{Frame, SKIP},
};
use crate::{
    data::{
        WithoutDepth,
        files::{list, read_source},
        folder::PairFiles,
    },
    store::SourceReader,
};

/// Pictures and depths of TUM belong together if their times differ by less, in seconds.
const SAME_TIME: f64 = 0.02;

/// Units per metre of the depths of TUM.
pub(super) const UNITS: u32 = 5000;

/// Whether a folder of these names is a sequence of TUM.
pub(super) fn is_tum(names: &[String]) -> bool {
    ["rgb.txt", "depth.txt"].iter().all(|list| names.iter().any(|name| name == list))
}

/// Refuses a sequence of TUM that lacks one of its lists: by its folders alone, its depths would be read as
/// millimetres.
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

/// The frames of the TUM sequence in a folder: each picture with the depth nearest in time.
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
    let (mut found, mut alone) = (Vec::new(), Vec::new());
    let count = colors.len();
    for (time, input) in colors {
        let nearest =
            depths.iter().min_by(|(a, _), (b, _)| (a - time).abs().total_cmp(&(b - time).abs()));
        if let Some((other, target)) = nearest
            && (other - time).abs() < SAME_TIME
        {
            let (input, target) = (below(&input), below(target));
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
                "{alone} of the {count} pictures of `{list}` have no depth within {SAME_TIME} s, the \
                 first is `{first}`"
            );
            Err(DataError::failed(message).with_help(SKIP))
        }
        _ => Ok(found),
    }
}

/// Refuses a list that names a file which is not there. What it names outside of the data is refused when it
/// is read.
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
