//! The schemas of what `pipe` writes, and that it writes what they say.

use std::path::Path;

use serde_json::Value;

use super::{CLIPS, Shell, walk};
use crate::json_schema::violations;

fn schema(document: &str) -> Value {
    let path = format!("{}/schemas/{document}.schema.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn assert_fits(document: &str, value: &Value) {
    let found = violations(&schema(document), value);
    assert!(found.is_empty(), "{document}: {found:#?}\n{value:#}");
}

#[test]
fn the_committed_schemas_are_those_of_the_program() {
    let shell = Shell::new();
    let files = shell.succeed("schema --write .");
    assert_eq!(files.lines().count(), 6);
    for file in files.lines() {
        let committed = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(file);
        let committed = std::fs::read_to_string(committed).unwrap();
        let written = std::fs::read_to_string(shell.path(file)).unwrap();
        assert!(committed == written, "{file}: `just schema` brings it up to date");
    }
    let printed: Value = serde_json::from_str(&shell.succeed("schema lock")).unwrap();
    assert_eq!(printed, schema("lock"));
    assert_eq!(shell.output("schema lok").status.code(), Some(2));
}

fn document(toml: &str) -> Value {
    serde_json::to_value(toml.parse::<toml::Table>().unwrap()).unwrap()
}

#[test]
fn every_pipeline_fits_the_schema_of_editors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = [walk(&root.join("pipelines")), walk(&root.join("docs"))].concat();
    files.retain(|file| file.extension() == Some("toml".as_ref()));
    assert!(files.iter().filter(|file| file.ends_with("base/few_shot.toml")).count() == 1);
    let shell = Shell::new();
    shell.succeed("init");
    for name in ["a", "b", "c"] {
        shell.pair("photos", name, 9);
    }
    shell.succeed("init own --data photos");
    files.extend([shell.path("experiment.toml"), shell.path("own.toml")]);
    let schema = schema("pipeline");
    for file in files {
        let found = violations(&schema, &document(&std::fs::read_to_string(&file).unwrap()));
        assert!(found.is_empty(), "{}: {found:#?}", file.display());
    }
    assert_eq!(violations(&schema, &document(CLIPS)), [""; 0]);
}

#[test]
fn a_mistake_breaks_the_schema_of_editors() {
    let schema = schema("pipeline");
    let pairs = "[stages.p]\nkind = 'dataset'\nsource = { source = 'builtin:figures' }\ntask = 'pose'\nsize = [64, 64]\n";
    assert_eq!(violations(&schema, &document(pairs)), [""; 0]);
    let over = format!("extends = 'base.toml'\n{pairs}");
    for (text, place) in [
        (format!("{pairs}cuont = 1"), "/stages/p/cuont"),
        (format!("{pairs}count = 'many'"), "/stages/p/count"),
        (pairs.replace("'dataset'", "'datasets'"), "/stages/p/kind"),
        (pairs.replace("kind = 'dataset'", ""), "/stages/p: lacks \"kind\""),
        (pairs.replace("size = [64, 64]", ""), "/stages/p: lacks \"size\""),
        (
            format!("{pairs}[stages.q]\nkind = 'metric'\nmetric = 'miou'"),
            "/stages/q: lacks \"inputs\"",
        ),
        (
            format!("{pairs}[stages.q]\nkind = 'transform'\ninputs = {{}}"),
            "/stages/q/inputs: lacks",
        ),
        (
            format!("{pairs}[stages.q]\nkind = 'transform'\ninputs = {{ x = 'p' }}"),
            "/stages/q/inputs/x",
        ),
        (format!("sede = 1\n{pairs}"), "/sede"),
        // What is laid over another file may be part of a stage, but not of none.
        ("extends = 'base.toml'\n[stages.p]\ncuont = 1".to_owned(), "/stages/p/cuont"),
        (format!("{pairs}[profiles.quick.stages.p]\ncuont = 1"), "/profiles/quick/stages/p/cuont"),
        (format!("{over}count = 'many'"), "/stages/p/count"),
        (over.replace("'dataset'", "'datasets'"), "/stages/p/kind"),
    ] {
        let found = violations(&schema, &document(&text));
        assert!(found.iter().any(|found| found.starts_with(place)), "{text}: {found:?}");
    }
    let part =
        "extends = 'base.toml'\n[stages.p]\ncount = 1\n[stages.q]\nkind = 'dataset'\nsize = [8, 8]";
    assert_eq!(violations(&schema, &document(part)), [""; 0]);
}

#[test]
fn a_count_that_must_not_be_zero_is_so_for_an_editor_too() {
    let schema = schema("pipeline");
    let least = |stage: &str, key: &str| {
        let rules = schema["definitions"][format!("stage_{stage}")]["allOf"].as_array().unwrap();
        let mut found = rules.iter().map(|rule| &rule["else"]["properties"][key]["minimum"]);
        let found = found.find_map(Value::as_i64);
        found.unwrap_or_else(|| panic!("no least `{key}` of {stage}"))
    };
    let counts = [
        ("lora_train", &["rank", "batch_size", "gradient_accumulation", "save_every"][..]),
        ("lora_train", &["held_out_every"]),
        ("sample", &["frames", "steps", "batch_size"]),
        ("vae_encode", &["image_latent_pool"]),
        ("interpolate", &["grid"]),
        ("text_encode", &["max_length"]),
        ("lora_merge", &["rank"]),
        ("command", &["timeout_secs"]),
    ];
    for (stage, keys) in counts {
        for key in keys {
            assert_eq!(least(stage, key), 1, "`{key}` of {stage}");
        }
    }
    assert_eq!(least("interpolate", "frames"), 5);
    // A training of no steps is the start itself.
    assert_eq!(least("lora_train", "steps"), 0);
}

/// A data set that is not there, a command, and stages in all states.
const MORE: &str = r#"
[stages.photos]
kind   = "dataset"
source = { source = "folder", root = "photos" }
task   = "pairs"
size   = [32, 32]

[stages.echo]
kind    = "command"
inputs  = { input = "clips" }
command = "echo 1 > $OUT/n.json"
outputs = ["n.json"]
"#;

#[test]
fn plans_fit_their_schema_in_every_state() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    let plan = |line: &str| -> Value {
        serde_json::from_str(&shell.succeed(&format!("plan --json {line}"))).unwrap()
    };
    assert_fits("plan", &plan("clips.toml"));
    shell.succeed("run clips.toml");
    assert_fits("plan", &plan("clips.toml"));
    shell.write("clips.toml", &format!("{CLIPS}{MORE}"));
    let lines = ["clips.toml --set pairs.count=3", "clips.toml --force pairs --only clips"];
    let states = lines.into_iter().flat_map(|line| {
        let plan = plan(line);
        assert_fits("plan", &plan);
        let stages = plan["stages"].as_array().unwrap().clone();
        stages.into_iter().map(|stage| stage["state"].as_str().unwrap().to_owned())
    });
    let states: std::collections::BTreeSet<_> = states.collect();
    assert_eq!(states.into_iter().collect::<Vec<_>>(), ["blocked", "pending", "stale"]);
}

#[test]
fn locks_events_and_reports_fit_their_schemas() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml --lock --events first.ndjson");
    shell.succeed("run clips.toml --set clips.frames=9 --events second.ndjson");
    let lock = std::fs::read_to_string(shell.path("clips.lock")).unwrap();
    assert_fits("lock", &serde_json::from_str(&lock).unwrap());
    let mut kinds = std::collections::BTreeSet::new();
    for file in ["first.ndjson", "second.ndjson"] {
        for line in std::fs::read_to_string(shell.path(file)).unwrap().lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            assert_fits("event", &event);
            kinds.insert(event["event"].as_str().unwrap().to_owned());
        }
    }
    let wanted = ["run_finished", "run_started", "stage_finished", "stage_reused", "stage_started"];
    assert!(wanted.iter().all(|kind| kinds.contains(*kind)), "{kinds:?}");
    for line in ["verify clips.toml --json", "verify clips.toml --json --set pairs.seed=9"] {
        let report = shell.output(line).stdout;
        assert_fits("verify", &serde_json::from_slice(&report).unwrap());
    }
    let wrong = CLIPS.replace("frames", "framez");
    shell.write("wrong.toml", &wrong);
    for (document, line) in [("verify", "verify"), ("plan", "plan")] {
        let report = shell.output(&format!("{line} wrong.toml --json"));
        assert_eq!(report.status.code(), Some(2));
        assert_fits(document, &serde_json::from_slice(&report.stdout).unwrap());
    }
    assert_fits(
        "cache_verify",
        &serde_json::from_str(&shell.succeed("cache verify --json")).unwrap(),
    );
    // A key that goes, or changes its type, would be seen.
    let mut lock: Value = serde_json::from_str(&lock).unwrap();
    lock["stages"]["pairs"]["output"] = "abc".into();
    lock.as_object_mut().unwrap().remove("models");
    assert_eq!(violations(&schema("lock"), &lock).len(), 2);
}
