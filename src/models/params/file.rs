//! Parameters in safetensors files.

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

use super::{LoadError, Param, Params};

impl Params {
    /// Adds the tensors of one safetensors file, as `dtype` on `device`.
    pub fn read_safetensors(
        &mut self,
        bytes: &[u8],
        file: &str,
        device: &Device,
        dtype: FloatDType,
    ) -> Result<(), LoadError> {
        let tensors = SafeTensors::deserialize(bytes)
            .map_err(|source| LoadError::Format { file: file.to_owned(), source })?;
        for (name, view) in tensors.iter() {
            let len = view.shape().iter().product::<usize>();
            let raw = |kind| TensorData::from_bytes_vec(view.data().to_vec(), [len], kind);
            let data = match view.dtype() {
                Dtype::F32 => raw(DType::F32),
                Dtype::F16 => raw(DType::F16),
                Dtype::BF16 => raw(DType::BF16),
                // Tables of positions that the reference computed in f64; no device needs more.
                Dtype::F64 => raw(DType::F64).convert::<f32>(),
                other => {
                    return Err(LoadError::Dtype {
                        file: file.to_owned(),
                        name: name.to_owned(),
                        found: format!("{other:?}"),
                    });
                }
            };
            let kind = data.dtype();
            let flat = Tensor::<1>::from_data(data, (device, kind)).cast(dtype);
            self.0.insert(name.to_owned(), Param { flat, shape: view.shape().to_vec() });
        }
        Ok(())
    }

    /// Writes all tensors as f32, or as bf16, with `metadata` in the header.
    pub fn to_safetensors(
        &self,
        bf16: bool,
        metadata: Option<std::collections::HashMap<String, String>>,
    ) -> Vec<u8> {
        let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .0
            .iter()
            .map(|(name, param)| {
                let values = param.flat.clone().cast(FloatDType::F32).into_data();
                let values = values.try_to_vec::<f32>().expect("cast to f32 above");
                let bytes = if bf16 {
                    values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect()
                } else {
                    values.iter().flat_map(|v| v.to_le_bytes()).collect()
                };
                (name.clone(), param.shape.clone(), bytes)
            })
            .collect();
        let dtype = if bf16 { Dtype::BF16 } else { Dtype::F32 };
        let views = bytes.iter().map(|(name, shape, bytes)| {
            let view = safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes)
                .expect("shape and length agree");
            (name.clone(), view)
        });
        safetensors::serialize(views, metadata).expect("names and shapes are valid")
    }
}
