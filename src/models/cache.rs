//! The models a run keeps loaded.

use std::sync::{Arc, Mutex, MutexGuard};

use blake3::Hash;
use burn::tensor::{Device, FloatDType};

use super::{
    Adapter, Denoiser, LoadError, MODELS, ModelSource, NoiseScheduler, ParamReader, Params,
    Sampler, TextEncoder, TextFormat, VideoDiffusion, VideoVae, one_of,
    t5::{T5Encoder, tie_embeddings},
};
use crate::sync::Unpoisoned;

/// Models of one kind that a process keeps loaded; the one used longest ago leaves first.
pub const MODELS_KEPT: usize = 2;

/// The type weights are kept in: bf16 on GPUs, f32 on the CPU, where bf16 arithmetic is a detour
/// over f32.
pub fn weight_dtype(device: &Device) -> FloatDType {
    if *device == Device::flex() { FloatDType::F32 } else { FloatDType::BF16 }
}

/// The family of a model, by the class its transformer's configuration names.
pub fn family(source: &ModelSource) -> Result<&'static dyn VideoDiffusion, LoadError> {
    let config = source.config("transformer")?;
    let class = config.get("_class_name").and_then(|name| name.as_str()).unwrap_or_default();
    MODELS.iter().find(|model| model.class_name() == class).copied().ok_or_else(|| {
        let known: Vec<_> =
            MODELS.iter().map(|model| format!("`{}`", model.class_name())).collect();
        LoadError::Config {
            file: "transformer/config.json".to_owned(),
            message: format!("`_class_name` must be {}, but is `{class}`", known.join(" or ")),
        }
    })
}

/// The family of a model's autoencoder, which need not be that of its transformer: that of the
/// class which its file names, or the transformer's where it names none.
pub fn family_of_vae(source: &ModelSource) -> Result<&'static dyn VideoDiffusion, LoadError> {
    let config = source.config("vae").unwrap_or_default();
    let class = config.get("_class_name").and_then(|name| name.as_str());
    let named = MODELS.iter().find(|model| class == Some(model.vae_class()));
    match named {
        Some(model) => Ok(*model),
        None if source.has("vae/config.json") && !source.has("transformer/config.json") => {
            let known: Vec<_> =
                MODELS.iter().map(|model| format!("`{}`", model.vae_class())).collect();
            Err(LoadError::Config {
                file: "vae/config.json".to_owned(),
                message: format!(
                    "`_class_name` must be {}, but is `{}`",
                    known.join(" or "),
                    class.unwrap_or_default()
                ),
            })
        }
        None => family(source),
    }
}

/// The format of prompts in the pipeline that a model is published with.
pub fn published_text_format(source: &ModelSource) -> Result<TextFormat, LoadError> {
    match family(source)?.text_formats() {
        [only] => Ok(*only),
        _ => Ok(published_sampler(source)?.text_format()),
    }
}

/// The sampler of the pipeline that a model is published with.
pub fn published_sampler(source: &ModelSource) -> Result<Sampler, LoadError> {
    Ok(family(source)?.published_sampler(&source.config("scheduler")?))
}

/// A thing that is loaded.
struct Entry<T: ?Sized> {
    digest: Hash,
    device: Device,
    bytes: u64,
    value: Arc<T>,
}

/// Drops a thing and has its device give the memory back.
fn release<T: ?Sized>(entry: Entry<T>) {
    let Entry { device, value, .. } = entry;
    drop(value);
    // What is dropped waits in a queue that a clean-up does not; a device that fails says so to
    // whoever asks it next.
    let _ = device.sync();
    device.memory_cleanup();
}

/// Things by the content of their files and the device they are on.
struct Kept<T: ?Sized>(Mutex<Vec<Entry<T>>>);

impl<T: ?Sized> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: ?Sized> Kept<T> {
    /// The thing of `digest` on `device`, loaded unless it is here. Whoever asks meanwhile waits,
    /// so that nothing is loaded twice.
    fn get_or_load(
        &self,
        digest: Hash,
        device: &Device,
        load: impl FnOnce() -> Result<(Arc<T>, u64), LoadError>,
    ) -> Result<Arc<T>, LoadError> {
        let mut kept = self.lock();
        let here = kept.iter().position(|entry| entry.digest == digest && entry.device == *device);
        let entry = if let Some(index) = here {
            kept.remove(index)
        } else {
            if kept.len() >= MODELS_KEPT {
                // Before loading, so that its memory is free for the new one.
                release(kept.remove(0));
            }
            let (value, bytes) = load()?;
            Entry { digest, device: device.clone(), bytes, value }
        };
        let value = Arc::clone(&entry.value);
        kept.push(entry);
        Ok(value)
    }

    /// The bytes of things other than `wanted`.
    fn others(&self, wanted: Option<Hash>) -> u64 {
        let others = |entry: &&Entry<T>| Some(entry.digest) != wanted;
        self.lock().iter().filter(others).map(|entry| entry.bytes).sum()
    }

    /// Drops things other than `wanted`, so that their memory is free on their devices.
    fn keep_only(&self, wanted: Option<Hash>) {
        let mut kept = self.lock();
        kept.extract_if(.., |entry| Some(entry.digest) != wanted).for_each(release);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry<T>>> {
        self.0.lock().unpoisoned()
    }

    /// Drops all things, and leaves the devices alone: one of them may have failed.
    fn clear(&self) {
        self.lock().clear();
    }
}

/// The models a run keeps loaded, by the digest of their part; shared by all stages.
///
/// Devices are taken without autodiff: what is kept is frozen.
#[derive(Default)]
pub struct ModelCache {
    denoisers: Kept<Params>,
    vaes: Kept<dyn VideoVae>,
}

impl ModelCache {
    /// Before a stage that needs so many bytes with its own model, and where no other stage runs:
    /// drops the models of other stages if they leave too little of `limit`.
    pub fn make_room(&self, needed: u64, limit: u64, source: Option<&ModelSource>) {
        if needed + self.vaes.others(None) + self.denoisers.others(None) <= limit {
            return;
        }
        let digest = |part| source.and_then(|source| source.digest(&[part]).ok());
        let (vae, denoiser) = (digest("vae"), digest("transformer"));
        if needed + self.vaes.others(vae) + self.denoisers.others(denoiser) > limit {
            self.vaes.keep_only(vae);
            self.denoisers.keep_only(denoiser);
        }
    }

    /// Drops all models. Whoever still uses one keeps it alive until he is done.
    pub fn clear(&self) {
        self.denoisers.clear();
        self.vaes.clear();
    }

    /// The VAE of a model.
    pub fn vae(
        &self,
        source: &ModelSource,
        device: &Device,
    ) -> Result<Arc<dyn VideoVae>, LoadError> {
        let device = device.clone().without_autodiff();
        self.vaes.get_or_load(source.digest(&["vae"])?, &device, || {
            let params = unchanged(source, "vae", || source.params("vae", &device))?;
            let reader = ParamReader::loaded(&params, None);
            let vae = family_of_vae(source)?.vae(&source.config("vae")?, &reader);
            Ok((Arc::from(whole("vae", vae, &reader)?), bytes(&params, &device)))
        })
    }

    /// The transformer of a model with an adapter; the base's tensors are shared.
    pub fn denoiser(
        &self,
        source: &ModelSource,
        adapter: Option<&Adapter>,
        device: &Device,
    ) -> Result<Arc<dyn Denoiser>, LoadError> {
        let device = device.clone().without_autodiff();
        let params = self.denoiser_params(source, &device)?;
        if let Some(adapter) = adapter {
            adapter.check_against(&params)?;
        }
        let adapter = adapter.map(|adapter| adapter.to_device(&device));
        let reader = ParamReader::loaded(&params, adapter.as_ref());
        let denoiser = family(source)?.denoiser(&source.config("transformer")?, &reader);
        Ok(Arc::from(whole("transformer", denoiser, &reader)?))
    }

    /// The transformer's parameters, for training, which builds the model anew at each step.
    pub fn denoiser_params(
        &self,
        source: &ModelSource,
        device: &Device,
    ) -> Result<Arc<Params>, LoadError> {
        let device = device.clone().without_autodiff();
        self.denoisers.get_or_load(source.digest(&["transformer"])?, &device, || {
            let params =
                unchanged(source, "transformer", || source.params("transformer", &device))?;
            let bytes = bytes(&params, &device);
            Ok((Arc::new(params), bytes))
        })
    }

    /// The scheduler of a model with a sampler of its family, by default the family's own.
    pub fn scheduler(
        &self,
        source: &ModelSource,
        sampler: Option<Sampler>,
    ) -> Result<Box<dyn NoiseScheduler>, LoadError> {
        let family = family(source)?;
        let sampler = one_of("sampler", sampler, family.samplers())?;
        family.scheduler(&source.config("scheduler")?, sampler)
    }

    /// The text encoder of a model; not kept, since one prompt is encoded once.
    pub fn text_encoder(
        &self,
        source: &ModelSource,
        device: &Device,
    ) -> Result<Arc<dyn TextEncoder>, LoadError> {
        let device = device.clone().without_autodiff();
        let mut params = source.params("text_encoder", &device)?;
        tie_embeddings(&mut params);
        let reader = ParamReader::loaded(&params, None);
        let encoder = T5Encoder::new(&source.config("text_encoder")?, &reader);
        Ok(Arc::new(whole("text_encoder", encoder, &reader)?))
    }
}

/// What is read of a part whose files stay the same meanwhile: it is kept under their digest.
fn unchanged<T>(
    source: &ModelSource,
    part: &'static str,
    read: impl FnOnce() -> Result<T, LoadError>,
) -> Result<T, LoadError> {
    let before = source.states(&[part])?;
    let value = read()?;
    if source.states(&[part])? == before { Ok(value) } else { Err(LoadError::Changed { part }) }
}

/// The memory that parameters take on a device.
fn bytes(params: &Params, device: &Device) -> u64 {
    let value = if weight_dtype(device) == FloatDType::F32 { 4 } else { 2 };
    params.num_values() as u64 * value
}

/// A part that took all its weights and no others; an error names the part.
fn whole<T>(
    part: &'static str,
    built: Result<T, LoadError>,
    reader: &ParamReader<'_>,
) -> Result<T, LoadError> {
    let built = built.and_then(|built| reader.finish().map(|()| built));
    built.map_err(|error| error.of_part(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_loaded_once_and_the_oldest_leaves_first() {
        let (kept, device) = (Kept::<u32>::default(), Device::flex());
        let loads = std::cell::Cell::new(0);
        let get = |name: &str| {
            *kept
                .get_or_load(blake3::hash(name.as_bytes()), &device, || {
                    loads.set(loads.get() + 1);
                    Ok((Arc::new(loads.get()), 10))
                })
                .unwrap()
        };
        assert_eq!((get("a"), get("b"), get("a"), get("c")), (1, 2, 1, 3));
        assert_eq!((get("a"), get("b")), (1, 4), "b was used longest ago");
        let wanted = Some(blake3::hash(b"a"));
        assert_eq!((kept.others(wanted), kept.others(None)), (10, 20));
        kept.keep_only(wanted);
        assert_eq!((kept.others(wanted), get("a"), get("b")), (0, 1, 5), "a was kept, b was not");
    }

    #[test]
    fn a_failed_load_leaves_nothing_behind() {
        let (kept, device) = (Kept::<u32>::default(), Device::flex());
        let digest = blake3::hash(b"a");
        let failed = kept.get_or_load(digest, &device, || {
            Err(LoadError::Config { file: String::new(), message: String::new() })
        });
        assert!(failed.is_err());
        assert_eq!(*kept.get_or_load(digest, &device, || Ok((Arc::new(5), 1))).unwrap(), 5);
    }

    #[test]
    fn what_changes_while_it_is_read_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("vae")).unwrap();
        for (file, text) in [("config.json", "{}"), ("diffusion_pytorch_model.safetensors", "x")] {
            std::fs::write(dir.path().join("vae").join(file), text).unwrap();
        }
        let source = ModelSource::Folder(dir.path().to_owned());
        assert_eq!(unchanged(&source, "vae", || Ok(1)).unwrap(), 1);
        let changing = || {
            std::fs::write(dir.path().join("vae/diffusion_pytorch_model.safetensors"), "yz")
                .unwrap();
            Ok(2)
        };
        assert!(matches!(
            unchanged(&source, "vae", changing),
            Err(LoadError::Changed { part: "vae" })
        ));
    }

    #[test]
    fn an_unknown_class_lists_the_known_ones() {
        let config = br#"{"_class_name": "X"}"#.to_vec();
        let files = [("transformer/config.json".to_owned(), config.into())];
        let source = ModelSource::Files { files: Arc::new(files.into()), base: None };
        let message = family(&source).err().unwrap().to_string();
        assert!(
            message.contains("`CogVideoXTransformer3DModel`") && message.contains("`X`"),
            "{message}"
        );
    }
}
