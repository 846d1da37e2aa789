//! Arrays of f32 by name in one safetensors file: what latents and samples are written as.

use std::collections::HashMap;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// Values in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<const D: usize> {
    /// The shape.
    pub shape: [usize; D],
    /// The values.
    pub values: Vec<f32>,
}

/// Why an item's file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// Not safetensors, or the tensor is not in it.
    #[error("not the safetensors file this artifact holds: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// Another type or number of axes.
    #[error("tensor `{name}` must be {wanted}, but is {found}")]
    Kind {
        /// The tensor.
        name: String,
        /// What was wanted: `F32 of 4 axes`.
        wanted: String,
        /// What was found.
        found: String,
    },
    /// An entry of the header with a value that it cannot have.
    #[error("`{key}` in the header must be {wanted}, but is `{found}`")]
    Entry {
        /// The entry.
        key: &'static str,
        /// What was wanted.
        wanted: &'static str,
        /// What was found.
        found: String,
    },
}

impl<const D: usize> Array<D> {
    /// Reads the tensor `name` of a safetensors file.
    pub fn read(bytes: &[u8], name: &str) -> Result<Self, TensorFileError> {
        let file = SafeTensors::deserialize(bytes)?;
        let view = file.tensor(name)?;
        let shape = check(&view, name, Dtype::F32)?;
        let values = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().expect("chunks of four")))
            .collect();
        Ok(Self { shape, values })
    }

    /// Whether all values are finite numbers.
    pub fn is_finite(&self) -> bool {
        self.values.iter().all(|value| value.is_finite())
    }

    /// The values as bytes, for [`write`].
    fn bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }
}

/// Checks the type and number of axes of a tensor and gives its shape.
pub(super) fn check<const D: usize>(
    view: &TensorView<'_>,
    name: &str,
    dtype: Dtype,
) -> Result<[usize; D], TensorFileError> {
    match <[usize; D]>::try_from(view.shape()) {
        Ok(shape) if view.dtype() == dtype => Ok(shape),
        _ => Err(TensorFileError::Kind {
            name: name.to_owned(),
            wanted: format!("{dtype:?} of {D} axes"),
            found: format!("{:?} {:?}", view.dtype(), view.shape()),
        }),
    }
}

/// Writes a file of one array.
pub fn write<const D: usize>(name: &str, array: &Array<D>) -> Vec<u8> {
    write_all(&[(name, Dtype::F32, &array.shape, &array.bytes())])
}

/// The same with an entry in its header.
pub(super) fn write_with<const D: usize>(
    name: &str,
    array: &Array<D>,
    (key, value): (&str, String),
) -> Vec<u8> {
    let tensors: [(_, _, &[usize], &[u8]); 1] = [(name, Dtype::F32, &array.shape, &array.bytes())];
    serialize(&tensors, Some([(key.to_owned(), value)].into()))
}

/// Writes a file of two arrays.
pub fn write_two<const D: usize, const E: usize>(
    (first, a): (&str, &Array<D>),
    (second, b): (&str, &Array<E>),
) -> Vec<u8> {
    write_all(&[
        (first, Dtype::F32, &a.shape, &a.bytes()),
        (second, Dtype::F32, &b.shape, &b.bytes()),
    ])
}

/// Writes tensors given as bytes.
pub(super) fn write_all(tensors: &[(&str, Dtype, &[usize], &[u8])]) -> Vec<u8> {
    serialize(tensors, None)
}

fn serialize(
    tensors: &[(&str, Dtype, &[usize], &[u8])],
    entries: Option<HashMap<String, String>>,
) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.to_vec(), bytes).expect("shape fits the bytes");
        (*name, view)
    });
    safetensors::serialize(views, entries).expect("names are unique and shapes fit")
}
