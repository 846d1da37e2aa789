//! Reading reference tensors and comparing with them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use burn::tensor::{Device, Int, Tensor, TensorData};
use pipe::models::{Params, params::Param};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;

/// Smallest tolerance on a GPU, where products of f32 may be made in TF32: 10 bits of mantissa, so
/// 5e-4 for one product, and several follow each other. That they are, and what adds up, is
/// assumed; no GPU was at hand when this was written.
const TF32: f32 = 1e-2;
/// The same after steps of an optimizer, which turns small gradients into whole steps.
const TF32_TRAINED: f32 = 1e-1;

/// Smallest tolerance on a GPU of what stages make: they keep weights in bf16 there, with 8 bits.
const BF16: f32 = 5e-2;

/// The device of tests that compare with reference values: the CPU, or what `PIPE_TEST_DEVICE`
/// names. One that is not there fails them.
pub fn device() -> Device {
    static TOLD: std::sync::Once = std::sync::Once::new();
    let name = std::env::var("PIPE_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    TOLD.call_once(|| eprintln!("reference values are compared on `{name}`"));
    pipe::device::named(&name)
        .unwrap_or_else(|| panic!("PIPE_TEST_DEVICE names `{name}`: not here"))
}

/// A tolerance of f32 on the CPU as one on the device of the test.
pub fn tolerance(on_cpu: f32) -> f32 {
    if device() == Device::flex() { on_cpu } else { on_cpu.max(TF32) }
}

/// The same for what a stage made, or models from the cache that stages share.
pub fn stage_tolerance(on_cpu: f32) -> f32 {
    if device() == Device::flex() { on_cpu } else { on_cpu.max(BF16) }
}

/// The same for what was trained for some steps.
pub fn trained_tolerance(on_cpu: f32) -> f32 {
    if device() == Device::flex() { on_cpu } else { on_cpu.max(TF32_TRAINED) }
}

/// A safetensors file of inputs and expected outputs.
pub struct Golden {
    path: PathBuf,
    bytes: Vec<u8>,
    taken: Mutex<BTreeSet<String>>,
}

impl Golden {
    pub fn read(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path: path.to_owned(), bytes, taken: Mutex::default() }
    }

    /// Fails if nothing took a tensor of the file; `implied` are inputs that the model makes
    /// itself, so that what depends on them compares them as well.
    #[track_caller]
    pub fn finish(&self, implied: &[&str]) {
        let taken = self.taken.lock().unwrap();
        let tensors = self.tensors();
        let mut left = tensors.names();
        left.retain(|name| !taken.contains(*name) && !implied.contains(name));
        left.sort_unstable();
        assert!(left.is_empty(), "nothing compares {left:?} of `{}`", self.path.display());
    }

    /// A committed fixture, such as `vae/four_levels`.
    pub fn fixture(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        Self::read(folder.join(format!("{name}.safetensors")))
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors().tensor(name).is_ok()
    }

    /// The values and shape of a tensor of any type.
    pub fn values(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        self.taken.lock().unwrap().insert(name.to_owned());
        let tensors = self.tensors();
        let view = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let bytes = view.data();
        let values = match view.dtype() {
            Dtype::F32 => {
                bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
            }
            Dtype::F16 => bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|bytes| half::f16::from_le_bytes(*bytes).to_f32())
                .collect(),
            Dtype::I64 => bytes
                .as_chunks::<8>()
                .0
                .iter()
                .map(|bytes| i64::from_le_bytes(*bytes) as f32)
                .collect(),
            other => panic!("{name} is {other:?}"),
        };
        (values, view.shape().to_vec())
    }

    pub fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let (values, shape) = self.values(name);
        Tensor::from_data(TensorData::new(values, shape), &device())
    }

    /// Whole numbers `[B, L]`, such as tokens.
    pub fn ints(&self, name: &str) -> Tensor<2, Int> {
        let (values, shape) = self.values(name);
        let values: Vec<i64> = values.into_iter().map(|value| value as i64).collect();
        Tensor::from_data(TensorData::new(values, shape), &device())
    }

    /// The configuration in the header.
    pub fn config(&self) -> Value {
        let (_, header) = SafeTensors::read_metadata(&self.bytes).unwrap();
        serde_json::from_str(&header.metadata().as_ref().unwrap()["config"]).unwrap()
    }

    /// The tensors whose names start with `weights.`.
    pub fn weights(&self) -> Params {
        self.params("weights.")
    }

    /// The tensors whose names start with `prefix`, without it.
    pub fn params(&self, prefix: &str) -> Params {
        let tensors = self.tensors();
        let named = tensors.names().into_iter().filter_map(|name| {
            let short = name.strip_prefix(prefix)?.to_owned();
            let (values, shape) = self.values(name);
            let len = values.len();
            let flat = Tensor::from_data(TensorData::new(values, [len]), &device());
            Some((short, Param { flat, shape }))
        });
        Params(named.collect())
    }
}

/// The largest difference, relative to the largest value expected.
pub fn relative_error<const D: usize>(found: Tensor<D>, wanted: &Tensor<D>) -> f32 {
    assert_eq!(found.dims(), wanted.dims());
    // Adapters are read on the host.
    let wanted = &wanted.clone().to_device(&found.device());
    let scale = wanted.clone().abs().max().into_scalar::<f32>();
    let error = (found - wanted.clone()).abs().max().into_scalar::<f32>();
    // `max` may pass over NaN, so a non-number must not look like agreement.
    assert!(error.is_finite() && scale > 0.0, "error {error} at scale {scale}");
    error / scale
}

/// Asserts agreement within a tolerance of f32 on the CPU, see [`tolerance`], and shows the error
/// (`cargo test -- --nocapture`).
#[track_caller]
pub fn assert_close<const D: usize>(
    what: &str,
    found: Tensor<D>,
    wanted: &Tensor<D>,
    tolerance_on_cpu: f32,
) {
    assert_below(what, relative_error(found, wanted), tolerance(tolerance_on_cpu));
}

/// Asserts that a relative error is within a tolerance, and shows both as `parity_table` reads
/// them.
#[track_caller]
pub fn assert_below(what: &str, error: f32, tolerance: f32) {
    println!("{what}: {error:.1e} of {tolerance:.0e}");
    assert!(error <= tolerance, "{what}: relative error {error:e} is above {tolerance:e}");
}

/// As [`assert_close`], for what was trained for some steps.
#[track_caller]
pub fn assert_trained<const D: usize>(
    what: &str,
    found: Tensor<D>,
    wanted: &Tensor<D>,
    tolerance_on_cpu: f32,
) {
    assert_close(what, found, wanted, trained_tolerance(tolerance_on_cpu));
}

#[test]
#[should_panic(expected = "nothing compares [\"gradient\"]")]
fn a_tensor_that_no_check_took_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("expect.safetensors");
    let view = || TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
    let tensors = [("in", view()), ("out", view()), ("gradient", view())];
    fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let golden = Golden::read(&path);
    assert_eq!(golden.values("out").1, [1]);
    golden.finish(&["in"]);
}
