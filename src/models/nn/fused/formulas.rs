//! The operations as formulas over a backend's own tensors, in f32 whatever the tensors' type, with
//! their passes backward: for GPUs, and for half precision.

use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};

use super::{product::Product, tape::InputGradients, term::Term};

/// Places of shift, scale and gate among the six rows of a modulation, of the video and of the
/// text.
const SHIFT: [usize; 2] = [0, 3];
const SCALE: [usize; 2] = [1, 4];
const GATE: [usize; 2] = [2, 5];

/// The gradient of a row of a modulation, as each token sees it.
type RowGradient<'a, B> = ([usize; 2], &'a dyn Fn() -> Term<B>);

/// The modulation of a joint sequence `[text, video]`, token by token.
struct Streams<B: Backend> {
    chunks: Term<B>, // [B, 6, D]
    video: Term<B>,  // [1, S, 1], 1 at the tokens of the video
    text: Term<B>,   // [1, S, 1], 1 at those of the text
}

impl<B: Backend> Streams<B> {
    fn new(chunks: &FloatTensor<B>, tokens: usize, text_len: usize) -> Self {
        let chunks = Term::of(chunks);
        let share = |text: f64| {
            let parts = [(text_len, text), (tokens - text_len, 1.0 - text)];
            let parts = parts.into_iter().filter(|(len, _)| *len > 0);
            Term::cat(parts.map(|(len, share)| chunks.constant(&[1, len, 1], share)).collect(), 1)
        };
        Self { video: share(0.0), text: share(1.0), chunks }
    }

    /// A row as each token sees it, `[B, S, D]`.
    fn by_token(&self, [video, text]: [usize; 2]) -> Term<B> {
        self.chunks.row(video) * self.video.clone() + self.chunks.row(text) * self.text.clone()
    }

    /// The gradient of the modulation from those of some rows as each token sees them.
    fn gradient(&self, rows: &[RowGradient<'_, B>]) -> Term<B> {
        let dims = self.chunks.dims();
        let zeros = self.chunks.constant(&[dims[0], 1, dims[2]], 0.0);
        let mut sums = vec![zeros; 6];
        for ([video, text], by_token) in rows {
            sums[*video] = (by_token() * self.video.clone()).sum(1);
            sums[*text] = (by_token() * self.text.clone()).sum(1);
        }
        Term::cat(sums, 1)
    }
}

/// Mean and reciprocal deviation along the last axis.
fn statistics<B: Backend>(x: &FloatTensor<B>, eps: f64) -> [Term<B>; 2] {
    let last = x.shape().num_dims() - 1;
    let mean = Term::of(x).mean(last);
    let centred = || Term::of(x) - mean.clone();
    let variance = (centred() * centred()).mean(last);
    [mean.clone(), variance.plus(eps).sqrt().recip()]
}

/// The gradient through `normed = (x - mean) * rstd` from that of `normed`.
fn through_norm<B: Backend>(
    normed: &dyn Fn() -> Term<B>,
    gradient: &dyn Fn() -> Term<B>,
    rstd: Term<B>,
) -> Term<B> {
    let last = rstd.dims().len() - 1;
    let slope = (gradient() * normed()).mean(last);
    let level = gradient().mean(last);
    (gradient() - level - normed() * slope) * rstd
}

/// A gradient summed over all axes but the last, `[D]`.
fn sum_to_last<B: Backend>(gradient: Term<B>) -> Term<B> {
    let dims = gradient.dims();
    let (last, rows) = (dims[dims.len() - 1], dims[..dims.len() - 1].iter().product());
    gradient.reshape(&[rows, last]).sum(0).reshape(&[last])
}

/// The weight `[D]` beside tensors of `rank` axes.
fn along_last<B: Backend>(weight: &FloatTensor<B>, rank: usize) -> Term<B> {
    let weight = Term::of(weight);
    let mut dims = vec![1; rank];
    dims[rank - 1] = weight.dims()[0];
    weight.reshape(&dims)
}

/// See [`super::norm_modulate`].
pub fn norm_modulate<B: Backend>(
    [x, gamma, beta, chunks]: [&FloatTensor<B>; 4],
    text_len: usize,
    eps: f64,
) -> FloatTensor<B> {
    let streams = Streams::<B>::new(chunks, x.shape()[1], text_len);
    let [mean, rstd] = statistics::<B>(x, eps);
    let normed = (Term::<B>::of(x) - mean) * rstd * along_last(gamma, 3) + along_last(beta, 3);
    let y = normed * streams.by_token(SCALE).plus(1.0) + streams.by_token(SHIFT);
    y.into_type_of(x)
}

/// The gradients with respect to `x`, `gamma`, `beta` and `chunks`.
pub fn norm_modulate_grad<B: Backend>(
    [x, gamma, beta, chunks]: [&FloatTensor<B>; 4],
    text_len: usize,
    eps: f64,
    grad: &FloatTensor<B>,
    wanted: [bool; 4],
) -> InputGradients<B, 4> {
    let streams = Streams::<B>::new(chunks, x.shape()[1], text_len);
    let [mean, rstd] = statistics::<B>(x, eps);
    let normed = || (Term::<B>::of(x) - mean.clone()) * rstd.clone();
    let affine = || normed() * along_last(gamma, 3) + along_last(beta, 3);
    let upstream = || Term::<B>::of(grad);
    let scaled = || upstream() * streams.by_token(SCALE).plus(1.0);
    let inner = || scaled() * along_last(gamma, 3);
    let modulation: [RowGradient<'_, B>; 2] =
        [(SHIFT, &upstream), (SCALE, &|| upstream() * affine())];
    [
        wanted[0].then(|| through_norm(&normed, &inner, rstd.clone()).into_type_of(x)),
        wanted[1].then(|| sum_to_last(scaled() * normed()).into_type_of(gamma)),
        wanted[2].then(|| sum_to_last(scaled()).into_type_of(beta)),
        wanted[3].then(|| streams.gradient(&modulation).into_type_of(chunks)),
    ]
}

/// See [`super::gated_add`].
pub fn gated_add<B: Backend>(
    [x, y, chunks]: [&FloatTensor<B>; 3],
    text_len: usize,
) -> FloatTensor<B> {
    let streams = Streams::<B>::new(chunks, x.shape()[1], text_len);
    (Term::of(x) + Term::of(y) * streams.by_token(GATE)).into_type_of(x)
}

/// The gradients with respect to `y` and `chunks`; that of `x` is `grad`.
pub fn gated_add_grad<B: Backend>(
    [y, chunks]: [&FloatTensor<B>; 2],
    text_len: usize,
    grad: &FloatTensor<B>,
    wanted: [bool; 2],
) -> InputGradients<B, 2> {
    let streams = Streams::<B>::new(chunks, y.shape()[1], text_len);
    let gate = || Term::<B>::of(grad) * Term::of(y);
    [
        wanted[0].then(|| (Term::of(grad) * streams.by_token(GATE)).into_type_of(y)),
        wanted[1].then(|| streams.gradient(&[(GATE, &gate)]).into_type_of(chunks)),
    ]
}

/// The partners of each pair along the last axis, by a table that exchanges those of a part of it.
/// A product with zeros and ones is exact in any type.
fn partners<B: Product>(x: &FloatTensor<B>, swap: &FloatTensor<B>) -> FloatTensor<B> {
    let (shape, table) = (x.shape(), swap.shape());
    let width = table[table.num_dims() - 1];
    let rows = shape.num_elements() / width;
    let swap = Term::<B>::of(swap).reshape(&[width, width]).into_type_of(x);
    let flat = B::float_reshape(x.clone(), [rows, width].into());
    B::float_reshape(B::product(flat, swap), shape)
}

/// See [`super::rotate`].
pub fn rotate<B: Product>([x, cos, sin, swap]: [&FloatTensor<B>; 4]) -> FloatTensor<B> {
    let partners = partners::<B>(x, swap);
    (Term::<B>::of(x) * Term::of(cos) + Term::of(&partners) * Term::of(sin)).into_type_of(x)
}

/// The gradient with respect to `x`.
pub fn rotate_grad<B: Product>(
    [cos, sin, swap]: [&FloatTensor<B>; 3],
    grad: &FloatTensor<B>,
) -> FloatTensor<B> {
    turned_back::<B>([grad, &partners::<B>(grad, swap), cos, sin]).into_type_of(grad)
}

/// The other way, from a gradient and its partners.
fn turned_back<B: Backend>([grad, partners, cos, sin]: [&FloatTensor<B>; 4]) -> Term<B> {
    Term::<B>::of(grad) * Term::of(cos) - Term::of(partners) * Term::of(sin)
}

/// See [`super::norm_rotate`].
pub fn norm_rotate<B: Product>(
    [x, gamma, beta, cos, sin, swap]: [&FloatTensor<B>; 6],
    eps: f64,
) -> FloatTensor<B> {
    let [mean, rstd] = statistics::<B>(x, eps);
    let normed = (Term::<B>::of(x) - mean) * rstd * along_last(gamma, 4) + along_last(beta, 4);
    let turned = rotate::<B>([&normed.into_type_of(x), cos, sin, swap]);
    B::float_swap_dims(turned, 1, 2)
}

/// The gradients with respect to `x`, `gamma` and `beta`.
pub fn norm_rotate_grad<B: Product>(
    [x, gamma, _, cos, sin, swap]: [&FloatTensor<B>; 6],
    eps: f64,
    grad: FloatTensor<B>,
    wanted: [bool; 3],
) -> InputGradients<B, 3> {
    let [mean, rstd] = statistics::<B>(x, eps);
    let normed = || (Term::<B>::of(x) - mean.clone()) * rstd.clone();
    let grad = B::float_swap_dims(grad, 1, 2);
    let other = partners::<B>(&grad, swap);
    let turned = || turned_back::<B>([&grad, &other, cos, sin]);
    let inner = || turned() * along_last(gamma, 4);
    [
        wanted[0].then(|| through_norm(&normed, &inner, rstd.clone()).into_type_of(x)),
        wanted[1].then(|| sum_to_last(turned() * normed()).into_type_of(gamma)),
        wanted[2].then(|| sum_to_last(turned()).into_type_of(gamma)),
    ]
}

/// See [`super::rms_norm`].
pub fn rms_norm<B: Backend>([x, weight]: [&FloatTensor<B>; 2], eps: f64) -> FloatTensor<B> {
    let rank = x.shape().num_dims();
    (Term::<B>::of(x) * root_statistic::<B>(x, eps) * along_last(weight, rank)).into_type_of(x)
}

/// The gradients with respect to `x` and `weight`.
pub fn rms_norm_grad<B: Backend>(
    [x, weight]: [&FloatTensor<B>; 2],
    eps: f64,
    grad: &FloatTensor<B>,
    wanted: [bool; 2],
) -> InputGradients<B, 2> {
    let rank = x.shape().num_dims();
    let factor = root_statistic::<B>(x, eps);
    let normed = || Term::<B>::of(x) * factor.clone();
    let inner = || Term::<B>::of(grad) * along_last(weight, rank);
    let slope = || (inner() * normed()).mean(rank - 1);
    [
        wanted[0].then(|| ((inner() - normed() * slope()) * factor.clone()).into_type_of(x)),
        wanted[1].then(|| sum_to_last(Term::of(grad) * normed()).into_type_of(weight)),
    ]
}

/// `1 / sqrt(mean(x^2) + eps)` along the last axis.
fn root_statistic<B: Backend>(x: &FloatTensor<B>, eps: f64) -> Term<B> {
    let square = Term::<B>::of(x) * Term::of(x);
    square.mean(x.shape().num_dims() - 1).plus(eps).sqrt().recip()
}

/// `sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))`, by which the tanh form of GELU multiplies, and the
/// exponent's slope.
const SLOPE: f64 = 1.595_769_121_605_730_7;
const CUBIC: f64 = SLOPE * 0.044_715;

fn share<B: Backend>(x: &FloatTensor<B>) -> Term<B> {
    let square = Term::<B>::of(x) * Term::of(x);
    let exponent = square.times(-CUBIC).plus(-SLOPE) * Term::of(x);
    exponent.exp().plus(1.0).recip()
}

/// See [`super::gelu_tanh`].
pub fn gelu<B: Backend>(x: &FloatTensor<B>) -> FloatTensor<B> {
    (share::<B>(x) * Term::of(x)).into_type_of(x)
}

/// The gradient with respect to `x`.
pub fn gelu_grad<B: Backend>(x: &FloatTensor<B>, grad: &FloatTensor<B>) -> FloatTensor<B> {
    let s = share::<B>(x);
    let square = Term::<B>::of(x) * Term::of(x);
    let bend = Term::of(x) * square.times(3.0 * CUBIC).plus(SLOPE);
    let slope = s.clone() + s.clone() * (s.times(-1.0).plus(1.0)) * bend;
    (slope * Term::of(grad)).into_type_of(x)
}

/// See [`norm_modulate_grad`]: the gradient with respect to `x` alone, in which `beta` has no part.
pub fn norm_modulate_grad_of_x<B: Backend>(
    [x, gamma, chunks]: [&FloatTensor<B>; 3],
    text_len: usize,
    eps: f64,
    grad: &FloatTensor<B>,
) -> FloatTensor<B> {
    let wanted = [true, false, false, false];
    let [dx, ..] = norm_modulate_grad::<B>([x, gamma, gamma, chunks], text_len, eps, grad, wanted);
    dx.expect("it is wanted")
}

/// See [`gated_add_grad`]: the gradient with respect to `y` alone.
pub fn gated_add_grad_of_y<B: Backend>(
    inputs: [&FloatTensor<B>; 2],
    text_len: usize,
    grad: &FloatTensor<B>,
) -> FloatTensor<B> {
    let [dy, _] = gated_add_grad::<B>(inputs, text_len, grad, [true, false]);
    dy.expect("it is wanted")
}

/// See [`norm_rotate_grad`]: the gradient with respect to `x` alone, in which `beta` has no part.
pub fn norm_rotate_grad_of_x<B: Product>(
    [x, gamma, cos, sin, swap]: [&FloatTensor<B>; 5],
    eps: f64,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let inputs = [x, gamma, gamma, cos, sin, swap];
    let [dx, ..] = norm_rotate_grad::<B>(inputs, eps, grad, [true, false, false]);
    dx.expect("it is wanted")
}

/// See [`rms_norm_grad`]: the gradient with respect to `x` alone.
pub fn rms_norm_grad_of_x<B: Backend>(
    inputs: [&FloatTensor<B>; 2],
    eps: f64,
    grad: &FloatTensor<B>,
) -> FloatTensor<B> {
    let [dx, _] = rms_norm_grad::<B>(inputs, eps, grad, [true, false]);
    dx.expect("it is wanted")
}

#[cfg(test)]
mod tests {
    use burn::{
        backend::{Flex, FlexDevice, ops::FloatTensorOps},
        tensor::{DType, Device, FloatDType, Tensor},
    };

    use super::{
        super::{
            gelu::Gelu,
            kernels::{self, Values},
            modulation::{Modulation, ModulationGrad},
            rms_norm as rms_norm_on_tape,
            rotary::{Rotation, RotationGrad, swap_table},
            rotate as rotate_on_tape,
            testing::{agree, random},
        },
        *,
    };
    use crate::models::nn::rms_norm;

    const EPS: f64 = 1e-5;

    fn values<const D: usize>(tensor: Tensor<D>) -> Values {
        Flex::float_from_data(tensor.into_data(), &FlexDevice)
    }

    /// Compares with the kernels of the CPU, which are compared with Burn's operations elsewhere.
    fn assert_close(what: &str, found: &Values, wanted: &Values) {
        assert_eq!(found.shape(), wanted.shape(), "{what}");
        let [found, wanted] = [found, wanted].map(Values::to_contiguous);
        let [found, wanted] = [&found, &wanted].map(kernels::slice);
        let scale = wanted.iter().fold(1.0f32, |most, value| most.max(value.abs()));
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() <= 4e-6 * scale, "{what}: {found} {wanted}");
        }
    }

    fn assert_all_close<const N: usize>(
        found: InputGradients<Flex, N>,
        wanted: InputGradients<Flex, N>,
    ) {
        for (index, (found, wanted)) in found.into_iter().zip(wanted).enumerate() {
            assert_close(&format!("gradient {index}"), &found.unwrap(), &wanted.unwrap());
        }
    }

    #[test]
    fn modulation_equals_the_kernels() {
        let (b, s, d, text_len) = (2, 5, 24, 2);
        let grad = values(random([b, s, d]));
        let inputs = [
            values(random([b, s, d]) * 3.0 + 1.0),
            values(random([d])),
            values(random([d])),
            values(random([b, 6, d])),
        ];
        let [x, gamma, beta, chunks] = inputs.clone();
        assert_close(
            "value",
            &norm_modulate::<Flex>(inputs.each_ref(), text_len, EPS),
            &Flex::fused_norm_modulate(x.clone(), gamma, beta, chunks.clone(), text_len, EPS),
        );
        assert_all_close(
            norm_modulate_grad::<Flex>(inputs.each_ref(), text_len, EPS, &grad, [true; 4]),
            Flex::norm_modulate_grad(inputs, text_len, EPS, grad.clone(), [true; 4]),
        );
        let y = values(random([b, s, d]));
        assert_close(
            "sum",
            &gated_add::<Flex>([&x, &y, &chunks], text_len),
            &Flex::fused_gated_add(x, y.clone(), chunks.clone(), text_len),
        );
        assert_all_close(
            gated_add_grad::<Flex>([&y, &chunks], text_len, &grad, [true; 2]),
            Flex::gated_add_grad([y, chunks], text_len, grad, [true; 2]),
        );
    }

    #[test]
    fn rotation_equals_the_kernels() {
        let (b, s, h, d) = (2, 7, 3, 16);
        let sign = Tensor::<1>::from_floats([-1.0, 1.0], &Device::flex());
        let sin = random([1, s, 1, d / 2, 1]) * sign.reshape([1, 1, 1, 1, 2]);
        let inputs = [
            values(random([b, s, h, d])),
            values(random([d])),
            values(random([d])),
            values(random([1, s, 1, d])),
            values(sin.reshape([1, s, 1, d])),
            values(swap_table(d, &Device::flex())),
        ];
        let [x, gamma, beta, cos, sin, swap] = inputs.clone();
        assert_close(
            "value",
            &norm_rotate::<Flex>(inputs.each_ref(), EPS),
            &Flex::fused_norm_rotate(x, gamma, beta, cos, sin, swap, EPS),
        );
        let grad = values(random([b, h, s, d]));
        assert_all_close(
            norm_rotate_grad::<Flex>(inputs.each_ref(), EPS, grad.clone(), [true; 3]),
            Flex::norm_rotate_grad(inputs, EPS, grad, [true; 3]),
        );
    }

    #[test]
    fn gelu_equals_the_kernel_also_far_from_zero() {
        let x = values(random([3, 333]) * 30.0);
        let grad = values(random([3, 333]));
        assert_close("value", &gelu::<Flex>(&x), &Flex::fused_gelu(x.clone()));
        let found = gelu_grad::<Flex>(&x, &grad);
        assert_close("gradient", &found, &Flex::fused_gelu_grad(x, grad));
    }

    /// What these give on a tape equals what Burn's tape makes of their parts.
    #[test]
    fn norms_and_rotations_without_a_kernel_agree_with_their_parts() {
        let dims = [2, 5, 24];
        agree(
            &[random([2 * 5 * 24]) * 2.0, random([24])],
            |[x, weight]| rms_norm_on_tape(x.reshape(dims), weight, EPS),
            |[x, weight]| rms_norm(x.reshape(dims), 2, EPS) * weight.reshape([1, 1, 24]),
        );
        let sign = Tensor::<1>::from_floats([-1.0, 1.0], &Device::flex()).reshape([1, 1, 1, 2]);
        let sin = (random([1, 5, 12, 1]) * sign).reshape([1, 5, 24]);
        let (cos, swap) = (random([1, 5, 24]), swap_table(8, &Device::flex()));
        agree(
            &[random([2 * 5 * 24])],
            |[x]| rotate_on_tape(x.reshape(dims), [cos.clone(), sin.clone()], swap.clone()),
            |[x]| {
                let partners = x.clone().reshape([2, 5, 12, 2]).flip([3]).reshape(dims);
                x.reshape(dims) * cos.clone() + partners * sin.clone()
            },
        );
    }

    /// Widened on the way and rounded once at the end.
    #[test]
    fn tensors_of_bf16_stay_so() {
        let halved = |x: Values| Flex::float_cast(x, FloatDType::BF16);
        let x = values(random([4, 64]));
        let found = gelu::<Flex>(&halved(x.clone()));
        assert_eq!(found.dtype(), DType::BF16);
        let wanted =
            halved(Flex::fused_gelu(Term::<Flex>::of(&halved(x.clone())).into_type_of(&x)));
        let widened = |x: &Values| Term::<Flex>::of(x).into_type_of(&values(random([1])));
        assert_close("value", &widened(&found), &widened(&wanted));
    }
}
