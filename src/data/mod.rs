//! Pixels: reading, making and transforming images and clips. No model tensors here.
