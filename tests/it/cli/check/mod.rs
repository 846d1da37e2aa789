//! What `pipe check` says, and what else is told before anything runs.

mod data;
mod image_settings;
pub(super) mod mixed_models;
mod model_names;
mod models;
mod one_error_each;
mod position_embeddings;
mod pretrain;
mod prompt_formats;
mod several_files;
mod values;
