//! A folder of pairs: `input/` and `target/` with equal names, if wanted below `train/` and
//! `test/`.

use std::collections::BTreeMap;

use super::{
    DataError,
    files::{first_picture, is_any_picture, list, pictures},
};
use crate::store::SourceReader;

/// The files of one pair, below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// The file name without its ending.
    pub name: String,
    /// What the model sees.
    pub input: String,
    /// What it is to answer.
    pub target: String,
}

/// How a folder of pairs may look.
pub const LAYOUT: &str = "put the images into `input/` and `target/` with equal names, or side by side \
                      as `name_in.png` and `name_out.png`; below `train/` and `test/` if they differ";

/// The files of a split, and whether the folder is divided into `train/` and `test/`.
#[derive(Debug)]
pub struct Parts<T> {
    /// Those of the split if it is, else all.
    pub files: Vec<T>,
    /// Whether it is.
    pub divided: bool,
}

/// The pairs of a split, by name.
///
/// A folder without `input/` may hold the pairs side by side as `name_in.png` and `name_out.png`.
pub fn pairs(sources: &SourceReader, split: &str) -> Result<Parts<PairFiles>, DataError> {
    let below = split_folder(sources, split)?;
    let divided = !below.is_empty();
    let folder = below.trim_end_matches('/');
    let names = list(sources, folder, LAYOUT)?;
    if !names.iter().any(|name| name == "input/") {
        let files = side_by_side(sources, folder, ["_in", "_out"], LAYOUT)?;
        no_pictures_below(sources, folder)?;
        return Ok(Parts { files, divided });
    }
    if let Some(name) = names.iter().find(|name| is_any_picture(name)) {
        let message = format!("`{below}{name}` is a picture beside `{below}input/`");
        return Err(DataError::failed(message).with_help(LAYOUT));
    }
    let [inputs, targets] = ["input", "target"].map(|name| format!("{below}{name}"));
    let [found_inputs, found_targets] = [images(sources, &inputs)?, images(sources, &targets)?];
    let is_empty = found_inputs.is_empty() && found_targets.is_empty();
    no_pictures_below(sources, &inputs)?;
    no_pictures_below(sources, &targets)?;
    if is_empty {
        let message = format!("there are no pictures in `{inputs}` and `{targets}`");
        return Err(DataError::failed(message).with_help(LAYOUT));
    }
    let files = matched(found_inputs, found_targets, LAYOUT)?;
    Ok(Parts { files, divided })
}

/// The images of a split, by name, for tasks that are made from plain images.
pub fn plain_images(
    sources: &SourceReader,
    split: &str,
) -> Result<Parts<(String, String)>, DataError> {
    let below = split_folder(sources, split)?;
    let folder = below.trim_end_matches('/');
    let files: Vec<_> = images(sources, folder)?.into_iter().collect();
    no_pictures_below(sources, folder)?;
    if files.is_empty() {
        let place = if folder.is_empty() { "the folder".to_owned() } else { format!("`{folder}`") };
        return Err(DataError::failed(format!("there are no pictures in {place}"))
            .with_help("put PNG, JPEG, WebP or BMP files there"));
    }
    Ok(Parts { files, divided: !below.is_empty() })
}

/// `train/` or `test/` if there is such a folder, nothing if there is neither.
fn split_folder(sources: &SourceReader, split: &str) -> Result<String, DataError> {
    let names = list(sources, "", LAYOUT)?;
    let has = |name: &str| names.iter().any(|found| found == name);
    let split = format!("{split}/");
    if !has("train/") && !has("test/") {
        return Ok(String::new());
    }
    if !has(&split) {
        return Err(DataError::failed(format!("the folder is divided, but has no `{split}`"))
            .with_help(LAYOUT));
    }
    if let Some(name) = names.iter().find(|name| is_any_picture(name)) {
        let message = format!("`{name}` is in neither part of the folder, which is divided");
        return Err(DataError::failed(message).with_help(LAYOUT));
    }
    Ok(split)
}

/// Refuses folders with pictures in a folder whose own pictures are read: they would be missed.
pub(super) fn no_pictures_below(sources: &SourceReader, folder: &str) -> Result<(), DataError> {
    let Some(path) = first_picture(sources, folder, LAYOUT)? else { return Ok(()) };
    let place = if folder.is_empty() { "the folder".to_owned() } else { format!("`{folder}`") };
    let message =
        format!("`{path}` lies in a folder below {place}, where no pictures are looked for");
    Err(DataError::failed(message).with_help("move it up, or out of the folder"))
}

/// Refuses a picture among `names`, those of a folder of which only folders are read.
pub(super) fn no_picture_beside(
    names: &[String],
    folder: &str,
    layout: &str,
) -> Result<(), DataError> {
    let Some(name) = names.iter().find(|name| is_any_picture(name)) else { return Ok(()) };
    let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
    let message = format!("`{path}` is a picture beside the folders of pictures");
    Err(DataError::failed(message).with_help(format!("move it into one, or away; {layout}")))
}

/// Pairs of files by equal names; `layout` says how the folder may look.
pub(super) fn matched(
    inputs: BTreeMap<String, String>,
    mut targets: BTreeMap<String, String>,
    layout: &str,
) -> Result<Vec<PairFiles>, DataError> {
    let without_partner =
        |path: &str| DataError::failed(format!("`{path}` has no partner")).with_help(layout);
    let mut found = Vec::new();
    for (name, input) in inputs {
        let target = targets.remove(&name).ok_or_else(|| without_partner(&input))?;
        found.push(PairFiles { name, input, target });
    }
    match targets.into_values().next() {
        Some(target) => Err(without_partner(&target)),
        None => Ok(found),
    }
}

/// Pairs of files that differ in the ending of their names, such as `_in` and `_out`.
pub(super) fn side_by_side(
    sources: &SourceReader,
    folder: &str,
    endings: [&str; 2],
    layout: &str,
) -> Result<Vec<PairFiles>, DataError> {
    let files = images(sources, folder)?;
    let ending_in = |ending: &str| {
        let stems = files
            .iter()
            .filter_map(|(stem, path)| Some((stem.strip_suffix(ending)?.to_owned(), path.clone())));
        stems.collect::<BTreeMap<_, _>>()
    };
    let found = matched(ending_in(endings[0]), ending_in(endings[1]), layout)?;
    let is_other = |stem: &String| !endings.iter().any(|ending| stem.ends_with(ending));
    if let Some((_, path)) =
        files.iter().find(|(stem, _)| is_other(stem)).filter(|_| !found.is_empty())
    {
        let [first, second] = endings;
        let message = format!("the name of `{path}` ends neither in `{first}` nor in `{second}`");
        return Err(DataError::failed(message).with_help(layout));
    }
    if found.is_empty() {
        return Err(DataError::failed("the folder holds no pairs").with_help(layout));
    }
    Ok(found)
}

/// Image files of a folder by stem.
pub(super) fn images(
    sources: &SourceReader,
    folder: &str,
) -> Result<BTreeMap<String, String>, DataError> {
    let mut images = BTreeMap::new();
    for name in pictures(sources, folder, LAYOUT)? {
        let Some((stem, _)) = name.rsplit_once('.') else { continue };
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if let Some(other) = images.insert(stem.to_owned(), path.clone()) {
            return Err(DataError::failed(format!("`{other}` and `{path}` have one name"))
                .with_help("give each image a name of its own"));
        }
    }
    Ok(images)
}

/// As [`images`], but one in a folder below is an error. `layout` says where the folder should be.
pub(super) fn only_images(
    sources: &SourceReader,
    folder: &str,
    layout: &str,
) -> Result<BTreeMap<String, String>, DataError> {
    list(sources, folder, layout)?;
    let found = images(sources, folder)?;
    no_pictures_below(sources, folder)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn touch(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
    }

    fn found(files: &[&str], split: &str) -> Result<Vec<String>, String> {
        let root = tempfile::tempdir().unwrap();
        touch(root.path(), files);
        pairs(&SourceReader::new(root.path()), split)
            .map(|pairs| {
                pairs.files.iter().map(|p| format!("{} {} {}", p.name, p.input, p.target)).collect()
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_layouts_give_pairs_by_name() {
        assert_eq!(
            found(
                &["input/b.png", "input/a.jpg", "target/a.png", "target/b.PNG", "notes.txt"],
                "test"
            ),
            Ok(vec!["a input/a.jpg target/a.png".into(), "b input/b.png target/b.PNG".into()])
        );
        assert_eq!(
            found(
                &[
                    "train/input/a.png",
                    "train/target/a.png",
                    "test/input/q.png",
                    "test/target/q.png"
                ],
                "test"
            ),
            Ok(vec!["q test/input/q.png test/target/q.png".into()])
        );
        assert_eq!(
            found(
                &[
                    "x_in.png",
                    "x_out.png",
                    "notes/a.txt",
                    ".thumbs/a.png",
                    "cache/format",
                    "cache/objects/a.png"
                ],
                "train"
            ),
            Ok(vec!["x x_in.png x_out.png".into()])
        );
    }

    #[test]
    fn lonely_images_are_named() {
        assert_eq!(
            found(&["input/a.png", "input/b.png", "target/a.png"], "train"),
            Err("`input/b.png` has no partner".into())
        );
        assert_eq!(
            found(&["input/a.png", "target/a.png", "target/c.png"], "train"),
            Err("`target/c.png` has no partner".into())
        );
        let left = |files: &[&str]| found(files, "train").unwrap_err();
        insta::assert_snapshot!(left(&["0_in.png", "0_out.png", "8_In.png", "8_Out.png"]), @"the name of `8_In.png` ends neither in `_in` nor in `_out`");
        insta::assert_snapshot!(left(&["0_in.png", "0_out.png", "9_input.png"]), @"the name of `9_input.png` ends neither in `_in` nor in `_out`");
        insta::assert_snapshot!(left(&["0_in.png", "0_out.png", "more/1_in.png"]), @"`more/1_in.png` lies in a folder below the folder, where no pictures are looked for");
        insta::assert_snapshot!(left(&["input/a.png", "target/a.png", "b.png"]), @"`b.png` is a picture beside `input/`");
        insta::assert_snapshot!(left(&["input/a.png", "target/a.png", "input/sub/b.png", "target/sub/b.png"]), @"`input/sub/b.png` lies in a folder below `input`, where no pictures are looked for");
        insta::assert_snapshot!(left(&["train/a_in.png", "train/a_out.png", "b.png"]), @"`b.png` is in neither part of the folder, which is divided");
        let root = tempfile::tempdir().unwrap();
        touch(root.path(), &["a.png", "deep/er/b.JPG"]);
        let error = plain_images(&SourceReader::new(root.path()), "train").unwrap_err();
        insta::assert_snapshot!(error, @"`deep/er/b.JPG` lies in a folder below the folder, where no pictures are looked for");
        assert_eq!(found(&["x_out.png"], "train"), Err("`x_out.png` has no partner".into()));
        assert_eq!(found(&["x.png"], "train"), Err("the folder holds no pairs".into()));
        assert_eq!(
            found(&["input/a.png", "input/b.TIF", "target/a.png", "target/b.tif"], "train"),
            Err("`input/b.TIF` is a picture of a format that is not read".into())
        );
        assert_eq!(
            found(&["x_in.png", "x_out.png", "y_in.heic", "y_out.png"], "train"),
            Err("`y_in.heic` is a picture of a format that is not read".into())
        );
        assert_eq!(
            found(&["input/a.png", "input/a.jpg", "target/a.png"], "train"),
            Err("`input/a.jpg` and `input/a.png` have one name".into())
        );
    }
}
