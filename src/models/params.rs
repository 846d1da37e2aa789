//! Parameters by their published names: loading, strict in both directions, and initialising.
//!
//! A model's constructor asks a [`ParamReader`] for each of its tensors by name and shape. The
//! reader collects every disagreement instead of stopping at the first, and [`ParamReader::finish`]
//! reports them together with the tensors that nobody asked for. The same constructor serves
//! loading, fresh initialisation (`pretrain`), and listing names and shapes without data.
//!
//! Tensors are kept flat (`Tensor<1>`) with their shape, so that one map can hold all ranks, and
//! training can make each a leaf of the tape, clip and update it, without knowing the model.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
};

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

use super::{
    lora::Adapter,
    nn::{Conv3d, Linear, LoraBranch},
};
use crate::rng::TorchRng;

/// A tensor of any rank.
#[derive(Clone, Debug)]
pub struct Param {
    /// The values in row-major order.
    pub flat: Tensor<1>,
    /// The shape.
    pub shape: Vec<usize>,
}

impl Param {
    /// The tensor at rank `D`; the rank was checked by whoever made the reader's request.
    pub fn tensor<const D: usize>(&self) -> Tensor<D> {
        let shape: [usize; D] = self.shape.clone().try_into().expect("rank was checked");
        self.flat.clone().reshape(shape)
    }
}

/// The parameters of one part of a model, by published name.
#[derive(Clone, Debug, Default)]
pub struct Params(pub BTreeMap<String, Param>);

impl Params {
    /// Adds the tensors of one safetensors file, as `dtype` on `device`.
    pub fn read_safetensors(
        &mut self,
        bytes: &[u8],
        file: &str,
        device: &Device,
        dtype: FloatDType,
    ) -> Result<(), LoadError> {
        let tensors = SafeTensors::deserialize(bytes)
            .map_err(|source| LoadError::Format { file: file.to_owned(), source })?;
        for (name, view) in tensors.iter() {
            let len = view.shape().iter().product::<usize>();
            let raw = |kind| TensorData::from_bytes_vec(view.data().to_vec(), [len], kind);
            let data = match view.dtype() {
                Dtype::F32 => raw(DType::F32),
                Dtype::F16 => raw(DType::F16),
                Dtype::BF16 => raw(DType::BF16),
                // Tables of positions that the reference computed in f64; no device needs more.
                Dtype::F64 => raw(DType::F64).convert::<f32>(),
                other => {
                    return Err(LoadError::Dtype {
                        file: file.to_owned(),
                        name: name.to_owned(),
                        found: format!("{other:?}"),
                    });
                }
            };
            let kind = data.dtype();
            let flat = Tensor::<1>::from_data(data, (device, kind)).cast(dtype);
            self.0.insert(name.to_owned(), Param { flat, shape: view.shape().to_vec() });
        }
        Ok(())
    }

    /// Writes all tensors as f32, or as bf16, with `metadata` in the header.
    pub fn to_safetensors(
        &self,
        bf16: bool,
        metadata: Option<std::collections::HashMap<String, String>>,
    ) -> Vec<u8> {
        let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .0
            .iter()
            .map(|(name, param)| {
                let values = param.flat.clone().cast(FloatDType::F32).into_data();
                let values = values.try_to_vec::<f32>().expect("cast to f32 above");
                let bytes = if bf16 {
                    values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect()
                } else {
                    values.iter().flat_map(|v| v.to_le_bytes()).collect()
                };
                (name.clone(), param.shape.clone(), bytes)
            })
            .collect();
        let dtype = if bf16 { Dtype::BF16 } else { Dtype::F32 };
        let views = bytes.iter().map(|(name, shape, bytes)| {
            let view = safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes)
                .expect("shape and length agree");
            (name.clone(), view)
        });
        safetensors::serialize(views, metadata).expect("names and shapes are valid")
    }

    /// Number of values in all tensors.
    pub fn num_values(&self) -> usize {
        self.0.values().map(|param| param.shape.iter().product::<usize>()).sum()
    }
}

/// How a fresh parameter is filled.
#[derive(Clone, Copy, Debug)]
pub enum Init {
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
    /// Uniform in ±bound.
    Uniform(f64),
    /// Normal with this standard deviation.
    Normal(f64),
}

enum Source<'a> {
    /// Loaded tensors, all of which must be asked for.
    Loaded(&'a Params),
    /// New tensors, kept for the caller.
    Fresh { rng: RefCell<TorchRng>, device: Device, made: RefCell<Params> },
    /// Names and shapes only.
    Shapes(RefCell<BTreeMap<String, Vec<usize>>>),
}

struct Shared<'a> {
    source: Source<'a>,
    adapter: Option<&'a Adapter>,
    asked: RefCell<BTreeSet<String>>,
    problems: RefCell<Vec<Problem>>,
}

/// Hands a model's constructor its tensors by name.
#[derive(Clone)]
pub struct ParamReader<'a> {
    shared: Arc<Shared<'a>>,
    prefix: String,
}

impl<'a> ParamReader<'a> {
    fn with(source: Source<'a>, adapter: Option<&'a Adapter>) -> Self {
        let shared =
            Shared { source, adapter, asked: RefCell::default(), problems: RefCell::default() };
        #[expect(
            clippy::arc_with_non_send_sync,
            reason = "Rc would do; readers never leave a thread"
        )]
        Self { shared: Arc::new(shared), prefix: String::new() }
    }

    /// Reads loaded parameters; linears named by `adapter` get its branches.
    pub fn loaded(params: &'a Params, adapter: Option<&'a Adapter>) -> Self {
        Self::with(Source::Loaded(params), adapter)
    }

    /// Makes new parameters, drawn in the order the constructor asks for them.
    pub fn fresh(seed: u64, device: &Device) -> ParamReader<'static> {
        let rng = RefCell::new(TorchRng::new(seed));
        ParamReader::with(
            Source::Fresh { rng, device: device.clone(), made: RefCell::default() },
            None,
        )
    }

    /// Lists names and shapes.
    pub fn shapes() -> ParamReader<'static> {
        ParamReader::with(Source::Shapes(RefCell::default()), None)
    }

    /// A reader for the module `name` below this one.
    #[must_use]
    pub fn scope(&self, name: impl Display) -> Self {
        Self { shared: Arc::clone(&self.shared), prefix: self.path(name) }
    }

    /// The full published name of `name`.
    pub fn path(&self, name: impl Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    /// Whether the source has `name`; true when making new parameters.
    pub fn has(&self, name: &str) -> bool {
        match &self.shared.source {
            Source::Loaded(params) => params.0.contains_key(&self.path(name)),
            _ => true,
        }
    }

    /// The tensor `name` of exactly this shape.
    pub fn tensor<const D: usize>(&self, name: &str, shape: [usize; D], init: Init) -> Tensor<D> {
        self.tensor_or(name, shape, |rng, device| init.make(shape.iter().product(), rng, device))
    }

    /// The tensor `name` of exactly this shape; a new one is `make`'s, in row-major order.
    pub fn tensor_or<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        make: impl FnOnce(&mut TorchRng, &Device) -> Tensor<1>,
    ) -> Tensor<D> {
        let path = self.path(name);
        self.shared.asked.borrow_mut().insert(path.clone());
        match &self.shared.source {
            Source::Loaded(params) => match params.0.get(&path) {
                Some(param) if param.shape == shape => return param.tensor(),
                Some(param) => self.problem(Problem::Shape {
                    name: path,
                    wanted: shape.to_vec(),
                    found: param.shape.clone(),
                }),
                None => self.problem(Problem::Missing { name: path, shape: shape.to_vec() }),
            },
            Source::Fresh { rng, device, made } => {
                let flat = make(&mut rng.borrow_mut(), device);
                let param = Param { flat, shape: shape.to_vec() };
                let tensor = param.tensor();
                made.borrow_mut().0.insert(path, param);
                return tensor;
            }
            Source::Shapes(shapes) => list(shapes, &path, shape.to_vec()),
        }
        // Of the right shape, so that constructors may reshape it, but one number in memory.
        Tensor::<D>::zeros([1; D], &Device::flex()).expand(shape)
    }

    /// The number `name`, a tensor without dimensions; `new` where it is made.
    pub fn scalar(&self, name: &str, new: f32) -> f32 {
        let path = self.path(name);
        self.shared.asked.borrow_mut().insert(path.clone());
        match &self.shared.source {
            Source::Loaded(params) => match params.0.get(&path) {
                Some(param) if param.shape.is_empty() => {
                    let flat = param.flat.clone();
                    let flat = if flat.device().is_autodiff() { flat.inner() } else { flat };
                    return flat.cast(FloatDType::F32).into_scalar::<f32>();
                }
                Some(param) => self.problem(Problem::Shape {
                    name: path,
                    wanted: Vec::new(),
                    found: param.shape.clone(),
                }),
                None => self.problem(Problem::Missing { name: path, shape: Vec::new() }),
            },
            Source::Fresh { device, made, .. } => {
                let flat = Tensor::from_data(TensorData::new(vec![new], [1]), device);
                made.borrow_mut().0.insert(path, Param { flat, shape: Vec::new() });
            }
            Source::Shapes(shapes) => list(shapes, &path, Vec::new()),
        }
        new
    }

    /// A linear layer `[out, in]` named `name`, with its LoRA branch if the adapter has one.
    pub fn linear(&self, name: impl Display, [input, output]: [usize; 2], bias: bool) -> Linear {
        self.linear_with(name, [input, output], bias, Init::fan_in(input))
    }

    /// Like [`Self::linear`] with bias, but new ones are zero: the modulation of an adaptive norm,
    /// which then starts as the identity.
    pub fn zero_linear(&self, name: impl Display, size: [usize; 2]) -> Linear {
        self.linear_with(name, size, true, Init::Zeros)
    }

    fn linear_with(
        &self,
        name: impl Display,
        [input, output]: [usize; 2],
        bias: bool,
        init: Init,
    ) -> Linear {
        let scope = self.scope(name);
        let weight = scope.tensor("weight", [output, input], init);
        let bias = bias.then(|| scope.tensor("bias", [output], init));
        let lora = self.shared.adapter.and_then(|adapter| {
            let (a, b) = adapter.factors(&scope.prefix)?;
            if a.shape[1] != input || b.shape[0] != output {
                self.problem(Problem::Shape {
                    name: format!("{}.lora_A/lora_B", scope.prefix),
                    wanted: vec![output, input],
                    found: vec![b.shape[0], a.shape[1]],
                });
                return None;
            }
            Some(LoraBranch { a: a.tensor(), b: b.tensor(), scale: adapter.scale() })
        });
        Linear { weight, bias, lora }
    }

    /// A 3-D convolution `[out, in, t, h, w]` with bias.
    pub fn conv3d(
        &self,
        name: impl Display,
        [input, output]: [usize; 2],
        kernel: [usize; 3],
    ) -> Conv3d {
        let [t, h, w] = kernel;
        let init = Init::fan_in(input * t * h * w);
        let scope = self.scope(name);
        Conv3d {
            weight: scope.tensor("weight", [output, input, t, h, w], init),
            bias: scope.tensor("bias", [output], init),
        }
    }

    /// A 2-D convolution `[out, in, h, w]` with bias, as one over video with a kernel of one frame.
    pub fn conv2d(
        &self,
        name: impl Display,
        [input, output]: [usize; 2],
        [h, w]: [usize; 2],
    ) -> Conv3d {
        let init = Init::fan_in(input * h * w);
        let scope = self.scope(name);
        Conv3d {
            weight: scope.tensor("weight", [output, input, h, w], init).unsqueeze_dim(2),
            bias: scope.tensor("bias", [output], init),
        }
    }

    fn problem(&self, problem: Problem) {
        self.shared.problems.borrow_mut().push(problem);
    }

    /// Reports every missing, misshapen and unused tensor at once.
    pub fn finish(&self) -> Result<(), LoadError> {
        let mut problems = self.shared.problems.borrow().clone();
        if let Source::Loaded(params) = &self.shared.source {
            let asked = self.shared.asked.borrow();
            problems.extend(
                params
                    .0
                    .keys()
                    .filter(|name| !asked.contains(*name))
                    .map(|name| Problem::Unused { name: name.clone() }),
            );
        }
        if problems.is_empty() { Ok(()) } else { Err(LoadError::Mismatch(Problems(problems))) }
    }

    /// The parameters made by a fresh reader.
    pub fn into_made(self) -> Params {
        match &self.shared.source {
            Source::Fresh { made, .. } => made.take(),
            _ => Params::default(),
        }
    }

    /// The names and shapes asked for.
    pub fn into_shapes(self) -> BTreeMap<String, Vec<usize>> {
        match &self.shared.source {
            Source::Shapes(shapes) => shapes.take(),
            _ => BTreeMap::new(),
        }
    }
}

/// Notes a tensor that a constructor asks for, which it must do once.
fn list(shapes: &RefCell<BTreeMap<String, Vec<usize>>>, path: &str, shape: Vec<usize>) {
    let before = shapes.borrow_mut().insert(path.to_owned(), shape);
    assert!(before.is_none(), "`{path}` is asked for twice");
}

impl Init {
    /// PyTorch's default for linear layers and convolutions: uniform in ±1/sqrt(inputs per output).
    pub fn fan_in(inputs: usize) -> Self {
        Self::Uniform(1.0 / (inputs as f64).sqrt())
    }

    /// New values, in row-major order.
    pub(in crate::models) fn make(
        self,
        len: usize,
        rng: &mut TorchRng,
        device: &Device,
    ) -> Tensor<1> {
        let values = match self {
            Self::Zeros => vec![0.0; len],
            Self::Ones => vec![1.0; len],
            Self::Uniform(bound) => rng
                .uniform(len)
                .iter()
                .map(|u| ((f64::from(*u) * 2.0 - 1.0) * bound) as f32)
                .collect(),
            Self::Normal(std) => {
                rng.normal(len).iter().map(|z| (f64::from(*z) * std) as f32).collect()
            }
        };
        Tensor::from_data(TensorData::new(values, [len]), device)
    }
}

/// One disagreement between a file and a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The model needs it, the file lacks it.
    #[error("missing `{name}` {shape:?}")]
    Missing {
        /// Published name.
        name: String,
        /// Shape the model needs.
        shape: Vec<usize>,
    },
    /// The file has it in another shape.
    #[error("`{name}` must be {wanted:?}, but is {found:?}")]
    Shape {
        /// Published name.
        name: String,
        /// Shape the model needs.
        wanted: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// The file has it, the model does not use it.
    #[error("`{name}` is not part of the model")]
    Unused {
        /// Published name.
        name: String,
    },
}

/// All disagreements; the first eight are shown.
#[derive(Clone, Debug)]
pub struct Problems(pub Vec<Problem>);

impl Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown: Vec<_> = self.0.iter().take(8).map(ToString::to_string).collect();
        f.write_str(&shown.join("; "))?;
        if self.0.len() > shown.len() {
            write!(f, "; and {} more", self.0.len() - shown.len())?;
        }
        Ok(())
    }
}

/// Why a model did not load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be read.
    #[error("cannot read `{path}`: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not safetensors, or is cut short.
    #[error("`{file}` is not a whole safetensors file: {source}")]
    Format {
        /// The file.
        file: String,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A tensor has a type that holds no weights.
    #[error("tensor `{name}` of `{file}` is {found}, but weights must be F32, F16 or BF16")]
    Dtype {
        /// The file.
        file: String,
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// The model, or one of its files, is not where it should be.
    #[error("{message}")]
    Missing {
        /// What was wanted and what was found.
        message: String,
        /// What to do.
        help: String,
    },
    /// The tensors do not fit the model.
    #[error("the weights do not fit the model: {0}")]
    Mismatch(Problems),
    /// A choice that the model's family does not offer.
    #[error("`{key}` must be {known} for this family of models, but is {found}")]
    Choice {
        /// The parameter.
        key: &'static str,
        /// What it may be, in backticks.
        known: String,
        /// What it is, in backticks.
        found: String,
    },
    /// The tensors of one part do not fit its configuration.
    #[error("the weights of `{part}` do not fit its configuration: {problems}")]
    PartMismatch {
        /// `vae`, `transformer` or `text_encoder`.
        part: &'static str,
        /// What does not fit.
        problems: Problems,
    },
    /// A configuration is not one the model can have.
    #[error("`{file}`: {message}")]
    Config {
        /// The file.
        file: String,
        /// What was wanted and what was found.
        message: String,
    },
}

impl LoadError {
    /// What to do, where there is more to say than the message does.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Missing { help, .. } => Some(help),
            Self::Format { .. } => Some("it may be cut short: copy or download it again"),
            Self::Mismatch(_) | Self::PartMismatch { .. } => Some(
                "weights and `config.json` must come from the same model: copy or download both \
                 again",
            ),
            _ => None,
        }
    }

    /// Names the part whose weights do not fit.
    #[must_use]
    pub fn of_part(self, part: &'static str) -> Self {
        match self {
            Self::Mismatch(problems) => Self::PartMismatch { part, problems },
            error => error,
        }
    }
}
