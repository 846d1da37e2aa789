//! The operations of a transformer's block on CUDA: by kernels of our own, or by formulas.

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;

use super::{
    adam::{self, Adam, AdamNumbers, Group},
    device_norm::{self, DeviceNorm},
    formulas,
    gelu::Gelu,
    group_norm::Settings,
    modulation::Modulation,
    nvidia::{self, block, group_norm::norm_silu},
    rms_norm::RmsNormOp,
    rotary::Rotation,
    token_modulation::{self, TokenModulation},
};

type Float = FloatTensor<CubeBackend>;

impl Modulation for CubeBackend {
    fn fused_norm_modulate(
        x: Float,
        gamma: Float,
        beta: Float,
        chunks: Float,
        text_len: usize,
        eps: f64,
    ) -> Float {
        let inputs = [&x, &gamma, &beta, &chunks];
        block::norm_modulate(inputs, text_len, eps)
            .unwrap_or_else(|| formulas::norm_modulate::<Self>(inputs, text_len, eps))
    }

    fn fused_gated_add(x: Float, y: Float, chunks: Float, text_len: usize) -> Float {
        let inputs = [&x, &y, &chunks];
        block::gated_add(inputs, text_len)
            .unwrap_or_else(|| formulas::gated_add::<Self>(inputs, text_len))
    }

    fn fused_norm_modulate_grad(
        x: Float,
        gamma: Float,
        chunks: Float,
        grad: Float,
        text_len: usize,
        eps: f64,
    ) -> Float {
        block::norm_modulate_grad([&x, &gamma, &chunks, &grad], text_len, eps).unwrap_or_else(
            || {
                let inputs = [&x, &gamma, &chunks];
                formulas::norm_modulate_grad_of_x::<Self>(inputs, text_len, eps, &grad)
            },
        )
    }

    fn fused_gated_grad(y: Float, chunks: Float, grad: Float, text_len: usize) -> Float {
        block::gated_grad([&grad, &chunks], text_len).unwrap_or_else(|| {
            formulas::gated_add_grad_of_y::<Self>([&y, &chunks], text_len, &grad)
        })
    }
}

impl Rotation for CubeBackend {
    fn fused_norm_rotate(
        x: Float,
        gamma: Float,
        beta: Float,
        cos: Float,
        sin: Float,
        swap: Float,
        eps: f64,
    ) -> Float {
        block::norm_rotate([&x, &gamma, &beta, &cos, &sin], eps).unwrap_or_else(|| {
            formulas::norm_rotate::<Self>([&x, &gamma, &beta, &cos, &sin, &swap], eps)
        })
    }

    fn fused_rotate(x: Float, cos: Float, sin: Float, swap: Float) -> Float {
        block::rotate([&x, &cos, &sin], false)
            .unwrap_or_else(|| formulas::rotate::<Self>([&x, &cos, &sin, &swap]))
    }

    fn fused_norm_rotate_grad(
        x: Float,
        gamma: Float,
        cos: Float,
        sin: Float,
        swap: Float,
        grad: Float,
        eps: f64,
    ) -> Float {
        block::norm_rotate_grad([&x, &gamma, &cos, &sin, &grad], eps).unwrap_or_else(|| {
            let inputs = [&x, &gamma, &cos, &sin, &swap];
            formulas::norm_rotate_grad_of_x::<Self>(inputs, eps, grad)
        })
    }

    fn fused_rotate_grad(cos: Float, sin: Float, swap: Float, grad: Float) -> Float {
        block::rotate([&grad, &cos, &sin], true)
            .unwrap_or_else(|| formulas::rotate_grad::<Self>([&cos, &sin, &swap], &grad))
    }
}

impl Gelu for CubeBackend {
    fn fused_gelu(x: Float) -> Float {
        block::gelu(&x).unwrap_or_else(|| formulas::gelu::<Self>(&x))
    }

    fn fused_gelu_grad(x: Float, grad: Float) -> Float {
        block::gelu_grad([&x, &grad]).unwrap_or_else(|| formulas::gelu_grad::<Self>(&x, &grad))
    }
}

impl RmsNormOp for CubeBackend {
    fn fused_rms_norm(x: Float, weight: Float, eps: f64) -> Float {
        block::rms_norm([&x, &weight], eps)
            .unwrap_or_else(|| formulas::rms_norm::<Self>([&x, &weight], eps))
    }

    fn fused_rms_norm_grad(x: Float, weight: Float, grad: Float, eps: f64) -> Float {
        block::rms_norm_grad([&x, &weight, &grad], eps)
            .unwrap_or_else(|| formulas::rms_norm_grad_of_x::<Self>([&x, &weight], eps, &grad))
    }
}

impl TokenModulation for CubeBackend {
    fn fused_scale_shift(x: Float, table: Float, shift: usize, scale: usize) -> Float {
        block::scale_shift([&x, &table], Some(shift), scale).unwrap_or_else(|| {
            token_modulation::scale_shifted::<Self>(&x, &table, Some(shift), scale)
        })
    }

    fn fused_scale_shift_grad(grad: Float, table: Float, scale: usize) -> Float {
        block::scale_shift([&grad, &table], None, scale)
            .unwrap_or_else(|| token_modulation::scale_shifted::<Self>(&grad, &table, None, scale))
    }

    fn fused_gate_onto(x: Float, y: Float, table: Float, gate: usize) -> Float {
        block::gate_onto([&x, &y, &table], gate)
            .unwrap_or_else(|| token_modulation::gated::<Self>(Some(&x), &y, &table, gate))
    }

    fn fused_gate_grad(grad: Float, table: Float, gate: usize) -> Float {
        block::gate_grad([&grad, &table], gate)
            .unwrap_or_else(|| token_modulation::gated::<Self>(None, &grad, &table, gate))
    }
}

impl DeviceNorm for CubeBackend {
    fn device_group_norm_silu(x: Float, gamma: Float, beta: Float, settings: Settings) -> Float {
        norm_silu([&x, &gamma, &beta], None, settings)
            .unwrap_or_else(|| device_norm::norm_silu::<Self>([&x, &gamma, &beta], None, settings))
    }

    fn device_spatial_norm_silu(
        x: Float,
        gamma: Float,
        beta: Float,
        scale: Float,
        shift: Float,
        settings: Settings,
    ) -> Float {
        let (norm, modulation) = ([&x, &gamma, &beta], Some([&scale, &shift]));
        norm_silu(norm, modulation, settings)
            .unwrap_or_else(|| device_norm::norm_silu::<Self>(norm, modulation, settings))
    }
}

impl Adam for CubeBackend {
    fn adam_step(
        param: Float,
        gradient: Float,
        first: Float,
        second: Float,
        numbers: AdamNumbers,
    ) -> (Float, Float, Float) {
        let tensors = [&param, &gradient, &first, &second];
        let [made] = nvidia::adam::adam_steps([tensors], numbers)
            .unwrap_or_else(|| [adam::stepped::<Self>(tensors, numbers)]);
        made.into()
    }

    fn adam_steps(
        params: Group<Self>,
        gradients: Group<Self>,
        first: Group<Self>,
        second: Group<Self>,
        numbers: AdamNumbers,
    ) -> (Group<Self>, Group<Self>, Group<Self>) {
        let tensors = adam::side_by_side([&params, &gradients, &first, &second]);
        let made = nvidia::adam::adam_steps(tensors, numbers)
            .unwrap_or_else(|| tensors.map(|tensors| adam::stepped::<Self>(tensors, numbers)));
        adam::groups_of(made)
    }

    fn squares_onto(before: Float, of: Group<Self>) -> Float {
        nvidia::adam::squares_onto(&before, of.all())
            .unwrap_or_else(|| adam::added_squares::<Self>(before, &of))
    }
}
