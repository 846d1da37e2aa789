//! Linear layers with an adapter: all products of a pass are one task of the device's thread, since
//! what stands around a task costs it more than most of these products.
#![expect(
    unsafe_code,
    reason = "libraries and kernels take addresses of tensors, which are held here"
)]

use burn::tensor::DType;
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cudarc::driver::sys::CUstream;

use super::{
    cublas::{self, Added},
    kernels::{Argument, Launch, THREADS, launch_at},
    problem::{Element, Operand, Product},
    queue,
    runner::{Problem, aligned, alignment, queued},
    tensors::{are, empty},
};

/// Bytes of an element of the model.
const NARROW: u64 = 2;

/// The sizes of a layer: `[rows, input]` to `[rows, output]`, over `rank`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layer {
    rows: usize,
    input: usize,
    output: usize,
    rank: usize,
}

impl Layer {
    fn of(x: &CubeTensor, output: usize, rank: usize) -> Option<Self> {
        let input = *x.meta.shape().to_vec().last()?;
        let rows = x.meta.shape().num_elements() / input.max(1);
        let counts = [rows, input, output, rank, rank * (input + output)];
        let fits = counts.iter().all(|count| *count > 0 && i32::try_from(*count).is_ok());
        fits.then_some(Self { rows, input, output, rank })
    }

    /// Values of both factors.
    fn of_factors(self) -> [usize; 2] {
        [self.rank * self.input, self.output * self.rank]
    }

    /// Where the second factor begins behind the first.
    fn wide_at(self, kept: u64) -> u64 {
        kept + NARROW * self.of_factors()[0] as u64
    }

    /// What decides whether the libraries take it, beside its sizes: where tensors that are made
    /// elsewhere begin.
    fn problem<const N: usize>(self, pass: Pass, tensors: [&CubeTensor; N]) -> Problem {
        let alignments = std::array::from_fn(|i| tensors.get(i).map_or(0, |x| alignment(x)));
        Problem::Layer(self, pass, alignments)
    }
}

/// What is made of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// Its output.
    Forward,
    /// The gradients of its input and its factors.
    Backward,
    /// Those of its factors alone.
    Factors,
}

/// A matrix whose rows follow each other.
fn by_rows(rows: usize, columns: usize) -> Operand {
    Operand { count: 1, rows, columns, by_column: false, leading: columns, apart: 0 }
}

/// The transpose of `by_rows(rows, columns)`.
fn turned(rows: usize, columns: usize) -> Operand {
    Operand { by_column: true, rows: columns, columns: rows, ..by_rows(rows, columns) }
}

/// `lhs rhs` of matrices of the model, in its type or in f32.
fn product(lhs: Operand, rhs: Operand, wide: bool) -> Result<Product, String> {
    let out = by_rows(lhs.rows, rhs.columns);
    let product = Product::new(Element::BF16, lhs, rhs, out).ok_or("the sizes do not fit")?;
    Ok(Product { wide, ..product })
}

/// See [`LoraLinear::lora_linear`](super::super::lora_linear::LoraLinear::lora_linear); nothing
/// where the libraries do not take it.
pub fn lora_linear(
    [x, weight, bias]: [&CubeTensor; 3],
    [a, b]: [&CubeTensor; 2],
    scale: f64,
) -> Option<[CubeTensor; 3]> {
    let [output, input] = weight.meta.shape().to_vec()[..] else { return None };
    let layer = Layer::of(x, output, a.meta.shape().num_elements() / input.max(1))?;
    let [of_a, of_b] = layer.of_factors();
    let fits = layer.input == input
        && are(DType::BF16, &[x, weight, bias])
        && are(DType::F32, &[a, b])
        && bias.meta.shape().to_vec() == [layer.output]
        && [a, b].map(|factor| factor.meta.shape().num_elements()) == [of_a, of_b];
    let [x, weight, bias, a, b] = [x, weight, bias, a, b].map(|x| into_contiguous(x.clone()));
    if !fits || !cublas::is_present() || !aligned(&[&bias]) {
        return None;
    }
    let mut shape = x.meta.shape().to_vec();
    *shape.last_mut()? = layer.output;
    let y = empty(&x, shape, DType::BF16);
    let low = empty(&x, [layer.rows, layer.rank], DType::BF16);
    let kept = empty(&x, [of_a + of_b], DType::BF16);
    let problem = layer.problem(Pass::Forward, [&x, &weight, &bias]);
    let (inputs, outputs) = ([&x, &weight, &bias, &a, &b], [&y, &low, &kept]);
    // SAFETY: the tensors are held, and of the sizes of the layer.
    let done = queued(problem, inputs, outputs, move |_, inputs, outputs| unsafe {
        queue::in_order(|stream| layer.forward(stream, inputs, outputs, scale as f32))
    });
    done.then_some([y, low, kept])
}

/// The gradients with respect to `x` and to the factors, likewise.
pub fn lora_linear_grads(
    [x, weight]: [&CubeTensor; 2],
    kept: [&CubeTensor; 3],
    scale: f64,
) -> Option<[CubeTensor; 3]> {
    let Backward { layer, given, of_low, made: [da, db] } = Backward::new(x, kept)?;
    let fits = weight.meta.shape().to_vec() == [layer.output, layer.input];
    if !fits || !are(DType::BF16, &[weight]) {
        return None;
    }
    let ([x, factors, low, grad], weight) = (&given, into_contiguous(weight.clone()));
    let dx = empty(x, x.meta.shape().clone(), DType::BF16);
    let problem = layer.problem(Pass::Backward, [x, &weight, grad]);
    let (inputs, outputs) = ([x, factors, low, grad, &weight], [&of_low, &da, &db, &dx]);
    // SAFETY: the tensors are held, and of the sizes of the layer.
    let done = queued(problem, inputs, outputs, move |_, inputs, outputs| unsafe {
        let ([given @ .., weight], [made @ .., dx]) = (inputs, outputs);
        queue::in_order(|stream| {
            layer.backward(stream, given, made, scale as f32)?;
            layer.of_input(stream, [weight, given[1], given[3]], [made[0], dx])
        })
    });
    done.then_some([dx, da, db])
}

/// Those of the factors alone.
pub fn factor_grads(x: &CubeTensor, kept: [&CubeTensor; 3], scale: f64) -> Option<[CubeTensor; 2]> {
    let Backward { layer, given, of_low, made: [da, db] } = Backward::new(x, kept)?;
    let problem = layer.problem(Pass::Factors, [&given[0], &given[3]]);
    let (inputs, outputs) = (given.each_ref(), [&of_low, &da, &db]);
    // SAFETY: the tensors are held, and of the sizes of the layer.
    let done = queued(problem, inputs, outputs, move |_, given, made| unsafe {
        queue::in_order(|stream| layer.backward(stream, given, made, scale as f32))
    });
    done.then_some([da, db])
}

/// What a backward pass is given, and room for what it makes of the factors.
struct Backward {
    layer: Layer,
    given: [CubeTensor; 4],
    of_low: CubeTensor,
    made: [CubeTensor; 2],
}

impl Backward {
    fn new(x: &CubeTensor, kept: [&CubeTensor; 3]) -> Option<Self> {
        let last = |x: &CubeTensor| x.meta.shape().to_vec().last().copied();
        let [factors, low, grad] = kept;
        let layer = Layer::of(x, last(grad)?, last(low)?)?;
        let [of_a, of_b] = layer.of_factors();
        let wanted = [of_a + of_b, layer.rows * layer.rank, layer.rows * layer.output];
        let fits = are(DType::BF16, &[x, factors, low, grad])
            && kept.map(|x| x.meta.shape().num_elements()) == wanted;
        if !fits || !cublas::is_present() {
            return None;
        }
        let given = [x, factors, low, grad].map(|x| into_contiguous(x.clone()));
        let of_low = empty(x, low.meta.shape().clone(), DType::BF16);
        let made = [of_a, of_b].map(|count| empty(x, [count], DType::F32));
        Some(Self { layer, given, of_low, made })
    }
}

impl Layer {
    /// # Safety
    ///
    /// Addresses must be those of tensors of these sizes on the current device, as in
    /// [`cublas::multiply`].
    unsafe fn forward(
        self,
        stream: CUstream,
        [x, weight, bias, a, b]: [u64; 5],
        [y, low, kept]: [u64; 3],
        scale: f32,
    ) -> Result<(), String> {
        let Self { rows, input, output, rank } = self;
        let counts = self.of_factors();
        let arguments = (0..3)
            .map(Argument::Tensor)
            .chain(counts.map(|count| Argument::Count(count as i32)))
            .collect();
        let blocks = [(counts[0] + counts[1]).div_ceil(THREADS as usize) as u32, 1];
        let narrowed = Launch { kernel: c"narrow_both", blocks, arguments };
        let of_low = product(by_rows(rows, input), turned(rank, input), false)?;
        let dense = product(by_rows(rows, input), turned(output, input), false)?;
        let branch = product(by_rows(rows, rank), turned(output, rank), false)?;
        // SAFETY: as the caller says. The scale goes on the narrow side, where it costs least.
        unsafe {
            launch_at(stream, &[a, b, kept], vec![narrowed])?;
            cublas::multiply(stream, of_low, [x, kept, low], scale, Added::Nothing)?;
            cublas::multiply(stream, dense, [x, weight, y], 1.0, Added::Bias(bias))?;
            cublas::multiply(stream, branch, [low, self.wide_at(kept), y], 1.0, Added::Sum(y))
        }
    }

    /// The gradients of the factors, and of what lies between them.
    ///
    /// # Safety
    ///
    /// As in [`Self::forward`].
    unsafe fn backward(
        self,
        stream: CUstream,
        [x, kept, low, grad]: [u64; 4],
        [of_low, da, db]: [u64; 3],
        scale: f32,
    ) -> Result<(), String> {
        let Self { rows, input, output, rank } = self;
        let through = product(by_rows(rows, output), by_rows(output, rank), false)?;
        let of_a = product(turned(rows, rank), by_rows(rows, input), true)?;
        let of_b = product(turned(rows, output), by_rows(rows, rank), true)?;
        let wide = self.wide_at(kept);
        // SAFETY: as the caller says.
        unsafe {
            cublas::multiply(stream, through, [grad, wide, of_low], scale, Added::Nothing)?;
            cublas::multiply(stream, of_a, [of_low, x, da], 1.0, Added::Nothing)?;
            cublas::multiply(stream, of_b, [grad, low, db], 1.0, Added::Nothing)
        }
    }

    /// The gradient of the input, behind [`Self::backward`].
    ///
    /// # Safety
    ///
    /// As in [`Self::forward`].
    unsafe fn of_input(
        self,
        stream: CUstream,
        [weight, kept, grad]: [u64; 3],
        [of_low, dx]: [u64; 2],
    ) -> Result<(), String> {
        let Self { rows, input, output, rank } = self;
        let dense = product(by_rows(rows, output), by_rows(output, input), false)?;
        let branch = product(by_rows(rows, rank), by_rows(rank, input), false)?;
        // SAFETY: as the caller says.
        unsafe {
            cublas::multiply(stream, dense, [grad, weight, dx], 1.0, Added::Nothing)?;
            cublas::multiply(stream, branch, [of_low, kept, dx], 1.0, Added::Sum(dx))
        }
    }
}
