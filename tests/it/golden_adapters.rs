//! Adapters combined and merged against peft; see `tests/golden/lora_merge`.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{Device, FloatDType, Tensor};
use pipe::models::{Adapter, Params, lora::Combination};
use safetensors::SafeTensors;

struct Golden {
    tensors: Params,
    alphas: BTreeMap<String, f64>,
}

impl Golden {
    fn read() -> Self {
        let path = "tests/golden/lora_merge/expected.safetensors";
        let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let stated = header.metadata().clone().unwrap();
        let mut tensors = Params::default();
        tensors.read_safetensors(&bytes, path, &Device::flex(), FloatDType::F32).unwrap();
        Self {
            tensors,
            alphas: stated.into_iter().map(|(name, text)| (name, text.parse().unwrap())).collect(),
        }
    }

    /// The tensors below a name, without it.
    fn below(&self, group: &str) -> Params {
        let prefix = format!("{group}.");
        let tensors = self.tensors.0.iter();
        Params(
            tensors
                .filter_map(|(name, param)| {
                    Some((name.strip_prefix(&prefix)?.to_owned(), param.clone()))
                })
                .collect(),
        )
    }

    /// An adapter as peft's two files give it.
    fn adapter(&self, name: &str, rank: usize) -> Adapter {
        let config = format!(r#"{{"r": {rank}, "lora_alpha": {}}}"#, self.alphas[name]);
        let weights = self.below(name).to_safetensors(false, None);
        Adapter::from_peft(config.as_bytes(), &weights).unwrap()
    }

    fn three(&self) -> [(Adapter, f64); 3] {
        [("one", 3, 0.75), ("two", 3, -0.5), ("three", 2, 1.25)]
            .map(|(name, rank, weight)| (self.adapter(name, rank), weight))
    }
}

/// The largest difference, in parts of the largest value.
fn error(found: &Tensor<1>, wanted: &Tensor<1>) -> f32 {
    let scale: f32 = wanted.clone().abs().max().into_scalar();
    let difference: f32 = (found.clone() - wanted.clone()).abs().max().into_scalar();
    difference / scale
}

#[test]
fn combined_factors_are_those_of_peft() {
    let golden = Golden::read();
    let three = golden.three();
    for (how, parts) in [(Combination::Cat, &three[..]), (Combination::Linear, &three[..2])] {
        let name = if how == Combination::Cat { "cat" } else { "linear" };
        let made = Adapter::combine(parts, how, None).unwrap().adapter;
        let wanted = golden.below(name);
        let rank = wanted.0.values().next().unwrap().shape[0];
        assert_eq!((made.rank, made.alpha), (rank, rank as f64), "{name}");
        for (key, param) in &wanted.0 {
            let key = key.strip_prefix("base_model.model.").unwrap();
            let error = error(&made.factors.0[key].flat, &param.flat);
            println!("{name} {key}: {error:.1e}");
            assert!(error < 1e-6, "{name} {key}: {error}");
        }
    }
}

#[test]
fn a_decomposition_adds_what_that_of_peft_adds() {
    let golden = Golden::read();
    let made = Adapter::combine(&golden.three(), Combination::Svd, Some(4)).unwrap();
    assert!((0.5..1.0).contains(&made.kept), "{}", made.kept);
    for (module, param) in golden.below("svd").0 {
        let (a, b) = made.adapter.factors(&module).unwrap();
        let change = b.tensor::<2>().matmul(a.tensor::<2>()).reshape([-1]);
        let error = error(&change, &param.flat);
        println!("svd {module}: {error:.1e}");
        assert!(error < 1e-5, "{module}: {error}");
    }
}

#[test]
fn a_merged_model_has_the_weights_of_peft() {
    let golden = Golden::read();
    let mut base = golden.below("base");
    golden.adapter("one", 3).merge_into(&mut base).unwrap();
    for (name, param) in golden.below("merged").0 {
        let error = error(&base.0[&name].flat, &param.flat);
        println!("merged {name}: {error:.1e}");
        assert!(error < 1e-6, "{name}: {error}");
    }
}
