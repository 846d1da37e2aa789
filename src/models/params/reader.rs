//! Hands a model's constructor its tensors by name.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
};

use burn::tensor::{Device, FloatDType, Tensor, TensorData};

use super::{
    super::{
        lora::Adapter,
        nn::{Conv3d, Linear, LoraBranch},
        tables::Tables,
    },
    Init, LoadError, Param, Params, Problem, Problems, Start,
};
use crate::rng::TorchRng;

enum Source<'a> {
    /// Loaded tensors, all of which must be asked for.
    Loaded(&'a Params),
    /// New tensors, kept for the caller.
    Fresh { rng: RefCell<TorchRng>, device: Device, made: RefCell<Params>, start: Start },
    /// Names and shapes only.
    Shapes(RefCell<BTreeMap<String, Vec<usize>>>),
}

struct Shared<'a> {
    source: Source<'a>,
    adapter: Option<&'a Adapter>,
    tables: Arc<Tables>,
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
        Self::sharing(source, adapter, &Arc::default())
    }

    fn sharing(source: Source<'a>, adapter: Option<&'a Adapter>, tables: &Arc<Tables>) -> Self {
        let (asked, problems) = (RefCell::default(), RefCell::default());
        let shared = Shared { source, adapter, tables: Arc::clone(tables), asked, problems };
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

    /// The same for one of several models, which share what they make of a size.
    pub fn loaded_beside(
        params: &'a Params,
        adapter: Option<&'a Adapter>,
        tables: &Arc<Tables>,
    ) -> Self {
        Self::sharing(Source::Loaded(params), adapter, tables)
    }

    /// What the models of these parameters make of a size.
    pub fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.shared.tables)
    }

    /// Makes new parameters, drawn in the order the constructor asks for them.
    pub fn fresh(seed: u64, device: &Device) -> ParamReader<'static> {
        Self::fresh_with(seed, device, Start::Identity)
    }

    /// Makes new parameters from a seed.
    pub fn fresh_with(seed: u64, device: &Device, start: Start) -> ParamReader<'static> {
        let rng = RefCell::new(TorchRng::new(seed));
        let (device, made) = (device.clone(), RefCell::default());
        ParamReader::with(Source::Fresh { rng, device, made, start }, None)
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

    /// Whether values are those of a file.
    pub fn is_loaded(&self) -> bool {
        matches!(self.shared.source, Source::Loaded(_))
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
            Source::Fresh { rng, device, made, .. } => {
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

    /// A linear layer `[out, in]` with bias named `name`, with its LoRA branch if the adapter has
    /// one.
    pub fn linear(&self, name: impl Display, size: [usize; 2]) -> Linear {
        self.linear_with_bias_if(true, name, size)
    }

    /// The same without bias.
    pub fn linear_without_bias(&self, name: impl Display, size: [usize; 2]) -> Linear {
        self.linear_with_bias_if(false, name, size)
    }

    /// The same with bias if the configuration says so.
    pub fn linear_with_bias_if(
        &self,
        has_bias: bool,
        name: impl Display,
        [input, output]: [usize; 2],
    ) -> Linear {
        self.linear_of(name, [input, output], has_bias, Init::fan_in(input))
    }

    /// The modulation of an adaptive norm: like [`Self::linear`], but new ones are zero
    /// for [`Start::Identity`].
    pub fn zero_linear(&self, name: impl Display, size: [usize; 2]) -> Linear {
        let is_random = matches!(self.shared.source, Source::Fresh { start: Start::Random, .. });
        let init = if is_random { Init::fan_in(size[0]) } else { Init::Zeros };
        self.linear_of(name, size, true, init)
    }

    fn linear_of(
        &self,
        name: impl Display,
        [input, output]: [usize; 2],
        has_bias: bool,
        init: Init,
    ) -> Linear {
        let scope = self.scope(name);
        let weight = scope.tensor("weight", [output, input], init);
        let bias = has_bias.then(|| scope.tensor("bias", [output], init));
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
            let [a, b] = [a, b].map(|factor| factor.flat.clone());
            Some(LoraBranch { a, b, scale: adapter.scale() })
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
