//! An adapter that becomes part of a model's weights.

use super::{
    super::{StageContext, StageError, pretrain::WeightType},
    LoraMerge,
};
use crate::{
    artifact::model,
    models::{
        Adapter,
        params::{Dtype, TensorFile, header},
    },
    store::NewObject,
};

impl LoraMerge {
    /// Writes a model's weights with what the adapter does added, one tensor after the other.
    pub(super) fn merge(
        &self,
        adapter: &Adapter,
        base: Vec<TensorFile<'_>>,
        file: &mut NewObject<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let tensors: Vec<_> = base.iter().flat_map(TensorFile::tensors).collect();
        adapter
            .check_shapes(tensors.iter().map(|(name, info)| (name.as_str(), &info.shape[..])))?;
        let total = tensors.len() as u64;
        let tensors = tensors
            .into_iter()
            .map(|(name, info)| (name, info.shape.clone(), self.written(info.dtype)));
        file.write(&header(Some(model::format()), tensors))?;
        let mut done = 0;
        for part in base {
            part.each(|tensor| {
                cx.tick(done, total, "tensors merged")?;
                done += 1;
                let dtype = self.written(tensor.dtype);
                Ok::<_, StageError>(file.write(&adapter.merge_raw(tensor, dtype)?)?)
            })?;
        }
        Ok(())
    }

    /// The type in which a tensor of this one is written.
    fn written(&self, dtype: Dtype) -> Dtype {
        match (self.precision, dtype) {
            (Some(WeightType::F32), _) | (None, Dtype::F64) => Dtype::F32,
            (Some(WeightType::Bf16), _) => Dtype::BF16,
            (None, dtype) => dtype,
        }
    }
}
