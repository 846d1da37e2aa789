//! Any bytes are a tokenizer or an error, and a tokenizer encodes text of every kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipe::models::t5::{T5Tokenizer, TokenizerFiles};

const TEXTS: [&str; 4] =
    ["", "a dog, two  dogs", "\u{fb01}ne \u{1f642}\u{200d}\u{301}", "\0\u{feff}\n"];

fuzz_target!(|model: &[u8]| {
    // A `tokenizer.json` is text.
    let name = if model.starts_with(b"{") { "tokenizer.json" } else { "spiece.model" };
    let Ok(tokenizer) = T5Tokenizer::new(TokenizerFiles::by_name(name, model)) else { return };
    for text in TEXTS {
        if let Ok(ids) = tokenizer.encode(text, 16) {
            assert_eq!(ids.len(), 16);
        }
    }
});
