//! Shift, scale and gate of tokens by a table, group by group, where the table is a constant.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, tensor::FloatTensor,
    },
    tensor::{Slice, Tensor},
};

use super::{tape::record, term::Term};

/// `x (1 + scale) + shift` of `[B, S, D]`, by rows of a table `[B, N, rows, D]` each of whose
/// groups serves `S / N` tokens behind each other. Nothing is trained through the table.
pub fn scale_shift(x: Tensor<3>, table: Tensor<4>, shift: usize, scale: usize) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::fused_scale_shift(
        x.into_dispatch(),
        table.into_dispatch(),
        shift,
        scale,
    ))
}

/// `x + gate y`, likewise.
pub fn gate_onto(x: Tensor<3>, y: Tensor<3>, table: Tensor<4>, gate: usize) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::fused_gate_onto(
        x.into_dispatch(),
        y.into_dispatch(),
        table.into_dispatch(),
        gate,
    ))
}

/// The operations as Burn dispatches them.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cuda"), Fusion: cfg(feature = "cuda"))]
pub trait TokenModulation: Backend {
    /// See [`scale_shift`].
    #[fusion(dtype = x, shape = x)]
    fn fused_scale_shift(
        x: FloatTensor<Self>,
        table: FloatTensor<Self>,
        shift: usize,
        scale: usize,
    ) -> FloatTensor<Self> {
        scale_shifted::<Self>(&x, &table, Some(shift), scale)
    }

    /// The gradient of [`scale_shift`].
    #[fusion(dtype = grad, shape = grad)]
    fn fused_scale_shift_grad(
        grad: FloatTensor<Self>,
        table: FloatTensor<Self>,
        scale: usize,
    ) -> FloatTensor<Self> {
        scale_shifted::<Self>(&grad, &table, None, scale)
    }

    /// See [`gate_onto`].
    #[fusion(dtype = x, shape = x)]
    fn fused_gate_onto(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        table: FloatTensor<Self>,
        gate: usize,
    ) -> FloatTensor<Self> {
        gated::<Self>(Some(&x), &y, &table, gate)
    }

    /// The gradient of [`gate_onto`] with respect to `y`.
    #[fusion(dtype = grad, shape = grad)]
    fn fused_gate_grad(
        grad: FloatTensor<Self>,
        table: FloatTensor<Self>,
        gate: usize,
    ) -> FloatTensor<Self> {
        gated::<Self>(None, &grad, &table, gate)
    }
}

/// `x (1 + scale) + shift`, or without the shift.
pub(super) fn scale_shifted<B: Backend>(
    x: &FloatTensor<B>,
    table: &FloatTensor<B>,
    shift: Option<usize>,
    scale: usize,
) -> FloatTensor<B> {
    let scaled = grouped::<B>(x, table) * row::<B>(table, scale).plus(1.0);
    let y = match shift {
        Some(shift) => scaled + row::<B>(table, shift),
        None => scaled,
    };
    ungrouped(y, x)
}

/// `x + gate y`, or without `x`.
pub(super) fn gated<B: Backend>(
    x: Option<&FloatTensor<B>>,
    y: &FloatTensor<B>,
    table: &FloatTensor<B>,
    gate: usize,
) -> FloatTensor<B> {
    let gated = grouped::<B>(y, table) * row::<B>(table, gate);
    let sum = match x {
        Some(x) => grouped::<B>(x, table) + gated,
        None => gated,
    };
    ungrouped(sum, y)
}

/// Tokens `[B, S, D]` by group, `[B, N, S / N, D]`.
fn grouped<B: Backend>(x: &FloatTensor<B>, table: &FloatTensor<B>) -> Term<B> {
    let (dims, groups) = (x.shape(), table.shape()[1]);
    Term::of(x).reshape(&[dims[0], groups, dims[1] / groups, dims[2]])
}

fn ungrouped<B: Backend>(x: Term<B>, like: &FloatTensor<B>) -> FloatTensor<B> {
    x.reshape(&like.shape().to_vec()).into_type_of(like)
}

/// A row of the table, `[B, N, 1, D]`.
fn row<B: Backend>(table: &FloatTensor<B>, index: usize) -> Term<B> {
    let range = Slice::new(index as isize, Some(index as isize + 1), 1);
    let row = B::float_slice(table.clone(), &[Slice::full(), Slice::full(), range, Slice::full()]);
    Term::of(&row)
}

impl TokenModulation for Flex {}

impl<B: TokenModulation, C: CheckpointStrategy> TokenModulation for Autodiff<B, C> {
    fn fused_scale_shift(
        x: FloatTensor<Self>,
        table: FloatTensor<Self>,
        shift: usize,
        scale: usize,
    ) -> FloatTensor<Self> {
        let table = table.primitive().clone();
        let y = B::fused_scale_shift(x.primitive().clone(), table.clone(), shift, scale);
        record::<B, C, _, _>([&x], y, move |grad, _| {
            [Some(B::fused_scale_shift_grad(grad, table, scale))]
        })
    }

    fn fused_gate_onto(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        table: FloatTensor<Self>,
        gate: usize,
    ) -> FloatTensor<Self> {
        let table = table.primitive().clone();
        let [of_x, of_y] = [&x, &y].map(|tensor| tensor.primitive().clone());
        let sum = B::fused_gate_onto(of_x, of_y, table.clone(), gate);
        record::<B, C, _, _>([&x, &y], sum, move |grad, _| {
            [Some(grad.clone()), Some(B::fused_gate_grad(grad, table, gate))]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{agree, random},
        *,
    };

    #[test]
    fn modulation_by_a_table_agrees_with_its_parts() {
        let (b, s, d, groups) = (2, 6, 8, 3);
        let table: Tensor<4> = random([b, groups, 4, d]);
        let parts = |x: Tensor<1>| x.reshape([b, groups, s / groups, d]);
        let row = |index: usize| table.clone().narrow(2, index, 1);
        agree(
            &[random([b * s * d])],
            |[x]| scale_shift(x.reshape([b, s, d]), table.clone(), 2, 1),
            |[x]| (parts(x) * (row(1) + 1.0) + row(2)).reshape([b, s, d]),
        );
        agree(
            &[random([b * s * d]), random([b * s * d])],
            |[x, y]| {
                let [x, y] = [x, y].map(|x| x.reshape([b, s, d]));
                gate_onto(x, y, table.clone(), 3)
            },
            |[x, y]| (parts(x) + parts(y) * row(3)).reshape([b, s, d]),
        );
    }
}
