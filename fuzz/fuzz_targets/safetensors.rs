//! Any bytes are weights or an error, and both readers say the same of them: the one of whole
//! files, and the one of models' folders, which takes one tensor after the other.
#![no_main]

use std::{io::Write, path::Path};

use burn::tensor::{Device, FloatDType};
use libfuzzer_sys::fuzz_target;
use pipe::models::{
    ParamReader, Params,
    params::{Dtype, Init},
};

fuzz_target!(|bytes: &[u8]| {
    let mut params = Params::default();
    let read = params.read_safetensors(bytes, "fuzz", &Device::flex(), FloatDType::F32);
    if read.is_ok() {
        // A model asks for what it knows; all else must be reported, not met.
        let reader = ParamReader::loaded(&params, None);
        let _ = reader.tensor("a", [2, 3], Init::Zeros);
        let _ = reader.finish();
    }
    // In memory, where there is such a folder.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let mut file = tempfile::NamedTempFile::new_in(folder).expect("a file can be made");
    file.write_all(bytes).expect("it can be written");
    let mut parts = Params::default();
    let again = parts.read_file(file.path(), "fuzz", &Device::flex(), FloatDType::F32);
    assert_eq!(read.is_ok(), again.is_ok(), "{read:?} {again:?}");
    if read.is_ok() {
        // Names, shapes and values.
        assert_eq!(params.to_safetensors(Dtype::F32, None), parts.to_safetensors(Dtype::F32, None));
    }
});
