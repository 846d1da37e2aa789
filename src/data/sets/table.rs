//! A table: a CSV file with the paths of images.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{DataSet, Images, Knowledge, Listing, folder::read_pair};
use crate::{
    data::{
        DataError, Problem, Request, Sample, files::read_source, folder::PairFiles, read_image,
    },
    store::SourceReader,
};

const FORM: &str = "the first line names the columns: `input`, for pairs `target`, and if wanted \
                    `name` and `split` (train or test); paths are below `root`";

pub(super) struct Table;

#[derive(Deserialize)]
struct Row {
    input: String,
    target: Option<String>,
    name: Option<String>,
    split: Option<String>,
}

impl DataSet for Table {
    fn name(&self) -> &'static str {
        "table"
    }

    fn doc(&self) -> &'static str {
        "A CSV file (`set`) with columns `input`, `target`, and if wanted `name` and `split`."
    }

    fn params(&self) -> &'static [&'static str] {
        &["source.set", "holdout"]
    }

    fn offers(&self) -> &'static [Knowledge] {
        &[Knowledge::Image, Knowledge::Answer]
    }

    fn check(&self, request: &Request) -> Vec<Problem> {
        if request.source.set.is_some() {
            return Vec::new();
        }
        let message = "a table needs `set`, the CSV file below `root`";
        vec![Problem::new("source", message, "add set = \"pairs.csv\"")]
    }

    fn open<'a>(
        &self,
        request: &'a Request,
        sources: &'a SourceReader,
    ) -> Result<Box<dyn Images + 'a>, DataError> {
        let file = request.source.set.as_deref().unwrap_or_default();
        let wants_pairs = request.task.needs() == Knowledge::Answer;
        let rows = read(sources, file, wants_pairs)?;
        let is_divided = rows.iter().any(|(split, _)| split.is_some());
        let mine = |split: &Option<String>| split.as_deref() == Some(request.split.name());
        let files: Vec<PairFiles> = rows
            .into_iter()
            .filter(|(split, _)| !is_divided || mine(split))
            .map(|(_, files)| files)
            .collect();
        let files = if is_divided { files } else { request.part(files) };
        Ok(Box::new(Listing::new(files, move |files| {
            if wants_pairs {
                return read_pair(sources, files);
            }
            let image = read_image(sources, &files.input)?;
            Ok(Sample { id: files.name.clone(), image, ..Sample::default() })
        })))
    }
}

/// The rows with their split.
fn read(
    sources: &SourceReader,
    file: &str,
    wants_pairs: bool,
) -> Result<Vec<(Option<String>, PairFiles)>, DataError> {
    let bytes = read_source(sources, file, "the table of images")?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes.as_slice());
    let mut rows = Vec::new();
    let mut seen: BTreeMap<String, (u64, Option<String>)> = BTreeMap::new();
    let mut names: BTreeMap<String, u64> = BTreeMap::new();
    for (row, line) in reader.deserialize::<Row>().zip(2..) {
        let wrong = |text: String| {
            DataError::failed(format!("line {line} of `{file}`: {text}")).with_help(FORM)
        };
        let row = row.map_err(|e| DataError::failed(format!("`{file}`: {e}")).with_help(FORM))?;
        let target = match row.target.filter(|target| !target.is_empty()) {
            None if wants_pairs => return Err(wrong("there is no `target`".to_owned())),
            target => target.unwrap_or_default(),
        };
        let split = row.split.filter(|split| !split.is_empty());
        if split.as_deref().is_some_and(|split| !["train", "test"].contains(&split)) {
            let found = split.unwrap_or_default();
            return Err(wrong(format!("`split` must be train or test, but is `{found}`")));
        }
        for path in [&row.input, &target] {
            if path.starts_with('/') || path.split(['/', '\\']).any(|part| part == "..") {
                return Err(wrong(format!("`{path}` is not below `root`")));
            }
        }
        if let Some((before, other)) = seen.insert(row.input.clone(), (line, split.clone()))
            && other != split
        {
            return Err(wrong(format!("`{}` is in the other split on line {before}", row.input)));
        }
        let name = row.name.filter(|name| !name.is_empty()).unwrap_or_else(|| stem(&row.input));
        if let Some(before) = names.insert(name.clone(), line) {
            return Err(wrong(format!("the name `{name}` stands on line {before}, too")));
        }
        rows.push((split, PairFiles { name, input: row.input, target }));
    }
    if rows.is_empty() {
        return Err(DataError::failed(format!("`{file}` has no rows")).with_help(FORM));
    }
    Ok(rows)
}

/// A path as a name: without its ending, folders joined by `-`.
fn stem(path: &str) -> String {
    path.rsplit_once('.').map_or(path, |(stem, _)| stem).replace(['/', '\\'], "-")
}
