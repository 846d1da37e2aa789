//! Kernels of our own in CUDA C++, compiled at their first use.
#![expect(unsafe_code, reason = "kernels take pointers, and the driver is a C library")]

use std::{
    collections::{HashMap, hash_map::Entry},
    ffi::{CStr, CString, c_void},
};

use burn_cubecl::tensor::CubeTensor;
use cudarc::{
    driver::{result as driver, sys as cuda},
    nvrtc::{self, CompileOptions},
};

use super::{
    queue::{self, PerDevice},
    runner::{Problem, aligned, queued_for_all},
};
use crate::device::DeviceFailure;

/// The source of all kernels.
const SOURCE: &str = concat!(
    include_str!("cuda/common.cu"),
    include_str!("cuda/adam.cu"),
    include_str!("cuda/lora_linear.cu"),
    include_str!("cuda/attention.cu"),
    include_str!("cuda/block.cu"),
    include_str!("cuda/group_norm.cu")
);
/// What they are compiled for; later cards take it as well.
const ARCHITECTURE: &str = "compute_80";
/// The first card that has their instructions.
const CAPABILITY: i32 = 8;

/// A tensor `[batch, head, row, column]` with contiguous columns, as the source has it.
#[repr(C)]
#[derive(Clone, Copy)]
struct View {
    /// Where it lies.
    address: u64,
    /// Elements between neighbours on the first three axes.
    strides: [i64; 3],
}

/// An argument of a kernel; tensors are named by their place in the list that goes with the
/// launches.
#[derive(Clone, Copy)]
pub enum Argument {
    /// A tensor with these distances between neighbours on its first three axes.
    View(usize, [i64; 3]),
    /// The address of a tensor.
    Tensor(usize),
    /// No tensor.
    Nothing,
    /// A number of things.
    Count(i32),
    /// A value.
    Value(f32),
}

/// The same as the driver takes it.
enum Passed {
    View(View),
    Address(u64),
    Count(i32),
    Value(f32),
}

impl Argument {
    fn passed(self, at: &[u64]) -> Passed {
        match self {
            Self::View(tensor, strides) => Passed::View(View { address: at[tensor], strides }),
            Self::Tensor(tensor) => Passed::Address(at[tensor]),
            Self::Nothing => Passed::Address(0),
            Self::Count(count) => Passed::Count(count),
            Self::Value(value) => Passed::Value(value),
        }
    }
}

impl Passed {
    fn pointer(&mut self) -> *mut c_void {
        match self {
            Self::View(view) => (&raw mut *view).cast(),
            Self::Address(address) => (&raw mut *address).cast(),
            Self::Count(count) => (&raw mut *count).cast(),
            Self::Value(value) => (&raw mut *value).cast(),
        }
    }
}

/// A kernel with its arguments.
pub struct Launch {
    /// Its name in the source.
    pub kernel: &'static CStr,
    /// Blocks along the first two axes.
    pub blocks: [u32; 2],
    /// In the order of the source.
    pub arguments: Vec<Argument>,
}

/// Threads of a block, as the source has it.
pub const THREADS: u32 = 128;

/// What is compiled for one device.
struct Kernels {
    module: cuda::CUmodule,
    functions: HashMap<&'static CStr, cuda::CUfunction>,
}

// SAFETY: handles of the driver may be used by any thread.
unsafe impl Send for Kernels {}

static KERNELS: PerDevice<Result<Kernels, String>> = PerDevice::new();

/// Queues kernels, one after the other, on tensors of which the last are written. Whether it did;
/// see [`queued_for_all`].
///
/// # Safety
///
/// The arguments must be those of the kernels, and the tensors of the sizes that go with them.
pub unsafe fn launch(
    inputs: &[&CubeTensor],
    outputs: &[&CubeTensor],
    launches: Vec<Launch>,
) -> bool {
    if !aligned(inputs) {
        return false;
    }
    let name = launches.last().map_or(c"", |launch| launch.kernel);
    queued_for_all(Problem::Kernel(name), inputs, outputs, move |_, at| {
        // SAFETY: as the caller says; the tensors are held.
        queue::in_order(|stream| unsafe { launch_at(stream, at, launches) })
    })
}

/// Puts kernels on a stream of the current device, one after the other.
///
/// # Safety
///
/// As in [`launch`], for tensors at these addresses of the current device.
pub unsafe fn launch_at(
    stream: cuda::CUstream,
    at: &[u64],
    launches: Vec<Launch>,
) -> Result<(), String> {
    KERNELS.with(Kernels::new, |kernels| {
        let kernels = kernels.as_mut().map_err(|error| error.clone())?;
        for Launch { kernel, blocks: [x, y], arguments } in launches {
            let mut passed: Vec<_> =
                arguments.into_iter().map(|argument| argument.passed(at)).collect();
            let mut pointers: Vec<_> = passed.iter_mut().map(Passed::pointer).collect();
            let function = kernels.function(kernel)?;
            let (grid, block) = ((x, y, 1), (THREADS, 1, 1));
            // SAFETY: the module lives as long as the process, and arguments until the call
            // returns.
            unsafe { driver::launch_kernel(function, grid, block, 0, stream, &mut pointers) }
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    })
}

impl Kernels {
    fn function(&mut self, kernel: &'static CStr) -> Result<cuda::CUfunction, String> {
        Ok(match self.functions.entry(kernel) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                // SAFETY: the module lives as long as the process.
                let found = unsafe { driver::module::get_function(self.module, kernel.into()) };
                *place.insert(found.map_err(|error| error.to_string())?)
            }
        })
    }

    /// That they cannot be compiled is an answer, and kept; that the card has no room for them now
    /// is not.
    fn new() -> Result<Result<Self, String>, String> {
        let found = compile();
        match &found {
            Err(error) if DeviceFailure::of(error).is_some() => return Err(error.clone()),
            Err(error) => tracing::warn!(%error, "transformers go by slower kernels"),
            Ok(_) => (),
        }
        Ok(found)
    }
}

fn compile() -> Result<Kernels, String> {
    let mut major = 0;
    let property = cuda::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
    // SAFETY: a device is current, and the values outlive the calls that write them.
    unsafe {
        let mut device = 0;
        cuda::cuCtxGetDevice(&raw mut device).result().map_err(|error| error.to_string())?;
        let asked = cuda::cuDeviceGetAttribute(&raw mut major, property, device);
        asked.result().map_err(|error| error.to_string())?;
    }
    if major < CAPABILITY {
        return Err(format!("the card is of compute capability {major}, not {CAPABILITY}.0"));
    }
    let options = CompileOptions { arch: Some(ARCHITECTURE), ..CompileOptions::default() };
    let compiled = nvrtc::compile_ptx_with_opts(SOURCE, options);
    let text = compiled.map_err(|error| format!("{error:?}"))?.to_src();
    let text = CString::new(text).map_err(|error| error.to_string())?;
    // SAFETY: the text ends with a zero, and the driver copies it.
    let module = unsafe { driver::module::load_data(text.as_ptr().cast()) };
    let module = module.map_err(|error| error.to_string())?;
    Ok(Kernels { module, functions: HashMap::new() })
}
