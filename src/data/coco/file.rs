//! The annotation files, as they are written.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, SeqAccess, Visitor},
};

use crate::{
    data::{
        DataError,
        files::{instead_of_object, read_source},
        rle::Segmentation,
    },
    store::SourceReader,
};

#[derive(Deserialize)]
pub(super) struct File<A> {
    pub(super) images: Listed<Image>,
    pub(super) annotations: Listed<A>,
    #[serde(default)]
    pub(super) categories: Vec<Category>,
}

#[derive(Deserialize)]
#[serde(expecting = "an image with `id`, `file_name`, `width` and `height`")]
pub(super) struct Image {
    pub(super) id: u64,
    pub(super) file_name: String,
    pub(super) width: u32,
    pub(super) height: u32,
}

#[derive(Deserialize)]
#[serde(expecting = "a category with `id` and `name`")]
pub(super) struct Category {
    pub(super) id: u64,
    pub(super) name: String,
}

#[derive(Deserialize)]
#[serde(expecting = "an annotation with `id`, `image_id` and `keypoints`")]
pub(super) struct PersonAnnotation {
    pub(super) id: u64,
    pub(super) image_id: u64,
    #[serde(default)]
    pub(super) iscrowd: Flag,
    pub(super) keypoints: Vec<f32>,
}

#[derive(Deserialize)]
#[serde(expecting = "an annotation with `id`, `image_id`, `category_id` and `segmentation`")]
pub(super) struct InstanceAnnotation {
    pub(super) id: u64,
    pub(super) image_id: u64,
    pub(super) category_id: u64,
    #[serde(default)]
    pub(super) iscrowd: Flag,
    #[serde(default)]
    pub(super) area: Option<f64>,
    pub(super) segmentation: Segmentation,
}

/// Yes or no, as COCO and others write it.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "0, 1, true or false")]
pub(super) enum Flag {
    Number(u8),
    Bool(bool),
}

impl Default for Flag {
    fn default() -> Self {
        Self::Bool(false)
    }
}

impl Flag {
    pub(super) fn is_set(self) -> bool {
        matches!(self, Self::Bool(true) | Self::Number(1..))
    }
}

pub(super) fn read_json<T: DeserializeOwned>(
    sources: &SourceReader,
    path: &str,
) -> Result<T, DataError> {
    let bytes = read_source(sources, path, "an annotation file of COCO 2017")?;
    let read = match instead_of_object(&bytes) {
        // Else a list would be taken for the fields in order, and told of in words of the parser.
        Some(found) => {
            Err(format!("it must be an object with `images` and `annotations`, but {found}"))
        }
        None => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
    };
    read.map_err(|reason| {
        DataError::failed(format!("`{path}` is not a COCO annotation file: {reason}"))
            .with_help("download the annotations again; they come as one zip archive")
    })
}

/// A list whose errors say which element is wrong.
pub(super) struct Listed<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Listed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Listed<T>, A::Error> {
                let mut list = Vec::new();
                loop {
                    match seq.next_element() {
                        Ok(Some(element)) => list.push(element),
                        Ok(None) => return Ok(Listed(list)),
                        Err(error) => {
                            let place = list.len();
                            return Err(serde::de::Error::custom(format_args!(
                                "element {place} of the list (from 0): {error}"
                            )));
                        }
                    }
                }
            }
        }

        deserializer.deserialize_seq(List(PhantomData))
    }
}
