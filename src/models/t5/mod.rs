//! The encoder of T5 v1.1 and its tokenizer.
//!
//! Most published video pipelines call it without an attention mask: padding tokens attend and are
//! attended to, so the length of the padding is part of the prompt. LTX-Video's condition pipeline
//! gives the mask of the prompt.

mod charsmap;
mod config;
mod encoder;
mod sentencepiece;
mod tokenizer;
mod tokenizer_json;

pub use config::T5Config;
pub use encoder::{T5Encoder, tie_embeddings, tie_shapes};
pub use tokenizer::{Cut, T5Tokenizer, TokenizerFiles};
