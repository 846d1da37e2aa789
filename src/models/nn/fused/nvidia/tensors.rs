//! Burn's tensors as operands of NVIDIA's libraries.
#![expect(unsafe_code, reason = "libraries take addresses of tensors, which are held here")]

use burn::tensor::{DType, Shape};
use burn_cubecl::{
    kernel::{into_contiguous, matmul::init_matmul_output},
    ops::numeric::empty_device_contiguous_dtype,
    tensor::CubeTensor,
};

use super::{
    super::product::convolved_shape,
    cublas::{self, Added},
    cudnn,
    problem::{Convolution, Element, Operand, Product},
    queue,
    runner::{Problem, Server, aligned, alignment, queued},
};

/// `factor lhs rhs` over the last two axes, or nothing if the library does not take it.
pub fn product(lhs: &CubeTensor, rhs: &CubeTensor, factor: f64) -> Option<CubeTensor> {
    multiplied(Prepared::new(lhs, rhs, lhs.dtype)?, factor)
}

/// `lhs rhs` in f32, likewise.
pub fn wide_product(lhs: &CubeTensor, rhs: &CubeTensor) -> Option<CubeTensor> {
    multiplied(Prepared::new(lhs, rhs, DType::F32)?, 1.0)
}

fn multiplied(prepared: Prepared, factor: f64) -> Option<CubeTensor> {
    let Prepared { product, lhs, rhs, out } = prepared;
    let problem = problem(product, [false; 2], &[&lhs, &rhs, &out]);
    let done = queued(problem, [&lhs, &rhs], [&out], move |_, [lhs, rhs], [out]| {
        // SAFETY: the tensors are held, and of the shapes of the product.
        queue::in_order(|stream| unsafe {
            cublas::multiply(stream, product, [lhs, rhs, out], factor as f32, Added::Nothing)
        })
    });
    done.then_some(out)
}

/// `lhs rhs + bias` of matrices, likewise; the bias has a value for each column.
pub fn product_and_bias(
    lhs: &CubeTensor,
    rhs: &CubeTensor,
    bias: &CubeTensor,
) -> Option<CubeTensor> {
    let Prepared { product, lhs, rhs, out } = Prepared::new(lhs, rhs, lhs.dtype)?;
    let fits = bias.dtype == lhs.dtype && bias.meta.shape().to_vec() == [product.out.columns];
    let bias = into_contiguous(bias.clone());
    if !fits || product.out.count != 1 || !aligned(&[&bias]) {
        return None;
    }
    let problem = problem(product, [true, false], &[&lhs, &rhs, &out]);
    let done = queued(problem, [&lhs, &rhs, &bias], [&out], move |_, [lhs, rhs, bias], [out]| {
        // SAFETY: the tensors are held, and of the shapes of the product.
        queue::in_order(|stream| unsafe {
            cublas::multiply(stream, product, [lhs, rhs, out], 1.0, Added::Bias(bias))
        })
    });
    done.then_some(out)
}

/// `sum + lhs rhs`, likewise.
pub fn product_onto(sum: &CubeTensor, lhs: &CubeTensor, rhs: &CubeTensor) -> Option<CubeTensor> {
    let Prepared { product, lhs, rhs, out } = Prepared::new(lhs, rhs, lhs.dtype)?;
    let alike = sum.dtype == out.dtype && sum.meta.shape() == out.meta.shape();
    if !alike || operand(sum) != Some(product.out) {
        return None;
    }
    let problem = problem(product, [false, true], &[&lhs, &rhs, &out, sum]);
    let done = queued(problem, [&lhs, &rhs, sum], [&out], move |_, [lhs, rhs, sum], [out]| {
        // SAFETY: the tensors are held, and of the shapes of the product.
        queue::in_order(|stream| unsafe {
            cublas::multiply(stream, product, [lhs, rhs, out], 1.0, Added::Sum(sum))
        })
    });
    done.then_some(out)
}

fn problem(product: Product, added: [bool; 2], tensors: &[&CubeTensor]) -> Problem {
    let alignments = std::array::from_fn(|i| tensors.get(i).map_or(0, |tensor| alignment(tensor)));
    Problem::Product(product, added, alignments)
}

/// Operands as the library reads them, and room for the output.
struct Prepared {
    product: Product,
    lhs: CubeTensor,
    rhs: CubeTensor,
    out: CubeTensor,
}

impl Prepared {
    /// For an output of the operands' type, or in f32.
    fn new(lhs: &CubeTensor, rhs: &CubeTensor, made: DType) -> Option<Self> {
        let element = element(lhs.dtype)?;
        if lhs.dtype != rhs.dtype || !cublas::is_present() {
            return None;
        }
        let [(lhs, left), (rhs, right)] = [lhs, rhs].map(readable);
        let out = init_matmul_output(&lhs, &rhs, made);
        let product = Product::new(element, left?, right?, operand(&out)?)?;
        let product = Product { wide: made != lhs.dtype, ..product };
        Some(Self { product, lhs, rhs, out })
    }
}

/// A convolution without bias, or nothing if the library does not take it.
pub fn convolved(
    x: &CubeTensor,
    weight: &CubeTensor,
    strides: [usize; 2],
    padding: usize,
) -> Option<CubeTensor> {
    let element = element(x.dtype)?;
    if x.dtype != weight.dtype || !cudnn::is_present() {
        return None;
    }
    let [x, weight] = [x, weight].map(|tensor| into_contiguous(tensor.clone()));
    let dims = |tensor: &CubeTensor| -> Option<[usize; 5]> {
        tensor.meta.shape().to_vec().try_into().ok()
    };
    let shape = convolved_shape(x.meta.shape(), weight.meta.shape(), strides, padding);
    let out = empty(&x, shape, x.dtype);
    let [of_x, of_weight, of_out] = [dims(&x)?, dims(&weight)?, dims(&out)?];
    let convolution =
        Convolution { element, x: of_x, weight: of_weight, strides, padding, out: of_out };
    if !aligned(&[&x, &weight]) {
        return None;
    }
    let problem = Problem::Convolution(convolution);
    let done = queued(problem, [&x, &weight], [&out], move |client, [x, weight], [out]| {
        let mut workspace = None;
        let reserve = |bytes| {
            let handle = client.empty(bytes);
            let held = client.get_resource::<Server>(handle).map_err(|error| error.to_string())?;
            let address = held.resource().ptr;
            workspace = Some(held);
            Ok(address)
        };
        // SAFETY: the tensors and the workspace are held, and of the shapes of the convolution.
        unsafe { cudnn::convolve(convolution, [x, weight, out], reserve) }
    });
    done.then_some(out)
}

/// Room for a tensor on the device of another one.
pub(super) fn empty(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), dtype)
}

/// Whether all of these are of one type.
pub(super) fn are(dtype: DType, tensors: &[&CubeTensor]) -> bool {
    tensors.iter().all(|x| x.dtype == dtype)
}

/// The tensor as a library reads it: itself, or a copy whose matrices follow each other evenly.
fn readable(x: &CubeTensor) -> (CubeTensor, Option<Operand>) {
    if let Some(found) = operand(x) {
        return (x.clone(), Some(found));
    }
    let copy = into_contiguous(x.clone());
    let found = operand(&copy);
    (copy, found)
}

fn operand(x: &CubeTensor) -> Option<Operand> {
    Operand::of(x.meta.shape(), x.meta.strides())
}

fn element(dtype: DType) -> Option<Element> {
    match dtype {
        DType::F32 => Some(Element::F32),
        DType::F16 => Some(Element::F16),
        DType::BF16 => Some(Element::BF16),
        _ => None,
    }
}
