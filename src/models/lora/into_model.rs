//! An adapter as part of the model: `W + s·B·A`, tensor by tensor.

use burn::tensor::{Device, Tensor};

use super::{
    super::params::{Dtype, LoadError, Params, RawTensor, bytes_of},
    Adapter,
};

/// Whether all these values are finite, in a type of 2 or 4 bytes.
fn is_finite(bytes: &[u8], dtype: Dtype) -> bool {
    let halves = || bytes.as_chunks::<2>().0.iter().copied();
    match dtype {
        Dtype::BF16 => halves().all(|value| half::bf16::from_le_bytes(value).is_finite()),
        Dtype::F16 => halves().all(|value| half::f16::from_le_bytes(value).is_finite()),
        _ => bytes.as_chunks::<4>().0.iter().all(|value| f32::from_le_bytes(*value).is_finite()),
    }
}

impl Adapter {
    /// Adds what the adapter does to the weights of `base`.
    pub fn merge_into(&self, base: &mut Params) -> Result<(), LoadError> {
        self.check_against(base)?;
        for module in self.modules() {
            let change = self.change(module).expect("modules have both factors");
            let weight = base.0.get_mut(&format!("{module}.weight")).expect("checked above");
            let change = change.to_device(&weight.flat.device());
            weight.flat = weight.flat.clone() + change.cast(weight.flat.dtype());
        }
        Ok(())
    }

    /// The bytes of a tensor of the base as `dtype`, with what the adapter does to it added in f32.
    /// The base must have been looked at by [`Self::check_shapes`]. What is no finite number, or
    /// none in `dtype`, is an error.
    pub fn merge_raw(&self, tensor: RawTensor, dtype: Dtype) -> Result<Vec<u8>, LoadError> {
        let change = tensor.name.strip_suffix(".weight").and_then(|module| self.change(module));
        if change.is_none() && dtype == tensor.dtype {
            return Ok(tensor.bytes);
        }
        let name = tensor.name.clone();
        let flat = tensor.into_f32(&Device::flex());
        let bytes = bytes_of(&change.map_or(flat.clone(), |change| flat + change), dtype);
        if is_finite(&bytes, dtype) {
            return Ok(bytes);
        }
        Err(LoadError::NotFinite {
            message: format!(
                "`{name}` of the merged model would not be finite numbers in {dtype:?}"
            ),
            help: "give smaller `weights`, or another `precision`",
        })
    }

    /// What is added to the weight of a module, row by row.
    fn change(&self, module: &str) -> Option<Tensor<1>> {
        let (a, b) = self.factors(module)?;
        Some((b.tensor::<2>().matmul(a.tensor::<2>()) * self.scale()).reshape([-1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::lora::tests::trained;

    #[test]
    fn what_a_type_does_not_hold_is_not_merged_in_it() {
        let mut adapter = trained();
        for factor in adapter.factors.0.values_mut() {
            factor.flat = factor.flat.clone().abs() + 1000.0;
        }
        let merged = |name: &str, dtype| {
            let tensor = RawTensor {
                name: name.to_owned(),
                shape: vec![6, 4],
                dtype: Dtype::F16,
                bytes: vec![0; 48],
            };
            adapter.merge_raw(tensor, dtype).map_err(|error| error.to_string())
        };
        let to_q = "blocks.0.attn1.to_q.weight";
        insta::assert_snapshot!(merged(to_q, Dtype::F16).unwrap_err(), @"`blocks.0.attn1.to_q.weight` of the merged model would not be finite numbers in F16");
        assert_eq!(merged(to_q, Dtype::BF16).unwrap().len(), 48);
        assert_eq!(merged("other.weight", Dtype::F16).unwrap(), vec![0; 48]);
    }
}
