//! `text_embeddings`: one encoded prompt.

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{
    models::TextFormat,
    stages::{Inputs, Output, StageError},
};

const ITEM: &str = "prompt";
const EMBEDDING: &str = "embedding.safetensors";
const PROMPT: &str = "prompt.txt";
const TENSOR: &str = "embedding";
/// The entry of the file's metadata that names the format; where there is none, it is `basic`.
const FORMAT: &str = "format";

/// A prompt and its embedding.
#[derive(Clone, Debug)]
pub struct TextEmbedding {
    /// The text.
    pub prompt: String,
    /// How it was encoded.
    pub format: TextFormat,
    /// `[L, D]`, f32.
    pub embedding: Tensor<2>,
}

impl TextEmbedding {
    /// Writes the artifact's only item.
    pub fn write(&self, out: &mut Output<'_>) -> Result<(), StageError> {
        let shape = self.embedding.dims().to_vec();
        let data = self.embedding.clone().cast(FloatDType::F32).into_data();
        let values = data.try_to_vec::<f32>().expect("cast to f32 above");
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, shape, &bytes).expect("shape and length agree");
        let named = || (FORMAT.to_owned(), "condition".to_owned());
        let metadata = (self.format == TextFormat::Condition).then(|| [named()].into());
        let file = safetensors::serialize([(TENSOR, view)], metadata).expect("one tensor is valid");
        out.item(ITEM, &[(EMBEDDING, file.as_slice()), (PROMPT, self.prompt.as_bytes())])
    }

    /// Reads the artifact on `port`.
    pub fn read(inputs: &Inputs<'_>, port: &str, device: &Device) -> Result<Self, StageError> {
        let item = inputs.only(port)?;
        let bytes = inputs.read(item, EMBEDDING)?;
        let error = |message: String| StageError::failed(message).on_item(&item.name);
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|e| error(format!("`{EMBEDDING}` is not a whole safetensors file: {e}")))?;
        let format = format_of(&bytes).map_err(error)?;
        let view = file.tensor(TENSOR).map_err(|e| error(format!("`{EMBEDDING}`: {e}")))?;
        let (&[_, _], Dtype::F32) = (view.shape(), view.dtype()) else {
            let (shape, dtype) = (view.shape(), view.dtype());
            return Err(error(format!(
                "`{TENSOR}` must be F32 `[L, D]`, but is {dtype:?} {shape:?}"
            )));
        };
        let (values, _) = view.data().as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let embedding = Tensor::from_data(TensorData::new(values, view.shape().to_vec()), device);
        let prompt = String::from_utf8_lossy(&inputs.read(item, PROMPT)?).into_owned();
        Ok(Self { prompt, format, embedding })
    }

    /// The embedding for a batch of `size` equal prompts, `[size, L, D]`.
    pub fn batch(&self, size: usize) -> Tensor<3> {
        let [len, width] = self.embedding.dims();
        self.embedding.clone().unsqueeze::<3>().expand([size, len, width])
    }
}

fn format_of(bytes: &[u8]) -> Result<TextFormat, String> {
    let read = SafeTensors::read_metadata(bytes).map_err(|e| format!("`{EMBEDDING}`: {e}"))?;
    let metadata = read.1.metadata().as_ref();
    match metadata.and_then(|metadata| metadata.get(FORMAT)).map(String::as_str) {
        None | Some("basic") => Ok(TextFormat::Basic),
        Some("condition") => Ok(TextFormat::Condition),
        Some(other) => Err(format!("`{EMBEDDING}` is of the format `{other}`, which is not known")),
    }
}
