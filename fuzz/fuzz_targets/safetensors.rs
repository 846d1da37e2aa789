//! Any bytes are weights or an error.
#![no_main]

use burn::tensor::{Device, FloatDType};
use libfuzzer_sys::fuzz_target;
use pipe::models::{ParamReader, Params, params::Init};

fuzz_target!(|bytes: &[u8]| {
    let mut params = Params::default();
    let read = params.read_safetensors(bytes, "fuzz", &Device::flex(), FloatDType::F32);
    if read.is_ok() {
        // A model asks for what it knows; all else must be reported, not met.
        let reader = ParamReader::loaded(&params, None);
        let _ = reader.tensor("a", [2, 3], Init::Zeros);
        let _ = reader.finish();
    }
});
