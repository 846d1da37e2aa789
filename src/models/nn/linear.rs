//! Linear layers in PyTorch's layout, with an optional low-rank branch.

use burn::tensor::Tensor;

use super::fused::{affine, lora_linear, product};

/// `x W^T + b`, plus the low-rank branch when an adapter is loaded.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`, as published: no transposition on loading.
    pub weight: Tensor<2>,
    /// `[out]`.
    pub bias: Option<Tensor<1>>,
    /// The adapter's branch.
    pub lora: Option<LoraBranch>,
}

/// `scale * B (A x)`: computed apart, so that no dense gradient of the weight ever exists. The
/// factors are flat, as they are trained.
#[derive(Clone, Debug)]
pub struct LoraBranch {
    /// `[rank in]`, f32.
    pub a: Tensor<1>,
    /// `[out rank]`, f32.
    pub b: Tensor<1>,
    /// `alpha / rank`.
    pub scale: f64,
}

impl Linear {
    /// `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let weight = self.weight.clone();
        if let Some(LoraBranch { a, b, scale }) = &self.lora {
            let zeros = || Tensor::zeros([weight.dims()[0]], (&weight.device(), weight.dtype()));
            let bias = self.bias.clone().unwrap_or_else(zeros);
            return lora_linear(x, weight, bias, [a.clone(), b.clone()], *scale);
        }
        let mut dims = x.dims();
        let (input, rows) = (dims[D - 1], dims[..D - 1].iter().product::<usize>());
        let x: Tensor<2> = x.reshape([rows, input]);
        dims[D - 1] = weight.dims()[0];
        let y = match &self.bias {
            None => product(x, weight.transpose()),
            Some(bias) => affine(x, weight, bias.clone()),
        };
        y.reshape(dims)
    }
}
