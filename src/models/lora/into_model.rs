//! An adapter as part of the model: `W + s·B·A`, tensor by tensor.

use burn::tensor::{Device, Tensor};

use super::{
    super::params::{Dtype, LoadError, Params, RawTensor, bytes_of},
    Adapter,
};

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

    /// The bytes of a tensor of the base as `dtype`, with what the adapter does to it added in f32. The
    /// base must have been looked at by [`Self::check_shapes`].
    pub fn merge_raw(&self, tensor: RawTensor, dtype: Dtype) -> Vec<u8> {
        let change = tensor.name.strip_suffix(".weight").and_then(|module| self.change(module));
        if change.is_none() && dtype == tensor.dtype {
            return tensor.bytes;
        }
        let flat = tensor.into_f32(&Device::flex());
        bytes_of(&change.map_or(flat.clone(), |change| flat + change), dtype)
    }

    /// What is added to the weight of a module, row by row.
    fn change(&self, module: &str) -> Option<Tensor<1>> {
        let (a, b) = self.factors(module)?;
        Some((b.tensor::<2>().matmul(a.tensor::<2>()) * self.scale()).reshape([-1]))
    }
}
