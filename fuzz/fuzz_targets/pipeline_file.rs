//! Any text is a pipeline or a list of errors that can be shown.
#![no_main]

use std::{io, path::Path};

use libfuzzer_sys::fuzz_target;
use miette::GraphicalTheme;
use pipe::{
    config::{LoadOptions, load_with},
    stages::STAGES,
};

fuzz_target!(|text: &str| {
    let file = Path::new("fuzz.toml");
    let read = |path: &Path| {
        if path == file { Ok(text.to_owned()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    if let Err(errors) = load_with(STAGES, file, &LoadOptions::default(), &read) {
        assert!(!errors.errors.is_empty());
        // Carets stand in the file, whatever characters it has.
        let _ = errors.render(GraphicalTheme::unicode_nocolor(), 80);
        let _ = errors.to_json().to_string();
    }
});
