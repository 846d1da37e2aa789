//! Any bytes are a manifest, which is written back as it was read, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipe::artifact::Manifest;

fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = serde_json::from_slice::<Manifest>(bytes) else { return };
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    let again: Manifest = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).expect("as above"), written);
});
