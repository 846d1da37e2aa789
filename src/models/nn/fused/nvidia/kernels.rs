//! Kernels of our own in CUDA C++, compiled at their first use.
#![expect(unsafe_code, reason = "kernels take pointers, and the driver is a C library")]

use std::ffi::{CStr, CString, c_void};

use cudarc::{
    driver::{result as driver, sys as cuda},
    nvrtc::{self, CompileOptions},
};

use super::queue::{PerDevice, Queue};

/// The source of all kernels.
const SOURCE: &str = concat!(
    include_str!("cuda/common.cu"),
    include_str!("cuda/attention.cu"),
    include_str!("cuda/block.cu")
);
/// What they are compiled for; later cards take it as well.
const ARCHITECTURE: &str = "compute_80";
/// The first card that has their instructions.
const CAPABILITY: i32 = 8;

/// A tensor `[batch, head, row, column]` with contiguous columns, as the source has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct View {
    /// Where it lies.
    pub address: u64,
    /// Elements between neighbours on the first three axes.
    pub strides: [i64; 3],
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub enum Argument {
    /// A tensor.
    View(View),
    /// An address alone.
    Address(u64),
    /// A number of things.
    Count(i32),
    /// A value.
    Value(f32),
}

impl Argument {
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
    queue: Queue,
}

// SAFETY: handles of the driver may be used by any thread.
unsafe impl Send for Kernels {}

static KERNELS: PerDevice<Result<Kernels, String>> = PerDevice::new();

/// Queues kernels on the current device, one after the other.
///
/// # Safety
///
/// The arguments must be those of the kernels, and what lies at their addresses must be of the sizes that go
/// with it, and stay so until other work is queued behind this.
pub unsafe fn launch(launches: Vec<Launch>) -> Result<(), String> {
    // That they cannot be compiled is kept: it is tried once.
    KERNELS.with(
        || Ok(Kernels::new()),
        |kernels| {
            let kernels = kernels.as_ref().map_err(Clone::clone)?;
            kernels.queue.in_order(|| {
                for Launch { kernel, blocks: [x, y], mut arguments } in launches {
                    let mut pointers: Vec<_> =
                        arguments.iter_mut().map(Argument::pointer).collect();
                    // SAFETY: the module lives as long as the process, and arguments until the call returns.
                    unsafe {
                        driver::module::get_function(kernels.module, kernel.into())
                            .and_then(|function| {
                                let (block, stream) = ((THREADS, 1, 1), kernels.queue.stream);
                                driver::launch_kernel(
                                    function,
                                    (x, y, 1),
                                    block,
                                    0,
                                    stream,
                                    &mut pointers,
                                )
                            })
                            .map_err(|error| error.to_string())?;
                    }
                }
                Ok::<_, String>(())
            })
        },
    )
}

impl Kernels {
    fn new() -> Result<Self, String> {
        let found = compile();
        if let Err(error) = &found {
            tracing::warn!(%error, "transformers go by slower kernels");
        }
        found
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
    Ok(Kernels { module: module.map_err(|error| error.to_string())?, queue: Queue::new()? })
}
