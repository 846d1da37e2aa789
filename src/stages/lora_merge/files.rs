//! Adapters that come from files of other programs.

use std::path::Path;

use super::{
    super::{CheckWarning, ImageRecord, Stage, StageError, Surroundings, check::agreement::FILES},
    LoraMerge, Recorded,
};
use crate::{
    models::{
        Adapter,
        lora::{PEFT_CONFIG, PEFT_WEIGHTS, Statement, check_head, refused_name, size_of_factors},
        source::MAX_CONFIG,
    },
    store::SourceReader,
};

impl LoraMerge {
    /// What `files` state that may not be meant.
    pub(super) fn warnings_of_files(&self, around: &Surroundings<'_>) -> Vec<CheckWarning> {
        let Some(root) = self.source_root() else { return Vec::new() };
        let stated = |file| Some((file, around.models.adapter(&root.join(file))?));
        let stated = self.files.iter().filter_map(stated);
        let warnings = stated.flat_map(|(file, stated)| {
            let of_scale = (self.weights.is_empty() && !stated.scale).then(|| silent(file));
            of_scale.into_iter().chain(self.other_base(file, &stated))
        });
        warnings.map(|message| CheckWarning { param: Some("files"), message }).collect()
    }

    /// A file that states another model than the one it is merged into.
    fn other_base(&self, file: &str, stated: &Statement) -> Option<String> {
        let repository = self.model.as_ref()?.repository()?;
        let base = stated.base.as_ref().filter(|_| stated.is_for_another(repository))?;
        Some(format!(
            "merges `{file}` into `{repository}`, but the file states that it was trained on `{base}`"
        ))
    }

    /// The bytes of `files`, as far as they are there: as they are or as factors, whichever is
    /// more.
    pub(super) fn size_of_files(&self) -> u64 {
        let Some(root) = &self.root else { return 0 };
        let size = |file: &String| {
            let path = Path::new(root).join(file);
            let len = path.metadata().map_or(0, |meta| meta.len());
            len.max(size_of_factors(&path).unwrap_or(0))
        };
        self.files.iter().map(size).sum()
    }

    /// How the image was given in the training of `files`, as stated here.
    pub(super) fn of_files(&self) -> Option<Recorded> {
        let record = ImageRecord {
            scale: self.image_latent_scale,
            causal_time: self.causal_time,
            frame_rate: self.frame_rate,
        };
        (!self.files.is_empty()).then_some((FILES, record))
    }
}

/// A file that does not say how strong it is.
fn silent(file: &str) -> String {
    format!(
        "reads `{file}`, which does not state its scale (alpha by rank): it is taken to be 1, as diffusers \
         does, though CogVideo's trainer and diffusers' example save such files of any alpha; state it in \
         `weights`"
    )
}

/// Reads an adapter file; peft keeps the scale in another file beside it.
pub(super) fn read_file(sources: &SourceReader, file: &str) -> Result<Adapter, StageError> {
    if let Some(refused) = refused_name(file) {
        return Err(StageError::failed(format!("`{file}` {refused}"))
            .with_help("save the adapter as safetensors"));
    }
    // What shows in the header need not be read in full, which may be more than fits.
    check_head(sources.open(file)?, file)?;
    let bytes = sources.read(file)?;
    if Path::new(file).file_name().is_some_and(|name| name == PEFT_WEIGHTS) {
        let config = Path::new(file).with_file_name(PEFT_CONFIG);
        let config = sources.read_at_most(&config.to_string_lossy(), MAX_CONFIG)?;
        return Ok(Adapter::from_peft(&config, &bytes)?);
    }
    Ok(Adapter::from_diffusers(&bytes)?)
}
