//! Training of all parameters of one part of a model.

use serde_json::Value;

use super::{
    super::{LoadError, ParamReader, VideoDiffusion},
    CHECKPOINT, ClipSize, F32, Given, Memory, Shapes, VAE_KEPT, held_on_device, held_on_host,
    latent_values, latents, map, passes, trained, values,
};

/// Training of all parameters of one part, in f32.
#[derive(Clone, Copy)]
pub struct Pretraining<'a> {
    /// The part's family.
    pub family: &'static dyn VideoDiffusion,
    /// Its `config.json`.
    pub config: &'a Value,
    /// Clips per batch.
    pub batch: usize,
    /// Whether an average of the parameters is kept.
    pub averages: bool,
    /// Whether the device is the CPU.
    pub on_host: bool,
}

impl Pretraining<'_> {
    fn trained(&self, shapes: &Shapes) -> u64 {
        let average = match (self.averages, self.on_host) {
            (false, _) => 0,
            (true, false) => F32,
            (true, true) => 3 * F32,
        };
        values(shapes) * (trained(self.on_host) + average)
    }

    /// What training of an autoencoder holds on the host beside a GPU: a checkpoint while it is
    /// made.
    pub fn beside_vae(&self) -> Result<Memory, LoadError> {
        let reader = ParamReader::shapes();
        self.family.vae(self.config, &reader)?;
        Ok(Memory { trained: self.checkpoint(&reader.into_shapes()), ..Memory::default() })
    }

    /// Bytes of a checkpoint while it is made.
    fn checkpoint(&self, shapes: &Shapes) -> u64 {
        values(shapes) * (CHECKPOINT + if self.averages { 2 * F32 } else { 0 })
    }

    /// Training of an autoencoder on pieces of this size.
    pub fn vae(&self, piece: ClipSize) -> Result<Memory, LoadError> {
        let reader = ParamReader::shapes();
        self.family.vae(self.config, &reader)?;
        let map = self.family.largest_map(self.config, piece)? * self.batch as u64;
        Ok(Memory {
            trained: self.trained(&reader.into_shapes()),
            activations: VAE_KEPT * map * F32,
            ..Memory::default()
        })
    }

    /// Training of a denoiser on latents that this VAE makes of such clips; `recomputed` as in
    /// [`super::LoraTraining`].
    pub fn denoiser(
        &self,
        clip: ClipSize,
        vae: &Value,
        recomputed: usize,
        given: &Given,
    ) -> Result<Memory, LoadError> {
        let reader = ParamReader::shapes();
        let denoiser = self.family.denoiser(self.config, &reader)?;
        let vae = self.family.vae(vae, &ParamReader::shapes())?;
        let format = || self.family.prompt_format(self.config, self.family.text_formats()[0]);
        let text = given.tokens.map_or_else(|| format().map(|format| format.tokens), Ok)?;
        let pass = self.family.pass(self.config, latents(clip, vae.compression()), text)?;
        let (maps, scores) =
            passes(&pass, self.family.kept_maps(None), (self.batch, recomputed, self.on_host));
        Ok(Memory {
            trained: self.trained(&reader.into_shapes()),
            activations: maps * map(&pass, self.batch) * F32,
            attention: scores * F32,
            clips: held_on_device(&latent_values(clip, &*vae, &*denoiser), given, self.on_host),
            ..Memory::default()
        })
    }

    /// The same of a denoiser, with encodings of images.
    pub fn beside_denoiser(
        &self,
        clip: ClipSize,
        vae: &Value,
        given: &Given,
    ) -> Result<Memory, LoadError> {
        let shapes = ParamReader::shapes();
        let denoiser = self.family.denoiser(self.config, &shapes)?;
        let vae = self.family.vae(vae, &ParamReader::shapes())?;
        let clips = held_on_host(&latent_values(clip, &*vae, &*denoiser), given);
        let trained = self.checkpoint(&shapes.into_shapes());
        Ok(Memory { trained, clips, ..Memory::default() })
    }
}
