//! The T5 encoder: token ids to embeddings.
//!
//! Follows `T5EncoderModel`, `src/transformers/models/t5/modeling_t5.py` at v5.24.0 of transformers
//! (C. Raffel et al., arXiv 1910.10683), with the gated feed-forward of v1.1. There are no biases
//! and attention scores are not scaled.

use std::collections::BTreeMap;

use burn::tensor::{Bool, DType, FloatDType, Int, Tensor, TensorData, activation::softmax};
use serde_json::Value;

use super::T5Config;
use crate::models::{
    LoadError, ParamReader, Params, TextEncoder,
    nn::{Linear, fused::product},
    params::Init,
};

const SHARED: &str = "shared.weight";
const DUPLICATE: &str = "encoder.embed_tokens.weight";

/// Leaves one embedding table, `shared.weight`, where a checkpoint has it under its other name or
/// under both.
pub fn tie_embeddings(params: &mut Params) {
    if let Some(duplicate) = params.0.remove(DUPLICATE) {
        params.0.entry(SHARED.to_owned()).or_insert(duplicate);
    }
}

/// The same of the shapes of a checkpoint's tensors.
pub fn tie_shapes(shapes: &mut BTreeMap<String, Vec<usize>>) {
    if let Some(duplicate) = shapes.remove(DUPLICATE) {
        shapes.entry(SHARED.to_owned()).or_insert(duplicate);
    }
}

/// The encoder.
pub struct T5Encoder {
    config: T5Config,
    /// `[vocab, d_model]`.
    embedding: Tensor<2>,
    /// `[buckets, heads]`, of block 0, used by all.
    relative_bias: Tensor<2>,
    blocks: Vec<Block>,
    final_norm: RmsNorm,
}

impl T5Encoder {
    /// Builds the encoder from `text_encoder/config.json` and its parameters.
    pub fn new(config: &Value, params: &ParamReader<'_>) -> Result<Self, LoadError> {
        let config = T5Config::read(config)?;
        let (width, heads) = (config.d_model, config.num_heads);
        let embedding = params.tensor(SHARED, [config.vocab_size, width], Init::Normal(1.0));
        let encoder = params.scope("encoder");
        let relative_bias = encoder.tensor(
            "block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            [config.relative_attention_num_buckets, heads],
            Init::Normal((width as f64).powf(-0.5)),
        );
        let blocks = (0..config.num_layers)
            .map(|index| Block::new(&config, &encoder.scope(format!("block.{index}"))))
            .collect();
        let final_norm = RmsNorm::new(&config, &encoder.scope("final_layer_norm"));
        Ok(Self { config, embedding, relative_bias, blocks, final_norm })
    }

    /// The bias of attention scores by distance, `[1, heads, L, L]`, f32.
    fn position_bias(&self, len: usize) -> Tensor<4> {
        let device = self.relative_bias.device();
        let rows: Vec<i64> = (0..len)
            .flat_map(|query| (0..len).map(move |key| (query, key)))
            .map(|(query, key)| bucket(&self.config, key as i64 - query as i64) as i64)
            .collect();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [len * len]), &device);
        self.relative_bias
            .clone()
            .select(0, rows)
            .cast(FloatDType::F32)
            .reshape([len, len, self.config.num_heads])
            .permute([2, 0, 1])
            .unsqueeze()
    }
}

impl TextEncoder for T5Encoder {
    fn encode(&self, ids: Tensor<2, Int>, mask: Option<Tensor<2, Bool>>) -> Tensor<3> {
        let [batch, len] = ids.dims();
        let mut hidden = self.embedding.clone().select(0, ids.reshape([batch * len])).reshape([
            batch,
            len,
            self.config.d_model,
        ]);
        let bias = self.position_bias(len);
        let bias = match mask {
            Some(mask) => bias + mask_bias(mask),
            None => bias,
        };
        for block in &self.blocks {
            hidden = block.forward(hidden, &bias);
        }
        self.final_norm.forward(hidden)
    }
}

/// The bias that takes tokens out of a mask `[B, L]` out of the attention, `[B, 1, 1, L]`, f32: as
/// in the reference the smallest number, and not minus infinity, of which a row of nothing else is
/// no number.
fn mask_bias(mask: Tensor<2, Bool>) -> Tensor<4> {
    let [batch, len] = mask.dims();
    let attended = Tensor::<2>::zeros([batch, len], (&mask.device(), DType::F32));
    attended.mask_fill(mask.bool_not(), f32::MIN).reshape([batch, 1, 1, len])
}

/// The row of the relative position table for the distance `key - query`.
///
/// Half of the rows are for keys after the query; half of each half are exact distances, the rest
/// grow by a constant factor up to the maximum distance.
fn bucket(config: &T5Config, distance: i64) -> usize {
    let half = config.relative_attention_num_buckets / 2;
    let exact = half / 2;
    let side = if distance > 0 { half } else { 0 };
    let distance = distance.unsigned_abs() as usize;
    if distance < exact {
        return side + distance;
    }
    // f32, as the reference, whose rounding decides at the borders between rows.
    let ratio = (distance as f32 / exact as f32).ln()
        / (config.relative_attention_max_distance as f64 / exact as f64).ln() as f32;
    side + (exact + (ratio * (half - exact) as f32) as usize).min(half - 1)
}

/// One block: attention, then feed-forward, each on the normed stream and added to it.
struct Block {
    heads: usize,
    head_width: usize,
    attention_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    ff_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Block {
    fn new(config: &T5Config, params: &ParamReader<'_>) -> Self {
        let (width, hidden) = (config.d_model, config.d_ff);
        let inner = config.num_heads * config.d_kv;
        let attention = params.scope("layer.0.SelfAttention");
        let ff = params.scope("layer.1.DenseReluDense");
        Self {
            heads: config.num_heads,
            head_width: config.d_kv,
            attention_norm: RmsNorm::new(config, &params.scope("layer.0.layer_norm")),
            q: attention.linear_without_bias("q", [width, inner]),
            k: attention.linear_without_bias("k", [width, inner]),
            v: attention.linear_without_bias("v", [width, inner]),
            o: attention.linear_without_bias("o", [inner, width]),
            ff_norm: RmsNorm::new(config, &params.scope("layer.1.layer_norm")),
            gate: ff.linear_without_bias("wi_0", [width, hidden]),
            up: ff.linear_without_bias("wi_1", [width, hidden]),
            down: ff.linear_without_bias("wo", [hidden, width]),
        }
    }

    fn forward(&self, hidden: Tensor<3>, bias: &Tensor<4>) -> Tensor<3> {
        let hidden = hidden.clone() + self.attention(self.attention_norm.forward(hidden), bias);
        let normed = self.ff_norm.forward(hidden.clone());
        let gated = gelu_tanh(self.gate.forward(normed.clone())) * self.up.forward(normed);
        hidden + self.down.forward(gated)
    }

    fn attention(&self, x: Tensor<3>, bias: &Tensor<4>) -> Tensor<3> {
        let [batch, len, _] = x.dims();
        let dtype = x.dtype();
        let split = |x: Tensor<3>| {
            x.reshape([batch, len, self.heads, self.head_width]).permute([0, 2, 1, 3])
        };
        let (q, k) = (split(self.q.forward(x.clone())), split(self.k.forward(x.clone())));
        let v = split(self.v.forward(x));
        let scores = product(q, k.transpose()).cast(FloatDType::F32) + bias.clone();
        let mixed = product(softmax(scores, 3).cast(dtype), v).permute([0, 2, 1, 3]);
        self.o.forward(mixed.reshape([batch, len, self.heads * self.head_width]))
    }
}

/// `x / sqrt(mean(x^2) + epsilon) * weight`, the mean in f32.
struct RmsNorm {
    weight: Tensor<1>,
    epsilon: f64,
}

impl RmsNorm {
    fn new(config: &T5Config, params: &ParamReader<'_>) -> Self {
        let weight = params.tensor("weight", [config.d_model], Init::Ones);
        Self { weight, epsilon: config.layer_norm_epsilon }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let dtype: DType = x.dtype();
        let x = x.cast(FloatDType::F32);
        let mean_square = (x.clone() * x.clone()).mean_dim(2);
        let normed = x / (mean_square + self.epsilon).sqrt();
        normed.cast(dtype) * self.weight.clone().unsqueeze()
    }
}

/// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`, by the equal form with one sigmoid.
fn gelu_tanh(x: Tensor<3>) -> Tensor<3> {
    let cubic = x.clone() * x.clone() * x.clone() * 0.044_715 + x.clone();
    x * burn::tensor::activation::sigmoid(cubic * (2.0 * (2.0 / std::f64::consts::PI).sqrt()))
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::device::testing;

    const CONFIG: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/t5/config.json"));
    const WEIGHTS: &[u8] =
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/t5/model.safetensors"));
    const EXPECTED: &[u8] = include_bytes!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/t5/expected.safetensors"
    ));

    fn config() -> Value {
        serde_json::from_str(CONFIG).unwrap()
    }

    fn params() -> Params {
        let mut params = Params::default();
        params.read_safetensors(WEIGHTS, "", &testing::device(), FloatDType::F32).unwrap();
        params
    }

    fn load(params: &mut Params) -> Result<T5Encoder, LoadError> {
        tie_embeddings(params);
        let reader = ParamReader::loaded(params, None);
        let encoder = T5Encoder::new(&config(), &reader)?;
        reader.finish()?;
        Ok(encoder)
    }

    fn ints(name: &str) -> (Vec<i64>, Vec<usize>) {
        let file = SafeTensors::deserialize(EXPECTED).unwrap();
        let view = file.tensor(name).unwrap();
        let (values, _) = view.data().as_chunks::<8>();
        (values.iter().map(|b| i64::from_le_bytes(*b)).collect(), view.shape().to_vec())
    }

    fn floats(name: &str) -> Tensor<3> {
        let file = SafeTensors::deserialize(EXPECTED).unwrap();
        let view = file.tensor(name).unwrap();
        let (values, _) = view.data().as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Tensor::from_data(TensorData::new(values, view.shape().to_vec()), &testing::device())
    }

    fn int_tensor(name: &str) -> Tensor<2, Int> {
        let (values, shape) = ints(name);
        Tensor::from_data(TensorData::new(values, shape), &testing::device())
    }

    fn assert_near(found: Tensor<3>, wanted: Tensor<3>) {
        let difference = (found - wanted).abs().max().into_scalar::<f32>();
        // Products of f32 may be made in TF32 on a GPU.
        assert!(difference < testing::tolerance(2e-5, 2e-2), "largest difference {difference}");
    }

    #[test]
    fn hidden_states_equal_the_reference() {
        let found = load(&mut params()).unwrap().encode(int_tensor("ids"), None);
        assert_near(found, floats("hidden"));
    }

    #[test]
    fn masked_hidden_states_equal_the_reference() {
        let encoder = load(&mut params()).unwrap();
        let (ids, mask) = (int_tensor("ids"), int_tensor("mask"));
        let found = encoder.encode(ids.clone(), Some(mask.equal_elem(1)));
        assert_near(found.clone(), floats("hidden_masked"));
        // What is masked might as well not be there.
        let alone = encoder.encode(ids.narrow(0, 1, 1).narrow(1, 0, 9), None);
        assert_near(found.narrow(0, 1, 1).narrow(1, 0, 9), alone);
    }

    #[test]
    fn buckets_equal_the_reference_up_to_700() {
        let config = T5Config::read(&config()).unwrap();
        let (distances, buckets) = (ints("distances").0, ints("buckets").0);
        assert_eq!(distances.len(), 1401);
        for (distance, wanted) in distances.into_iter().zip(buckets) {
            assert_eq!(bucket(&config, distance) as i64, wanted, "distance {distance}");
        }
    }

    #[test]
    fn either_name_of_the_embedding_serves_and_nothing_else_is_tolerated() {
        let mut both = params();
        both.0.insert(DUPLICATE.to_owned(), both.0[SHARED].clone());
        assert!(load(&mut both).is_ok());
        let mut other = params();
        let table = other.0.remove(SHARED).unwrap();
        assert!(
            load(&mut other.clone()).err().unwrap().to_string().contains("missing `shared.weight`")
        );
        other.0.insert(DUPLICATE.to_owned(), table.clone());
        assert!(load(&mut other).is_ok());
        other.0.insert("lm_head.weight".to_owned(), table);
        assert!(
            load(&mut other).err().unwrap().to_string().contains("`lm_head.weight` is not part")
        );
    }

    #[test]
    fn a_model_with_other_feed_forward_layers_is_an_error() {
        let mut config = config();
        config["feed_forward_proj"] = "relu".into();
        let message = T5Config::read(&config).unwrap_err().to_string();
        assert!(message.contains("`gated-gelu`") && message.contains("`relu`"), "{message}");
    }
}
