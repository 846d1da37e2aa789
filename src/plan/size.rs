//! How large the clips are that stages work on, as far as parameters tell.

use serde_json::{Map, Value};

use crate::config::Pipeline;

/// For each instance, the nearest `frames` and `size` on the way up to what it is made from.
pub(super) struct Sizes(Vec<Size>);

#[derive(Clone, Copy, Default)]
struct Size {
    frames: Option<Found<usize>>,
    image: Option<Found<[usize; 2]>>,
}

/// A value, and how many stages up it was found.
#[derive(Clone, Copy)]
struct Found<T> {
    above: usize,
    value: T,
}

impl Sizes {
    /// The sizes by these parameters of each instance.
    pub fn new<'p>(
        pipeline: &Pipeline,
        params: impl Fn(usize) -> Option<&'p Map<String, Value>>,
    ) -> Self {
        let mut sizes: Vec<Size> = Vec::with_capacity(pipeline.instances.len());
        // Inputs come before their users.
        for (index, instance) in pipeline.instances.iter().enumerate() {
            let own = |name| params(index)?.get(name);
            let inputs = || instance.inputs.values().map(|input| sizes[*input]);
            sizes.push(Size {
                frames: found(own("frames").and_then(number), inputs().map(|size| size.frames)),
                image: found(own("size").and_then(pair), inputs().map(|size| size.image)),
            });
        }
        Self(sizes)
    }

    pub fn frames(&self, index: usize) -> Option<usize> {
        self.0[index].frames.map(|found| found.value)
    }

    /// Height and width.
    pub fn image(&self, index: usize) -> Option<[usize; 2]> {
        self.0[index].image.map(|found| found.value)
    }
}

/// The own value, or the nearest of the inputs'; of equally near ones the first.
fn found<T: Copy>(
    own: Option<T>,
    inputs: impl Iterator<Item = Option<Found<T>>>,
) -> Option<Found<T>> {
    if let Some(value) = own {
        return Some(Found { above: 0, value });
    }
    let nearest = inputs.flatten().min_by_key(|found| found.above)?;
    Some(Found { above: nearest.above + 1, ..nearest })
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
