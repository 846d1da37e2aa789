//! Pixels: reading, making and transforming images and clips. No model tensors here.

pub mod figures;

use image::{GrayImage, RgbImage};

/// One annotated image of a data set, before any task is applied.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Unique within the data set.
    pub id: String,
    /// The image as the data set holds it.
    pub image: RgbImage,
    /// The annotated persons.
    pub persons: Vec<Person>,
    /// The union of the figures or of the chosen class: 255 inside, 0 outside.
    pub mask: Option<GrayImage>,
}

/// One annotated person or figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    /// COCO's 17 keypoints: x and y in pixels, visibility 0, 1 or 2.
    pub keypoints: [[f32; 3]; 17],
}
