//! `AdamW` and clipping by the global norm, as PyTorch computes them in f32.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    device::lasting,
    models::{
        Params,
        nn::fused::{AdamNumbers, adam_step, sum_of_squares},
        params::Param,
    },
};

/// The settings of `torch.optim.AdamW`, learning rate apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// How slowly the means of gradients and of their squares follow.
    pub betas: [f64; 2],
    /// Each step first shrinks the parameters by `learning_rate * weight_decay`.
    pub weight_decay: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { betas: [0.9, 0.95], weight_decay: 1e-3, eps: 1e-8 }
    }
}

/// What `AdamW` remembers of each parameter.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    /// Running mean of the gradients.
    pub first: BTreeMap<String, Tensor<1>>,
    /// Running mean of their squares.
    pub second: BTreeMap<String, Tensor<1>>,
}

/// The root of the sum of all squares.
pub fn global_norm(gradients: &BTreeMap<String, Tensor<1>>) -> f32 {
    let sum = if is_on_host(gradients.values()) {
        let squares = gradients.values().map(|g| (g.clone() * g.clone()).sum());
        squares.reduce(|a, b| a + b)
    } else {
        sum_of_squares(&gradients.values().cloned().collect::<Vec<_>>())
    };
    sum.map_or(0.0, |sum| sum.sqrt().into_scalar::<f32>())
}

/// The factor that brings gradients of norm `norm` down to `max_norm`; 1 if they are below.
pub fn clip_factor(norm: f32, max_norm: f32) -> f32 {
    (max_norm / (norm + 1e-6)).min(1.0)
}

impl AdamW {
    /// Moves `params` along `gradients`, which are multiplied by `gradient_factor` first. `step`
    /// counts from 1. Parameters without a gradient stay as they are.
    pub fn step(
        &self,
        (step, learning_rate): (usize, f64),
        params: &mut Params,
        mut gradients: BTreeMap<String, Tensor<1>>,
        gradient_factor: f32,
        moments: &mut Moments,
    ) {
        let power = i32::try_from(step).unwrap_or(i32::MAX);
        let [beta1, beta2] = self.betas;
        let numbers = AdamNumbers {
            gradient_factor,
            shrink: (1.0 - learning_rate * self.weight_decay) as f32,
            first_share: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            second_share: (1.0 - beta2) as f32,
            root_correction: (1.0 - beta2.powi(power)).sqrt() as f32,
            eps: self.eps as f32,
            rate: (learning_rate / (1.0 - beta1.powi(power))) as f32,
        };
        // The map is taken apart so that no second handle keeps a buffer from being reused.
        let (mut places, mut tensors) = (Vec::new(), Vec::new());
        // Held until the step is asked for: moments that share their zeros are not written where
        // they lie.
        let mut zeros = BTreeMap::new();
        for (name, Param { flat, shape }) in std::mem::take(&mut params.0) {
            let Some(gradient) = gradients.remove(&name) else {
                params.0.insert(name, Param { flat, shape });
                continue;
            };
            let first =
                moments.first.remove(&name).unwrap_or_else(|| zeros_like(&flat, &mut zeros));
            let second =
                moments.second.remove(&name).unwrap_or_else(|| zeros_like(&flat, &mut zeros));
            places.push((name, shape));
            tensors.push([flat, gradient, first, second]);
        }
        let moved = match zeros.values().next().map(Tensor::device) {
            // Moments are made now, and stay.
            Some(device) => lasting(&device, || apply(numbers, tensors)),
            None => apply(numbers, tensors),
        };
        for ((name, shape), [flat, first, second]) in places.into_iter().zip(moved) {
            moments.first.insert(name.clone(), first);
            moments.second.insert(name.clone(), second);
            params.0.insert(name, Param { flat, shape });
        }
    }
}

/// Moments at the beginning, one tensor for all of a length: of hundreds of tensors that are filled
/// one by one, a GPU's backend looks for what could be filled together, for 18 s of LTX-Video's
/// 1120.
fn zeros_like(flat: &Tensor<1>, by_len: &mut BTreeMap<usize, Tensor<1>>) -> Tensor<1> {
    let [len] = flat.dims();
    by_len.entry(len).or_insert_with(|| Tensor::zeros([len], &flat.device())).clone()
}

/// Parameter, gradient and both moments of each to parameter and both moments.
fn apply(numbers: AdamNumbers, tensors: Vec<[Tensor<1>; 4]>) -> Vec<[Tensor<1>; 3]> {
    if is_on_host(tensors.iter().flatten()) {
        tensors.into_iter().map(|tensors| apply_on_host(numbers, tensors)).collect()
    } else {
        adam_step(tensors, numbers)
    }
}

fn is_on_host<'a>(mut tensors: impl Iterator<Item = &'a Tensor<1>>) -> bool {
    tensors.all(|tensor| tensor.device() == Device::flex())
}

/// The same in one pass over the buffers, which are reused.
fn apply_on_host(numbers: AdamNumbers, tensors: [Tensor<1>; 4]) -> [Tensor<1>; 3] {
    const CHUNK: usize = 1 << 14;
    let device = tensors[0].device();
    let [mut param, gradient, mut first, mut second] =
        tensors.map(|t| t.into_data().try_into_vec::<f32>().expect("training is in f32"));
    param
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK))
        .zip(first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)))
        .for_each(|((param, gradient), (first, second))| {
            for (((p, g), m), v) in param.iter_mut().zip(gradient).zip(first).zip(second) {
                let g = g * numbers.gradient_factor;
                *m += (g - *m) * numbers.first_share;
                *v = *v * numbers.beta2 + g * g * numbers.second_share;
                let root = v.sqrt() / numbers.root_correction + numbers.eps;
                *p = *p * numbers.shrink - *m / root * numbers.rate;
            }
        });
    [param, first, second].map(|values| {
        let len = values.len();
        Tensor::from_data(TensorData::new(values, [len]), &device)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing;

    fn tensor(values: &[f32]) -> Tensor<1> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex())
    }

    fn values(tensor: &Tensor<1>) -> Vec<f32> {
        tensor.to_data().try_to_vec().unwrap()
    }

    #[test]
    fn two_steps_equal_torch() {
        // torch 2.11: p = [1, -2, .5], lr .1, betas (.9, .95), wd .01, eps 1e-8,
        // gradients [.3, -.1, 2] then [-.2, .4, 0].
        let adam = AdamW { betas: [0.9, 0.95], weight_decay: 0.01, eps: 1e-8 };
        let flat = tensor(&[1.0, -2.0, 0.5]);
        let mut params = Params([("p".to_owned(), Param { flat, shape: vec![3] })].into());
        let mut moments = Moments::default();
        for (step, gradient) in [[0.3, -0.1, 2.0], [-0.2, 0.4, 0.0]].iter().enumerate() {
            let gradients = [("p".to_owned(), tensor(gradient))].into();
            adam.step((step + 1, 0.1), &mut params, gradients, 1.0, &mut moments);
        }
        let wanted = [0.883_578_54, -1.951_442_2, 0.331_235_74];
        for (found, wanted) in values(&params.0["p"].flat).iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
        }
    }

    #[test]
    fn the_single_pass_on_the_host_equals_the_tensor_operations() {
        let numbers = AdamNumbers {
            gradient_factor: 0.7,
            shrink: 0.999,
            first_share: 0.1,
            beta2: 0.95,
            second_share: 0.05,
            root_correction: 0.3,
            eps: 1e-8,
            rate: 0.01,
        };
        let wave = |k: f32| tensor(&(0..40_000).map(|i| (i as f32 * k).sin()).collect::<Vec<_>>());
        let tensors = [wave(0.3), wave(0.7), wave(1.1), wave(1.3).abs()];
        let host = apply_on_host(numbers, tensors.clone());
        let device = adam_step(vec![tensors], numbers);
        for (a, b) in host.iter().zip(&device[0]) {
            assert!((a.clone() - b.clone()).abs().max().into_scalar::<f32>() < 1e-6);
        }
    }

    /// Adapters of several steps are taken aside while the training goes on in the same memory.
    #[test]
    fn what_was_moved_to_the_host_stays_as_it_was() {
        let device = testing::device();
        let on = |values: &[f32]| tensor(values).to_device(&device);
        let adam = AdamW::default();
        let param = Param { flat: on(&[1.0, -2.0, 0.5]), shape: vec![3] };
        let mut params = Params([("p".to_owned(), param)].into());
        let mut moments = Moments::default();
        let mut step = |at, params: &mut Params| {
            let gradients = [("p".to_owned(), on(&[0.3, -0.1, 2.0]))].into();
            adam.step((at, 0.1), params, gradients, 1.0, &mut moments);
        };
        step(1, &mut params);
        let before = values(&params.0["p"].flat);
        let aside = params.to_device(&Device::flex());
        step(2, &mut params);
        assert_eq!(values(&aside.0["p"].flat), before);
        assert_ne!(values(&params.0["p"].flat), before);
    }

    #[test]
    fn clipping_uses_the_norm_of_all_gradients() {
        let gradients = [("a".to_owned(), tensor(&[3.0])), ("b".to_owned(), tensor(&[0.0, 4.0]))];
        let norm = global_norm(&gradients.into());
        assert!((norm - 5.0).abs() < 1e-6);
        assert!((clip_factor(norm, 1.0) - 0.2).abs() < 1e-6);
        assert!((clip_factor(0.5, 1.0) - 1.0).abs() < f32::EPSILON);
    }
}
