//! Parameters by their published names: loading, strict in both directions, and initialising.
//!
//! A model's constructor asks a [`ParamReader`] for each of its tensors by name and shape. The
//! reader collects every disagreement instead of stopping at the first, and [`ParamReader::finish`]
//! reports them together with the tensors that nobody asked for. The same constructor serves
//! loading, fresh initialisation (`pretrain`), and listing names and shapes without data.
//!
//! Tensors are kept flat (`Tensor<1>`) with their shape, so that one map can hold all ranks, and
//! training can make each a leaf of the tape, clip and update it, without knowing the model.

mod error;
mod file;
mod reader;
mod tensor_file;

use std::collections::BTreeMap;

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::{device::lasting, rng::TorchRng};

pub use error::{LoadError, Problem, Problems};
pub use file::{Entries, bytes_of, header};
pub use reader::ParamReader;
pub use safetensors::Dtype;
pub use tensor_file::{RawTensor, StoredFile, TensorFile};

/// A tensor of any rank.
#[derive(Clone, Debug)]
pub struct Param {
    /// The values in row-major order.
    pub flat: Tensor<1>,
    /// The shape.
    pub shape: Vec<usize>,
}

impl Param {
    /// The tensor at rank `D`; the rank was checked by whoever made the reader's request.
    pub fn tensor<const D: usize>(&self) -> Tensor<D> {
        let shape: [usize; D] = self.shape.clone().try_into().expect("rank was checked");
        self.flat.clone().reshape(shape)
    }
}

/// A tensor on another device. What comes to the host is read at once: Burn would read it when
/// somebody looks at it, and by then a step of the optimizer may have written over it.
fn moved(flat: &Tensor<1>, device: &Device) -> Tensor<1> {
    if *device != Device::flex() || flat.device() == *device {
        return lasting(device, || flat.clone().to_device(device));
    }
    let data = flat.to_data();
    let (dtype, len) = (data.dtype(), flat.dims());
    let read = TensorData::from_bytes_vec(data.as_bytes().to_vec(), len, dtype);
    Tensor::from_data(read, (device, dtype))
}

/// The parameters of one part of a model, by published name.
#[derive(Clone, Debug, Default)]
pub struct Params(pub BTreeMap<String, Param>);

impl Params {
    /// Number of values in all tensors.
    pub fn num_values(&self) -> usize {
        self.0.values().map(|param| param.shape.iter().product::<usize>()).sum()
    }

    /// The same tensors on `device`, whatever becomes of these.
    #[must_use]
    pub fn to_device(&self, device: &Device) -> Self {
        let moved =
            |param: &Param| Param { flat: moved(&param.flat, device), shape: param.shape.clone() };
        Self(self.0.iter().map(|(name, param)| (name.clone(), moved(param))).collect())
    }

    /// The first tensor with a value that is no finite number.
    pub fn not_finite(&self) -> Option<&str> {
        let is_finite = |param: &Param| {
            let data = param.flat.clone().cast(FloatDType::F32).into_data();
            data.as_slice::<f32>().is_ok_and(|values| values.iter().all(|value| value.is_finite()))
        };
        self.0.iter().find(|(_, param)| !is_finite(param)).map(|(name, _)| name.as_str())
    }
}

/// How a fresh parameter is filled.
#[derive(Clone, Copy, Debug)]
pub enum Init {
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
    /// Uniform in ±bound.
    Uniform(f64),
    /// Normal with this standard deviation.
    Normal(f64),
}

/// Where a new model starts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// Every block passes its input on, since its modulation is zero: the start of a training.
    #[default]
    Identity,
    /// Every layer is random, as PyTorch makes it: a base that knows nothing and still depends on
    /// what it sees.
    Random,
}

impl Start {
    /// Whether it is the start of a training.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Init {
    /// PyTorch's default for linear layers and convolutions: uniform in ±1/sqrt(inputs per output).
    pub fn fan_in(inputs: usize) -> Self {
        Self::Uniform(1.0 / (inputs as f64).sqrt())
    }

    /// New values, in row-major order.
    pub(in crate::models) fn make(
        self,
        len: usize,
        rng: &mut TorchRng,
        device: &Device,
    ) -> Tensor<1> {
        let values = match self {
            Self::Zeros => vec![0.0; len],
            Self::Ones => vec![1.0; len],
            Self::Uniform(bound) => rng
                .uniform(len)
                .iter()
                .map(|u| ((f64::from(*u) * 2.0 - 1.0) * bound) as f32)
                .collect(),
            Self::Normal(std) => {
                rng.normal(len).iter().map(|z| (f64::from(*z) * std) as f32).collect()
            }
        };
        lasting(device, || Tensor::from_data(TensorData::new(values, [len]), device))
    }
}
