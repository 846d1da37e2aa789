//! Any bytes are a lock file, which is written back as it was read, or an error.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pipe::plan::Lock;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("pose.lock");
    let Ok(read) = Lock::parse(path, bytes) else { return };
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    let again = Lock::parse(path, &written).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).expect("as above"), written);
});
