//! Devices by name, and what their failures mean.
//!
//! Work on a GPU is asynchronous: what fails there surfaces at a later read, mostly as a panic
//! whose text is all there is to go by.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use burn::tensor::Device;

/// A driver that gives no answer but a panic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the driver of the GPUs failed: {0}")]
pub struct DriverFailure(String);

/// The device `cpu`, or `cuda:N` if it is there.
pub fn named(name: &str) -> Option<Device> {
    match name {
        "cpu" => Some(Device::flex()),
        _ => cuda(name.strip_prefix("cuda:")?.parse().ok()?).ok()?,
    }
}

/// The GPU of this index, if it is there and this build knows CUDA.
#[cfg(feature = "cuda")]
pub fn cuda(index: usize) -> Result<Option<Device>, DriverFailure> {
    static KERNELS: std::sync::Once = std::sync::Once::new();
    KERNELS.call_once(keep_kernels);
    asked(|| {
        let found = Device::enumerate(burn::tensor::DeviceType::Cuda);
        (index < found.len()).then(|| Device::cuda(index))
    })
}

/// The GPU of this index, if it is there and this build knows CUDA.
#[cfg(not(feature = "cuda"))]
pub fn cuda(_index: usize) -> Result<Option<Device>, DriverFailure> {
    asked(|| None)
}

/// How many GPUs the driver tells of; none where this build does not know CUDA.
#[cfg(feature = "cuda")]
pub fn count() -> Result<usize, DriverFailure> {
    asked(|| Device::enumerate(burn::tensor::DeviceType::Cuda).len())
}

/// How many GPUs the driver tells of; none where this build does not know CUDA.
#[cfg(not(feature = "cuda"))]
pub fn count() -> Result<usize, DriverFailure> {
    asked(|| 0)
}

thread_local! {
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// Asks a driver something; the library between panics where the driver does not answer as it
/// expects.
fn asked<T>(ask: impl FnOnce() -> T) -> Result<T, DriverFailure> {
    let before = ASKED.replace(true);
    let answer = catch_unwind(AssertUnwindSafe(ask));
    ASKED.set(before);
    answer.map_err(|panic| {
        let text = text_of(&*panic);
        DriverFailure(text.lines().next().unwrap_or(text).trim().to_owned())
    })
}

/// Makes tensors that stay for long: on a GPU each has memory of its own, released when caches are
/// emptied. Among the others, whose room is searched for one by one, they would cost each of them
/// time.
pub fn lasting<T: Send>(device: &Device, make: impl FnOnce() -> T + Send) -> T {
    if *device == Device::flex() {
        return make();
    }
    // A panic would pass the end of the window by, behind which everything would last.
    let made =
        device.memory_persistent_allocations(make, |make| catch_unwind(AssertUnwindSafe(make)));
    made.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Asks a device for nothing, so that one that does not answer is known before it is needed.
pub fn wake(device: &Device) -> Result<(), DriverFailure> {
    asked(|| device.sync())?.map_err(|error| DriverFailure(error.to_string()))
}

/// Whether a panic of this thread says something of a driver, not of this program.
pub fn is_asked() -> bool {
    ASKED.get()
}

/// What a panic says.
pub fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Has kernels, and the choices among them, kept in the user's cache folder: to compile and to time
/// them takes minutes. A file `cubecl.toml` and the variables of `CubeCL` are heeded all the same.
#[cfg(feature = "cuda")]
fn keep_kernels() {
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, cache::CacheConfig};
    let mut config = CubeClRuntimeConfig::from_current_dir();
    config.compilation.cache = true;
    config.environment.path = CacheConfig::Global;
    // Whoever set one before knows why.
    CubeClRuntimeConfig::try_set(config.override_from_env());
}

/// Why a device did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceFailure {
    /// Its memory was full; it can go on once some is free.
    OutOfMemory,
    /// It answers nothing any more until the process ends.
    Lost,
}

impl DeviceFailure {
    /// Recognises a failure by the text of a panic or an error.
    pub fn of(text: &str) -> Option<Self> {
        // As CubeCL 0.11 (`IoError`, `LaunchError`, `ServerError`), the driver and its libraries
        // say it.
        const FULL: [&str; 8] = [
            "out of device memory",
            "out-of-memory error",
            "can't allocate buffer of size",
            "every page size the memory tracks still holds live allocations",
            "CUDA_ERROR_OUT_OF_MEMORY",
            "CUBLAS_STATUS_ALLOC_FAILED",
            "CUDNN_STATUS_ALLOC_FAILED",
            "DEVICE_ALLOCATION_FAILED",
        ];
        // The driver's are those after which its documentation lets a process do nothing with the
        // card, which CubeCL calls poisoned; a call of ours may be the first that meets one.
        const LOST: [&str; 15] = [
            "The device is poisoned",
            "The device was poisoned",
            "CUDA_ERROR_ECC_UNCORRECTABLE",
            "CUDA_ERROR_ILLEGAL_ADDRESS",
            "CUDA_ERROR_LAUNCH_TIMEOUT",
            "CUDA_ERROR_CONTEXT_IS_DESTROYED",
            "CUDA_ERROR_ASSERT",
            "CUDA_ERROR_HARDWARE_STACK_ERROR",
            "CUDA_ERROR_ILLEGAL_INSTRUCTION",
            "CUDA_ERROR_MISALIGNED_ADDRESS",
            "CUDA_ERROR_INVALID_ADDRESS_SPACE",
            "CUDA_ERROR_INVALID_PC",
            "CUDA_ERROR_LAUNCH_FAILED",
            "CUBLAS_STATUS_EXECUTION_FAILED",
            "CUDNN_STATUS_EXECUTION_FAILED",
        ];
        let says = |texts: &[&str]| texts.iter().any(|known| text.contains(known));
        if says(&LOST) { Some(Self::Lost) } else { says(&FULL).then_some(Self::OutOfMemory) }
    }

    /// The failure in words, with the reason that the text gives.
    pub fn message(self, text: &str) -> String {
        // Errors hold errors: the last that is named is where it began.
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let cause = lines.iter().rposition(|line| line.starts_with("Caused by"));
        let reason = cause.and_then(|at| lines.get(at + 1));
        match (self, reason) {
            (Self::OutOfMemory, _) => "the device ran out of memory".to_owned(),
            (Self::Lost, None) => "the device is lost to this process".to_owned(),
            (Self::Lost, Some(reason)) => {
                format!("the device is lost to this process: {reason}")
            }
        }
    }

    /// What to do where no stage is at fault.
    pub fn help(self) -> &'static str {
        match self {
            Self::OutOfMemory => {
                "see that no other program uses the device, run fewer stages at once (`--jobs 1`), or use \
                 `--device cpu`"
            }
            Self::Lost => "run again; what is done stays done",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_from_bugs_by_their_text() {
        for (text, wanted) in [
            (
                "Err value: out of device memory allocating 8589934592 bytes\n0: main",
                Some(DeviceFailure::OutOfMemory),
            ),
            (
                "An out-of-memory error happened during launch\nCaused by:\n  x",
                Some(DeviceFailure::OutOfMemory),
            ),
            ("can't allocate buffer of size: 99999999999\n", Some(DeviceFailure::OutOfMemory)),
            (
                "An error happened during execution\nCaused by:\n  CUBLAS_STATUS_ALLOC_FAILED",
                Some(DeviceFailure::OutOfMemory),
            ),
            (
                "Can't allocate 512 bytes: every page size the memory tracks still holds live \
                 allocations\n0: main",
                Some(DeviceFailure::OutOfMemory),
            ),
            ("The device is poisoned\nCaused by:\n  an illegal address", Some(DeviceFailure::Lost)),
            (
                "An error happened during execution\nCaused by:\n  DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \
                 \"an illegal memory access was encountered\")\nBacktrace:\n0: main",
                Some(DeviceFailure::Lost),
            ),
            ("index out of bounds: the len is 3 but the index is 7", None),
        ] {
            assert_eq!(DeviceFailure::of(text), wanted, "{text}");
        }
    }

    #[test]
    fn failures_are_told_with_their_reason() {
        let text = "The device is poisoned\nCaused by:\n  an illegal address\n";
        let lost = DeviceFailure::Lost.message(text);
        assert_eq!(lost, "the device is lost to this process: an illegal address");
        // As a read tells what a call of ours met: `ExecutionError`, `Several`, `Unwritten`,
        // `Generic`.
        let nested = "An error happened during execution\nCaused by:\n  Several failures at once\nCaused by:\n  \
                      The bytes were never written (failure #3, still claiming 2 buffer(s))\n  matmul\nCaused by:\n  \
                      An error happened during execution\nCaused by:\n  DriverError(CUDA_ERROR_LAUNCH_FAILED)\n\
                      Backtrace:\n0: main\nAsked at:\n0: main";
        assert_eq!(DeviceFailure::of(nested), Some(DeviceFailure::Lost));
        let lost = DeviceFailure::Lost.message(nested);
        let wanted = "the device is lost to this process: DriverError(CUDA_ERROR_LAUNCH_FAILED)";
        assert_eq!(lost, wanted);
        let lost = DeviceFailure::Lost.message("The device was poisoned");
        assert_eq!(lost, "the device is lost to this process");
        assert_eq!(DeviceFailure::OutOfMemory.message(text), "the device ran out of memory");
    }

    #[test]
    fn a_driver_that_fails_is_an_error() {
        assert_eq!(asked(is_asked), Ok(true));
        let failed = asked(|| -> u8 { panic!("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH\n  at 0: main") });
        let wanted = "the driver of the GPUs failed: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH";
        assert_eq!(failed.unwrap_err().to_string(), wanted);
        assert!(!is_asked());
    }

    #[test]
    fn devices_have_names() {
        assert_eq!(named("cpu"), Some(Device::flex()));
        assert_eq!(wake(&Device::flex()), Ok(()));
        assert_eq!(named("gpu"), None);
        assert_eq!(named("cuda:x"), None);
    }
}

/// The device that tests of models run on: `cpu`, or what `PIPE_TEST_DEVICE` names.
#[cfg(test)]
pub(crate) mod testing {
    use super::{Device, named};

    /// The device that `PIPE_TEST_DEVICE` names; a test that asks for one that is not there fails.
    #[expect(clippy::disallowed_methods, reason = "the device of tests is named by a variable")]
    pub fn device() -> Device {
        let name = std::env::var("PIPE_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
        named(&name).unwrap_or_else(|| panic!("PIPE_TEST_DEVICE names `{name}`: not here"))
    }

    /// A tolerance on the CPU as one on the device of the test, which is at least `on_gpu` there.
    pub fn tolerance(on_cpu: f32, on_gpu: f32) -> f32 {
        if device() == Device::flex() { on_cpu } else { on_cpu.max(on_gpu) }
    }
}
