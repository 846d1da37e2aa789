//! The tensors of the published checkpoints, by name and shape, against what our models ask for.
//!
//! `tests/golden/shapes/make.py` wrote the lists from the reference classes, without data.

use std::{collections::BTreeMap, fs, path::Path};

use pipe::models::{
    ParamReader, VideoDiffusion, cogvideox::CogVideoX, ltx_video::LtxVideo, t5::T5Encoder,
};
use serde_json::Value;

type Shapes = BTreeMap<String, Vec<usize>>;

/// The configuration and the tensors of a list.
fn published(name: &str) -> (Value, Shapes) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/shapes");
    let text = fs::read_to_string(folder.join(format!("{name}.txt"))).unwrap();
    let (config, lines) = text.split_once('\n').unwrap();
    let mut shapes = Shapes::new();
    for line in lines.lines() {
        let (pattern, shape) = line.split_once(' ').unwrap();
        let shape: Vec<usize> = serde_json::from_str(shape).unwrap();
        for name in expand(pattern) {
            assert!(shapes.insert(name, shape.clone()).is_none(), "{line} repeats a name");
        }
    }
    (serde_json::from_str(config).unwrap(), shapes)
}

/// `a.[0-2].b` as `a.0.b`, `a.1.b`, `a.2.b`.
fn expand(pattern: &str) -> Vec<String> {
    let Some((head, rest)) = pattern.split_once('[') else { return vec![pattern.to_owned()] };
    let (range, tail) = rest.split_once(']').unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let numbers = first.parse::<usize>().unwrap()..=last.parse().unwrap();
    numbers.map(|number| format!("{head}{number}{tail}")).collect()
}

/// What a constructor asks for; asking twice would panic.
fn asked(build: impl FnOnce(&ParamReader<'_>)) -> Shapes {
    let params = ParamReader::shapes();
    build(&params);
    params.into_shapes()
}

#[track_caller]
fn assert_equal(found: &Shapes, wanted: &Shapes, tensors: usize, values: usize) {
    let difference: Vec<_> = found
        .iter()
        .filter(|(name, shape)| wanted.get(*name) != Some(shape))
        .chain(wanted.iter().filter(|(name, _)| !found.contains_key(*name)))
        .collect();
    assert!(difference.is_empty(), "{difference:?}");
    let total: usize = wanted.values().map(|shape| shape.iter().product::<usize>()).sum();
    assert_eq!((wanted.len(), total), (tensors, values));
}

#[test]
fn transformers_have_the_published_tensors() {
    let families: [(&str, &dyn VideoDiffusion, usize, usize); 3] = [
        ("cogvideox_15", &CogVideoX, 1028, 5_571_594_880),
        ("cogvideox_10", &CogVideoX, 1025, 5_625_087_552),
        ("ltx_video", &LtxVideo, 715, 1_923_385_472),
    ];
    for (name, family, tensors, values) in families {
        let (config, wanted) = published(name);
        let found = asked(|params| drop(family.denoiser(&config, params).unwrap()));
        assert_equal(&found, &wanted, tensors, values);
    }
}

#[test]
fn autoencoders_have_the_published_tensors() {
    let families: [(&str, &dyn VideoDiffusion, usize, usize); 4] = [
        ("cogvideox_vae", &CogVideoX, 436, 215_583_907),
        ("ltx_video_vae_090", &LtxVideo, 190, 419_193_905),
        ("ltx_video_vae_091", &LtxVideo, 294, 934_976_690),
        ("ltx_video_vae_095", &LtxVideo, 226, 1_246_913_778),
    ];
    for (name, family, tensors, values) in families {
        let (config, wanted) = published(name);
        let found = asked(|params| {
            let vae = family.vae(&config, params).unwrap();
            if name.starts_with("ltx") {
                assert_eq!((vae.compression().time, vae.compression().space), (8, 32));
            }
        });
        assert_equal(&found, &wanted, tensors, values);
    }
}

#[test]
fn the_text_encoder_has_the_published_tensors() {
    let (config, mut wanted) = published("t5_xxl");
    assert_eq!(wanted.len(), 220);
    // The state has the embedding table under two names, the file under one or both.
    wanted.remove("encoder.embed_tokens.weight").unwrap();
    let found = asked(|params| drop(T5Encoder::new(&config, params).unwrap()));
    assert_equal(&found, &wanted, 219, 4_762_310_656);
}
