//! Instances and their masks.

use image::GrayImage;

use super::{DataError, Labels, REPAIR, file::InstanceAnnotation};
use crate::data::rle::Segmentation;

/// An instance on an image.
#[derive(Debug)]
pub(super) struct Instance {
    annotation: u64,
    /// The place of its category in the file, from 1.
    label: u16,
    /// Its pixels, as annotated; none where the file does not say, until they were counted.
    area: Option<f64>,
    segmentation: Segmentation,
}

/// The image of a mask, and the file that outlines it.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) image: &'a str,
    /// Height and width.
    pub(super) size: [u32; 2],
    pub(super) annotations: &'a str,
}

impl Instance {
    /// What an annotation of the file at `path` says.
    pub(super) fn new(
        annotation: InstanceAnnotation,
        label: u16,
        path: &str,
    ) -> Result<Self, DataError> {
        let InstanceAnnotation { id, area, segmentation, .. } = annotation;
        if matches!(&segmentation, Segmentation::Polygons(rings) if rings.is_empty()) {
            let message = format!("`{path}`: annotation {id} has an empty `segmentation`");
            return Err(DataError::failed(message)
                .with_help("outline the instance, or take the annotation out of the file"));
        }
        if let Some(area) = area.filter(|area| *area < 0.0) {
            let message = format!("`{path}`: annotation {id} has an `area` of {area}");
            return Err(DataError::failed(message).with_help(
                "give the pixels of the instance, or take `area` out: then they are counted",
            ));
        }
        Ok(Self { annotation: id, label, area, segmentation })
    }

    /// Its pixels, as annotated or counted.
    pub(super) fn area(&self) -> f64 {
        self.area.unwrap_or_default()
    }

    /// Counts its pixels if the file does not say how many they are.
    pub(super) fn measure(&mut self, place: Place<'_>) -> Result<(), DataError> {
        if self.area.is_none() {
            let mask = self.mask(place)?;
            self.area = Some(mask.iter().filter(|value| **value > 0).count() as f64);
        }
        Ok(())
    }

    /// Its pixels on its image.
    pub(super) fn mask(&self, place: Place<'_>) -> Result<GrayImage, DataError> {
        let [height, width] = place.size;
        let mut mask = GrayImage::new(width, height);
        self.segmentation.draw(&mut mask).map_err(|e| {
            let Place { image, annotations, .. } = place;
            let message =
                format!("`{annotations}`: annotation {} of `{image}`: {e}", self.annotation);
            DataError::failed(message).with_help(REPAIR)
        })?;
        Ok(mask)
    }
}

/// Paints instances over each other, each with its label.
pub(super) fn draw(instances: &[Instance], place: Place<'_>) -> Result<Labels, DataError> {
    let mut labels = Labels::new(place.size[1], place.size[0]);
    for instance in instances {
        let mask = instance.mask(place)?;
        for (label, set) in labels.pixels_mut().zip(mask.pixels()) {
            if set.0[0] > 0 {
                label.0 = [instance.label];
            }
        }
    }
    Ok(labels)
}
