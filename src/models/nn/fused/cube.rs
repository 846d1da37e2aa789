//! Kernels of CUDA, chosen by the shapes of a problem; see [`super::product`].
//!
//! The choices are those that were fastest, or nearly so, where Burn's own search tried all, for
//! sizes of CogVideoX1.5-5B on an H100 (`benches/results/2026-11-26-h100.md`).

use burn::{
    backend::{cubecl::dtype_to_storage_type, ops::FloatTensorOps, tensor::FloatTensor},
    tensor::{DType, ops::AttentionModuleOptions},
};
use burn_cubecl::{
    CubeBackend,
    kernel::{
        attention::{AttentionStrategy, attention},
        conv::{ConvStrategy, conv_forward},
        matmul::{MatmulStrategy, init_matmul_output, matmul},
    },
    tensor::CubeTensor,
};
use cubek::{
    attention::forward::routines::blackbox_accelerated::BlackboxAcceleratedStrategy,
    matmul::{
        definition::{MatmulElems, MatmulGlobalElems},
        launch::launch_ref,
        multi_level::{
            Strategy,
            components::tile::TileMatmulKind,
            routines::batch::{ordered_double_buffering::OrderedSelectionArgs, simple::SimpleArgs},
        },
        routine::BlueprintStrategy,
    },
    std::InputBinding,
};

use super::{
    blocked::{self, BlockedAttention},
    lora_linear::{self, LoraLinear},
    nvidia,
    product::{Product, as_row, in_type, window},
    token_attention::TokenAttention,
};

/// Rows from which on a product is not a few vectors by a matrix.
const FEW_ROWS: usize = 16;
/// Size on each axis from which on a product is made of tiles that the hardware copies. Of smaller
/// ones some asked it for tiles larger than it takes, which is known too late for another choice.
const LARGE: usize = 512;
/// Bytes that the hardware which copies tiles wants rows to begin at.
const ALIGNMENT: usize = 16;

impl Product for CubeBackend {
    fn product(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>) -> FloatTensor<Self> {
        if let Some(out) = nvidia::product(&lhs, &rhs, 1.0) {
            return out;
        }
        for strategy in strategies(&lhs, &rhs) {
            if let Some(out) = launch(strategy, &lhs, &rhs) {
                return out;
            }
        }
        let dtype = lhs.dtype;
        matmul(lhs, rhs, None, MatmulStrategy::default(), dtype)
            .expect("one of all kernels takes any product")
    }

    fn affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let weight = Self::float_transpose(weight);
        nvidia::product_and_bias(&x, &weight, &bias)
            .unwrap_or_else(|| Self::float_add(Self::product(x, weight), as_row::<Self>(bias)))
    }

    fn product_onto(
        sum: FloatTensor<Self>,
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        nvidia::product_onto(&sum, &lhs, &rhs)
            .unwrap_or_else(|| Self::float_add(sum, Self::product(lhs, rhs)))
    }

    fn scaled_product(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        factor: f64,
    ) -> FloatTensor<Self> {
        nvidia::product(&lhs, &rhs, factor)
            .unwrap_or_else(|| Self::float_mul_scalar(Self::product(lhs, rhs), factor.into()))
    }

    fn wide_product(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>) -> FloatTensor<Self> {
        nvidia::wide_product(&lhs, &rhs)
            .unwrap_or_else(|| in_type::<Self>(Self::product(lhs, rhs), DType::F32))
    }

    fn convolved(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        in_time: usize,
        in_space: usize,
        padding: usize,
    ) -> FloatTensor<Self> {
        if let Some(out) = nvidia::convolved(&x, &weight, [in_time, in_space], padding) {
            let channels = bias.meta.shape()[0];
            let bias = Self::float_reshape(bias, [1, channels, 1, 1, 1].into());
            return Self::float_add(out, bias);
        }
        let run = |strategy| {
            let options = window([in_time, in_space], padding);
            conv_forward::<3>(x.clone(), weight.clone(), Some(bias.clone()), options, strategy)
        };
        run(ConvStrategy::ImplicitGemm)
            .or_else(|_| run(ConvStrategy::Direct))
            .expect("the direct kernel takes any convolution")
    }
}

impl LoraLinear for CubeBackend {
    fn lora_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        match nvidia::lora_linear([&x, &weight, &bias], [&a, &b], scale) {
            Some([y, low, factors]) => (y, low, factors),
            None => lora_linear::by_parts::<Self>([x, weight, bias, a, b], scale),
        }
    }

    fn lora_linear_grads(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        factors: FloatTensor<Self>,
        low: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        match nvidia::lora_linear_grads([&x, &weight], [&factors, &low, &grad], scale) {
            Some([dx, da, db]) => (dx, da, db),
            None => lora_linear::grads_by_parts::<Self>([x, weight, factors, low, grad], scale),
        }
    }

    fn factor_grads(
        x: FloatTensor<Self>,
        factors: FloatTensor<Self>,
        low: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        match nvidia::factor_grads(&x, [&factors, &low, &grad], scale) {
            Some([da, db]) => (da, db),
            None => lora_linear::factor_grads_by_parts::<Self>([x, factors, low, grad], scale),
        }
    }
}

/// What is tried, the best first.
fn strategies(lhs: &CubeTensor, rhs: &CubeTensor) -> Vec<Strategy> {
    let simple = Strategy::SimpleCyclicMma(BlueprintStrategy::Inferred(SimpleArgs {
        multi_rows: false,
        tile_matmul: TileMatmulKind::Mma,
    }));
    let ordered = Strategy::OrderedDoubleMma(BlueprintStrategy::Inferred(OrderedSelectionArgs {
        partition_k: Some(2),
        row_count: Some(8),
        rows_per_plane: Some(2),
        tile_matmul: TileMatmulKind::Mma,
    }));
    let copied = Strategy::SpecializedTmaMma(BlueprintStrategy::Inferred(().into()));
    let cmma = Strategy::SimpleCyclicCmma(BlueprintStrategy::Inferred(SimpleArgs {
        multi_rows: false,
        tile_matmul: TileMatmulKind::Cmma,
    }));
    let ([rows, inner], [_, columns]) = (matrix(lhs), matrix(rhs));
    if rows <= FEW_ROWS {
        vec![simple, cmma]
    } else if [rows, inner, columns].iter().any(|size| *size < LARGE) {
        vec![cmma]
    } else if is_aligned(lhs) && is_aligned(rhs) {
        vec![copied, ordered, cmma]
    } else {
        vec![ordered, cmma]
    }
}

/// The last two axes.
fn matrix(x: &CubeTensor) -> [usize; 2] {
    let shape = x.meta.shape();
    let rank = shape.num_dims();
    [shape[rank - 2], shape[rank - 1]]
}

/// Whether all rows, or all columns of a transposed matrix, begin where tiles can be copied from.
fn is_aligned(x: &CubeTensor) -> bool {
    let elements = ALIGNMENT / x.dtype.size();
    x.meta.strides().iter().all(|stride| *stride == 1 || stride % elements == 0)
}

fn launch(strategy: Strategy, lhs: &CubeTensor, rhs: &CubeTensor) -> Option<CubeTensor> {
    let out = init_matmul_output(lhs, rhs, lhs.dtype);
    let [left, right] = [lhs, rhs].map(|x| dtype_to_storage_type(x.dtype));
    let mut elements = MatmulElems::from_globals(&MatmulGlobalElems {
        lhs: left,
        rhs: right,
        out: dtype_to_storage_type(out.dtype),
    });
    launch_ref(
        &strategy.into(),
        &lhs.client,
        InputBinding::new(lhs.clone().binding(), left),
        InputBinding::new(rhs.clone().binding(), right),
        out.clone().binding(),
        &mut elements,
    )
    .is_ok()
    .then_some(out)
}

impl TokenAttention for CubeBackend {}

impl BlockedAttention for CubeBackend {
    fn attention_in_blocks(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        rows: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if let Some(found) = nvidia::attention(&q, &k, &v) {
            return found;
        }
        let out = blocked::forward::<Self>([&q, &k, &v], rows, |q, k, v| {
            const PLANES: u8 = 8;
            let tiles = BlackboxAcceleratedStrategy { num_planes: PLANES, seq_q: 1, seq_kv: 1 };
            let strategy = AttentionStrategy::FlashBlackboxAccelerated(tiles);
            let options = AttentionModuleOptions::default();
            attention(q.clone(), k.clone(), v.clone(), None, None, options, strategy)
                // Of another size, or on a card without its instructions.
                .unwrap_or_else(|_| blocked::mixed::<Self>(&q, &k, v))
        });
        (out, blocked::nothing_kept::<Self>(&q))
    }

    fn attention_grads(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        output: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        rows: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let inputs = [&q, &k, &v];
        let found = nvidia::attention_grads(inputs, [&output, &kept, &grad]);
        let [dq, dk, dv] =
            found.unwrap_or_else(|| blocked::backward::<Self>(inputs, &output, &grad, rows));
        (dq, dk, dv)
    }
}
