//! Normalisation with statistics in f32, whatever the type of the model.

use burn::tensor::{DType, FloatDType, Tensor, module};

use super::fused::{
    self,
    device_norm::{self, device_norm_silu},
    group_norm::{Settings, group_norm_silu},
};
use crate::models::params::{Init, ParamReader};

/// Layer norm over the last dimension.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    pub(super) gamma: Tensor<1>,
    pub(super) beta: Tensor<1>,
    pub(super) eps: f64,
}

impl LayerNorm {
    /// Reads `weight` and `bias` of `name`.
    pub fn new(params: &ParamReader<'_>, name: &str, dim: usize, eps: f64) -> Self {
        let scope = params.scope(name);
        Self {
            gamma: scope.tensor("weight", [dim], Init::Ones),
            beta: scope.tensor("bias", [dim], Init::Zeros),
            eps,
        }
    }

    /// `[.., dim]` to the same.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        in_f32(x, |x| {
            let [gamma, beta] = [&self.gamma, &self.beta].map(|p| p.clone().cast(FloatDType::F32));
            module::layer_norm(x, gamma, Some(beta), self.eps)
        })
    }
}

impl LayerNorm {
    /// Normalises the heads `[B, S, heads, D]` and turns their pairs by the angles of `cos` and
    /// `sin`; see [`fused::norm_rotate`] for the tables.
    pub(crate) fn forward_rotated(&self, x: Tensor<4>, tables: [Tensor<4>; 3]) -> Tensor<4> {
        fused::norm_rotate(x, [self.gamma.clone(), self.beta.clone()], tables, self.eps)
    }
}

/// Group norm of `[B, C, T, H, W]` over groups of channels and all of time and space.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    gamma: Tensor<1>,
    beta: Tensor<1>,
    num_groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// Reads `weight` and `bias` of `name`.
    pub fn new(
        params: &ParamReader<'_>,
        name: &str,
        channels: usize,
        num_groups: usize,
        eps: f64,
    ) -> Self {
        let scope = params.scope(name);
        Self {
            gamma: scope.tensor("weight", [channels], Init::Ones),
            beta: scope.tensor("bias", [channels], Init::Zeros),
            num_groups,
            eps,
        }
    }

    #[cfg(test)]
    pub(crate) fn with_affine([gamma, beta]: [Tensor<1>; 2], num_groups: usize, eps: f64) -> Self {
        Self { gamma, beta, num_groups, eps }
    }

    /// `[B, C, T, H, W]` to the same.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        in_f32(x, |x| {
            let [b, c, t, h, w] = x.dims();
            let per_channel = c / self.num_groups;
            let groups = x.reshape([b, self.num_groups, per_channel * t * h * w]);
            let mean = groups.clone().mean_dim(2);
            let centered = groups - mean;
            let variance = (centered.clone() * centered.clone()).mean_dim(2);
            // One factor per channel instead of one division per value.
            let factor = (variance + self.eps).sqrt().recip() // [B, G, 1]
                * self.gamma.clone().cast(FloatDType::F32).reshape([1, self.num_groups, per_channel]);
            let beta = self.beta.clone().cast(FloatDType::F32).reshape([1, c, 1]);
            let y = centered.reshape([b, c, t * h * w]) * factor.reshape([b, c, 1]) + beta;
            y.reshape([b, c, t, h, w])
        })
    }

    /// `SiLU` of the norm, times the first of `modulation` plus the second if there are such, which
    /// are repeated to the size of `x`. For what [`fused::applies`] to, or [`device_norm`].
    pub(crate) fn forward_silu(
        &self,
        x: Tensor<5>,
        modulation: Option<[Tensor<5>; 2]>,
    ) -> Tensor<5> {
        let settings = Settings { groups: self.num_groups, eps: self.eps };
        let affine = [self.gamma.clone(), self.beta.clone()];
        if device_norm::applies(&x) {
            return device_norm_silu(x, affine, modulation, settings);
        }
        group_norm_silu(x, affine, modulation, settings)
    }
}

/// Root-mean-square norm over the last dimension.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Tensor<1>,
    eps: f64,
}

impl RmsNorm {
    /// Reads `weight` of `name`.
    pub fn new(params: &ParamReader<'_>, name: &str, dim: usize, eps: f64) -> Self {
        Self { weight: params.scope(name).tensor("weight", [dim], Init::Ones), eps }
    }

    /// `[.., dim]` to the same.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        fused::rms_norm(x, self.weight.clone(), self.eps)
    }
}

/// `x / sqrt(mean(x^2) + eps)`, the mean along `dim` and in f32.
pub fn rms_norm<const D: usize>(x: Tensor<D>, dim: usize, eps: f64) -> Tensor<D> {
    in_f32(x, |x| {
        let mean_square = (x.clone() * x.clone()).mean_dim(dim);
        x * (mean_square + eps).sqrt().recip()
    })
}

/// `(x - mean) / sqrt(variance + eps)` along `dim`: a layer norm without weights, in f32.
pub fn standardize<const D: usize>(x: Tensor<D>, dim: usize, eps: f64) -> Tensor<D> {
    in_f32(x, |x| rms_norm(x.clone() - x.mean_dim(dim), dim, eps))
}

/// Runs `f` in f32 and casts its result back.
pub(super) fn in_f32<const D: usize>(
    x: Tensor<D>,
    f: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    match x.dtype() {
        DType::F32 => f(x),
        dtype => f(x.cast(FloatDType::F32)).cast(dtype),
    }
}
