//! Any bytes are an adapter or an error, by their header as in full, and what is written of one is
//! read again.
#![no_main]

use std::{io::Write, path::Path};

use libfuzzer_sys::fuzz_target;
use pipe::models::{
    Adapter, LoadError,
    lora::{check_outline, size_of_factors},
};

const PEFT: &[u8] = br#"{"r": 2, "lora_alpha": 4, "rank_pattern": {"k": 1}}"#;

fuzz_target!(|bytes: &[u8]| {
    let _ = Adapter::from_peft(PEFT, bytes);
    // In memory, where there is such a folder.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let mut file = tempfile::NamedTempFile::new_in(folder).expect("a file can be made");
    file.write_all(bytes).expect("it can be written");
    check(Adapter::from_diffusers(bytes), file.path());
});

/// What is read in full and what the header alone says must agree; only values may make a
/// difference.
pub fn check(read: Result<Adapter, LoadError>, path: &Path) {
    match (read, check_outline(path, "fuzz", None)) {
        (Ok(adapter), Ok(())) => {
            let size = size_of_factors(path).expect("its header was read");
            assert_eq!(size, 4 * adapter.factors.num_values() as u64);
            let written = adapter.to_diffusers();
            let again = Adapter::from_diffusers(&written).expect("it was written here");
            assert_eq!((again.rank, again.modules()), (adapter.rank, adapter.modules()));
        }
        (Err(error), Ok(())) => {
            let is_of_values = matches!(error, LoadError::NotFinite { .. })
                || error.to_string().contains("alphas are too large");
            assert!(is_of_values, "refused in full alone: {error}");
        }
        (Ok(_), Err(error)) => panic!("refused by its header alone: {error}"),
        (Err(_), Err(_)) => {}
    }
}
