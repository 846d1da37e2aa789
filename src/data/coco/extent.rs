//! Annotations that reach out of their image, by the size that the annotation file states.
//!
//! Where the stated size is wrong, what lies outside would be cut off, and the image might be left
//! out as one that shows nothing. So the files of such images, and only of such, are looked at
//! before any is chosen.

use std::collections::{BTreeMap, btree_map::Entry::Vacant};

use super::{DataError, Index, Person, file::InstanceAnnotation};
use crate::{
    data::{files, rle::Segmentation},
    store::SourceReader,
};

/// The names of the keypoints.
const KEYPOINTS: [&str; 17] = [
    "nose",
    "left eye",
    "right eye",
    "left ear",
    "right ear",
    "left shoulder",
    "right shoulder",
    "left elbow",
    "right elbow",
    "left wrist",
    "right wrist",
    "left hip",
    "right hip",
    "left knee",
    "right knee",
    "left ankle",
    "right ankle",
];

/// Pixels by which coordinates may lie outside: they are rounded.
const SLACK: f64 = 1.0;

fn is_within(value: f64, side: u32) -> bool {
    (-SLACK..=f64::from(side) + SLACK).contains(&value)
}

/// The images of which an annotation leaves the stated size, by id.
#[derive(Default)]
pub(super) struct Outside(BTreeMap<u64, Option<DataError>>);

impl Outside {
    /// Looks at an instance. What a mask has outside is cut off, if the size is right.
    pub(super) fn see_instance(&mut self, annotation: &InstanceAnnotation, size: [u32; 2]) {
        let [height, width] = size;
        let is_inside =
            |xy: &[f64]| is_within(xy[0], width) && xy.get(1).is_none_or(|y| is_within(*y, height));
        let fits = match &annotation.segmentation {
            Segmentation::Polygons(rings) => rings.iter().all(|ring| ring.chunks(2).all(is_inside)),
            Segmentation::Runs { size: drawn, .. } => *drawn == size.map(|side| side as usize),
        };
        if !fits {
            self.0.entry(annotation.image_id).or_default();
        }
    }

    /// Looks at the labelled keypoints of a person; one outside is wrong, if the size is right.
    pub(super) fn see_person(
        &mut self,
        person: &Person,
        (image, annotation): (u64, u64),
        [height, width]: [u32; 2],
        path: &str,
    ) {
        let is_outside = |[x, y, seen]: &[f32; 3]| {
            *seen > 0.0 && !(is_within((*x).into(), width) && is_within((*y).into(), height))
        };
        let Some(place) = person.keypoints.iter().position(is_outside) else { return };
        if let Vacant(entry) = self.0.entry(image) {
            let [x, y, _] = person.keypoints[place];
            let error = DataError::failed(format!(
                "`{path}`: annotation {annotation} has keypoint {place} ({}) at ({x}, {y}), outside of image \
                 {image}, which is {width}x{height}",
                KEYPOINTS[place]
            ));
            entry.insert(Some(error.with_help(
                "correct the annotation, or give the keypoint visibility 0 if it is not in the picture",
            )));
        }
    }

    /// Refuses the first image whose file has another size than stated, or a keypoint outside.
    pub(super) fn check(self, index: &Index, sources: &SourceReader) -> Result<(), DataError> {
        for (id, wrong) in self.0 {
            let entry = &index.entries[&id];
            let path = index.path(entry);
            let (width, height) = files::stored_size(sources, &path)?;
            entry.check_size([height, width], &path)?;
            if let Some(wrong) = wrong {
                return Err(wrong);
            }
        }
        Ok(())
    }
}
