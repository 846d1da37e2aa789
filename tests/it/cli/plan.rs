//! What would run, and why.

use super::{CLIPS, Shell};

#[test]
fn plan_says_what_would_run_and_why() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    insta::assert_snapshot!(shell.transcript("plan clips.toml"), @"
    $ pipe plan clips.toml
    ? 0
    --- stdout
    run    pairs  new
    maybe  clips[method=linear]  after pairs
    maybe  clips[method=quadratic]  after pairs
    1 stage to run, 2 waiting for others, 0 cached; how long is not known, as no run of this file and profile timed the like yet
    ");
    assert!(shell.output("run clips.toml").status.success());
    insta::assert_snapshot!(shell.transcript("plan clips.toml"), @"
    $ pipe plan clips.toml
    ? 0
    --- stdout
    0 stages to run, 3 cached
    ");
    let set = "clips.toml --set pairs.count=3";
    insta::assert_snapshot!(shell.transcript(&format!("plan {set}")), @"
    $ pipe plan clips.toml --set pairs.count=3
    ? 0
    --- stdout
    run    pairs  count 2 -> 3 (--set pairs.count=3)  about [TIME]
    maybe  clips[method=linear]  after pairs  about [TIME]
    maybe  clips[method=quadratic]  after pairs  about [TIME]
    1 stage to run, 2 waiting for others, 0 cached; at most about [TIME] of stage time
    disk: at most about [SIZE]; [SIZE] are free
    ");
    let json = shell.output(&format!("plan --json {set}")).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["schema_version"], 1);
    let states = json["stages"].as_array().unwrap().iter().map(|stage| stage["state"].clone());
    assert_eq!(states.collect::<Vec<_>>(), ["stale", "pending", "pending"]);
    insta::assert_snapshot!(shell.transcript("plan clips.toml --only clisp"), @"
    $ pipe plan clips.toml --only clisp
    ? 2
    --- stderr
      × the pipeline has no stage `clisp`
      help: did you mean `clips`?
    ");
}

#[test]
fn explain_names_every_ingredient() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    assert!(shell.output("run clips.toml").status.success());
    let set = "clips[method=linear] --set clips.frames=9";
    insta::assert_snapshot!(shell.transcript(&format!("explain clips.toml {set}")), @"
    $ pipe explain clips.toml clips[method=linear] --set clips.frames=9
    ? 0
    --- stdout
    clips[method=linear]  (interpolate, version 1)
      will run:
        frames 5 -> 9 (--set clips.frames=9)
      parameters:
        frames = 9  --set clips.frames=9
        grid   = 4  default
        method = linear  clips.toml:5:29
        seed   = 0  default
      input pairs: [HASH]  from pairs
      last run: [WHEN] in [TIME] on cpu by pipe 0.1.0 -> [HASH]
    ");
    insta::assert_snapshot!(shell.transcript("explain clips.toml clips[method=linear]"), @"
    $ pipe explain clips.toml clips[method=linear]
    ? 0
    --- stdout
    clips[method=linear]  (interpolate, version 1)
      fresh: [HASH] in the cache
      parameters:
        frames = 5  clips.toml:18:10
        grid   = 4  default
        method = linear  clips.toml:5:29
        seed   = 0  default
      input pairs: [HASH]  from pairs
      key: [HASH]
      last run: [WHEN] in [TIME] on cpu by pipe 0.1.0 -> [HASH]
    ");
    insta::assert_snapshot!(shell.transcript("explain clips.toml pears"), @"
    $ pipe explain clips.toml pears
    ? 2
    --- stderr
      × the pipeline has no stage `pears`
      help: did you mean `pairs`?
    ");
    insta::assert_snapshot!(shell.transcript("explain clips.toml clips[method=cubic]"), @"
    $ pipe explain clips.toml clips[method=cubic]
    ? 2
    --- stderr
      × no cell of `clips` has `method=cubic`
      help: `method` can be `linear`, `quadratic`
    ");
}

#[test]
fn a_changed_baseline_is_told_from_the_other_values_of_its_axis() {
    let text = CLIPS
        .replace("{ method = \"linear\" }", "{ frames = 9 }")
        .replace("{ method = [\"linear\", \"quadratic\"] }", "{ frames = [5, 17] }")
        .replace("\"${method}\"", "\"linear\"")
        .replace("frames = 5", "frames = \"${frames}\"");
    let shell = Shell::new();
    shell.write("clips.toml", &text);
    shell.succeed("run clips.toml");
    shell.write("clips.toml", &text.replace("frames = 9", "frames = 13"));
    // As near are 5 and 17, which the file still has.
    let plan = shell.succeed("plan clips.toml");
    assert!(plan.contains("clips[frames=13]  frames 9 -> 13 (clips.toml:4:"), "{plan}");
    assert!(plan.contains("1 stage to run, 3 cached"), "{plan}");
}

/// Training of an adapter of the model in `model`.
const TRAINED: &str = r#"
[stages.latents]
kind   = "vae_encode"
inputs = { videos = "clips" }
model  = "MODEL"

[stages.prompt]
kind  = "text_encode"
model = "MODEL"

[stages.lora]
kind   = "lora_train"
inputs = { latents = "latents", text = "prompt" }
model  = "MODEL"
steps  = 5
"#;

#[test]
fn memory_is_told_and_too_little_of_it_refused_before_anything_is_loaded() {
    let shell = Shell::new();
    let text = format!("{CLIPS}{TRAINED}").replace(", \"quadratic\"", "");
    shell.write("tiny.toml", &text.replace("MODEL", "builtin:tiny"));
    let plan = shell.plan("tiny.toml --device cpu");
    let memory = &plan[4]["memory"];
    let parts = ["weights", "trained", "activations", "attention", "clips"];
    let sum: u64 = parts.iter().map(|part| memory[part].as_u64().unwrap()).sum();
    assert_eq!(memory["total"], sum);
    assert!(plan[0]["memory"].is_null(), "a data set runs no model");
    let told = shell.succeed("plan tiny.toml --device cpu");
    assert!(told.contains("needs ") && !told.contains("too little"), "{told}");

    // A model that no machine can hold, of which there is only the configuration.
    let model = shell.path("model");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/builtin_tiny");
    for file in ["transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json"] {
        std::fs::create_dir_all(model.join(file).parent().unwrap()).unwrap();
        let config = std::fs::read_to_string(root.join(file)).unwrap();
        let huge = config.replace("\"num_attention_heads\": 3", "\"num_attention_heads\": 3000");
        std::fs::write(model.join(file), huge).unwrap();
    }
    shell.write("huge.toml", &text.replace("MODEL", "model"));
    for line in ["plan huge.toml --device cpu", "run huge.toml --device cpu"] {
        let output = shell.output(line);
        assert_eq!(output.status.code(), Some(if line.starts_with("plan") { 0 } else { 3 }));
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8(told).unwrap().replace("\n  │", "").replace('\n', " ");
        assert!(told.contains("`lora[method=linear]` needs about"), "{told}");
        assert!(told.contains("weights") && told.contains("but the device has"), "{told}");
        assert!(told.contains("recompute = \"block\""), "{told}");
    }
}

#[test]
fn a_cell_that_never_ran_is_new_beside_one_that_did() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml --only clips[method=linear]");
    let plan = shell.succeed("plan clips.toml");
    assert!(plan.contains("run    clips[method=quadratic]  new"), "{plan}");
}

#[test]
fn estimates_go_by_the_work() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml --jobs 1");
    let secs = |line: &str| -> Vec<f64> {
        let stages = shell.plan(line);
        stages.iter().map(|stage| stage["estimate_secs"].as_f64().unwrap()).collect()
    };
    let took = secs("clips.toml");
    let may_take = secs("clips.toml --set pairs.count=20 --set clips.frames=9");
    // Ten times the images; clips of nine frames instead of five.
    let ratios: Vec<_> = took.iter().zip(&may_take).map(|(a, b)| format!("{:.3}", b / a)).collect();
    assert_eq!(ratios, ["10.000", "18.000", "18.000"]);
    // Six times the pixels.
    let larger = secs("clips.toml --set pairs.size=[64,96]");
    let ratios: Vec<_> = took.iter().zip(&larger).map(|(a, b)| format!("{:.3}", b / a)).collect();
    assert_eq!(ratios, ["6.000", "6.000", "6.000"]);
}

#[test]
fn the_time_of_another_model_is_not_known() {
    let shell = Shell::new();
    let encode = "\n[stages.latents]\nkind = \"vae_encode\"\ninputs = { videos = \"clips\" }\nmodel = \"MODEL\"\n";
    let with = |model: &str| format!("{CLIPS}{}", encode.replace("MODEL", model));
    shell.write("clips.toml", &with("builtin:tiny"));
    shell.succeed("run clips.toml");
    let known = |line: &str| -> Vec<bool> {
        let stages = shell.plan(line);
        stages.iter().map(|stage| !stage["estimate_secs"].is_null()).collect()
    };
    let line = "clips.toml --set clips.frames=9";
    assert!(known(line).into_iter().all(|known| known));
    // By what it holds, not by its name; a run reads what that is, a plan does not.
    let unknown = [true, true, true, false, false];
    super::check::mixed_models::copy(&shell.path("other"));
    shell.write("clips.toml", &with("other"));
    assert_eq!(known(line), unknown);
    // Hashes of files that were just written are not kept.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let told = String::from_utf8(shell.output("run clips.toml").stderr).unwrap();
    assert!(told.contains("5 reused"), "{told}");
    assert!(known(line).into_iter().all(|known| known));
    super::check::mixed_models::change(&shell.path("other"), "vae");
    assert_eq!(known(line), unknown);
}

#[test]
fn the_disk_that_results_take_is_known_from_earlier_ones() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    let disk = |line: &str| -> serde_json::Value {
        let plan = shell.succeed(&format!("plan --json {line}"));
        serde_json::from_str::<serde_json::Value>(&plan).unwrap()
    };
    let new = disk("clips.toml");
    assert_eq!((&new["disk"]["bytes"], &new["disk"]["unknown"]), (&0.into(), &3.into()));
    assert!(new["disk"]["free"].as_u64().is_some_and(|free| free > 0));
    shell.succeed("run clips.toml");
    assert_eq!(disk("clips.toml")["disk"]["bytes"], 0, "nothing runs");
    // What is forced gives what is there, and so does what waits for it.
    assert_eq!(disk("clips.toml --force pairs")["disk"]["bytes"], 0);

    // What a run then takes is near what was said, for more items, more frames and larger ones.
    let size = || -> u64 {
        let objects = super::walk(&shell.path("cache/objects"));
        objects.iter().map(|path| path.metadata().unwrap().len()).sum()
    };
    for set in ["pairs.count=6", "clips.frames=21", "pairs.size=[64,96]"] {
        let line = format!("clips.toml --set {set}");
        let plan = disk(&line);
        let (said, unknown) = (plan["disk"]["bytes"].as_u64().unwrap(), &plan["disk"]["unknown"]);
        assert_eq!(unknown, 0);
        let stages = plan["stages"].as_array().unwrap().iter();
        assert_eq!(stages.filter_map(|stage| stage["disk"].as_u64()).sum::<u64>(), said);
        let before = size();
        shell.succeed(&format!("run {line}"));
        let took = size() - before;
        assert!(said > took / 2 && said < took * 2, "{set}: {said} said, {took} taken");
    }
    let told = shell.transcript("plan clips.toml --set clips.frames=33");
    assert!(told.contains("disk: at most about [SIZE]; [SIZE] are free"), "{told}");
}

#[test]
fn an_exclude_that_matches_nothing_is_a_warning() {
    let shell = Shell::new();
    let exclude = "{ method = [\"linear\", \"quadratic\"] }\nexclude = [{ method = \"cubic\" }]";
    let axis = "{ method = [\"linear\", \"quadratic\"] }";
    shell.write("clips.toml", &CLIPS.replace(axis, exclude));
    insta::assert_snapshot!(shell.transcript("check clips.toml"), @r#"
    $ pipe check clips.toml
    ? 0
    --- stdout
    clips.toml: fine, 3 stages
    --- stderr
    warning: an entry of `sweep.exclude` matches no cell (clips.toml:6:12): no `method` is "cubic"
      help: take it out, or correct it: `method` takes "linear", "quadratic"
    "#);
    for line in ["plan clips.toml", "run clips.toml", "check --json clips.toml"] {
        assert!(shell.transcript(line).contains("matches no cell"), "{line}");
    }
}

#[test]
fn programs_are_told_of_a_file_with_errors_as_by_check() {
    let shell = Shell::new();
    shell.write("clips.toml", &CLIPS.replace("frames", "framez"));
    let [plan, check] = ["plan", "check"].map(|verb| {
        let output = shell.output(&format!("{verb} clips.toml --json"));
        assert_eq!(output.status.code(), Some(2));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    });
    assert_eq!(plan, check);
    assert!(plan["files"][0]["errors"][0]["message"].as_str().unwrap().contains("framez"));
}
