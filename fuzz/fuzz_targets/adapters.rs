//! Any bytes are an adapter or an error, by their header and in full, and what is written of one is read again.
#![no_main]

use std::{io::Write, path::Path};

use libfuzzer_sys::fuzz_target;
use pipe::models::{
    Adapter,
    lora::{check_outline, size_of_factors},
};

const PEFT: &[u8] = br#"{"r": 2, "lora_alpha": 4, "rank_pattern": {"k": 1}}"#;

fuzz_target!(|bytes: &[u8]| {
    let read = Adapter::from_diffusers(bytes);
    let _ = Adapter::from_peft(PEFT, bytes);
    // In memory, where there is such a folder.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let mut file = tempfile::NamedTempFile::new_in(folder).expect("a file can be made");
    file.write_all(bytes).expect("it can be written");
    let outline = check_outline(file.path(), "fuzz", None);
    let Ok(adapter) = read else { return };
    outline.expect("what is read has a header that fits");
    let size = size_of_factors(file.path()).expect("as above");
    assert_eq!(size, 4 * adapter.factors.num_values() as u64);
    let again = Adapter::from_diffusers(&adapter.to_diffusers()).expect("it was written here");
    assert_eq!((again.rank, again.modules()), (adapter.rank, adapter.modules()));
});
