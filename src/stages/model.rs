//! How stages open their model and fit clips to it.

use std::sync::Arc;

use burn::tensor::{Device, FloatDType, Tensor};
use serde_json::Value;

use super::{
    Cause, CheckError, ImageRecord, Inputs, ItemSize, Output, StageContext, StageError,
    check::{
        agreement::{FOLDER, TextUse, wrong_length},
        pixels, refuse,
    },
};
use crate::{
    artifact::{
        Item,
        model::{LOG, resolve_model},
        tensors::Array,
        text::TextEmbedding,
        videos::{self, Clip},
    },
    models::{Compression, Denoiser, ModelRef, ModelSource, VideoVae},
};

/// A stage's model and the device its frozen parts live on.
pub(super) struct StageModel {
    pub source: ModelSource,
    pub device: Device,
}

impl StageModel {
    /// Finds the model's files, with the parts that come from the input `model`.
    pub fn open<'m>(
        model: impl Into<Option<&'m ModelRef>>,
        inputs: &Inputs<'_>,
        cx: &StageContext<'_>,
    ) -> Result<Self, StageError> {
        let source = resolve_model(model, inputs, "model")?;
        Ok(Self { source, device: cx.device.clone().without_autodiff() })
    }
}

/// How the image was given in the trainings behind the transformer, which is that on the port
/// `model`, or that of `source`, with where it is; `vae` is the `config.json` of the model.
pub(super) fn record_of_model(
    inputs: &Inputs<'_>,
    source: &ModelSource,
    vae: &Value,
) -> Result<(&'static str, ImageRecord), StageError> {
    let item = inputs.items("model").iter().find(|item| item.name == "transformer");
    let Some(item) = item else { return Ok((FOLDER, ImageRecord::of_source(source, Some(vae)))) };
    if !item.files.contains_key(LOG) {
        return Ok(("model", ImageRecord::default()));
    }
    let log: Value = serde_json::from_slice(&inputs.read(item, LOG)?).map_err(|e| {
        StageError::failed(format!("`{LOG}` must be JSON: {e}")).on_item(&item.name)
    })?;
    Ok(("model", ImageRecord::of_model(&log, Some(vae))))
}

/// Parts on the port `model` other than the one that was made.
pub(super) fn pass_parts_on(
    inputs: &Inputs<'_>,
    out: &mut Output<'_>,
    made: &str,
) -> Result<(), StageError> {
    for item in inputs.items("model").iter().filter(|item| item.name != made) {
        out.pass_on(inputs, item)?;
    }
    Ok(())
}

/// A model's VAE, on tiles if they are asked for.
pub(super) fn open_vae(
    model: &StageModel,
    tiling: bool,
    cx: &StageContext<'_>,
) -> Result<Arc<dyn VideoVae>, StageError> {
    let vae = cx.models.vae(&model.source, &model.device)?;
    if !tiling {
        return Ok(vae);
    }
    vae.tiled().ok_or_else(|| without_tiles().into())
}

pub(super) fn without_tiles() -> CheckError {
    let message = "`tiling` must be false: there are no tiles for this family of models";
    CheckError::new(Cause::Param("tiling"), message, "leave it out")
}

/// Advice to work on tiles.
pub(super) const TILING_HELP: &str = "set `tiling = true`, which changes pixels a little";

/// Reads the clip of an item.
pub(super) fn read_clip(inputs: &Inputs<'_>, item: &Item) -> Result<Clip, StageError> {
    Clip::from_bytes(&inputs.read(item, videos::FILE)?)
        .map_err(|e| StageError::failed(e.to_string()).on_item(&item.name))
}

/// Checks that a clip of `[frames, height, width]` pixels fits a VAE and a denoiser that reads
/// `text` tokens.
pub(super) fn check_clip(
    size: [usize; 3],
    compression: Compression,
    denoiser: &dyn Denoiser,
    text: usize,
) -> Result<(), StageError> {
    check_pixels(size, compression)?;
    let [frames, height, width] = size;
    let Compression { time, space } = compression;
    let latent = [(frames - 1) / time + 1, height / space, width / space];
    denoiser.check_size(latent, text).map_err(|error| {
        StageError::failed(format!(
            "a clip of {frames} frames of height {height} and width {width} does not fit the \
             model: {error}"
        ))
    })
}

/// Reads the prompt on a port for a denoiser, `[1, L, D]`; it must be encoded as its use asks
/// for.
pub(super) fn read_text(
    inputs: &Inputs<'_>,
    port: &str,
    denoiser: &dyn Denoiser,
    user: TextUse,
    device: &Device,
) -> Result<Tensor<3>, StageError> {
    let text = TextEmbedding::read(inputs, port, device)?;
    refuse(user.check(port, text.format))?;
    let text = text.batch(1);
    let (wanted, [_, tokens, found]) = (denoiser.text_channels(), text.dims());
    if found == wanted {
        refuse(wrong_length(port, tokens, denoiser))?;
        return Ok(text);
    }
    let message = format!(
        "the prompt on `{port}` has {found} channels, but the configuration of the transformer \
         says {wanted}"
    );
    Err(StageError::failed(message).with_help("encode it with the text encoder of the same model"))
}

/// Checks that latents of so many channels fit a denoiser.
pub(super) fn check_channels(found: usize, denoiser: &dyn Denoiser) -> Result<(), StageError> {
    let wanted = denoiser.latent_channels();
    if found == wanted {
        return Ok(());
    }
    let message = format!(
        "the latents have {found} channels, but the configuration of the transformer says {wanted}"
    );
    Err(StageError::failed(message)
        .with_help("take the autoencoder and the transformer of one model"))
}

/// What a model made is no number.
pub(super) fn not_finite(what: &str) -> StageError {
    StageError::failed(format!("{what} are not finite numbers"))
        .with_help("the model's weights may be damaged, or not be made for this input")
}

/// A tensor's values, in f32.
pub(super) fn array<const D: usize>(tensor: Tensor<D>) -> Array<D> {
    let shape = tensor.dims();
    let data = tensor.cast(FloatDType::F32).into_data();
    Array { shape, values: data.try_into_vec::<f32>().expect("cast to f32 above") }
}

/// Checks that a clip of `[frames, height, width]` has whole latents.
pub(super) fn check_pixels(
    [frames, height, width]: [usize; 3],
    compression: Compression,
) -> Result<(), StageError> {
    let size = ItemSize { frames: Some(frames), image: Some([height, width]) };
    refuse(pixels(size, compression))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_do_not_fit_name_the_quantity_and_the_nearest() {
        let check = |size| check_pixels(size, Compression { time: 4, space: 8 });
        check([9, 64, 48]).unwrap();
        check([1, 8, 8]).unwrap();
        for (size, wanted, nearest) in [
            ([10, 64, 64], "the number of frames must be 4k + 1, but is 10", "take 9 or 13 frames"),
            ([9, 60, 64], "height must be a multiple of 8 pixels, but is 60", "take 56 or 64"),
            ([9, 64, 3], "width must be a multiple of 8 pixels, but is 3", "take 8"),
        ] {
            let error = check(size).unwrap_err();
            assert_eq!(error.to_string(), wanted);
            assert!(
                matches!(error, StageError::Failed { help: Some(help), .. } if help == nearest)
            );
        }
    }
}
