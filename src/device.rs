//! Devices by name, and what their failures mean.
//!
//! Work on a GPU is asynchronous: what fails there surfaces at a later read, mostly as a panic whose
//! text is all there is to go by.

use burn::tensor::Device;

/// The device `cpu`, or `cuda:N` if it is there.
pub fn named(name: &str) -> Option<Device> {
    match name {
        "cpu" => Some(Device::flex()),
        _ => cuda(name.strip_prefix("cuda:")?.parse().ok()?),
    }
}

/// The GPU of this index, if it is there and this build knows CUDA.
#[cfg(feature = "cuda")]
pub fn cuda(index: usize) -> Option<Device> {
    static KERNELS: std::sync::Once = std::sync::Once::new();
    KERNELS.call_once(keep_kernels);
    let found = Device::enumerate(burn::tensor::DeviceType::Cuda);
    (index < found.len()).then(|| Device::cuda(index))
}

/// The GPU of this index, if it is there and this build knows CUDA.
#[cfg(not(feature = "cuda"))]
pub fn cuda(_index: usize) -> Option<Device> {
    None
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
        // As CubeCL 0.11 (`IoError`, `LaunchError`, `ServerError`) and the driver say it.
        const FULL: [&str; 4] = [
            "out of device memory",
            "out-of-memory error",
            "can't allocate buffer of size",
            "CUDA_ERROR_OUT_OF_MEMORY",
        ];
        const LOST: [&str; 2] = ["The device is poisoned", "The device was poisoned"];
        let says = |texts: &[&str]| texts.iter().any(|known| text.contains(known));
        if says(&LOST) { Some(Self::Lost) } else { says(&FULL).then_some(Self::OutOfMemory) }
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
            ("The device is poisoned\nCaused by:\n  an illegal address", Some(DeviceFailure::Lost)),
            ("index out of bounds: the len is 3 but the index is 7", None),
        ] {
            assert_eq!(DeviceFailure::of(text), wanted, "{text}");
        }
    }

    #[test]
    fn devices_have_names() {
        assert_eq!(named("cpu"), Some(Device::flex()));
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
