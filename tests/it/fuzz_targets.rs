//! The fuzz targets (`fuzz/README.md`) as modules of the tests, each with its body as `target`: so
//! that they are compiled wherever the tests are, and tried by `mutated`.

#[path = "../../fuzz/fuzz_targets/adapters.rs"]
pub mod adapters;
#[path = "../../fuzz/fuzz_targets/annotations.rs"]
pub mod annotations;
#[path = "../../fuzz/fuzz_targets/locks.rs"]
pub mod locks;
#[path = "../../fuzz/fuzz_targets/manifests.rs"]
pub mod manifests;
#[path = "../../fuzz/fuzz_targets/pipeline_file.rs"]
pub mod pipeline_file;
#[path = "../../fuzz/fuzz_targets/records.rs"]
pub mod records;
#[path = "../../fuzz/fuzz_targets/safetensors.rs"]
pub mod safetensors;
#[path = "../../fuzz/fuzz_targets/sentencepiece.rs"]
pub mod sentencepiece;

// In the place of the macro of `libfuzzer-sys`; behind the modules, which import it.
macro_rules! fuzz_target {
    (|$input:ident: $kind:ty| $body:block) => {
        pub fn target($input: $kind) $body
    };
}
pub(crate) use fuzz_target;
