//! Files of others, changed at random and given to the fuzz targets, which say what must hold:
//! nothing panics, two readers of one form agree, and what is read is written back as it was read.

use std::{cell::Cell, fs, ops::Range, path::Path};

use burn::tensor::{Device, FloatDType};
use pipe::{
    artifact::Manifest,
    data::{arc::Task, rle::Segmentation},
    models::{
        Adapter, Params,
        lora::{PEFT_CONFIG, PEFT_WEIGHTS},
        t5::{T5Tokenizer, TokenizerFiles},
    },
    plan::Lock,
    store::{ItemRecord, Record, Trace},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{TestError, TestRunner},
};
use regex::bytes::Regex;
use serde::de::DeserializeOwned;

use crate::fuzz_targets::{
    adapters, annotations, locks, manifests, pipeline_file, records, safetensors, sentencepiece,
};

/// Numbers at the ends of what is expected, and beyond.
const NUMBERS: [&str; 14] = [
    "0",
    "1",
    "2",
    "3",
    "8",
    "16",
    "-1",
    "0.5",
    "1e400",
    "4294967296",
    "4611686018427387904",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
];

/// Texts that a file may hold in the place of others.
const TEXTS: [&str; 12] = [
    "\"\"",
    "\"F16\"",
    "\"BF16\"",
    "\"F64\"",
    "\"I32\"",
    "\"F4\"",
    "\"__metadata__\"",
    "\"alpha\"",
    "\"q.lora_A.weight\"",
    "\"q.alpha\"",
    "\"../x\"",
    "null",
];

/// peft's settings of an adapter.
const SETTINGS: &[u8] =
    br#"{"r": 2, "lora_alpha": 4, "rank_pattern": {"k": 1}, "alpha_pattern": {"k": 3},
    "use_rslora": false, "peft_type": "LORA", "bias": "none", "target_modules": ["q", "k"]}"#;

/// A change of a file.
#[derive(Clone, Debug)]
enum Change {
    /// A byte becomes another one.
    Byte(Index, u8),
    /// Some bytes go.
    Cut(Index, usize),
    /// Some bytes stand there twice.
    Twice(Index, usize),
    /// A number becomes another one.
    Number(Index, &'static str),
    /// A text between quotes becomes another one.
    Text(Index, &'static str),
    /// A text between quotes becomes one that stands elsewhere in the file.
    Other(Index, Index),
}

impl Change {
    fn any() -> impl Strategy<Value = Self> {
        let at = any::<Index>;
        prop_oneof![
            1 => (at(), any::<u8>()).prop_map(|(at, byte)| Self::Byte(at, byte)),
            1 => (at(), 1..12_usize).prop_map(|(at, len)| Self::Cut(at, len)),
            1 => (at(), 1..12_usize).prop_map(|(at, len)| Self::Twice(at, len)),
            3 => (at(), select(&NUMBERS[..])).prop_map(|(at, to)| Self::Number(at, to)),
            2 => (at(), select(&TEXTS[..])).prop_map(|(at, to)| Self::Text(at, to)),
            3 => (at(), at()).prop_map(|(at, from)| Self::Other(at, from)),
        ]
    }

    /// The changed file; as it was where there is nothing to change.
    fn of(&self, bytes: &[u8]) -> Vec<u8> {
        let replaced = |range: Range<usize>, by: &[u8]| {
            [&bytes[..range.start], by, &bytes[range.end..]].concat()
        };
        let piece = |at: &Index, len: usize| {
            let start = at.index(bytes.len());
            start..(start + len).min(bytes.len())
        };
        let [numbers, texts] =
            [r"[\[,:\s](-?\d+)", "(\"[^\"\\\\]*\")"].map(|form| places(form, bytes));
        let one = |of: &[Range<usize>], at: &Index| of.get(at.index(of.len().max(1))).cloned();
        match self {
            _ if bytes.is_empty() => Vec::new(),
            Self::Byte(at, byte) => replaced(piece(at, 1), &[*byte]),
            Self::Cut(at, len) => replaced(piece(at, *len), b""),
            Self::Twice(at, len) => {
                let piece = piece(at, *len);
                replaced(piece.end..piece.end, &bytes[piece])
            }
            Self::Number(at, to) => one(&numbers, at)
                .map_or_else(|| bytes.to_vec(), |range| replaced(range, to.as_bytes())),
            Self::Text(at, to) => one(&texts, at)
                .map_or_else(|| bytes.to_vec(), |range| replaced(range, to.as_bytes())),
            Self::Other(at, from) => match (one(&texts, at), one(&texts, from)) {
                (Some(range), Some(from)) => replaced(range, &bytes[from]),
                _ => bytes.to_vec(),
            },
        }
    }
}

/// Where the first group of a regular expression is found.
fn places(form: &str, bytes: &[u8]) -> Vec<Range<usize>> {
    let form = Regex::new(form).unwrap();
    form.captures_iter(bytes).map(|found| found.get(1).unwrap().range()).collect()
}

/// What of a file is changed.
#[derive(Clone, Copy)]
enum Part {
    All,
    /// Half of the time the text of a safetensors header, whose length is then stated anew.
    Header,
}

/// Gives changed files to a target. Some must be taken and some refused, or nothing is tried.
#[track_caller]
fn try_changed(
    seeds: &[Vec<u8>],
    part: Part,
    target: impl Fn(&[u8]),
    is_taken: impl Fn(&[u8]) -> bool,
) {
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() };
    let (taken, refused) = (Cell::new(0), Cell::new(0));
    let case = (select(seeds.to_vec()), any::<bool>(), vec(Change::any(), 1..4));
    let run = TestRunner::new(config).run(&case, |(seed, whole, changes)| {
        let change = |bytes: &[u8]| changes.iter().fold(bytes.to_vec(), |b, change| change.of(&b));
        let changed = match part {
            Part::Header if !whole => {
                let (header, data) = halves(&seed);
                let header = change(header);
                [&(header.len() as u64).to_le_bytes()[..], &header, data].concat()
            }
            _ => change(&seed),
        };
        target(&changed);
        let count = if is_taken(&changed) { &taken } else { &refused };
        count.set(count.get() + 1);
        Ok(())
    });
    match run {
        Ok(()) => {}
        Err(TestError::Fail(why, (seed, whole, changes))) => {
            let seed = String::from_utf8_lossy(&seed);
            panic!("{why}\nof {seed:?}, whole: {whole}, changed by {changes:?}");
        }
        Err(other) => panic!("{other}"),
    }
    let counts = (taken.get(), refused.get());
    println!("{} taken, {} refused", counts.0, counts.1);
    assert!(counts.0 > 0 && counts.1 > 0, "{counts:?}");
}

/// The text of a safetensors header, and what comes behind it.
fn halves(file: &[u8]) -> (&[u8], &[u8]) {
    let len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    file[8..].split_at(len)
}

/// The files of a folder of seeds.
fn seeds(kind: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(kind);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Whether bytes are JSON of a form.
fn is<T: DeserializeOwned>(bytes: &[u8]) -> bool {
    serde_json::from_slice::<T>(bytes).is_ok()
}

#[test]
fn both_readers_of_weights_take_the_same_files() {
    try_changed(&seeds("adapters"), Part::Header, safetensors::target, |bytes| {
        let read = Params::default().read_safetensors(bytes, "", &Device::flex(), FloatDType::F32);
        read.is_ok()
    });
}

#[test]
fn adapters_are_refused_by_their_headers_where_they_are_in_full() {
    let is_taken = |bytes: &[u8]| Adapter::from_diffusers(bytes).is_ok();
    try_changed(&seeds("adapters"), Part::Header, adapters::target, is_taken);
}

#[test]
fn settings_of_peft_are_refused_with_the_header_where_they_are_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let [weights, config] = [PEFT_WEIGHTS, PEFT_CONFIG].map(|name| folder.path().join(name));
    let seeds = seeds("adapters");
    let read = |settings: &[u8]| {
        let fitting = |seed: &&Vec<u8>| Adapter::from_peft(SETTINGS, seed).is_ok();
        let seed = seeds.iter().find(fitting).expect("a seed goes with the settings");
        fs::write(&weights, seed).unwrap();
        Adapter::from_peft(settings, seed)
    };
    let target = |settings: &[u8]| {
        fs::write(&config, settings).unwrap();
        adapters::check(read(settings), &weights);
    };
    try_changed(&[SETTINGS.to_vec()], Part::All, target, |settings| read(settings).is_ok());
}

#[test]
fn records_are_written_back_as_they_were_read_or_are_damage() {
    try_changed(&seeds("records"), Part::All, records::target, |bytes| {
        is::<Record>(bytes) || is::<ItemRecord>(bytes) || is::<Vec<Trace>>(bytes)
    });
}

#[test]
fn manifests_are_written_back_as_they_were_read() {
    try_changed(&seeds("manifests"), Part::All, manifests::target, is::<Manifest>);
}

#[test]
fn locks_are_written_back_as_they_were_read() {
    let is_taken = |bytes: &[u8]| Lock::parse(Path::new("x.lock"), bytes).is_ok();
    try_changed(&seeds("locks"), Part::All, locks::target, is_taken);
}

#[test]
fn annotations_are_read_or_refused() {
    let is_taken = |bytes: &[u8]| is::<Segmentation>(bytes) || is::<Task>(bytes);
    try_changed(&seeds("annotations"), Part::All, annotations::target, is_taken);
}

#[test]
fn tokenizers_are_read_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/t5");
    let files = ["spiece.model", "tokenizer.json"];
    let seeds = files.map(|name| fs::read(folder.join(name)).unwrap());
    try_changed(&seeds, Part::All, sentencepiece::target, |bytes| {
        let name = files[usize::from(bytes.starts_with(b"{"))];
        T5Tokenizer::new(TokenizerFiles::by_name(name, bytes)).is_ok()
    });
}

/// `src/config/tests/random.rs` tries more.
#[test]
fn pipeline_files_are_read_or_refused() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/pretrain_tiny.toml");
    let text = fs::read_to_string(file).unwrap();
    pipeline_file::target(&text);
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)).step_by(97) {
        pipeline_file::target(&text[..end]);
    }
}
