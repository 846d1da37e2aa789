//! Every pipeline's profile `quick`, really run, with all that takes time cut to the least: a stage
//! that fails only at run time fails here.

use std::path::Path;

use super::{Shell, pipelines::EXPERIMENTS};

/// Params that decide how long a pipeline takes, and the least that each can be. Of grids, three
/// checkpoints are attempts.
const LEAST: [(&str, &str); 7] = [
    ("steps", "3"),
    ("save_at", "[1, 2, 3]"),
    ("test_images", "1"),
    ("sampling_steps", "1"),
    ("vae_steps", "1"),
    ("clips", "2"),
    ("vae_clips", "2"),
];

/// The settings that cut a file short: those of [`LEAST`] that it has, and the least number of
/// examples.
fn cut(shell: &Shell, file: &Path) -> Vec<String> {
    let shown = shell.succeed(&format!("show {} --profile quick", file.display()));
    let merged: toml::Table = shown.parse().unwrap();
    let has = |name: &&(&str, &str)| {
        merged.get("params").is_some_and(|params| params.get(name.0).is_some())
    };
    let params = LEAST.iter().filter(has).map(|(name, least)| format!("params.{name}={least}"));
    let examples = merged.get("sweep").and_then(|sweep| sweep.get("grid")?.get("n"));
    let least =
        examples.and_then(|n| n.as_array()?.iter().filter_map(toml::Value::as_integer).min());
    params.chain(least.map(|n| format!("sweep.grid.n=[{n}]"))).collect()
}

/// Half a minute with optimisation, a quarter of an hour without it: CI calls it by its name.
#[test]
#[ignore = "run by CI; takes minutes where the crate is built without optimisation"]
fn the_quick_profile_of_every_pipeline_runs_to_its_tables() {
    let shell = Shell::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let mut failures = Vec::new();
    for name in EXPERIMENTS {
        let file = folder.join(format!("{name}.toml"));
        let mut run = super::command(shell.dir.path());
        run.arg("run").arg(&file).args(["--profile", "quick"]);
        for set in cut(&shell, &file) {
            run.args(["--set", &set]);
        }
        let output = run.output().unwrap();
        let [told, said] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        // A signed note says why a number is missing, or that its threshold lies at the end of the
        // list.
        let is_reason = |line: &str| {
            let note = line.strip_prefix('(').and_then(|rest| rest.get(1..)?.strip_prefix(") "));
            note.is_some_and(|note| !note.starts_with("at threshold"))
        };
        if !output.status.success() || told.lines().any(is_reason) {
            failures.push(format!("{name}\n{told}\n{said}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
