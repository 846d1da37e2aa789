//! What a training starts from.

use burn::tensor::{Device, FloatDType};
use serde_json::Value;

use super::{
    super::{Inputs, StageError},
    CONFIG, Part, Pretrain, WEIGHTS,
};
use crate::{
    artifact::Item,
    models::{ParamReader, Params, VideoDiffusion},
};

impl Pretrain {
    /// The configuration and the parameters training starts from.
    pub(super) fn start(
        &self,
        family: &dyn VideoDiffusion,
        inputs: &Inputs<'_>,
        device: &Device,
    ) -> Result<(Value, Params), StageError> {
        let name = self.part.name();
        let old = inputs.items("model").iter().find(|item| item.name == name);
        let (config, is_stated) = match (old, &self.like) {
            (Some(item), _) if self.config.is_empty() => (read_json(inputs, item)?, false),
            (None, Some(model)) => (model.resolve()?.config(name)?, false),
            _ => (self.stated_config(), true),
        };
        let build = |params: &ParamReader<'_>| {
            let built = match self.part {
                Part::Vae => family.vae(&config, params).map(drop),
                Part::Transformer => family.denoiser(&config, params).map(drop),
            };
            built.map_err(|error| if is_stated { error.stated_in("config") } else { error })
        };
        let params = if let Some(item) = old {
            let mut params = Params::default();
            let stored = inputs.stored(item, WEIGHTS)?;
            params.read_stored(&stored, WEIGHTS, device, FloatDType::F32)?;
            build(&ParamReader::loaded(&params, None))?;
            params
        } else {
            let reader = ParamReader::fresh_with(self.seed.unwrap_or_default(), device, self.init);
            build(&reader)?;
            reader.into_made()
        };
        Ok((config, params))
    }
}

pub(super) fn read_json(inputs: &Inputs<'_>, item: &Item) -> Result<Value, StageError> {
    serde_json::from_slice(&inputs.read(item, CONFIG)?).map_err(|e| {
        StageError::failed(format!("`{CONFIG}` must be JSON: {e}")).on_item(&item.name)
    })
}
