//! Any bytes are a file of the store or a lock file, which is written back as it was read, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipe::{
    artifact::Manifest,
    plan::Lock,
    store::{ItemRecord, Record, Trace},
};
use serde::{Serialize, de::DeserializeOwned};

fn round_trip<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).expect("as above"), written);
}

fuzz_target!(|bytes: &[u8]| {
    round_trip::<Manifest>(bytes);
    round_trip::<Record>(bytes);
    round_trip::<ItemRecord>(bytes);
    round_trip::<Trace>(bytes);
    round_trip::<Lock>(bytes);
});
