//! Reading reference tensors and comparing with them.

use std::{fs, path::Path};

use burn::tensor::{Device, Tensor, TensorData};
use pipe::models::{Params, params::Param};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A safetensors file of inputs and expected outputs.
pub struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    pub fn read(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { bytes }
    }

    /// A committed fixture, such as `vae/four_levels`.
    pub fn fixture(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        Self::read(folder.join(format!("{name}.safetensors")))
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    /// The values and shape of a tensor of any type.
    pub fn values(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        let tensors = self.tensors();
        let view = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let bytes = view.data();
        let values = match view.dtype() {
            Dtype::F32 => {
                bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
            }
            Dtype::F16 => bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|bytes| half::f16::from_le_bytes(*bytes).to_f32())
                .collect(),
            Dtype::I64 => bytes
                .as_chunks::<8>()
                .0
                .iter()
                .map(|bytes| i64::from_le_bytes(*bytes) as f32)
                .collect(),
            other => panic!("{name} is {other:?}"),
        };
        (values, view.shape().to_vec())
    }

    pub fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let (values, shape) = self.values(name);
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    /// The configuration in the header.
    pub fn config(&self) -> Value {
        let (_, header) = SafeTensors::read_metadata(&self.bytes).unwrap();
        serde_json::from_str(&header.metadata().as_ref().unwrap()["config"]).unwrap()
    }

    /// The tensors whose names start with `weights.`.
    pub fn weights(&self) -> Params {
        self.params("weights.")
    }

    /// The tensors whose names start with `prefix`, without it.
    pub fn params(&self, prefix: &str) -> Params {
        let tensors = self.tensors();
        let named = tensors.names().into_iter().filter_map(|name| {
            let short = name.strip_prefix(prefix)?.to_owned();
            let (values, shape) = self.values(name);
            let len = values.len();
            let flat = Tensor::from_data(TensorData::new(values, [len]), &Device::flex());
            Some((short, Param { flat, shape }))
        });
        Params(named.collect())
    }
}

/// The largest difference, relative to the largest value expected.
pub fn relative_error<const D: usize>(found: Tensor<D>, wanted: &Tensor<D>) -> f32 {
    assert_eq!(found.dims(), wanted.dims());
    let scale = wanted.clone().abs().max().into_scalar::<f32>();
    let error = (found - wanted.clone()).abs().max().into_scalar::<f32>();
    // `max` may pass over NaN, so a non-number must not look like agreement.
    assert!(error.is_finite() && scale > 0.0, "error {error} at scale {scale}");
    error / scale
}

/// Asserts agreement and shows the error (`cargo test -- --nocapture`).
#[track_caller]
pub fn assert_close<const D: usize>(
    what: &str,
    found: Tensor<D>,
    wanted: &Tensor<D>,
    tolerance: f32,
) {
    let error = relative_error(found, wanted);
    println!("{what}: {error:.1e}");
    assert!(error <= tolerance, "{what}: relative error {error:e} is above {tolerance:e}");
}
