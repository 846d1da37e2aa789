//! What a block does to its streams around attention and feed-forward, in one pass each.

#[cfg(feature = "cuda")]
use burn::backend::fusion::{Fusion, FusionBackend};
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, tensor::FloatTensor,
    },
    tensor::{DType, Tensor},
};

use super::{
    formulas, kernels,
    tape::{InputGradients, record},
};

/// Layer norm of `[B, S, D]`, then scale and shift of each token by its stream's.
pub fn norm_modulate(
    x: Tensor<3>,
    [gamma, beta]: [Tensor<1>; 2],
    chunks: Tensor<3>,
    text_len: usize,
    eps: f64,
) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::fused_norm_modulate(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        chunks.into_dispatch(),
        text_len,
        eps,
    ))
}

/// `x + gate * y` of `[B, S, D]`, each token by its stream's gate.
pub fn gated_add(x: Tensor<3>, y: Tensor<3>, chunks: Tensor<3>, text_len: usize) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::fused_gated_add(
        x.into_dispatch(),
        y.into_dispatch(),
        chunks.into_dispatch(),
        text_len,
    ))
}

/// The operations as Burn dispatches them.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cuda"), Fusion: cfg(feature = "cuda"))]
pub trait Modulation: Backend {
    /// See [`norm_modulate`].
    #[fusion(dtype = x, shape = x)]
    fn fused_norm_modulate(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        chunks: FloatTensor<Self>,
        text_len: usize,
        eps: f64,
    ) -> FloatTensor<Self> {
        formulas::norm_modulate::<Self>([&x, &gamma, &beta, &chunks], text_len, eps)
    }

    /// See [`gated_add`].
    #[fusion(dtype = x, shape = x)]
    fn fused_gated_add(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        chunks: FloatTensor<Self>,
        text_len: usize,
    ) -> FloatTensor<Self> {
        formulas::gated_add::<Self>([&x, &y, &chunks], text_len)
    }

    /// The gradient of [`norm_modulate`] with respect to `x` alone.
    #[fusion(dtype = x, shape = x)]
    fn fused_norm_modulate_grad(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        chunks: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        text_len: usize,
        eps: f64,
    ) -> FloatTensor<Self> {
        formulas::norm_modulate_grad_of_x::<Self>([&x, &gamma, &chunks], text_len, eps, &grad)
    }

    /// The gradient of [`gated_add`] with respect to `y` alone.
    #[fusion(dtype = y, shape = y)]
    fn fused_gated_grad(
        y: FloatTensor<Self>,
        chunks: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        text_len: usize,
    ) -> FloatTensor<Self> {
        formulas::gated_add_grad_of_y::<Self>([&y, &chunks], text_len, &grad)
    }
}

/// The backward passes, which only the tape calls.
pub trait ModulationGrad: Modulation {
    /// The gradients with respect to `x`, `gamma`, `beta` and `chunks`.
    fn norm_modulate_grad(
        inputs: [FloatTensor<Self>; 4],
        text_len: usize,
        eps: f64,
        grad: FloatTensor<Self>,
        wanted: [bool; 4],
    ) -> InputGradients<Self, 4> {
        if wanted == [true, false, false, false] {
            let [x, gamma, _, chunks] = inputs;
            let dx = Self::fused_norm_modulate_grad(x, gamma, chunks, grad, text_len, eps);
            return [Some(dx), None, None, None];
        }
        formulas::norm_modulate_grad::<Self>(inputs.each_ref(), text_len, eps, &grad, wanted)
    }

    /// The gradients with respect to `y` and `chunks`; that of `x` is `grad`.
    fn gated_add_grad(
        inputs: [FloatTensor<Self>; 2],
        text_len: usize,
        grad: FloatTensor<Self>,
        wanted: [bool; 2],
    ) -> InputGradients<Self, 2> {
        if wanted == [true, false] {
            let [y, chunks] = inputs;
            return [Some(Self::fused_gated_grad(y, chunks, grad, text_len)), None];
        }
        formulas::gated_add_grad::<Self>(inputs.each_ref(), text_len, &grad, wanted)
    }
}

#[cfg(feature = "cuda")]
impl<B: FusionBackend + Modulation> ModulationGrad for Fusion<B> {}

impl Modulation for Flex {
    fn fused_norm_modulate(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        chunks: FloatTensor<Self>,
        text_len: usize,
        eps: f64,
    ) -> FloatTensor<Self> {
        let inputs = [&x, &gamma, &beta, &chunks];
        if x.dtype() == DType::F32 {
            kernels::norm_modulate(inputs, text_len, eps as f32)
        } else {
            formulas::norm_modulate::<Self>(inputs, text_len, eps)
        }
    }

    fn fused_gated_add(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        chunks: FloatTensor<Self>,
        text_len: usize,
    ) -> FloatTensor<Self> {
        if x.dtype() == DType::F32 {
            kernels::gated_add([&x, &y, &chunks], text_len)
        } else {
            formulas::gated_add::<Self>([&x, &y, &chunks], text_len)
        }
    }
}

impl ModulationGrad for Flex {
    fn norm_modulate_grad(
        inputs: [FloatTensor<Self>; 4],
        text_len: usize,
        eps: f64,
        grad: FloatTensor<Self>,
        wanted: [bool; 4],
    ) -> InputGradients<Self, 4> {
        let inputs = inputs.each_ref();
        if grad.dtype() == DType::F32 {
            kernels::norm_modulate_grad(inputs, text_len, eps as f32, &grad).map(Some)
        } else {
            formulas::norm_modulate_grad::<Self>(inputs, text_len, eps, &grad, wanted)
        }
    }

    fn gated_add_grad(
        inputs: [FloatTensor<Self>; 2],
        text_len: usize,
        grad: FloatTensor<Self>,
        wanted: [bool; 2],
    ) -> InputGradients<Self, 2> {
        if grad.dtype() == DType::F32 {
            kernels::gated_add_grad(inputs.each_ref(), text_len, &grad).map(Some)
        } else {
            formulas::gated_add_grad::<Self>(inputs.each_ref(), text_len, &grad, wanted)
        }
    }
}

impl<B: ModulationGrad, C: CheckpointStrategy> Modulation for Autodiff<B, C> {
    fn fused_norm_modulate(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        chunks: FloatTensor<Self>,
        text_len: usize,
        eps: f64,
    ) -> FloatTensor<Self> {
        let recorded = [&x, &gamma, &beta, &chunks];
        let inputs = recorded.map(|tensor| tensor.primitive().clone());
        let [x, gamma, beta, chunks] = inputs.clone();
        let y = B::fused_norm_modulate(x, gamma, beta, chunks, text_len, eps);
        record::<B, C, _, _>(recorded, y, move |grad, wanted| {
            B::norm_modulate_grad(inputs, text_len, eps, grad, wanted)
        })
    }

    fn fused_gated_add(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        chunks: FloatTensor<Self>,
        text_len: usize,
    ) -> FloatTensor<Self> {
        let inputs = [&y, &chunks].map(|tensor| tensor.primitive().clone());
        let [added, gates] = inputs.clone();
        let sum = B::fused_gated_add(x.primitive().clone(), added, gates, text_len);
        record::<B, C, _, _>([&x, &y, &chunks], sum, move |grad, [_, y, chunks]| {
            let [y, chunks] = B::gated_add_grad(inputs, text_len, grad.clone(), [y, chunks]);
            [Some(grad), y, chunks]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{agree, random},
        *,
    };
    use crate::models::nn::{LayerNorm, StreamModulation};

    #[test]
    fn modulation_agrees_with_its_parts() {
        let (b, s, d, text_len) = (2, 5, 24, 2);
        let inputs = [b * s * d, d, d, b * 6 * d].map(|len| random([len]));
        let modulation = move |chunks: Tensor<1>| StreamModulation {
            chunks: chunks.reshape([b, 6, d]),
            text_len,
        };
        agree(
            &inputs,
            |[x, gamma, beta, chunks]| {
                let chunks = chunks.reshape([b, 6, d]);
                norm_modulate(x.reshape([b, s, d]), [gamma, beta], chunks, text_len, 1e-5)
            },
            |[x, gamma, beta, chunks]| {
                let norm = LayerNorm { gamma, beta, eps: 1e-5 };
                modulation(chunks).norm_scale_shift_composed(&norm, x.reshape([b, s, d]))
            },
        );
        let [x, _, _, chunks] = inputs;
        agree(
            &[x.clone(), x.flip([0]), chunks],
            |[x, y, chunks]| {
                let [x, y] = [x, y].map(|x| x.reshape([b, s, d]));
                gated_add(x, y, chunks.reshape([b, 6, d]), text_len)
            },
            |[x, y, chunks]| {
                let [x, y] = [x, y].map(|x| x.reshape([b, s, d]));
                modulation(chunks).gated_add_composed(x, y)
            },
        );
    }
}
