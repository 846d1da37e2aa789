//! Matrix products by cuBLASLt.
#![expect(unsafe_code, reason = "cuBLASLt is a C library")]

use std::{collections::HashMap, ffi::c_void, sync::LazyLock};

use cudarc::{
    cublaslt::{result as lt, sys},
    driver::{result as driver, sys as cuda},
};

use super::{
    problem::{Element, Operand, Product},
    queue::PerDevice,
};

/// What the library may use besides the operands: NVIDIA's advice for Hopper.
const WORKSPACE: usize = 32 << 20;
/// The best alignment that any kernel asks for, in bytes.
const ALIGNMENT: u64 = 256;

/// Whether the library is installed.
pub fn is_present() -> bool {
    static PRESENT: LazyLock<bool> = LazyLock::new(|| {
        // SAFETY: loads the library, whose initializers are NVIDIA's.
        let present = unsafe { sys::is_culib_present() };
        if !present {
            tracing::warn!(
                "cuBLASLt is not to be found: matrix products take several times as long without it, and \
                 each kind is compiled at its first use. It comes with the CUDA toolkit; name the folder of \
                 `libcublasLt.so` in LD_LIBRARY_PATH"
            );
        }
        present
    });
    *PRESENT
}

/// The library's state on one device.
struct Library {
    handle: sys::cublasLtHandle_t,
    workspace: cuda::CUdeviceptr,
    plans: HashMap<(Product, bool, [u32; 3]), Option<Plan>>,
}

// SAFETY: its handles may be used by any thread; the mutex around all libraries keeps them to one
// at a time.
unsafe impl Send for Library {}

/// How one kind of product is made. Its descriptors live as long as the process.
#[derive(Clone, Copy)]
struct Plan {
    product: sys::cublasLtMatmulDesc_t,
    lhs: sys::cublasLtMatrixLayout_t,
    rhs: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

static LIBRARIES: PerDevice<Library> = PerDevice::new();

/// What is added to a product.
#[derive(Clone, Copy)]
pub enum Added {
    /// Nothing.
    Nothing,
    /// A value for each column, at an address.
    Bias(u64),
    /// A tensor that lies as the product does, at an address.
    Sum(u64),
}

/// Queues `out = alpha lhs rhs` and what is added to it on a stream of the current device, for
/// operands at these addresses of its memory; a sum may lie where the output goes.
///
/// # Safety
///
/// The addresses must be those of tensors on the current device as `product` describes them, and
/// stay so until other work is queued behind this.
pub unsafe fn multiply(
    stream: cuda::CUstream,
    product: Product,
    [lhs, rhs, out]: [u64; 3],
    alpha: f32,
    added: Added,
) -> Result<(), String> {
    LIBRARIES.with(Library::new, |library| {
        let bias = if let Added::Bias(bias) = added { Some(bias) } else { None };
        // The library reads what is added by the layout of the output, so by the lesser of their
        // alignments.
        let sum = if let Added::Sum(sum) = added { sum } else { out };
        let alignments = [alignment(lhs), alignment(rhs), alignment(out).min(alignment(sum))];
        let plan = library.plan(product, bias.is_some(), alignments)?;
        if let Some(bias) = bias {
            let property = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            // SAFETY: the descriptor lives as long as the process, and the value is of the
            // property's type.
            unsafe {
                lt::set_matmul_desc_attribute(plan.product, property, (&raw const bias).cast(), 8)
            }
            .map_err(|error| error.to_string())?;
        }
        let beta = if matches!(added, Added::Sum(_)) { 1.0f32 } else { 0.0 };
        // BLAS stores by columns: what is asked of it is `out^T = rhs^T lhs^T`. SAFETY: the layouts
        // of the plan are those of the operands, which the caller holds; scalars are read before
        // the call returns; the stream and the workspace live as long as the process.
        unsafe {
            lt::matmul(
                library.handle,
                plan.product,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                rhs as *const c_void,
                plan.rhs,
                lhs as *const c_void,
                plan.lhs,
                sum as *const c_void,
                plan.out,
                out as *mut c_void,
                plan.out,
                &raw const plan.algorithm,
                library.workspace as *mut c_void,
                WORKSPACE,
                stream.cast(),
            )
        }
        .map_err(|error| error.to_string())
    })
}

/// What an address is a multiple of.
fn alignment(address: u64) -> u32 {
    1 << (address | ALIGNMENT).trailing_zeros()
}

impl Library {
    fn new() -> Result<Self, String> {
        // SAFETY: a device is current.
        let workspace = unsafe { driver::malloc_sync(WORKSPACE) }.map_err(|e| e.to_string())?;
        let made = lt::create_handle()
            .map(|handle| Self { workspace, handle, plans: HashMap::new() })
            .map_err(|error| error.to_string());
        // It is asked for again with each product, so that nothing may be left behind.
        made.inspect_err(|_| {
            // SAFETY: it was allocated above, and nothing uses it.
            let _ = unsafe { driver::free_sync(workspace) };
        })
    }

    fn plan(
        &mut self,
        product: Product,
        with_bias: bool,
        alignments: [u32; 3],
    ) -> Result<Plan, String> {
        let handle = self.handle;
        let plan = self.plans.entry((product, with_bias, alignments)).or_insert_with(|| {
            // SAFETY: the handle lives as long as the process.
            unsafe { Plan::new(handle, product, with_bias, alignments) }
                .inspect_err(|error| tracing::debug!(%error, ?product, "cuBLASLt has no plan"))
                .ok()
        });
        plan.ok_or_else(|| "the library has no kernel for it".to_owned())
    }
}

impl Plan {
    /// The library's own choice among its kernels.
    ///
    /// # Safety
    ///
    /// The handle must be alive.
    unsafe fn new(
        handle: sys::cublasLtHandle_t,
        asked: Product,
        with_bias: bool,
        [of_lhs, of_rhs, of_out]: [u32; 3],
    ) -> Result<Self, lt::CublasError> {
        use sys::{
            cublasLtMatmulDescAttributes_t as Property,
            cublasLtMatmulPreferenceAttributes_t as Wish,
        };
        let Product { element, lhs, rhs, out, .. } = asked;
        let product = lt::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType::CUDA_R_32F,
        )?;
        let wishes = lt::create_matmul_pref()?;
        // SAFETY: descriptors are alive, and each value is of the type that its attribute has.
        unsafe {
            for (property, operand) in [
                (Property::CUBLASLT_MATMUL_DESC_TRANSA, rhs),
                (Property::CUBLASLT_MATMUL_DESC_TRANSB, lhs),
            ] {
                // Rows behind each other are the columns of the transposed matrix, as it is wanted.
                let transposed = i32::from(operand.by_column);
                lt::set_matmul_desc_attribute(
                    product,
                    property,
                    (&raw const transposed).cast(),
                    4,
                )?;
            }
            if with_bias {
                let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
                let property = Property::CUBLASLT_MATMUL_DESC_EPILOGUE;
                lt::set_matmul_desc_attribute(product, property, (&raw const epilogue).cast(), 4)?;
            }
            let [lhs, rhs, out] =
                [layout(element, lhs)?, layout(element, rhs)?, layout(asked.made(), out)?];
            let workspace = WORKSPACE as u64;
            let wish = Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            lt::set_matmul_pref_attribute(wishes, wish, (&raw const workspace).cast(), 8)?;
            for (wish, bytes) in [
                (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, of_rhs),
                (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, of_lhs),
                (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, of_out),
                (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, of_out),
            ] {
                lt::set_matmul_pref_attribute(wishes, wish, (&raw const bytes).cast(), 4)?;
            }
            let found = lt::get_matmul_algo_heuristic(handle, product, rhs, lhs, out, out, wishes);
            lt::destroy_matmul_pref(wishes)?;
            Ok(Self { product, lhs, rhs, out, algorithm: found?.algo })
        }
    }
}

/// How a stack of matrices lies in memory.
fn layout(
    element: Element,
    operand: Operand,
) -> Result<sys::cublasLtMatrixLayout_t, lt::CublasError> {
    use sys::cublasLtMatrixLayoutAttribute_t as Property;
    let dtype = match element {
        Element::F32 => sys::cudaDataType::CUDA_R_32F,
        Element::F16 => sys::cudaDataType::CUDA_R_16F,
        Element::BF16 => sys::cudaDataType::CUDA_R_16BF,
    };
    let Operand { count, rows, columns, by_column, leading, apart } = operand;
    let (along, across) = if by_column { (rows, columns) } else { (columns, rows) };
    let made = lt::create_matrix_layout(dtype, along as u64, across as u64, leading as i64)?;
    let (count, apart) = (count as i32, apart as i64);
    // SAFETY: the layout is alive, and the values are of the types of their properties.
    unsafe {
        let property = Property::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT;
        lt::set_matrix_layout_attribute(made, property, (&raw const count).cast(), 4)?;
        let property = Property::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
        lt::set_matrix_layout_attribute(made, property, (&raw const apart).cast(), 8)?;
    }
    Ok(made)
}
