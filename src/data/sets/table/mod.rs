//! A table with the paths of images: a CSV or a Parquet file.

mod columns;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::{DataSet, Images, Knowledge, Listing, folder::read_pair};
use crate::{
    data::{
        DataError, ParamError, Request, Sample, files::read_source, folder::PairFiles, read_image,
    },
    store::SourceReader,
};

const FORM: &str = "its columns are `input`, for pairs `target`, and if wanted `name` and `split` (train \
                    or test), all of them text; paths are below `root`; a CSV file names the \
                    columns in its first line";

pub(super) struct Table;

impl DataSet for Table {
    fn name(&self) -> &'static str {
        "table"
    }

    fn doc(&self) -> &'static str {
        "A CSV or Parquet file (`set`) with columns `input`, `target`, and if wanted `name` and `split`."
    }

    fn params(&self) -> &'static [&'static str] {
        &["source.set", "holdout", "holdout_seed"]
    }

    fn offers(&self) -> &'static [Knowledge] {
        &[Knowledge::Image, Knowledge::Answer]
    }

    fn check(&self, request: &Request) -> Vec<ParamError> {
        if request.source.set.is_some() {
            return Vec::new();
        }
        let message = "a table needs `set`, the CSV or Parquet file below `root`";
        vec![ParamError::new("source", message).help("add set = \"pairs.csv\"")]
    }

    fn open<'a>(
        &self,
        request: &'a Request,
        sources: &'a SourceReader,
    ) -> Result<Box<dyn Images + 'a>, DataError> {
        let file = request.source.set.as_deref().unwrap_or_default();
        let wants_pairs = request.task.needs() == Knowledge::Answer;
        let bytes = read_source(sources, file, "the table of images")?;
        let lines = columns::read(file, bytes)?;
        let rows = Rules { file, wants_pairs }.rows(lines)?;
        let is_divided = rows.iter().any(|(split, _)| split.is_some());
        let mine = |split: &Option<String>| split.as_deref() == Some(request.split.name());
        let files: Vec<PairFiles> = rows
            .into_iter()
            .filter(|(split, _)| !is_divided || mine(split))
            .map(|(_, files)| files)
            .collect();
        let files = if is_divided { files } else { divide(request, file, files)? };
        Ok(Box::new(Listing::new(
            files,
            |files| [&files.name, &files.input],
            move |files| {
                if wants_pairs {
                    return read_pair(sources, files);
                }
                let image = read_image(sources, &files.input)?;
                Ok(Sample { id: files.name.clone(), image, ..Sample::default() })
            },
        )?))
    }
}

/// The part of a table without `split`: all rows of one picture stay on one side.
fn divide(
    request: &Request,
    table: &str,
    files: Vec<PairFiles>,
) -> Result<Vec<PairFiles>, DataError> {
    let inputs: BTreeSet<&str> = files.iter().map(|files| files.input.as_str()).collect();
    if inputs.len() == files.len() {
        return request.part(files);
    }
    if inputs.len() == 1 && (0.0..1.0).contains(&request.holdout) && request.holdout > 0.0 {
        let message = format!(
            "all {} rows of `{table}` show one picture, so it cannot be divided",
            files.len()
        );
        return Err(DataError::failed(message)
            .with_help("say in a column `split` what each row is for, or set holdout = 0.0"));
    }
    request.part_of_groups(files, |files| &files.input)
}

/// A row as it stands in a file: an empty cell is `None`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Row {
    /// `line 3` of a CSV file, `row 2` of a Parquet file.
    place: String,
    input: Option<String>,
    target: Option<String>,
    name: Option<String>,
    split: Option<String>,
}

/// What the rows of a file must be.
struct Rules<'a> {
    file: &'a str,
    wants_pairs: bool,
}

impl Rules<'_> {
    /// The rows with their split.
    fn rows(&self, rows: Vec<Row>) -> Result<Vec<(Option<String>, PairFiles)>, DataError> {
        if rows.is_empty() {
            let error = DataError::failed(format!("`{}` has no rows", self.file));
            return Err(error.with_help(FORM));
        }
        let mut splits: BTreeMap<String, (String, Option<String>)> = BTreeMap::new();
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        self.check_divided(&rows)?;
        let checked = rows.into_iter().map(|row| {
            let place = row.place.clone();
            let wrong = |text: String| self.wrong(&place, &text);
            let (split, files) = self.row(row)?;
            if let Some((before, other)) =
                splits.insert(files.input.clone(), (place.clone(), split.clone()))
                && other != split
            {
                return Err(wrong(format!("`{}` is in the other split on {before}", files.input)));
            }
            if let Some(before) = names.insert(files.name.clone(), place.clone()) {
                return Err(wrong(format!("the name `{}` stands on {before}, too", files.name)));
            }
            Ok((split, files))
        });
        checked.collect()
    }

    /// Rows without a split would be in neither where others have one.
    fn check_divided(&self, rows: &[Row]) -> Result<(), DataError> {
        let Some(divided) = rows.iter().find(|row| row.split.is_some()) else { return Ok(()) };
        match rows.iter().find(|row| row.split.is_none()) {
            Some(row) => {
                let text = format!("there is no `split`, but {} has one", divided.place);
                Err(self.wrong(&row.place, &text))
            }
            None => Ok(()),
        }
    }

    /// One row, for itself.
    fn row(&self, row: Row) -> Result<(Option<String>, PairFiles), DataError> {
        let wrong = |text: &str| Err(self.wrong(&row.place, text));
        let Some(input) = row.input else { return wrong("there is no `input`") };
        if row.target.is_none() && self.wants_pairs {
            return wrong("there is no `target`");
        }
        let target = row.target.unwrap_or_default();
        if let Some(split) = row.split.as_deref().filter(|name| !["train", "test"].contains(name)) {
            return wrong(&format!("`split` must be train or test, but is `{split}`"));
        }
        for path in [&input, &target] {
            if path.starts_with('/') || path.split(['/', '\\']).any(|part| part == "..") {
                return wrong(&format!("`{path}` is not below `root`"));
            }
        }
        let [input, target] = [input, target].map(|path| plain(&path));
        let name = row.name.unwrap_or_else(|| stem(&input));
        Ok((row.split, PairFiles { name, input, target }))
    }

    fn wrong(&self, place: &str, text: &str) -> DataError {
        DataError::failed(format!("{place} of `{}`: {text}", self.file)).with_help(FORM)
    }
}

/// A path without parts that mean nothing, so that `a.png` and `./a.png` are one picture.
fn plain(path: &str) -> String {
    let parts = path.split('/').filter(|part| !["", "."].contains(part));
    parts.collect::<Vec<_>>().join("/")
}

/// A path as a name: without its ending, folders joined by `-`.
fn stem(path: &str) -> String {
    path.rsplit_once('.').map_or(path, |(stem, _)| stem).replace(['/', '\\'], "-")
}
