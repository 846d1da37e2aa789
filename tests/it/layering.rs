//! Who may call whom: the edges between the crate's modules, read from its source.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What each module may use. An entry `module::item` allows that item alone.
const ALLOWED: &[(&str, &[&str])] = &[
    ("rng", &[]),
    ("units", &[]),
    ("device", &[]),
    ("regular_file", &[]),
    ("huge_pages", &[]),
    ("no_break", &[]),
    ("sync", &[]),
    (
        "models",
        &[
            "device::DeviceFailure",
            "device::lasting",
            "device::text_of",
            "regular_file",
            "rng",
            "sync",
            "units",
        ],
    ),
    // A checkpoint names its content as the store does, lies in a folder of it, and says if the
    // training goes on.
    (
        "train",
        &[
            "device::lasting",
            "models",
            "rng",
            "store::CheckpointFolder",
            "store::CheckpointName",
            "store::Digest",
            "store::Keep",
        ],
    ),
    // Readers of data sets run inside a stage: they read through its reader.
    ("data", &["rng", "store::SourceReader"]),
    ("metrics", &["data", "rng"]),
    // The store keeps manifests without looking into their items.
    (
        "store",
        &[
            "artifact::FileRef",
            "artifact::Manifest",
            "artifact::file_name",
            "regular_file",
            "sync",
            "units::bytes",
        ],
    ),
    // Artifacts are read from a stage's inputs and written to its output.
    (
        "artifact",
        &[
            "data",
            "models",
            "store::Digest",
            "store::NewObject",
            "stages::Inputs",
            "stages::Output",
            "stages::StageError",
        ],
    ),
    // A stage is parsed from a node of the file, whose errors keep their place.
    (
        "stages",
        &[
            "artifact",
            "config::value::Node",
            "config::value::ValueError",
            "data",
            "metrics",
            "models",
            "regular_file",
            "rng",
            "store",
            "sync",
            "train",
        ],
    ),
    // Ports, rules and defaults of stages, and what they say of a prompt; nothing that runs them.
    (
        "config",
        &[
            "artifact::ArtifactKind",
            "models::source::is_no_path",
            "huge_pages",
            "stages::AdapterFile",
            "stages::Cause",
            "stages::CheckError",
            "stages::CheckWarning",
            "stages::DataSelection",
            "stages::EncodedText",
            "stages::Examined",
            "stages::IdleParam",
            "stages::ItemSize",
            "stages::KnownAdapters",
            "stages::KnownData",
            "stages::KnownModels",
            "stages::KnownParts",
            "stages::Lineage",
            "stages::MODEL_PARAMS",
            "stages::Mismatch",
            "stages::ModelParts",
            "stages::ParamError",
            "stages::Port",
            "stages::SamePictures",
            "stages::STAGES",
            "stages::Stage",
            "stages::StageEntry",
            "stages::Surroundings",
            "stages::Trainings",
            "no_break",
        ],
    ),
    (
        "plan",
        &[
            "artifact::ArtifactKind",
            "artifact::Item",
            "artifact::crossed_name",
            "config",
            "models::ClipSize",
            "models::FileState",
            "models::Given",
            "models::LoadError",
            "models::Memory",
            "models::ModelRef",
            "models::ModelSource",
            "models::PartRead",
            "stages::Bulk",
            "stages::Cause",
            "stages::CheckError",
            "stages::Examined",
            "stages::KnownAdapters",
            "stages::KnownParts",
            "stages::Lighter",
            "stages::MODEL_PARAMS",
            "stages::ModelParts",
            "stages::Stage",
            "stages::StageEntry",
            "stages::WeightsUsed",
            "stages::Workload",
            "stages::given",
            "store",
            "sync",
            "units",
        ],
    ),
    (
        "exec",
        &[
            "artifact",
            "config",
            "device::DeviceFailure",
            "device::text_of",
            "models::Memory",
            "models::MODELS_KEPT",
            "models::ModelCache",
            // Before a stage runs.
            "huge_pages",
            "plan",
            "stages",
            "store",
            "sync",
        ],
    ),
    // What is told to others of a run that is over, with what adapter files say of themselves.
    (
        "provenance",
        &[
            "artifact::FileNames",
            "artifact::file_name",
            "config",
            "models::lora::Statement",
            "plan",
            "regular_file",
            "store",
        ],
    ),
    // Moves what the store holds, and looks into it only to see that a record is that of its key.
    ("remote", &["artifact::FileRef", "plan::fingerprint", "store", "sync"]),
    (
        "report",
        &[
            "artifact::ArtifactKind",
            "artifact::metrics",
            "artifact::pairs",
            "config",
            "exec",
            // The interval of a mean over tasks, as metrics make that over images.
            "metrics::bootstrap",
            "plan",
            // What a check says of the data, a table says as well.
            "stages::SamePictures",
            "store",
            "sync",
            "no_break",
        ],
    ),
    // A panic over damaged data is none of ours; `init` counts the pairs of a folder; a run fetches
    // the models that its file names on the hub; an export rewrites adapters, puts the rest of a
    // model beside its parts, and compares what lies where they go.
    (
        "cli",
        &[
            "artifact",
            "config",
            "data::fifth",
            "data::folder",
            "data::guard",
            "data::held_out",
            // A sheet of answers shows targets where there are some.
            "data::tasks::has_target",
            "device",
            "exec",
            "models::Adapter",
            "models::FilePlace",
            "models::INDEX_ENDING",
            "models::LoadError",
            "models::Memory",
            "models::family",
            "models::ModelRef",
            "models::ModelSource",
            "models::PartRead",
            "models::hub",
            "models::lora::LoraFamily",
            "huge_pages",
            "plan",
            "provenance",
            "regular_file",
            "remote",
            "report",
            "stages",
            "store",
            "units",
        ],
    ),
];

/// Modules that know nothing of tensors.
const WITHOUT_BURN: &[&str] =
    &["config", "data", "metrics", "plan", "provenance", "remote", "report", "store"];

/// Modules that talk to people.
const MAY_PRINT: &[&str] = &["cli", "report"];

/// A source file without its tests and comments.
struct Source {
    path: PathBuf,
    module: String,
    lines: Vec<String>,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let relative = path.strip_prefix(root).unwrap();
        let first = relative.iter().next().unwrap().to_string_lossy();
        let lines: Vec<&str> = text.lines().collect();
        let tests = lines
            .windows(2)
            .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with('{'))
            .unwrap_or(lines.len());
        Self {
            path: relative.to_owned(),
            module: first.trim_end_matches(".rs").to_owned(),
            lines: lines[..tests].iter().map(|line| without_comment(line).to_owned()).collect(),
        }
    }

    /// Each line with its number and whatever `find` finds in it.
    fn find(&self, words: &[&str]) -> Vec<String> {
        let found = self.lines.iter().enumerate().filter(|(_, line)| {
            words.iter().any(|word| {
                line.match_indices(word)
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
            })
        });
        found
            .map(|(index, line)| format!("{}:{}: {}", self.path.display(), index + 1, line.trim()))
            .collect()
    }
}

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// All files of the library that are not tests.
fn sources() -> Vec<Source> {
    fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "tests" {
                walk(&path, paths);
            } else if path.extension() == Some("rs".as_ref())
                && !["tests.rs", "support.rs"].contains(&name.as_str())
            {
                paths.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let outside = ["main.rs", "lib.rs"].map(|name| root.join(name));
    paths.retain(|path| !outside.contains(path));
    paths.iter().map(|path| Source::read(&root, path)).collect()
}

/// The paths below `crate::` that a text uses, with groups in braces taken apart.
fn uses(text: &str) -> BTreeSet<String> {
    let token = regex::Regex::new(r"\w+|::|\S").unwrap();
    let tokens: Vec<&str> = token.find_iter(text).map(|found| found.as_str()).collect();
    let mut found = BTreeSet::new();
    for at in 0..tokens.len() {
        if let ["crate", "::", rest @ ..] = &tokens[at..] {
            expand(rest, &[], &mut found);
        }
    }
    found
}

/// Reads the path, or the group of paths, that stands after `prefix`; gives what follows it.
fn expand<'a>(
    tokens: &'a [&'a str],
    prefix: &[&str],
    found: &mut BTreeSet<String>,
) -> &'a [&'a str] {
    match tokens {
        ["{", rest @ ..] => {
            let mut rest = rest;
            loop {
                rest = match rest {
                    [] => return rest,
                    ["}", after @ ..] => return after,
                    [",", after @ ..] => after,
                    _ => expand(rest, prefix, found),
                };
            }
        }
        [name, "::", rest @ ..] => expand(rest, &[prefix, &[*name]].concat(), found),
        [name, rest @ ..] => {
            let last: &[&str] = if *name == "self" { &[] } else { &[*name] };
            found.insert([prefix, last].concat().join("::"));
            if let ["as", _, after @ ..] = rest { after } else { rest }
        }
        [] => tokens,
    }
}

fn is_allowed(module: &str, path: &str) -> bool {
    let rules = ALLOWED.iter().find(|(name, _)| *name == module).map(|(_, rules)| *rules);
    let below = |rule: &str| path == rule || path.starts_with(&format!("{rule}::"));
    below(module) || rules.is_some_and(|rules| rules.iter().any(|rule| below(rule)))
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut forbidden = Vec::new();
    let mut used = BTreeSet::new();
    for source in sources() {
        for path in uses(&source.lines.join("\n")) {
            if !is_allowed(&source.module, &path) {
                forbidden.push(format!("{} uses {path}", source.path.display()));
            }
            used.insert((source.module.clone(), path));
        }
    }
    assert!(forbidden.is_empty(), "forbidden edges:\n{}", forbidden.join("\n"));

    // A rule that nothing needs would let an edge come back unseen.
    for (module, rules) in ALLOWED {
        for rule in *rules {
            let below = format!("{rule}::");
            let is_used = used
                .iter()
                .any(|(from, path)| from == module && (path == rule || path.starts_with(&below)));
            assert!(is_used, "`{module}` no longer uses `{rule}`: take it out of the rules");
        }
    }
}

#[test]
fn only_the_command_line_and_reports_print() {
    let words = ["println!", "eprintln!", "print!", "eprint!", "stdout()", "stderr()"];
    let found: Vec<_> = sources()
        .iter()
        .filter(|source| !MAY_PRINT.contains(&source.module.as_str()))
        .flat_map(|source| source.find(&words))
        .collect();
    assert!(found.is_empty(), "the library does not print:\n{}", found.join("\n"));
}

/// The lint is denied, which any file could lift, because the libraries of GPUs are called
/// somewhere.
#[test]
fn unsafe_code_is_where_libraries_of_gpus_are_called() {
    let found: Vec<_> = sources()
        .iter()
        .filter(|source| !source.path.starts_with("models/nn/fused/nvidia"))
        .flat_map(|source| source.find(&["unsafe {", "unsafe fn", "unsafe impl", "(unsafe_code"]))
        .collect();
    assert!(found.is_empty(), "unsafe code in:\n{}", found.join("\n"));
}

#[test]
fn files_and_pixels_know_no_tensors() {
    let found: Vec<_> = sources()
        .iter()
        .filter(|source| WITHOUT_BURN.contains(&source.module.as_str()))
        .flat_map(|source| source.find(&["burn::"]))
        .collect();
    assert!(found.is_empty(), "burn is used in:\n{}", found.join("\n"));
}

#[test]
fn every_module_has_its_rules() {
    let found: BTreeSet<_> = sources().into_iter().map(|source| source.module).collect();
    let ruled: BTreeSet<_> = ALLOWED.iter().map(|(module, _)| (*module).to_owned()).collect();
    assert_eq!(found, ruled);
}

#[test]
fn groups_of_paths_are_taken_apart() {
    let text =
        "use crate::{\n    a::{self, B, c::D as E},\n    f::*,\n};\nfn g(h: &crate::i::J) {}";
    let found: Vec<_> = uses(text).into_iter().collect();
    assert_eq!(found, ["a", "a::B", "a::c::D", "f::*", "i::J"]);
}

/// A stage that opens a model for the device, or asks for that, runs where the device is, which may
/// be another process.
#[test]
fn who_computes_on_the_device_says_so() {
    let mut kinds = BTreeMap::<String, (bool, bool)>::new();
    for source in sources().iter().filter(|source| source.module == "stages") {
        // A kind is a file or a folder.
        let kind = source.path.iter().nth(1).unwrap().to_string_lossy();
        let (uses, says) = kinds.entry(kind.trim_end_matches(".rs").to_owned()).or_default();
        *uses |= !source.find(&["StageModel::open(", "cx.device"]).is_empty();
        *says |= !source.find(&["fn uses_device("]).is_empty();
    }
    // What they share, and the trait.
    for shared in ["model", "mod"] {
        kinds.remove(shared);
    }
    let wrong: Vec<_> = kinds.iter().filter(|(_, (uses, says))| uses != says).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(kinds.values().filter(|(uses, _)| *uses).count(), 6);
}
