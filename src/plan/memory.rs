//! The memory that stages' models take, told before anything is loaded.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use super::{
    advice::{Advice, TooLarge, Whose},
    size::Sizes,
};
use crate::{
    config::Pipeline,
    models::{ClipSize, Given, Memory},
    stages::{Bulk, KnownParts, ModelParts, Workload, given},
};

/// What decides an estimate: the work, by its place in memory, which its cells share, clips, what
/// is on the port `model`, there and where latents were encoded, by its place in memory, too, and how
/// much is on other ports.
type Case = (usize, Option<[usize; 3]>, [usize; 2], Given);

/// Estimates the memory of a pipeline's instances; those of one stage and equal parameters are
/// estimated once.
pub struct MemoryPlan<'a> {
    pipeline: &'a Pipeline,
    /// Whether the device is the CPU.
    on_host: bool,
    sizes: Sizes,
    /// What is on the ports `model`, if that is known.
    parts: Vec<Option<ModelParts>>,
    known: RefCell<HashMap<Case, [Option<Memory>; 2]>>,
}

impl<'a> MemoryPlan<'a> {
    /// Estimates for a run on the CPU, or on a GPU.
    pub fn new(pipeline: &'a Pipeline, on_host: bool) -> Self {
        let sizes = Sizes::new(pipeline, |index| Some(&*pipeline.instances[index].params));
        let mut known = KnownParts::default();
        // Inputs come before their users.
        let parts = pipeline.instances.iter();
        let parts = parts
            .map(|instance| known.add(&instance.work, instance.inputs.get("model").copied()))
            .collect();
        Self { pipeline, on_host, sizes, parts, known: RefCell::default() }
    }

    /// The memory of the device that an instance takes; none if it runs no model, or if its model
    /// or the size of its clips is not known here.
    pub fn of(&self, index: usize) -> Option<Memory> {
        self.both(index)[0]
    }

    /// The memory of the host that an instance takes beside a GPU, which it does not use.
    pub fn beside_gpu(&self, index: usize) -> Option<Memory> {
        if self.on_host { None } else { self.both(index)[1] }
    }

    fn both(&self, index: usize) -> [Option<Memory>; 2] {
        let Some(work) = self.workload(index) else { return [None; 2] };
        let stage = &self.pipeline.instances[index].work;
        let size = work.clip.map(|clip| [clip.frames, clip.height, clip.width]);
        let parts = [work.parts.id(), work.encoder.map_or(0, ModelParts::id)];
        let case = (Arc::as_ptr(stage).cast::<()>().addr(), size, parts, work.given);
        let mut known = self.known.borrow_mut();
        *known.entry(case).or_insert_with(|| {
            // What is wrong with a model is told by the stage that loads it.
            [stage.memory(&work), stage.host_memory(&work)].map(|memory| memory.ok().flatten())
        })
    }

    /// What would make an instance need less memory of the device.
    pub fn advice(&self, index: usize) -> Option<Advice<'_>> {
        Some(Advice::new(&self.pipeline.instances[index].work, self.workload(index)?))
    }

    /// An instance that needs more of the device than it has.
    pub fn too_large(&self, index: usize, needed: &Memory, limit: u64) -> TooLarge {
        let advice = self.advice(index);
        TooLarge::new(needed, limit, Whose::Device, advice.as_ref())
    }

    /// An instance that needs more of the machine, beside a GPU, than it has.
    pub fn too_large_beside_gpu(&self, index: usize, needed: &Memory, limit: u64) -> TooLarge {
        let advice = self.advice(index).map(Advice::beside_gpu);
        TooLarge::new(needed, limit, Whose::Machine, advice.as_ref())
    }

    /// What an instance is to do, unless it is done with a model that is not known.
    fn workload(&self, index: usize) -> Option<Workload<'_>> {
        let parts = self.parts[index].as_ref()?;
        let latents = self.pipeline.instances[index].inputs.get("latents");
        let encoder = latents.and_then(|latents| self.parts[*latents].as_ref());
        let given = given(&|port| self.bulk_on(index, port));
        Some(Workload { clip: self.clip(index), on_host: self.on_host, parts, encoder, given })
    }

    /// How much is on a port of an instance.
    fn bulk_on(&self, index: usize, port: &str) -> Bulk {
        let instances = &self.pipeline.instances;
        let Some(input) = instances[index].inputs.get(port) else { return Bulk::default() };
        instances[*input].work.bulk(&|port| self.bulk_on(*input, port))
    }

    /// The size of the clips an instance works on.
    fn clip(&self, index: usize) -> Option<ClipSize> {
        let [height, width] = self.sizes.image(index)?;
        Some(ClipSize { frames: self.sizes.frames(index)?, height, width })
    }
}

#[cfg(test)]
mod tests {
    use std::{io, path::Path};

    use super::*;
    use crate::{
        config::{LoadOptions, load, load_with},
        stages::STAGES,
    };

    /// Its autoencoder is on the port of the stage that encodes the latents.
    #[test]
    fn what_a_transformer_takes_is_known_where_its_autoencoder_was_trained_before_it() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/pretrain_tiny.toml");
        let pipeline = load(&path, &LoadOptions::default()).unwrap();
        let plan = MemoryPlan::new(&pipeline, true);
        for stage in ["vae", "transformer"] {
            let index = pipeline.instances.iter().position(|it| it.stage == stage).unwrap();
            let needed = plan.of(index).map(|memory| memory.total());
            assert!(needed.is_some_and(|bytes| bytes > 50 << 20), "{stage}: {needed:?}");
        }
    }

    const BEHIND: &str = r#"
[stages.pairs]
kind   = "dataset"
source = "builtin:figures"
task   = "pose"
count  = 1
size   = [32, 48]

[stages.prompt]
kind   = "text_encode"
model  = "builtin:tiny"

[stages.read]
kind   = "lora_merge"
root   = "nowhere"
files  = ["a.safetensors"]

[stages.once]
kind   = "lora_merge"
inputs = { first = "read" }
model  = "builtin:tiny"

[stages.twice]
kind   = "lora_merge"
inputs = { first = "read", model = "once" }
model  = "builtin:tiny"

[stages.larger]
kind   = "pretrain"
part   = "transformer"
steps  = 0

[stages.larger.config]
num_attention_heads = 2
attention_head_dim  = 64
in_channels    = 16
out_channels   = 8
num_layers     = 40
time_embed_dim = 8
text_embed_dim = 64
patch_size_t   = 2
use_rotary_positional_embeddings = true

[stages.plain]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt" }
model  = "builtin:tiny"
frames = 5

[stages.merged]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt", model = "twice" }
model  = "builtin:tiny"
frames = 5

[stages.pretrained]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt", model = "larger" }
model  = "builtin:tiny"
frames = 5
"#;

    fn pipeline() -> Pipeline {
        let read = |path: &Path| match path.to_str() {
            Some("behind.toml") => Ok(BEHIND.to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        load_with(STAGES, Path::new("behind.toml"), &LoadOptions::default(), &read).unwrap()
    }

    #[test]
    fn what_lies_behind_a_merge_or_a_training_is_planned() {
        let pipeline = pipeline();
        let find = |stage: &str| pipeline.instances.iter().position(|i| i.stage == stage).unwrap();
        for on_host in [true, false] {
            let plan = MemoryPlan::new(&pipeline, on_host);
            let of = |stage| plan.of(find(stage)).map(|memory| memory.total());
            assert!(of("plain").is_some());
            assert_eq!(of("merged"), of("plain"), "a merge keeps the configuration");
            assert!(of("pretrained") > of("plain"), "its transformer is larger");
        }
    }

    #[test]
    fn a_merge_needs_the_host_whatever_the_device_is() {
        let pipeline = pipeline();
        let find = |stage: &str| pipeline.instances.iter().position(|i| i.stage == stage).unwrap();
        let [host, gpu] = [true, false].map(|on_host| MemoryPlan::new(&pipeline, on_host));
        for stage in ["once", "twice"] {
            let needed = host.of(find(stage)).unwrap();
            assert_eq!((gpu.of(find(stage)), gpu.beside_gpu(find(stage))), (None, Some(needed)));
            assert_eq!(host.beside_gpu(find(stage)), None, "it is told as that of the device");
        }
        let sampled = gpu.of(find("plain")).unwrap();
        let beside = gpu.beside_gpu(find("plain")).unwrap();
        assert!(sampled.total() > 0 && beside.total() < sampled.weights, "a tensor at a time");
        assert_eq!(beside.total(), beside.weights);
        assert_eq!(gpu.beside_gpu(find("pairs")), None, "it loads no model");
        assert_eq!(host.of(find("read")), None, "there is no file yet");
    }
}
