//! Data sets: one file each, and one line in [`SETS`].

mod ade20k;
mod arc;
mod bsds500;
mod coco;
mod dreambooth;
mod figures;
mod folder;
mod grids;
mod matlab;
mod rgbd;
mod table;
mod tiny_imagenet;

use std::collections::HashMap;

use super::{DataError, ParamError, Request, Sample, choice::listed};
use crate::store::SourceReader;

/// Every data set that a pipeline file can name.
pub static SETS: &[&dyn DataSet] = &[
    &figures::Figures,
    &grids::Grids,
    &coco::Coco,
    &arc::Arc,
    &folder::Folder,
    &table::Table,
    &dreambooth::DreamBooth,
    &tiny_imagenet::TinyImageNet,
    &ade20k::Ade20k,
    &rgbd::Rgbd,
    &bsds500::Bsds500,
];

/// What a data set knows of its images, and a task needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// The pixels.
    Image,
    /// [`Sample::persons`].
    Persons,
    /// [`Sample::mask`].
    Mask,
    /// [`Sample::scene`].
    Scene,
    /// [`Sample::depth`].
    Depth,
    /// [`Sample::answer`]: lines that people drew.
    Boundaries,
    /// [`Sample::answer`].
    Answer,
    /// [`Sample::class`].
    Class,
    /// [`Sample::arc`] and [`Sample::answer`].
    Grids,
    /// Clips, not images.
    Clips,
}

/// A data set that a pipeline file can name.
pub trait DataSet: Sync {
    /// What it is called in a pipeline file.
    fn name(&self) -> &'static str;

    /// One sentence for editors.
    fn doc(&self) -> &'static str;

    /// The parameters of [`Request`] that it reads and others do not.
    fn params(&self) -> &'static [&'static str] {
        &[]
    }

    /// What it knows of its images.
    fn offers(&self) -> &'static [Knowledge];

    /// Whether it is read from a folder, the `root`.
    fn is_on_disk(&self) -> bool {
        true
    }

    /// Rules for its own keys.
    fn check(&self, _: &Request) -> Vec<ParamError> {
        Vec::new()
    }

    /// How often what it gives changed for equal requests, while that of other data sets stayed.
    fn revision(&self) -> u32 {
        0
    }

    /// Finds the images of a request, with what its task needs.
    fn open<'a>(
        &self,
        request: &'a Request,
        sources: &'a SourceReader,
    ) -> Result<Box<dyn Images + 'a>, DataError>;
}

/// The images of a data set that fit a request, in an order of their own.
pub trait Images {
    /// How many there are; `None` if they have no end.
    fn count(&self) -> Option<usize>;

    /// Reads one of them.
    fn sample(&self, place: usize) -> Result<Sample, DataError>;

    /// The names of the classes, for [`Sample::class`].
    fn classes(&self) -> &[String] {
        &[]
    }
}

listed!(DataSet, "SourceName", SETS);

/// Images in a list, each read by a function.
struct Listing<T, F> {
    items: Vec<T>,
    read: F,
    classes: Vec<String>,
}

impl<T, F: Fn(&T) -> Result<Sample, DataError>> Listing<T, F> {
    /// `entry` gives an image's name in the data set and its file. Names must differ: what is made
    /// of an image is called by them.
    fn new(items: Vec<T>, entry: impl Fn(&T) -> [&str; 2], read: F) -> Result<Self, DataError> {
        let mut seen = HashMap::new();
        for [id, file] in items.iter().map(&entry) {
            if let Some(other) = seen.insert(id, file) {
                let message = format!("`{other}` and `{file}` would both be called `{id}`");
                return Err(DataError::failed(message).with_help(
                    "rename one of them; a name holds folders, if any, with `-` in place of `/`, and \
                     no ending",
                ));
            }
        }
        Ok(Self { items, read, classes: Vec::new() })
    }
}

impl<T, F: Fn(&T) -> Result<Sample, DataError>> Images for Listing<T, F> {
    fn count(&self) -> Option<usize> {
        Some(self.items.len())
    }

    fn sample(&self, place: usize) -> Result<Sample, DataError> {
        (self.read)(&self.items[place])
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }
}

#[cfg(test)]
mod tests;
