//! Linear layers in PyTorch's layout, with an optional low-rank branch.

use burn::tensor::Tensor;

use super::fused::{adapted, affine, product};

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

/// `scale * B (A x)`: computed apart, so that no dense gradient of the weight ever exists.
#[derive(Clone, Debug)]
pub struct LoraBranch {
    /// `[rank, in]`, f32.
    pub a: Tensor<2>,
    /// `[out, rank]`, f32.
    pub b: Tensor<2>,
    /// `alpha / rank`.
    pub scale: f64,
}

impl Linear {
    /// `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut dims = x.dims();
        let (input, rows) = (dims[D - 1], dims[..D - 1].iter().product::<usize>());
        let x: Tensor<2> = x.reshape([rows, input]);
        let dtype = x.dtype();
        let weight = self.weight.clone();
        let y = match (&self.bias, &self.lora) {
            (None, None) => product(x, weight.transpose()),
            (Some(bias), None) => affine(x, weight, bias.clone()),
            (bias, Some(LoraBranch { a, b, scale })) => {
                let zeros =
                    || Tensor::zeros([weight.dims()[0]], (&weight.device(), weight.dtype()));
                let bias = bias.clone().unwrap_or_else(zeros);
                let factors = [a, b].map(|factor| factor.clone().cast(dtype));
                adapted(x, weight, bias, factors, *scale)
            }
        };
        dims[D - 1] = self.weight.dims()[0];
        y.reshape(dims)
    }
}
