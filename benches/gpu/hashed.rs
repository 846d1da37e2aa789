//! Values that both sides make alike: a hash of a tensor's name and the index of a value.

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use half::bf16;
use pipe::{
    device::lasting,
    models::{Params, params::Param},
};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// A value in [-1, 1), a multiple of 2^-23: exact in f32 everywhere.
fn value(seed: u32, index: u32) -> f32 {
    let mut x = index.wrapping_mul(0x9E37_79B9) ^ seed;
    for multiplier in [0x7FEB_352D_u32, 0x846C_A68B] {
        x ^= x >> 16;
        x = x.wrapping_mul(multiplier);
    }
    x ^= x >> 15;
    (x >> 8) as f32 / (1_u32 << 23) as f32 - 1.0
}

/// FNV-1a.
fn seed(name: &str) -> u32 {
    name.bytes().fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// `offset + bound * value` for every index.
fn values(name: &str, len: usize, bound: f32, offset: f32) -> Vec<f32> {
    let seed = seed(name);
    (0..len as u32).into_par_iter().map(|index| value(seed, index) * bound + offset).collect()
}

/// An input of deviation 1.
pub fn input<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    let values = values(name, shape.iter().product(), 3_f32.sqrt(), 0.0);
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Token ids below `vocabulary`.
pub fn ids(name: &str, len: usize, vocabulary: usize) -> Vec<i64> {
    let unit = values(name, len, 0.5, 0.5);
    unit.into_iter().map(|unit| (f64::from(unit) * vocabulary as f64) as i64).collect()
}

/// Bound and offset of a parameter: activations keep their size from layer to layer.
fn range(name: &str, shape: &[usize]) -> (f32, f32) {
    let inputs: usize = shape.iter().skip(1).product();
    // What would give a deviation of 1 from inputs of deviation 1.
    let matrix = (3.0 / inputs as f64).sqrt() as f32;
    match name {
        _ if name.ends_with("latents_mean") => (0.0, 0.0),
        _ if name.ends_with("latents_std") => (0.0, 1.0),
        // T5 does not divide its scores by the size of a head.
        _ if name.ends_with("SelfAttention.q.weight") => (matrix * 0.125, 0.0),
        _ if name.ends_with("lora_B.weight") => (matrix * 0.125, 0.0),
        _ if name.ends_with(".weight") && shape.len() > 1 => (matrix, 0.0),
        // Of a norm.
        _ if name.ends_with(".weight") => (0.1, 1.0),
        _ => (0.05, 0.0),
    }
}

/// Parameters of these names and shapes.
pub fn params(shapes: &BTreeMap<String, Vec<usize>>, device: &Device, dtype: FloatDType) -> Params {
    let made = shapes.iter().map(|(name, shape)| {
        let (bound, offset) = range(name, shape);
        let len = shape.iter().product::<usize>().max(1);
        let values = values(name, len, bound, offset);
        let data = if dtype == FloatDType::BF16 {
            // Rounded here, so that half as much goes to the device.
            let rounded: Vec<bf16> = values.into_par_iter().map(bf16::from_f32).collect();
            TensorData::new(rounded, [len])
        } else {
            TensorData::new(values, [len])
        };
        let kind = data.dtype();
        let flat = lasting(device, || Tensor::from_data(data, (device, kind)));
        (name.clone(), Param { flat, shape: shape.clone() })
    });
    Params(made.collect())
}
