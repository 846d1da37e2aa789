//! Burn's tensors as operands of NVIDIA's libraries.
#![expect(unsafe_code, reason = "libraries take addresses of tensors, which are held here")]

use burn::tensor::DType;
use burn_cubecl::{
    kernel::{into_contiguous, matmul::init_matmul_output},
    ops::numeric::empty_device_contiguous_dtype,
    tensor::CubeTensor,
};
use cubecl::cuda::CudaRuntime;
use cubecl_runtime::runtime::Runtime;

use super::{
    super::product::convolved_shape,
    cublas::{self, Added},
    cudnn,
    problem::{Convolution, Element, Operand, Product},
};

/// Owns the device's memory.
type Server = <CudaRuntime as Runtime>::Server;

/// `lhs rhs` over the last two axes, or nothing if the library does not take it.
pub fn product(lhs: &CubeTensor, rhs: &CubeTensor) -> Option<CubeTensor> {
    let Prepared { product, lhs, rhs, out } = Prepared::new(lhs, rhs)?;
    let done = on_device([&lhs, &rhs, &out], |at| {
        // SAFETY: the tensors are held, and of the shapes of the product.
        unsafe { cublas::multiply(product, at, Added::Nothing) }
    });
    told(done, &product).then_some(out)
}

/// `lhs rhs + bias` of matrices, likewise; the bias has a value for each column.
pub fn product_and_bias(
    lhs: &CubeTensor,
    rhs: &CubeTensor,
    bias: &CubeTensor,
) -> Option<CubeTensor> {
    let Prepared { product, lhs, rhs, out } = Prepared::new(lhs, rhs)?;
    let fits = bias.dtype == lhs.dtype && bias.meta.shape().to_vec() == [product.out.columns];
    if !fits || product.out.count != 1 {
        return None;
    }
    let bias = into_contiguous(bias.clone());
    let done = on_device([&lhs, &rhs, &out, &bias], |[lhs, rhs, out, bias]| {
        aligned(&[bias])?;
        // SAFETY: the tensors are held, and of the shapes of the product.
        unsafe { cublas::multiply(product, [lhs, rhs, out], Added::Bias(bias)) }
    });
    told(done, &product).then_some(out)
}

/// `sum + lhs rhs`, likewise.
pub fn product_onto(sum: &CubeTensor, lhs: &CubeTensor, rhs: &CubeTensor) -> Option<CubeTensor> {
    let Prepared { product, lhs, rhs, out } = Prepared::new(lhs, rhs)?;
    let alike = sum.dtype == out.dtype && sum.meta.shape() == out.meta.shape();
    if !alike || operand(sum) != Some(product.out) {
        return None;
    }
    let done = on_device([&lhs, &rhs, &out, sum], |[lhs, rhs, out, sum]| {
        // SAFETY: the tensors are held, and of the shapes of the product.
        unsafe { cublas::multiply(product, [lhs, rhs, out], Added::Sum(sum)) }
    });
    told(done, &product).then_some(out)
}

/// Operands as the library reads them, and room for the output.
struct Prepared {
    product: Product,
    lhs: CubeTensor,
    rhs: CubeTensor,
    out: CubeTensor,
}

impl Prepared {
    fn new(lhs: &CubeTensor, rhs: &CubeTensor) -> Option<Self> {
        let element = element(lhs.dtype)?;
        if lhs.dtype != rhs.dtype || !cublas::is_present() {
            return None;
        }
        let [(lhs, left), (rhs, right)] = [lhs, rhs].map(readable);
        let out = init_matmul_output(&lhs, &rhs, lhs.dtype);
        let product = Product::new(element, left?, right?, operand(&out)?)?;
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
    let out = empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), shape, x.dtype);
    let [of_x, of_weight, of_out] = [dims(&x)?, dims(&weight)?, dims(&out)?];
    let convolution =
        Convolution { element, x: of_x, weight: of_weight, strides, padding, out: of_out };
    let client = &x.client;
    let done = on_device([&x, &weight, &out], |at| {
        aligned(&at)?;
        let mut workspace = None;
        let reserve = |bytes| {
            let handle = client.empty(bytes);
            let held = client.get_resource::<Server>(handle).map_err(|error| error.to_string())?;
            let address = held.resource().ptr;
            workspace = Some(held);
            Ok(address)
        };
        // SAFETY: the tensors and the workspace are held, and of the shapes of the convolution.
        unsafe { cudnn::convolve(convolution, at, reserve) }
    });
    told(done, &convolution).then_some(out)
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

/// Calls a library with the addresses of tensors, on the one thread that owns their device: what is asked of
/// a client there is done at once, and nothing comes between.
pub fn on_device<const N: usize>(
    tensors: [&CubeTensor; N],
    call: impl FnOnce([u64; N]) -> Result<(), String> + Send,
) -> Result<(), String> {
    let client = &tensors[0].client;
    let called = client.exclusive(move || {
        let mut held = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let resource = client.get_resource::<Server>(tensor.handle.clone());
            held.push(resource.map_err(|error| error.to_string())?);
        }
        call(std::array::from_fn(|i| held[i].resource().ptr))
    });
    called.map_err(|error| error.to_string())?
}

/// Kernels copy 16 bytes at once; a slice may begin elsewhere.
pub fn aligned(addresses: &[u64]) -> Result<(), String> {
    let aligned = addresses.iter().all(|address| address % 16 == 0);
    aligned.then_some(()).ok_or_else(|| "a tensor begins where it cannot be copied from".to_owned())
}

/// Whether it was done; why not is for those who look for it.
pub fn told(done: Result<(), String>, problem: &impl std::fmt::Debug) -> bool {
    done.inspect_err(|reason| tracing::debug!(%reason, ?problem, "goes by burn's kernels")).is_ok()
}
