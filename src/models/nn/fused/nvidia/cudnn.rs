//! Convolutions by cuDNN.
#![expect(unsafe_code, reason = "cuDNN is a C library")]

use std::{
    collections::HashMap,
    ffi::{c_int, c_void},
    sync::LazyLock,
};

use cudarc::cudnn::{result as dnn, sys};

use super::{
    problem::{Convolution, Element},
    queue::{self, PerDevice},
};

/// Most bytes that a kernel may use besides the operands.
const WORKSPACE: usize = 4 << 30;
/// The first version without wrong results of large convolutions in bf16 (PyTorch's issues 163539
/// and 166643), and the elements up to which older ones are trusted: half of those of the smallest
/// that was told of.
const TRUSTED: usize = 91_500;
const LARGE: usize = 1 << 30;
/// Kernels that are asked for.
const CANDIDATES: usize = 8;

/// Whether the library is installed.
pub fn is_present() -> bool {
    static PRESENT: LazyLock<bool> = LazyLock::new(|| {
        // SAFETY: loads the library, whose initializers are NVIDIA's.
        let present = unsafe { sys::is_culib_present() };
        if !present {
            tracing::warn!(
                "cuDNN is not to be found: autoencoders take several times as long without it. Name the \
                 folder of `libcudnn.so.9` in LD_LIBRARY_PATH"
            );
        }
        present
    });
    *PRESENT
}

/// The library's state on one device.
struct Library {
    handle: sys::cudnnHandle_t,
    plans: HashMap<Convolution, Result<Plan, String>>,
}

// SAFETY: its handles may be used by any thread; the mutex around all libraries keeps them to one
// at a time.
unsafe impl Send for Library {}

/// How one kind of convolution is made. Its descriptors live as long as the process.
#[derive(Clone, Copy)]
struct Plan {
    x: sys::cudnnTensorDescriptor_t,
    weight: sys::cudnnFilterDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
    out: sys::cudnnTensorDescriptor_t,
    kernel: sys::cudnnConvolutionFwdAlgo_t,
    workspace: usize,
}

static LIBRARIES: PerDevice<Library> = PerDevice::new();

/// Queues a convolution without bias on the current device, for operands at these addresses of its
/// memory. `reserve` gives memory of a size in bytes.
///
/// # Safety
///
/// The addresses must be those of contiguous tensors on the current device of the shapes of
/// `convolution`, and stay so until other work is queued behind this; likewise what `reserve`
/// gives.
pub unsafe fn convolve(
    convolution: Convolution,
    [x, weight, out]: [u64; 3],
    reserve: impl FnOnce(usize) -> Result<u64, String>,
) -> Result<(), String> {
    LIBRARIES.with(Library::new, |library| {
        let handle = library.handle;
        let plan = library.plans.entry(convolution).or_insert_with(|| {
            // SAFETY: the handle lives as long as the process.
            unsafe { Plan::new(handle, convolution) }.map_err(|error| error.to_string())
        });
        let plan = plan.clone()?;
        let workspace = if plan.workspace == 0 { 0 } else { reserve(plan.workspace)? };
        let [alpha, beta] = [1.0f32, 0.0];
        queue::in_order(|_| {
            // SAFETY: the descriptors of the plan are those of the operands, which the caller
            // holds; scalars are read before the call returns.
            unsafe {
                dnn::convolution_forward(
                    handle,
                    (&raw const alpha).cast(),
                    plan.x,
                    x as *const c_void,
                    plan.weight,
                    weight as *const c_void,
                    plan.convolution,
                    plan.kernel,
                    workspace as *mut c_void,
                    plan.workspace,
                    (&raw const beta).cast(),
                    plan.out,
                    out as *mut c_void,
                )
            }
            .map_err(|error| error.to_string())
        })
    })
}

impl Library {
    fn new() -> Result<Self, String> {
        let handle = dnn::create_handle().map_err(|error| error.to_string())?;
        let stream = queue::stream()?;
        // SAFETY: both live as long as the process.
        unsafe { dnn::set_stream(handle, stream.cast()) }.map_err(|error| error.to_string())?;
        Ok(Self { handle, plans: HashMap::new() })
    }
}

impl Plan {
    /// The library's own choice among its kernels.
    ///
    /// # Safety
    ///
    /// The handle must be alive.
    unsafe fn new(
        handle: sys::cudnnHandle_t,
        problem: Convolution,
    ) -> Result<Self, dnn::CudnnError> {
        use sys::{
            cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
            cudnnDataType_t::{CUDNN_DATA_BFLOAT16, CUDNN_DATA_FLOAT, CUDNN_DATA_HALF},
            cudnnMathType_t::{CUDNN_DEFAULT_MATH, CUDNN_FMA_MATH, CUDNN_TENSOR_OP_MATH},
            cudnnTensorFormat_t::CUDNN_TENSOR_NCHW,
        };
        // The library counts elements in 31 bits.
        let limit = if dnn::get_version() < TRUSTED { LARGE } else { c_int::MAX as usize };
        let sizes = [problem.x, problem.weight, problem.out].map(|shape| shape.iter().product());
        if sizes.iter().any(|elements: &usize| *elements > limit) {
            return Err(unsupported());
        }
        let (dtype, math) = match problem.element {
            // Without the shorter mantissa of TF32.
            Element::F32 => (CUDNN_DATA_FLOAT, CUDNN_FMA_MATH),
            Element::F16 => (CUDNN_DATA_HALF, CUDNN_TENSOR_OP_MATH),
            Element::BF16 => (CUDNN_DATA_BFLOAT16, CUDNN_TENSOR_OP_MATH),
        };
        let ints = |sizes: [usize; 5]| sizes.map(|size| size as c_int);
        let tensor = |shape: [usize; 5]| -> Result<_, dnn::CudnnError> {
            let made = dnn::create_tensor_descriptor()?;
            let (dims, strides) = (ints(shape), ints(row_major(shape)));
            // SAFETY: the descriptor is alive, and both arrays have five values.
            unsafe {
                dnn::set_tensornd_descriptor(made, dtype, 5, dims.as_ptr(), strides.as_ptr())?;
            }
            Ok(made)
        };
        let (x, out) = (tensor(problem.x)?, tensor(problem.out)?);
        let weight = dnn::create_filter_descriptor()?;
        let convolution = dnn::create_convolution_descriptor()?;
        let [in_time, in_space] = problem.strides.map(|stride| stride as c_int);
        let padding = problem.padding as c_int;
        // SAFETY: descriptors and handle are alive, and arrays have as many values as is said.
        unsafe {
            let dims = ints(problem.weight);
            dnn::set_filternd_descriptor(weight, dtype, CUDNN_TENSOR_NCHW, 5, dims.as_ptr())?;
            dnn::set_convolutionnd_descriptor(
                convolution,
                3,
                [0, padding, padding].as_ptr(),
                [in_time, in_space, in_space].as_ptr(),
                [1; 3].as_ptr(),
                CUDNN_CROSS_CORRELATION,
                CUDNN_DATA_FLOAT,
            )?;
            dnn::set_convolution_math_type(convolution, math)?;
            let mut found = Vec::with_capacity(CANDIDATES);
            let mut count = 0;
            dnn::get_convolution_forward_algorithm(
                handle,
                x,
                weight,
                convolution,
                out,
                CANDIDATES as c_int,
                &raw mut count,
                found.as_mut_ptr(),
            )?;
            // As many as the library says it has written.
            found.set_len((count.max(0) as usize).min(CANDIDATES));
            tracing::debug!(?problem, ?found, "kernels of cuDNN");
            for one in found {
                let one: sys::cudnnConvolutionFwdAlgoPerf_t = one;
                // Kernels without tensor cores are returned as of the default type, which would
                // allow others.
                let own = if problem.element == Element::F32 { math } else { one.mathType };
                if one.status.result().is_err()
                    || ![own, CUDNN_DEFAULT_MATH].contains(&one.mathType)
                {
                    continue;
                }
                dnn::set_convolution_math_type(convolution, own)?;
                let kernel = one.algo;
                let needed = dnn::get_convolution_forward_workspace_size(
                    handle,
                    x,
                    weight,
                    convolution,
                    out,
                    kernel,
                );
                match needed {
                    Ok(workspace) if workspace <= WORKSPACE => {
                        return Ok(Self { x, weight, convolution, out, kernel, workspace });
                    }
                    _ => {}
                }
            }
            Err(unsupported())
        }
    }
}

fn unsupported() -> dnn::CudnnError {
    dnn::CudnnError(sys::cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED)
}

/// Elements between neighbours on each axis.
fn row_major(shape: [usize; 5]) -> [usize; 5] {
    let mut strides = [1; 5];
    for axis in (0..4).rev() {
        strides[axis] = strides[axis + 1] * shape[axis + 1];
    }
    strides
}
