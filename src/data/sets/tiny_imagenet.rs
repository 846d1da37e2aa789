//! Tiny `ImageNet`: 64x64 photographs of 200 classes.

use std::collections::BTreeMap;

use super::{DataSet, Images, Knowledge, Listing};
use crate::{
    data::{
        DataError, Request, Sample,
        files::{list, pictures, read_source},
        read_image,
    },
    store::SourceReader,
};

const LAYOUT: &str =
    "`root` is the unpacked `tiny-imagenet-200`, with `wnids.txt`, `train/` and `val/`";

pub(super) struct TinyImageNet;

impl DataSet for TinyImageNet {
    fn name(&self) -> &'static str {
        "tiny_imagenet"
    }

    fn doc(&self) -> &'static str {
        "Tiny `ImageNet` in its official layout; tests use its validation images."
    }

    fn params(&self) -> &'static [&'static str] {
        &["symbols.per_class"]
    }

    fn offers(&self) -> &'static [Knowledge] {
        &[Knowledge::Image, Knowledge::Class]
    }

    fn open<'a>(
        &self,
        request: &'a Request,
        sources: &'a SourceReader,
    ) -> Result<Box<dyn Images + 'a>, DataError> {
        let ids: Vec<String> =
            lines(sources, "wnids.txt")?.iter().map(|id| id.trim().to_owned()).collect();
        let words = words(sources)?;
        let chosen = classes(request, &ids, &words)?;
        let mut files = Vec::new();
        for (class, id) in chosen.iter().enumerate() {
            let found = if request.is_train() {
                training(sources, id)?
            } else {
                validation(sources, id, &ids)?
            };
            let limit = request.symbols.per_class.unwrap_or(found.len());
            if limit > found.len() {
                return Err(DataError::failed(format!(
                    "class `{id}` has {} images, but {limit} are wanted",
                    found.len()
                ))
                .with_help("lower `symbols.per_class`"));
            }
            files.extend(found.into_iter().take(limit).map(|path| (class, path)));
        }
        let mut listing = Listing::new(
            files,
            |(_, path)| [stem(path), path],
            move |(class, path)| {
                let image = read_image(sources, path)?;
                let id = stem(path).to_owned();
                Ok(Sample { id, image, class: Some(*class), ..Sample::default() })
            },
        )?;
        listing.classes = chosen.iter().map(|id| words.get(id).unwrap_or(id).clone()).collect();
        Ok(Box::new(listing))
    }
}

/// A file's name without folders and ending.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The identifiers of the classes: those asked for by identifier or word, all for plain images.
fn classes(
    request: &Request,
    ids: &[String],
    words: &BTreeMap<String, String>,
) -> Result<Vec<String>, DataError> {
    if request.task.needs() == Knowledge::Image {
        return Ok(ids.to_vec());
    }
    let mut symbols = request.symbols.clone();
    for class in &mut symbols.classes {
        let mut called = ids.iter().filter(|id| words.get(*id) == Some(class));
        match (called.next(), called.next()) {
            (Some(id), Some(other)) => {
                let message = format!("both `{id}` and `{other}` are called `{class}`");
                return Err(DataError::failed(message).with_help("name one of them"));
            }
            (Some(id), None) => class.clone_from(id),
            (None, _) => {}
        }
    }
    symbols.pick(ids)
}

fn lines(sources: &SourceReader, path: &str) -> Result<Vec<String>, DataError> {
    let bytes =
        read_source(sources, path, "a list of Tiny ImageNet").map_err(|e| e.with_help(LAYOUT))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
}

/// The first word for each class, where the file of words is there.
fn words(sources: &SourceReader) -> Result<BTreeMap<String, String>, DataError> {
    if !list(sources, "", LAYOUT)?.iter().any(|name| name == "words.txt") {
        return Ok(BTreeMap::new());
    }
    let lines = lines(sources, "words.txt")?;
    let first = |words: &str| words.split(',').next().unwrap_or(words).trim().to_owned();
    let known = lines.iter().filter_map(|line| line.split_once('\t'));
    Ok(known.map(|(id, words)| (id.to_owned(), first(words))).collect())
}

/// The training images of a class, by name.
fn training(sources: &SourceReader, id: &str) -> Result<Vec<String>, DataError> {
    let folder = format!("train/{id}/images");
    let names = pictures(sources, &folder, LAYOUT)?;
    Ok(names.into_iter().map(|name| format!("{folder}/{name}")).collect())
}

/// The validation images of a class, in the order of their list, which may name no class but `ids`.
fn validation(sources: &SourceReader, id: &str, ids: &[String]) -> Result<Vec<String>, DataError> {
    const LIST: &str = "val/val_annotations.txt";
    let mut found = Vec::new();
    for (line, number) in lines(sources, LIST)?.iter().zip(1..) {
        let mut fields = line.split('\t');
        let (Some(file), Some(class)) = (fields.next(), fields.next()) else {
            return Err(DataError::failed(format!(
                "line {number} of `{LIST}` must be a file and a class, divided by tabs"
            ))
            .with_help("copy the list from the archive again; its lines begin with a file such as `val_0.JPEG`, a tab and \
                 a class such as `n03444034`",
            ));
        };
        if !ids.iter().any(|id| id == class) {
            return Err(DataError::failed(format!(
                "line {number} of `{LIST}` names the class `{class}`, which is not in `wnids.txt`"
            ))
            .with_help("take both files from one copy of the data"));
        }
        if class == id {
            found.push(format!("val/images/{file}"));
        }
    }
    Ok(found)
}
