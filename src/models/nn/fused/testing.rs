//! Comparison of a fused operation with the same operation composed from Burn's.

use std::cell::RefCell;

use burn::tensor::{Device, Tensor};

use crate::rng::TorchRng;

/// Normal values, the same in each run of a test.
pub fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    thread_local!(static RNG: RefCell<TorchRng> = RefCell::new(TorchRng::new(1)));
    RNG.with_borrow_mut(|rng| rng.normal_tensor(shape, &Device::flex()))
}

fn assert_close<const D: usize>(what: &str, found: &Tensor<D>, wanted: &Tensor<D>) {
    let scale = wanted.clone().abs().max().into_scalar::<f32>();
    let error = (found.clone() - wanted.clone()).abs().max().into_scalar::<f32>();
    assert!(error <= 2e-6 * scale.max(1.0), "{what}: {error} of {scale}");
}

/// Compares value and gradients of the fused operation with those of the composed one.
pub fn agree<const N: usize, const D: usize>(
    inputs: &[Tensor<1>; N],
    fused: impl Fn([Tensor<1>; N]) -> Tensor<D>,
    composed: impl Fn([Tensor<1>; N]) -> Tensor<D>,
) {
    let run = |f: &dyn Fn([Tensor<1>; N]) -> Tensor<D>, weight: Option<&Tensor<D>>| {
        let leaves = inputs.clone().map(|x| x.autodiff().require_grad());
        let y = f(leaves.clone());
        let weight = weight.cloned().unwrap_or_else(|| random(y.dims()));
        let grads = (y.clone() * weight.clone()).sum().backward();
        (y.inner(), leaves.map(|leaf| leaf.grad(&grads).unwrap()), weight)
    };
    let (wanted, wanted_grads, weight) = run(&composed, None);
    let (found, grads, _) = run(&fused, Some(&weight));
    assert_close("value", &found, &wanted);
    for (i, (found, wanted)) in grads.iter().zip(&wanted_grads).enumerate() {
        assert_close(&format!("gradient {i}"), found, wanted);
    }
    assert_close("value without tape", &fused(inputs.clone()), &wanted);
}
