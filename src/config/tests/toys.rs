//! Toy stage kinds with every sort of parameter.

use std::{collections::HashMap, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    artifact::ArtifactKind,
    config::{ConfigErrors, LoadOptions, Pipeline, load_with},
    stages::{
        Inputs, Output, ParamError, Port, Ports, Stage, StageContext, StageEntry, StageError,
        StageKind,
    },
};

pub static TOYS: &[StageEntry] =
    &[StageEntry::of::<Data>(), StageEntry::of::<Train>(), StageEntry::of::<Score>()];

/// Where pictures come from.
#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "source", rename_all = "snake_case", deny_unknown_fields)]
enum From {
    /// Drawn.
    Figures,
    /// A folder.
    Folder {
        /// The folder.
        #[schemars(extend("format" = "path"))]
        root: String,
        /// At most so many.
        limit: Option<u8>,
    },
}

/// Makes pairs.
#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Data {
    /// The source.
    from: From,
    /// How many.
    #[schemars(range(min = 1))]
    count: u32,
    /// Height, width.
    #[serde(default = "size")]
    size: [usize; 2],
    /// Seed.
    seed: Option<u64>,
}

fn size() -> [usize; 2] {
    [8, 8]
}

/// Which layers.
#[derive(Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Modules {
    /// Queries and keys.
    Qk,
    /// All.
    #[default]
    Qkvo,
}

/// The optimizer.
#[derive(Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Optimizer {
    /// Learning rate.
    #[schemars(range(min = 0.0, max = 1.0))]
    lr: f64,
    /// Steps of warmup.
    warmup: u32,
}

/// Trains.
#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Train {
    /// The rank.
    rank: u32,
    /// Steps.
    #[serde(default)]
    steps: u32,
    /// Layers.
    #[serde(default)]
    modules: Modules,
    /// Optimizer.
    #[serde(default)]
    optimizer: Optimizer,
    /// A note.
    #[serde(default)]
    note: String,
}

/// Scores.
#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Score {}

macro_rules! toy {
    ($name:ty, $kind:literal, $inputs:expr, $output:ident) => {
        impl StageKind for $name {
            const KIND: &'static str = $kind;
            const VERSION: u32 = 1;
            const PORTS: Ports = Ports { inputs: $inputs, output: ArtifactKind::$output };
        }
    };
}

toy!(Data, "data", &[], Pairs);
toy!(
    Train,
    "train",
    &[
        Port { name: "pairs", kinds: &[ArtifactKind::Pairs], required: true },
        Port { name: "base", kinds: &[ArtifactKind::LoraAdapter], required: false }
    ],
    LoraAdapter
);
toy!(
    Score,
    "score",
    &[
        Port { name: "adapter", kinds: &[ArtifactKind::LoraAdapter], required: true },
        Port { name: "pairs", kinds: &[ArtifactKind::Pairs], required: true }
    ],
    Metrics
);

fn done() -> Result<(), StageError> {
    Err(StageError::failed("toys do not run"))
}

impl Stage for Data {
    fn run(
        &self,
        _: &Inputs<'_>,
        _: &mut Output<'_>,
        _: &StageContext<'_>,
    ) -> Result<(), StageError> {
        done()
    }
}

impl Stage for Train {
    fn validate(&self) -> Vec<ParamError> {
        if self.optimizer.warmup > self.steps {
            let message =
                format!("must be at most {}, but is {}", self.steps, self.optimizer.warmup);
            return vec![ParamError::new("optimizer.warmup", message).help("train for more steps")];
        }
        Vec::new()
    }

    fn run(
        &self,
        _: &Inputs<'_>,
        _: &mut Output<'_>,
        _: &StageContext<'_>,
    ) -> Result<(), StageError> {
        done()
    }
}

impl Stage for Score {
    fn run(
        &self,
        _: &Inputs<'_>,
        _: &mut Output<'_>,
        _: &StageContext<'_>,
    ) -> Result<(), StageError> {
        done()
    }
}

/// A pipeline with every section.
pub const WHOLE: &str = r#"name = "toy"
seed = 7

[params]
data  = { source = "figures" }
steps = { by = "n", 1 = 10, 3 = 30 }
dims  = [16, 8]

[profiles.big]
data  = { source = "folder", root = "pictures" }
dims  = [160, 80]

[sweep]
baseline      = { rank = 4, modules = "qkvo" }
one_at_a_time = { rank = [2, 4], modules = ["qk", "qkvo"] }
grid          = { n = [1, 3] }

[stages.pairs]
kind  = "data"
from  = "${data}"
count = "${n}"
size  = "${dims}"

[stages.test]
kind  = "data"
from  = "${data}"
count = 5

[stages.lora]
kind    = "train"
inputs  = { pairs = "pairs" }
rank    = "${rank}"
modules = "${modules}"
steps   = "${steps}"
note    = "rank ${rank} at ${dims.0}"

[stages.score]
kind   = "score"
inputs = { adapter = "lora", pairs = "test" }

[tables.main]
value   = "score.f1"
columns = "n"
rows    = ["modules", "rank"]
"#;

/// Loads `toy/main.toml` with more files beside it.
pub fn load_files(
    main: &str,
    files: &[(&str, &str)],
    profile: Option<&str>,
    set: &[&str],
) -> Result<Pipeline, ConfigErrors> {
    let files: HashMap<_, _> = files
        .iter()
        .chain(&[("toy/main.toml", main)])
        .map(|(name, text)| (Path::new(*name), *text))
        .collect();
    let options = LoadOptions {
        profile: profile.map(str::to_owned),
        set: set.iter().map(|text| (*text).to_owned()).collect(),
        ..LoadOptions::default()
    };
    load_with(TOYS, Path::new("toy/main.toml"), &options, &|path| {
        let text = files.get(path).ok_or(std::io::ErrorKind::NotFound)?;
        Ok((*text).to_owned())
    })
}

/// Loads a file that is right.
pub fn load(main: &str) -> Pipeline {
    load_files(main, &[], None, &[]).unwrap_or_else(|errors| panic!("{}", render(&errors)))
}

/// The errors of a file.
pub fn errors(main: &str) -> String {
    render(&load_files(main, &[], None, &[]).err().expect("the file is wrong"))
}

/// What the user sees, without colours.
pub fn render(errors: &ConfigErrors) -> String {
    errors.render(miette::GraphicalTheme::unicode_nocolor(), 90)
}
