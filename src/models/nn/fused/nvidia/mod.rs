//! Products and convolutions by NVIDIA's libraries, wherever they are installed beside the driver,
//! and what models do between them, and an optimizer, by kernels in CUDA C++.
//!
//! Burn's own kernels of products reach 11 to 27 % of an H100 through NVRTC, and each kind takes
//! 0.5 to 7 s to compile (`benches/results/2026-11-26-h100.md`); cuBLASLt and cuDNN have them
//! compiled. Work still goes through [`super::cube`] where a library is missing, or where a problem
//! is none that it takes.

#[cfg(feature = "cuda")]
pub mod adam;
#[cfg(feature = "cuda")]
mod attention;
#[cfg(feature = "cuda")]
pub mod block;
#[cfg(feature = "cuda")]
mod cublas;
#[cfg(feature = "cuda")]
mod cudnn;
#[cfg(feature = "cuda")]
pub mod group_norm;
#[cfg(feature = "cuda")]
mod kernels;
#[cfg(feature = "cuda")]
mod lora_linear;
mod problem;
#[cfg(feature = "cuda")]
mod queue;
#[cfg(feature = "cuda")]
mod runner;
#[cfg(feature = "cuda")]
mod tensors;

#[cfg(feature = "cuda")]
pub use attention::{attention, attention_grads};
#[cfg(feature = "cuda")]
pub use lora_linear::{factor_grads, lora_linear, lora_linear_grads};
#[cfg(feature = "cuda")]
pub use tensors::{convolved, product, product_and_bias, product_onto, wide_product};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use regex::Regex;

    /// A name is all that joins the two sides, and nothing but a GPU would notice a wrong one.
    #[test]
    fn kernels_that_are_launched_are_those_that_there_are() {
        let names = |texts: &[&str], pattern: &str| -> BTreeSet<String> {
            let pattern = Regex::new(pattern).unwrap();
            let found = texts.iter().flat_map(|text| pattern.captures_iter(text));
            found.map(|captures| captures[1].to_owned()).collect()
        };
        let made = names(
            &[
                include_str!("cuda/adam.cu"),
                include_str!("cuda/lora_linear.cu"),
                include_str!("cuda/attention.cu"),
                include_str!("cuda/block.cu"),
                include_str!("cuda/group_norm.cu"),
            ],
            r#"extern "C" __global__ void __launch_bounds__\([^)]*\)\s+(\w+)\("#,
        );
        let launched = names(
            &[
                include_str!("adam.rs"),
                include_str!("lora_linear.rs"),
                include_str!("attention.rs"),
                include_str!("block.rs"),
                include_str!("group_norm.rs"),
            ],
            r#"c"(\w+)""#,
        );
        assert!(made.len() > 10, "{made:?}");
        assert_eq!(launched, made);
    }
}
