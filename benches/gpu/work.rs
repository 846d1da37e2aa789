//! What a case does.

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use pipe::{
    models::{
        Adapter, Denoiser, DenoiserInput, LoadError, MODELS, ParamReader, Params, Sampler,
        TextEncoder, TimeAxis, VideoDiffusion,
        sampling::{Sample, Sampling},
        t5::T5Encoder,
        weight_dtype,
    },
    rng::TorchRng,
    train::{
        batch::Batch,
        gradient::{Gradients, Recompute},
        optimizer::{AdamW, Moments, clip_factor, global_norm},
        shards::sharded_gradients,
    },
};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

use super::{
    cases::{Case, Kind, Parts, Table},
    hashed,
};

/// How often one variant is repeated at least and at most.
const REPEATS: [usize; 2] = [3, 20];

/// Parameters that stay loaded from case to case: a model's part.
struct Loaded {
    key: String,
    params: Params,
}

/// What is repeated, and how long.
pub struct Repeats {
    /// Seconds that one variant is repeated for.
    pub budget: f64,
    /// The only variant of trainings.
    pub only: Option<String>,
}

/// Cases on one device.
pub struct Work<'a> {
    table: &'a Table,
    device: Device,
    tiny: bool,
    out: PathBuf,
    repeats: Repeats,
    loaded: Option<Loaded>,
}

type Outcome = Result<Value, String>;

impl<'a> Work<'a> {
    /// Nothing is loaded yet.
    pub fn new(
        table: &'a Table,
        device: Device,
        tiny: bool,
        out: PathBuf,
        repeats: Repeats,
    ) -> Self {
        Self { table, device, tiny, out, repeats, loaded: None }
    }

    /// Gives back what a case has left.
    pub fn clean_up(&self) {
        // What was dropped is given back in the order of work.
        let _ = self.device.sync();
        self.device.memory_cleanup();
    }

    /// Does a case and gives its figures.
    pub fn run(&mut self, case: &Case) -> Outcome {
        let model = &self.table.models[&case.model];
        let sized = model.of_size(self.tiny);
        match case.kind {
            Kind::Text => return self.text(case, sized),
            Kind::Encode | Kind::Decode => return self.vae(case, sized),
            _ => {}
        }
        let family = self.family(case);
        let config = sized.transformer.clone();
        self.load(case, "transformer", |reader| family.denoiser(&config, reader).map(drop))?;
        match case.kind {
            Kind::Forward => self.forward(case, sized),
            Kind::Sample => self.sample(case, sized),
            Kind::Soak => self.soak(case, sized),
            _ => self.train(case, sized),
        }
    }

    fn family(&self, case: &Case) -> &'static dyn VideoDiffusion {
        let class = &self.table.models[&case.model].class;
        *MODELS.iter().find(|model| model.class_name() == class).expect("the table names a family")
    }

    /// Makes the parameters that a constructor asks for, unless they are here.
    fn load(
        &mut self,
        case: &Case,
        part: &str,
        build: impl FnOnce(&ParamReader<'_>) -> Result<(), LoadError>,
    ) -> Result<(), String> {
        let key = format!("{} {part}", case.model);
        if self.loaded.as_ref().is_some_and(|loaded| loaded.key == key) {
            return Ok(());
        }
        self.loaded = None;
        self.clean_up();
        let reader = ParamReader::shapes();
        build(&reader).map_err(|error| error.to_string())?;
        let params =
            hashed::params(&reader.into_shapes(), &self.device, weight_dtype(&self.device));
        self.loaded = Some(Loaded { key, params });
        Ok(())
    }

    fn params(&self) -> &Params {
        &self.loaded.as_ref().expect("loaded before").params
    }

    fn denoiser(
        &self,
        case: &Case,
        adapter: Option<&Adapter>,
    ) -> Result<Box<dyn Denoiser>, LoadError> {
        let config = &self.table.models[&case.model].of_size(self.tiny).transformer;
        self.family(case).denoiser(config, &ParamReader::loaded(self.params(), adapter))
    }

    /// Latent frames without padding, rows and columns.
    fn latents(&self, case: &Case) -> [usize; 3] {
        let [time, space] = self.table.models[&case.model].compression;
        let [frames, height, width] = case.clip(self.tiny);
        [(frames - 1) / time + 1, height / space, width / space]
    }

    fn input(&self, case: &Case, sized: &Parts, denoiser: &dyn Denoiser) -> DenoiserInput {
        let [frames, height, width] = self.latents(case);
        let frames = frames + denoiser.num_padding_frames(frames);
        let (batch, channels) = (case.batch, sized.latent_channels);
        let [tokens, dim] = sized.text;
        let conditioning = denoiser.image_conditioning();
        // As the other side: 37, 137, 237 and so on below 1000.
        let timesteps = (0..batch)
            .flat_map(|i| conditioning.timesteps((37 + 100 * i % 900) as f32, frames, true));
        DenoiserInput {
            latents: self.hashed("latents", [batch, channels, frames, height, width]),
            image: self.hashed("image", [batch, channels, 1, height, width]),
            text: self.hashed("text", [batch, tokens, dim]),
            timesteps: timesteps.collect(),
            time: TimeAxis::default(),
        }
    }

    fn hashed<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        hashed::input(&format!("input.{name}"), shape, &self.device)
    }

    fn sync(&self) -> Result<(), String> {
        self.device.sync().map_err(|error| error.to_string())
    }

    /// Figures of a variant: its first call with its warm-up, the median of some more, and the
    /// memory after them.
    fn measure(&self, name: &str, mut call: impl FnMut() -> Result<(), String>) -> Outcome {
        phase(&format!("{name}, first call"));
        let mut once = || -> Result<f64, String> {
            let start = Instant::now();
            call()?;
            self.sync()?;
            Ok(start.elapsed().as_secs_f64())
        };
        let first = once()?;
        // Choices among kernels may fall in the second call still.
        once()?;
        phase(&format!("{name}, repeated"));
        let (start, mut times) = (Instant::now(), Vec::new());
        while times.len() < REPEATS[0]
            || times.len() < REPEATS[1] && start.elapsed().as_secs_f64() < self.repeats.budget
        {
            times.push(once()?);
        }
        times.sort_by(f64::total_cmp);
        let figures = self.variant([first, times[times.len() / 2]]);
        phase("rest");
        Ok(figures)
    }

    /// The same of what has one variant and cannot fail.
    fn measure_value<T>(&self, call: impl Fn() -> T) -> Outcome {
        let plain = self.measure("plain", || {
            drop(call());
            Ok(())
        })?;
        Ok(json!({ "variants": { "plain": plain } }))
    }

    fn variant(&self, [first, secs]: [f64; 2]) -> Value {
        let usage = self.device.memory_pool_usage();
        json!({
            "first_secs": first,
            "secs": secs,
            "in_use": usage.as_ref().map(|usage| usage.bytes_in_use),
            "reserved": usage.as_ref().map(|usage| usage.bytes_reserved),
        })
    }

    fn forward(&self, case: &Case, sized: &Parts) -> Outcome {
        let denoiser = self.denoiser(case, None).map_err(|error| error.to_string())?;
        let input = self.input(case, sized, &*denoiser);
        let figures = self.measure_value(|| denoiser.forward(&input))?;
        self.write(case, [("out".to_owned(), denoiser.forward(&input))])?;
        Ok(figures)
    }

    /// The adapter's factors by name, moved off zero.
    fn adapter(&self, case: &Case) -> Result<Adapter, String> {
        let targets = case.targets.expect("a training says what it adapts");
        let targets = self.family(case).lora_targets(targets);
        let rank = if self.tiny { 4 } else { case.rank };
        let fresh = Adapter::new_fresh(self.params(), targets, rank, rank as f64, 1, &self.device);
        let mut fresh = fresh.map_err(|error| error.to_string())?;
        let shapes: BTreeMap<_, _> = fresh
            .factors
            .0
            .iter()
            .map(|(name, param)| (name.clone(), param.shape.clone()))
            .collect();
        fresh.factors = hashed::params(&shapes, &self.device, FloatDType::F32);
        Ok(fresh)
    }

    fn batch(&self, case: &Case, sized: &Parts) -> Result<Batch, String> {
        let denoiser = self.denoiser(case, None).map_err(|error| error.to_string())?;
        let input = self.input(case, sized, &*denoiser);
        let target = self.hashed("target", input.latents.dims());
        Ok(Batch { input, target, weights: None })
    }

    fn gradients(
        &self,
        case: &Case,
        adapter: &Adapter,
        factors: &Params,
        batch: &Batch,
        recompute: Recompute,
    ) -> Result<Gradients, String> {
        let build = |factors: &Params| {
            let adapter = Adapter { factors: factors.clone(), ..adapter.clone() };
            self.denoiser(case, Some(&adapter))
        };
        sharded_gradients(&build, factors, batch, recompute).map_err(|error| error.to_string())
    }

    fn train(&self, case: &Case, sized: &Parts) -> Outcome {
        let (adapter, batch) = (self.adapter(case)?, self.batch(case, sized)?);
        phase("recompute, gradients");
        let start = Instant::now();
        let found = self.gradients(case, &adapter, &adapter.factors, &batch, Recompute::BLOCK)?;
        self.sync()?;
        // With all that is compiled for it, where nothing was kept.
        let cold = start.elapsed().as_secs_f64();
        let moved = self.optimizer_error(&adapter, &found.by_name);
        self.write(case, found.by_name)?;
        let mut variants = serde_json::Map::new();
        for (name, recompute) in [("recompute", Recompute::BLOCK), ("plain", Recompute::NONE)] {
            if self.repeats.only.as_ref().is_some_and(|only| only != name) {
                continue;
            }
            tracing::info!(variant = name, "training");
            let mut trainer = Trainer::new(&adapter);
            let figures = self.measure(name, || {
                trainer.step(|factors| self.gradients(case, &adapter, factors, &batch, recompute))
            });
            // One that does not fit leaves the other.
            let figures = figures.unwrap_or_else(|error| json!({ "error": error }));
            variants.insert(name.to_owned(), figures);
            self.clean_up();
        }
        Ok(
            json!({ "variants": variants, "loss": found.loss, "cold_secs": cold, "optimizer_error": moved }),
        )
    }

    /// By how much two steps of the optimizer move parameters otherwise here than on the CPU, of
    /// the learning rate.
    fn optimizer_error(&self, adapter: &Adapter, gradients: &BTreeMap<String, Tensor<1>>) -> f32 {
        const RATE: f64 = 1e-3;
        let some: Vec<_> = adapter.factors.0.keys().take(4).cloned().collect();
        let moved = |device: &Device| {
            let on = |x: &Tensor<1>| x.clone().to_device(device);
            let pick = |name: &String| {
                let mut param = adapter.factors.0[name].clone();
                param.flat = on(&param.flat);
                (name.clone(), param)
            };
            let mut factors = Params(some.iter().map(pick).collect());
            let mut moments = Moments::default();
            for step in 1..=2 {
                let given = some.iter().map(|name| (name.clone(), on(&gradients[name]))).collect();
                AdamW::default().step((step, RATE), &mut factors, given, 0.7, &mut moments);
            }
            let flat = factors.0.into_values().map(|param| param.flat).collect();
            Tensor::cat(flat, 0).to_device(&Device::flex())
        };
        let apart = (moved(&self.device) - moved(&Device::flex())).abs().max();
        apart.into_scalar::<f32>() / RATE as f32
    }

    /// Many steps, each on a batch of its own: what is in use early on and at the end.
    fn soak(&self, case: &Case, sized: &Parts) -> Outcome {
        let (adapter, mut batch) = (self.adapter(case)?, self.batch(case, sized)?);
        let shape = batch.target.dims();
        let (name, recompute) = if case.recompute {
            ("recompute", Recompute::BLOCK)
        } else {
            ("plain", Recompute::NONE)
        };
        phase(&format!("{name}, repeated"));
        let mut trainer = Trainer::new(&adapter);
        let mut usage = Vec::new();
        let mut steps = Vec::new();
        for step in 1..=case.steps {
            batch.input.latents = self.hashed(&format!("latents.{step}"), shape);
            batch.target = self.hashed(&format!("target.{step}"), shape);
            let start = Instant::now();
            trainer.step(|factors| self.gradients(case, &adapter, factors, &batch, recompute))?;
            self.sync()?;
            steps.push(start.elapsed().as_secs_f64());
            if step % (case.steps / 10).max(1) == 0 {
                let pool = self.device.memory_pool_usage();
                let pool = pool.map(|pool| (pool.bytes_in_use, pool.bytes_reserved));
                usage.push(json!({ "step": step, "pool": pool, "resident": resident() }));
            }
        }
        let first = steps[0];
        steps.sort_by(f64::total_cmp);
        let figures = self.variant([first, steps[steps.len() / 2]]);
        phase("rest");
        Ok(json!({ "variants": { name: figures }, "usage": usage }))
    }

    fn sample(&self, case: &Case, sized: &Parts) -> Outcome {
        let denoiser = self.denoiser(case, None).map_err(|error| error.to_string())?;
        let family = self.family(case);
        let sampler = *family.samplers().iter().find(|s| **s != Sampler::Dpm).expect("one is ODE");
        let config = &self.table.models[&case.model].scheduler;
        let scheduler = family.scheduler(config, sampler).map_err(|error| error.to_string())?;
        let [frames, height, width] = self.latents(case);
        let [tokens, dim] = sized.text;
        let run = |num_steps: usize| -> Tensor<5> {
            let sampling = Sampling {
                denoiser: &*denoiser,
                scheduler: &*scheduler,
                num_steps,
                text: self.hashed("text", [1, tokens, dim]),
                guidance: None,
                condition: None,
                frame_rate: None,
            };
            let image = self.hashed("image", [1, sized.latent_channels, 1, height, width]);
            let compression = TimeAxis::default().compression;
            let sample = Sample { image, noise: None, rng: TorchRng::new(42), compression };
            let made = sampling.run::<std::convert::Infallible>(vec![sample], frames, |_| Ok(()));
            let Ok(mut made) = made;
            made.remove(0)
        };
        let figures = self.measure_value(|| run(case.steps))?;
        self.write(case, [("latents".to_owned(), run(case.steps))])?;
        Ok(figures)
    }

    fn vae(&mut self, case: &Case, sized: &Parts) -> Outcome {
        let family = self.family(case);
        self.load(case, "vae", |reader| family.vae(&sized.vae, reader).map(drop))?;
        let reader = ParamReader::loaded(self.params(), None);
        let vae = family.vae(&sized.vae, &reader).map_err(|error| error.to_string())?;
        let [frames, height, width] = self.latents(case);
        let [pixel_frames, rows, columns] = case.clip(self.tiny);
        let (name, figures, out) = if case.kind == Kind::Encode {
            // In the range of pixels.
            let video = self.hashed("video", [case.batch, 3, pixel_frames, rows, columns]) * 0.5;
            let encode = || vae.encode(video.clone()).mean;
            ("mean", self.measure_value(encode)?, encode())
        } else {
            let shape = [case.batch, sized.latent_channels, frames, height, width];
            let latents = self.hashed("latents", shape);
            let decode = || vae.decode(latents.clone());
            ("video", self.measure_value(decode)?, decode())
        };
        self.write(case, [(name.to_owned(), out)])?;
        Ok(figures)
    }

    fn text(&mut self, case: &Case, sized: &Parts) -> Outcome {
        let config = &sized.text_encoder;
        self.load(case, "text", |reader| T5Encoder::new(config, reader).map(drop))?;
        let reader = ParamReader::loaded(self.params(), None);
        let encoder = T5Encoder::new(config, &reader).map_err(|error| error.to_string())?;
        let vocabulary = config["vocab_size"].as_u64().expect("the table states it") as usize;
        let [tokens, _] = sized.text;
        let ids = hashed::ids("input.ids", tokens, vocabulary);
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, tokens]), &self.device);
        let figures = self.measure_value(|| encoder.encode(ids.clone(), None))?;
        self.write(case, [("hidden".to_owned(), encoder.encode(ids, None))])?;
        Ok(figures)
    }

    /// Writes results in f32, whole or not at all, whenever this is stopped.
    fn write<const D: usize>(
        &self,
        case: &Case,
        tensors: impl IntoIterator<Item = (String, Tensor<D>)>,
    ) -> Result<(), String> {
        let bytes: Vec<_> = tensors
            .into_iter()
            .map(|(name, tensor)| {
                let shape = tensor.dims().to_vec();
                let data = tensor.cast(FloatDType::F32).into_data();
                let values = data.try_into_vec::<f32>().expect("cast to f32 above");
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                (name, shape, bytes)
            })
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("of its shape"))
        });
        let path = self.out.join(format!("{}.ours.safetensors", case.file()));
        let part = path.with_extension("part");
        safetensors::serialize_to_file(views, None, &part).map_err(|error| error.to_string())?;
        std::fs::rename(&part, &path).map_err(|error| error.to_string())
    }
}

/// Says what the memory is used for from here on, for who looks at it meanwhile.
fn phase(name: &str) {
    println!("{}", json!({ "event": "phase", "phase": name }));
}

/// The factors of an adapter and what its optimizer keeps.
struct Trainer {
    factors: Params,
    moments: Moments,
    step: usize,
}

impl Trainer {
    fn new(adapter: &Adapter) -> Self {
        Self { factors: adapter.factors.clone(), moments: Moments::default(), step: 0 }
    }

    fn step(
        &mut self,
        gradients: impl FnOnce(&Params) -> Result<Gradients, String>,
    ) -> Result<(), String> {
        let found = gradients(&self.factors)?;
        let factor = clip_factor(global_norm(&found.by_name), 1.0);
        self.step += 1;
        let now = (self.step, 1e-4);
        AdamW::default().step(now, &mut self.factors, found.by_name, factor, &mut self.moments);
        Ok(())
    }
}

/// Bytes of this process in memory.
fn resident() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(pages.split(' ').nth(1)?.parse::<u64>().ok()? * 4096)
}
