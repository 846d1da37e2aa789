//! The T5 encoder and its tokenizer.
