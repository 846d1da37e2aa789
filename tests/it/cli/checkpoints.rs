//! One training, several adapters: `save_at` from the training to the score.

use super::{Experiment, SCORE, Shell};
use crate::incremental::corrupt;

/// As far as its samples.
fn sampled() -> String {
    let way = Experiment {
        name: "way",
        params: "steps   = 2\nsave_at = [1, 2]\n",
        frames: 9,
        lora: "rank    = 2\nsteps   = \"${steps}\"\nsave_at = \"${save_at}\"\n",
        ..Experiment::default()
    };
    way.toml()
}

/// The whole pipeline.
fn way() -> String {
    format!("{}{SCORE}\n[tables.main]\nvalue = \"score.psnr\"\n", sampled())
}

/// The names of the items that a stage gave.
fn items(shell: &Shell, stage: &str) -> Vec<String> {
    let plan = shell.plan("way.toml");
    let found = plan.iter().find(|found| found["stage"] == stage).unwrap();
    let shown = shell.succeed(&format!("show --json {}", found["digest"].as_str().unwrap()));
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let items = shown["artifact"]["items"].as_array().unwrap();
    items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

/// The steps that a run trains.
fn trained(shell: &Shell, line: &str) -> usize {
    shell.succeed(&format!("run {line} --events events.ndjson"));
    let events = std::fs::read_to_string(shell.path("events.ndjson")).unwrap();
    events.lines().filter(|line| line.contains("step, loss")).count()
}

/// The exported scores name every stage, its parameters and its content.
fn says_what_it_was_made_from(shell: &Shell, provenance: &serde_json::Value) {
    let plan = shell.plan("way.toml");
    let digest =
        |stage: &str| plan.iter().find(|found| found["stage"] == stage).unwrap()["digest"].clone();
    let stages = &provenance["stages"];
    assert_eq!(stages.as_object().unwrap().len(), 8);
    for stage in ["lora", "predict", "score"] {
        assert_eq!(stages[stage]["output"], digest(stage), "{stage}");
    }
    assert_eq!(stages["lora"]["params"]["rank"], 2);
    assert_eq!(stages["predict"]["params"]["model"], "builtin:tiny");
    assert_eq!(stages["predict"]["inputs"]["lora"], "lora");
    assert!(stages["lora"]["log"]["image_latent_scale"].is_number(), "{stages:#}");
    assert!(stages["predict"]["params"]["sampler"].is_null(), "{stages:#}");
    assert_eq!(stages["predict"]["left_to_model"]["sampler"], "dpm");
    let [trained, sampled] = [&stages["lora"]["log"], &stages["predict"]["left_to_model"]]
        .map(|of| &of["image_latent_scale"]);
    assert_eq!(trained, sampled, "both are the model's");
    assert!(stages["lora"]["log"].get("losses").is_none(), "{stages:#}");
    assert!(stages["predict"]["weights"].is_string());
    assert_eq!(stages["prompt"]["params"]["prompt"], "");
    let json: serde_json::Value =
        serde_json::from_str(&shell.succeed("show way.toml score --json")).unwrap();
    assert_eq!(json["artifacts"][0]["provenance"], *provenance);
    let shown = shell.succeed("show way.toml score");
    let (_, made_from) = shown.split_once("  made from\n").unwrap();
    insta::assert_snapshot!(super::redact(made_from), @r#"
    pairs: size = [32,32]
    clips: method = "quadratic", frames = 9, seed = 0
    prompt: model = "builtin:tiny", weights = [HASH], prompt = ""
    latents: model = "builtin:tiny", weights = [HASH], seed = 0
    lora: model = "builtin:tiny", weights = [HASH], rank = 2, steps = 2, image_latent_scale = 1.[HASH], seed = 0, digest = [HASH]
    predict: model = "builtin:tiny", weights = [HASH], frames = 9, steps = 1, sampler = "dpm", guidance_scale = 1.0, image_latent_scale = 1.[HASH], seed = 0
    answers: model = "builtin:tiny", weights = [HASH], seed = 0
    "#);
    assert!(!shell.succeed("show way.toml answers").contains("made from"), "it is of scores");
}

/// Times and memory of the run in the forms of a table.
fn says_what_it_took(shell: &Shell) {
    let csv = shell.succeed("table way.toml --compute --format csv");
    let mean = |value: &str, column: &str| -> f64 {
        let line = csv.lines().find(|line| {
            let fields: Vec<_> = line.split(',').collect();
            line.contains(value) && (column.is_empty() || fields[4] == column)
        });
        let line = line.unwrap_or_else(|| panic!("no {value} {column} in\n{csv}"));
        line.split(',').nth(5).unwrap().parse().unwrap_or_else(|_| panic!("{line}"))
    };
    assert!(mean("lora.training_s", "") > 0.0);
    assert!((mean("lora.training_s", "") / mean("lora.s_per_step", "") - 2.0).abs() < 1e-6);
    assert!(mean("predict.s_per_image", "") > 0.0);
    // The model's weights alone are 18 MB.
    assert!(mean("lora.peak_mib", "") > 18.0);
    assert!(mean("stage=lora kind=lora_train device=cpu", "device s") > 0.0);
    assert!(csv.contains("stage=predict kind=sample device=cpu runs=1 items=2"), "{csv}");
    for format in ["text", "markdown", "json", "latex"] {
        let text = shell.succeed(&format!("table way.toml --compute --format {format}"));
        assert!(text.contains("What each stage took in all"), "{text}");
    }
}

/// The files of the states that trainings left at a step.
fn states(shell: &Shell, step: u64) -> Vec<std::path::PathBuf> {
    let mut files = super::walk(&shell.path("cache/checkpoints"));
    files.retain(|file| file.to_string_lossy().contains(&format!("-{step:08}-")));
    files
}

/// States of trainings, damaged as by a failing disk: found by a check, and told by a run that
/// would have gone on from them.
fn damaged_states_are_told(shell: &Shell) {
    for state in states(shell, 3) {
        corrupt(&state, true);
    }
    let further = "way.toml --set params.steps=4 --set params.save_at=[3,4] --only lora";
    let said = shell.transcript(&format!("run {further} --events events.ndjson"));
    let of_lora: Vec<_> = said.lines().filter(|line| line.contains("  lora  ")).take(2).collect();
    insta::assert_snapshot!(of_lora.join("\n"), @"
    damaged  lora  its checkpoint at step 3 is removed; it goes on from step 2
    goes on  lora  at step 2 of 4
    ");
    let events = std::fs::read_to_string(shell.path("events.ndjson")).unwrap();
    let told = events.lines().find(|line| line.contains("checkpoints_damaged")).unwrap();
    assert!(told.contains("\"steps\":[3],\"goes_on_at_step\":2"), "{told}");
    assert_eq!(events.lines().filter(|line| line.contains("step, loss")).count(), 2);
    // It was made again, and is whole.
    assert_eq!(states(shell, 3).len(), 1);
    assert!(shell.succeed("cache verify").contains(", 4 checkpoints, "));

    let state = states(shell, 4).remove(0);
    corrupt(&state, true);
    insta::assert_snapshot!(shell.transcript("cache verify").replace("-00000004-", "-[STEP]-"), @"
    $ pipe cache verify
    ? 4
    --- stdout
    checked 44 objects, 4 checkpoints, 3 pictures, [SIZE], and 25 records
    damaged and removed: checkpoints/[HASH]/final-[STEP]-[HASH].safetensors, of `way: lora`
    --- stderr
    a training that would go on from a checkpoint that is gone goes on from an earlier one, or begins anew
    ");
    assert!(!state.exists());
}

#[test]
fn adapters_along_a_training_are_sampled_and_scored_each() {
    let shell = Shell::new();
    shell.write("way.toml", &way());
    assert_eq!(trained(&shell, "way.toml"), 2);
    assert_eq!(items(&shell, "lora"), ["step_1", "step_2"]);
    let answers = items(&shell, "answers");
    assert_eq!(answers.len(), 2);
    assert!(answers[0].starts_with("step_1/") && answers[1].starts_with("step_2/"));
    shell.succeed("export way.toml score --to out");
    let metrics = std::fs::read_to_string(shell.path("out/metrics.json")).unwrap();
    let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
    assert_eq!(metrics["by_checkpoint"]["step_2"], metrics["values"]);
    says_what_it_was_made_from(&shell, &metrics["provenance"]);
    says_what_it_took(&shell);
    shell.succeed("export way.toml lora --to adapters");
    for step in ["step_1", "step_2"] {
        let weights = format!("adapters/{step}/pytorch_lora_weights.safetensors");
        assert!(shell.path(&weights).exists(), "{weights}");
    }
    // A sheet says which step it shows.
    shell.succeed("export way.toml answers --to sheets");
    for step in ["step_1", "step_2"] {
        assert!(shell.path(&format!("sheets/sheet.{step}.png")).exists(), "{step}");
    }
    assert!(!shell.path("sheets/sheet.png").exists());
    let pictures = super::walk(&shell.path("cache/pictures"));
    let names = pictures.iter().map(|path| path.file_name().unwrap().to_str().unwrap());
    assert!(names.clone().all(|name| name.starts_with("answers-answers-step_2-")), "{pictures:?}");
    assert_eq!(names.count(), 1);

    // A longer training goes on from the state of the shorter one, and with the adapters that are
    // known already nothing is sampled.
    let longer = "way.toml --set params.steps=3 --set params.save_at=[1,2,3]";
    assert_eq!(trained(&shell, longer), 1);
    let plan = shell.plan(&format!("{longer} --force predict"));
    let predict = plan.iter().find(|stage| stage["stage"] == "predict").unwrap();
    assert_eq!(predict["items_total"], 3);
    let events = std::fs::read_to_string(shell.path("events.ndjson")).unwrap();
    let started = events.lines().find(|line| line.contains("\"kind\":\"sample\"")).unwrap();
    assert!(started.contains("\"items_cached\":2,\"items_total\":3"), "{started}");
    // An adapter saved on the way is the one of a training that ends there.
    let shorter = "way.toml --set params.steps=1 --set params.save_at=[1]";
    assert_eq!(trained(&shell, shorter), 0);
    let events = std::fs::read_to_string(shell.path("events.ndjson")).unwrap();
    let started = events.lines().find(|line| line.contains("\"kind\":\"sample\"")).unwrap();
    assert!(started.contains("\"items_cached\":1,\"items_total\":1"), "{started}");

    damaged_states_are_told(&shell);

    // Two revisions of the file: parameters and, since both are in the cache, results.
    shell.commit("way.toml");
    let text = way().replace("steps   = 2", "steps   = 3").replace("[1, 2]", "[1, 2, 3]");
    shell.write("way.toml", &text);
    let said = shell.succeed("diff HEAD:way.toml way.toml");
    assert!(said.contains("params.steps  2 -> 3  (way.toml:4:11)"), "{said}");
    let results = said.split_once("\nresults\n").unwrap().1;
    let number = regex::Regex::new(r"^main score.psnr  [\d.]+ -> [\d.]+  \([+-]").unwrap();
    assert!(number.is_match(results), "{said}");
}

/// The record of the training that ended at a step.
fn record_of_training_to(shell: &Shell, step: u64) -> serde_json::Value {
    let shards = std::fs::read_dir(shell.path("cache/actions")).unwrap();
    let files = shards.flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap());
    let records = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let sealed = records.map(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).unwrap());
    let mut records = sealed.map(|sealed| sealed["record"].clone());
    records.find(|record| record["reached"] == step).unwrap()
}

#[test]
fn a_state_beyond_the_first_adapter_spares_only_the_steps_between() {
    let shell = Shell::new();
    shell.write("way.toml", &sampled());
    let alone = "way.toml --only lora --set params.save_at=[2]";
    assert_eq!(trained(&shell, alone), 2);
    // The adapter of step 1 must be made from the start; the state at 2 is there.
    let all = "way.toml --only lora --set params.steps=3 --set params.save_at=[1,2,3]";
    let plan = shell.plan(all);
    let lora = plan.iter().find(|stage| stage["stage"] == "lora").unwrap();
    assert_eq!(lora["goes_on_at_step"], serde_json::Value::Null);
    assert_eq!(trained(&shell, all), 2);
    assert_eq!(record_of_training_to(&shell, 3)["went_on_from"], 1);
}

#[test]
fn save_at_must_end_at_the_last_step() {
    let shell = Shell::new();
    shell.write("way.toml", &way());
    insta::assert_snapshot!(shell.transcript("check way.toml --set params.save_at=[1]"), @"
    $ pipe check way.toml --set params.save_at=[1]
    ? 2
    --- stderr
      × stage `lora`: `save_at` must end at `steps`, 2, but ends at 1
       ╭─[--set:1:16]
     1 │ params.save_at=[1]
       ·                ─┬─
       ·                 ╰── `save_at`
       ╰────
      help: what is trained after the last of these steps would be kept nowhere
            used here: way.toml:34:11
    way.toml: 1 error
    ");
    let text = shell.transcript("check way.toml --set params.save_at=[2,1]");
    assert!(text.contains("must be steps from 1 on that ascend"), "{text}");
}
