//! How large the clips are that stages work on, as far as parameters tell.

use serde_json::{Map, Value};

use crate::config::Pipeline;

/// For each instance, what its own parameters say of the size of its items, or what is known of the
/// input that they are made from; as `config/check.rs` has it.
pub(super) struct Sizes(Vec<Size>);

#[derive(Clone, Copy, Default)]
struct Size {
    frames: Option<usize>,
    image: Option<[usize; 2]>,
}

impl Sizes {
    /// The sizes by these parameters of each instance, as they are or once were.
    pub fn new<'p>(
        pipeline: &Pipeline,
        params: impl Fn(usize) -> Option<&'p Map<String, Value>>,
    ) -> Self {
        let mut sizes: Vec<Size> = Vec::with_capacity(pipeline.instances.len());
        // Inputs come before their users.
        for (index, instance) in pipeline.instances.iter().enumerate() {
            let own = instance.work.own_size();
            let value = |param: &str| params(index)?.get(param);
            let frames = own.frames.and_then(|(param, _)| number(value(param)?));
            let image = own.image.and_then(|(param, _)| pair(value(param)?));
            let given = instance.size_input().map(|input| sizes[input]).unwrap_or_default();
            sizes.push(Size { frames: frames.or(given.frames), image: image.or(given.image) });
        }
        Self(sizes)
    }

    pub fn frames(&self, index: usize) -> Option<usize> {
        self.0[index].frames
    }

    /// Height and width.
    pub fn image(&self, index: usize) -> Option<[usize; 2]> {
        self.0[index].image
    }

    /// The pixels of an item: frames x height x width.
    pub fn volume(&self, index: usize) -> Option<f64> {
        let [height, width] = self.image(index)?;
        let pixels = (self.frames(index).unwrap_or(1) * height * width) as f64;
        Some(pixels).filter(|pixels| *pixels > 0.0)
    }

    /// The pixels of a frame of it: height x width.
    pub fn area(&self, index: usize) -> Option<f64> {
        let [height, width] = self.image(index)?;
        Some((height * width) as f64).filter(|pixels| *pixels > 0.0)
    }
}

fn number(value: &Value) -> Option<usize> {
    value.as_u64().map(|number| number as usize)
}

fn pair(value: &Value) -> Option<[usize; 2]> {
    match value.as_array()?.as_slice() {
        [height, width] => Some([number(height)?, number(width)?]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{io, path::Path};

    use super::*;
    use crate::{
        config::{LoadOptions, load_with},
        stages::STAGES,
    };

    #[test]
    fn sizes_come_from_the_parameters_that_decide_them() {
        let text = r#"
[stages.pose]
kind   = "dataset"
source = "builtin:figures"
task   = "pose"
count  = 1
size   = [32, 48]

[stages.world]
kind   = "dataset"
source = "builtin:figures"
task   = "world"
count  = 1
frames = 17
size   = [32, 32]

[stages.clips]
kind   = "interpolate"
inputs = { pairs = "pose" }
frames = 5

[stages.latents]
kind   = "vae_encode"
inputs = { videos = "clips" }
model  = "builtin:tiny"
"#;
        let read = |path: &Path| match path.to_str() {
            Some("sizes.toml") => Ok(text.to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let options = LoadOptions::default();
        let pipeline = load_with(STAGES, Path::new("sizes.toml"), &options, &read).unwrap();
        let sizes = Sizes::new(&pipeline, |index| Some(&*pipeline.instances[index].params));
        let of = |stage: &str| {
            let index = pipeline.instances.iter().position(|i| i.stage == stage).unwrap();
            (sizes.frames(index), sizes.image(index))
        };
        // A pair has no frames, though the parameter has a default.
        assert_eq!(of("pose"), (None, Some([32, 48])));
        assert_eq!(of("world"), (Some(17), Some([32, 32])));
        assert_eq!(of("clips"), (Some(5), Some([32, 48])));
        assert_eq!(of("latents"), (Some(5), Some([32, 48])));
    }
}
