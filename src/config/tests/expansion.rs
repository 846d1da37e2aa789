//! Right files: cells, references, layers, places.

use serde_json::json;

use super::toys::{WHOLE, load, load_files, render};
use crate::config::{Layer, LoadOptions, Pipeline, load_with, show};

fn names(pipeline: &Pipeline) -> Vec<String> {
    pipeline.instances.iter().map(ToString::to_string).collect()
}

fn instance<'a>(pipeline: &'a Pipeline, name: &str) -> &'a crate::config::Instance {
    pipeline.instances.iter().find(|instance| instance.to_string() == name).expect("it is there")
}

#[test]
fn a_range_is_the_list_of_its_numbers() {
    let cells = |range: &str, exclude: &str| {
        let grid = format!("n = {range} }}\n{exclude}");
        let text = WHOLE.replace("n = [1, 3] }", &grid).replace("3 = 30", "3 = 30, 2 = 20, 5 = 50");
        load(&text).sweep.cells.iter().map(|cell| cell["n"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(cells("{ from = 1, to = 3 }", ""), cells("[1, 2, 3]", ""));
    assert_eq!(cells("{ from = 1, to = 6, step = 2 }", ""), cells("[1, 3, 5]", ""));
    assert_eq!(cells("{ from = 2, to = 2 }", ""), cells("[2]", ""));
    let without = "exclude = [{ n = { from = 2, to = 4 } }]";
    assert_eq!(cells("[1, 2, 3, 5]", without), cells("[1, 5]", ""));
}

#[test]
fn a_number_of_a_range_is_said_to_stand_where_the_range_does() {
    let text = WHOLE.replace("n = [1, 3] }", "n = { from = 3, to = 3 } }");
    let pipeline = load(&text);
    let pairs = instance(&pipeline, "pairs[n=3]");
    assert_eq!(pairs.places.get("count").unwrap().to_string(), "toy/main.toml:16:23");
}

#[test]
fn a_stage_is_expanded_over_the_axes_that_reach_it() {
    let pipeline = load(WHOLE);
    insta::assert_snapshot!(names(&pipeline).join("\n"), @r#"
    pairs[n=1]
    pairs[n=3]
    test
    lora[modules=qkvo, n=1, rank=4]
    lora[modules=qkvo, n=1, rank=2]
    lora[modules=qk, n=1, rank=4]
    lora[modules=qkvo, n=3, rank=4]
    lora[modules=qkvo, n=3, rank=2]
    lora[modules=qk, n=3, rank=4]
    score[modules=qkvo, n=1, rank=4]
    score[modules=qkvo, n=1, rank=2]
    score[modules=qk, n=1, rank=4]
    score[modules=qkvo, n=3, rank=4]
    score[modules=qkvo, n=3, rank=2]
    score[modules=qk, n=3, rank=4]
    "#);
    assert_eq!(pipeline.sweep.cells.len(), 6);
    let lora = instance(&pipeline, "lora[modules=qkvo, n=3, rank=2]");
    assert_eq!(pipeline.instances[lora.inputs["pairs"]].to_string(), "pairs[n=3]");
    for (index, instance) in pipeline.instances.iter().enumerate() {
        assert!(instance.inputs.values().all(|input| *input < index));
    }
}

#[test]
fn references_keep_their_type_and_text_takes_any() {
    let pipeline = load(WHOLE);
    let lora = instance(&pipeline, "lora[modules=qkvo, n=3, rank=2]");
    assert_eq!(
        serde_json::Value::Object((*lora.params).clone()),
        json!({
            "rank": 2, "steps": 30, "modules": "qkvo", "optimizer": { "lr": 0.0, "warmup": 0 },
            "note": "rank 2 at 16"
        })
    );
    assert_eq!(instance(&pipeline, "pairs[n=1]").params["size"], json!([16, 8]));
}

#[test]
fn a_place_is_where_the_value_was_written() {
    let pipeline = load(WHOLE);
    let places = &instance(&pipeline, "lora[modules=qkvo, n=3, rank=2]").places;
    let lines = ["modules", "note", "optimizer.lr", "rank", "steps"].map(|path| {
        let place = places.get(path).map(|place| format!("{}:{}", place.line, place.column));
        format!("{path} {}", place.unwrap_or("default".to_owned()))
    });
    insta::assert_snapshot!(lines.join("\n"), @r#"
    modules 15:51
    note 35:11
    optimizer.lr default
    rank 15:27
    steps 6:33
    "#);
}

#[test]
fn the_seed_goes_to_stages_that_draw() {
    let pipeline = load(WHOLE);
    assert_eq!(instance(&pipeline, "test").params["seed"], json!(7));
    let own = WHOLE.replace("count = 5", "count = 5\nseed = 9");
    assert_eq!(instance(&load(&own), "test").params["seed"], json!(9));
    assert!(instance(&pipeline, "test").places.get("seed").is_some());
}

#[test]
fn exclude_takes_cells_out() {
    let text = WHOLE.replace(
        "grid          = { n = [1, 3] }",
        "grid = { n = [1, 3] }\nexclude = [{ n = 3, rank = [2, 9] }]",
    );
    let pipeline = load(&text);
    assert_eq!(pipeline.sweep.cells.len(), 5);
    assert!(!names(&pipeline).iter().any(|name| name == "lora[modules=qkvo, n=3, rank=2]"));
}

#[test]
fn an_exclude_that_matches_no_cell_is_told() {
    let with = |entry: &str| {
        let grid = "grid          = { n = [1, 3] }";
        WHOLE.replace(grid, &format!("{grid}\nexclude = [{entry}]"))
    };
    let told = |entry: &str| load(&with(entry)).warnings.join("\n");
    insta::assert_snapshot!(
        told("{ n = 3, rank = [2, 9] }, { n = 1, rank = 8 }, { rank = 2, modules = \"qk\" }"), @"
    an entry of `sweep.exclude` matches no cell (toy/main.toml:17:38): no `rank` is 8
      help: take it out, or correct it: `rank` takes 2, 4
    an entry of `sweep.exclude` matches no cell (toy/main.toml:17:59): each value is there, but no cell has them together
      help: take it out, or correct it: of axes varied one at a time, one at most differs from the baseline
    ");
    insta::assert_snapshot!(told("{ modules = [\"q\", \"k\"] }"), @r#"
    an entry of `sweep.exclude` matches no cell (toy/main.toml:17:12): no `modules` is "q" or "k"
      help: take it out, or correct it: `modules` takes "qk", "qkvo"
    "#);
    // What another entry leaves out, too, is there; a profile may have other values.
    assert_eq!(told("{ n = 3 }, { n = 3, rank = 2 }"), "");
    let profile = "\n[profiles.more.sweep]\ngrid = { n = [1, 3, 9] }\n";
    let text = with("{ n = 9 }") + profile;
    assert_eq!(load_files(&text, &[], Some("more"), &[]).unwrap().warnings, [""; 0]);
    assert_eq!(load(&text).warnings.len(), 1);
}

#[test]
fn exclude_compares_by_value_and_takes_a_list_as_one_where_the_axis_does() {
    let cells = |axis: &str, entry: &str| {
        let text = WHOLE.replace("\"${dims}\"", "\"${m}\"").replace(
            "grid          = { n = [1, 3] }",
            &format!("grid = {{ n = [1, 3], {axis} }}\nexclude = [{entry}]"),
        );
        let pipeline = load(&text);
        (pipeline.sweep.cells.len(), pipeline.warnings.join("\n"))
    };
    let axis = "m = [[64, 64], [32, 32]]";
    let half = cells(axis, "{ m = [64, 64] }");
    assert_eq!(half, cells(axis, "{ m = [[64, 64], [9, 9]] }"));
    assert_eq!(half, cells(axis, "{ m = [64.0, 64] }"));
    assert_eq!(half, cells(axis, "{ n = 1.0 }"));
    assert_eq!((half.0 * 2, half.1.as_str()), (cells(axis, "{ n = 7 }").0, ""));
    let mixed = "m = [[64, 64], 32]";
    assert_eq!(half, cells(mixed, "{ m = [32, 9] }"));
    insta::assert_snapshot!(cells(axis, "{ m = [64, 32] }").1, @"
    an entry of `sweep.exclude` matches no cell (toy/main.toml:17:12): no `m` is [64,32]
      help: take it out, or correct it: `m` takes [64,64], [32,32]
    ");
}

#[test]
fn paths_are_meant_from_the_file_that_writes_them() {
    let big = load_files(WHOLE, &[], Some("big"), &[]).unwrap();
    assert_eq!(instance(&big, "test").params["from"]["root"], "toy/pictures");
    let set = ["params.data={ source = \"folder\", root = \"here\" }"];
    let pipeline = load_files(WHOLE, &[], None, &set).unwrap();
    assert_eq!(instance(&pipeline, "test").params["from"]["root"], "here");
    let base = WHOLE.replace("{ source = \"figures\" }", "{ source = \"folder\", root = \"x\" }");
    let main = "extends = \"../bases/b.toml\"\n";
    let pipeline = load_files(main, &[("toy/../bases/b.toml", &base)], None, &[]).unwrap();
    assert_eq!(instance(&pipeline, "test").params["from"]["root"], "toy/../bases/x");
}

#[test]
fn layers_win_in_order() {
    let main = "extends = \"base.toml\"\nseed = 8\n[stages.lora]\noptimizer = { lr = 0.5 }\n[profiles.p]\nseed = 9\nstages.lora.optimizer.warmup = 1\n";
    let base = WHOLE.replace(
        "steps   = \"${steps}\"",
        "steps = \"${steps}\"\noptimizer = { warmup = 2, lr = 0.1 }",
    );
    let files = [("toy/base.toml", base.as_str())];
    let pipeline = load_files(main, &files, Some("p"), &["lora.modules=qk", "seed=10"]).err();
    // The axis `modules` is used no more.
    assert!(render(&pipeline.unwrap()).contains("the sweep axis `modules`, which nothing uses"));
    let pipeline = load_files(main, &files, Some("p"), &["seed=10"]).unwrap();
    let lora = instance(&pipeline, "lora[modules=qkvo, n=1, rank=4]");
    assert_eq!(lora.params["optimizer"], json!({ "lr": 0.5, "warmup": 1 }));
    assert_eq!(pipeline.seed, 10);

    let read = |path: &std::path::Path| {
        Ok(if path.ends_with("base.toml") { base.clone() } else { main.to_owned() })
    };
    let options = LoadOptions {
        profile: Some("p".to_owned()),
        set: vec!["lora.rank=3".to_owned()],
        ..LoadOptions::default()
    };
    let shown = show(std::path::Path::new("toy/main.toml"), &options, &read).unwrap();
    let layer = |path: &str| shown.values.iter().find(|leaf| leaf.path == path).unwrap().layer;
    assert_eq!(layer("stages.lora.optimizer.lr"), Layer::File);
    assert_eq!(layer("stages.lora.optimizer.warmup"), Layer::Profile);
    assert_eq!(layer("stages.lora.rank"), Layer::Set);
    assert_eq!(layer("stages.score.kind"), Layer::Base);
    assert_eq!(shown.resolved["stages"]["lora"]["rank"], 3);
}

#[test]
fn a_profile_replaces_sweep_tables_as_wholes() {
    let text = WHOLE.replace(
        "[sweep]",
        "[profiles.small.sweep]\none_at_a_time = {}\ngrid = { n = [3] }\n\n[sweep]",
    );
    let pipeline = load_files(&text, &[], Some("small"), &[]).unwrap();
    assert_eq!(
        names(&pipeline),
        [
            "pairs[n=3]",
            "test",
            "lora[modules=qkvo, n=3, rank=4]",
            "score[modules=qkvo, n=3, rank=4]"
        ]
    );
    assert!(pipeline.sweep.one_at_a_time.is_empty());
    assert_eq!(pipeline.sweep.baseline["rank"], 4);
}

#[test]
fn one_axis_can_be_set_and_the_others_stay() {
    let set = ["sweep.one_at_a_time.rank=[2]", "sweep.baseline.rank=2", "sweep.grid.n=[3]"];
    let sweep = load_files(WHOLE, &[], None, &set).unwrap().sweep;
    let names: Vec<_> = sweep.one_at_a_time.iter().map(|(axis, _)| axis.as_str()).collect();
    assert_eq!(names, ["rank", "modules"]);
    assert_eq!(sweep.one_at_a_time[0].1, [json!(2)]);
    assert_eq!((&sweep.baseline["rank"], &sweep.baseline["modules"]), (&json!(2), &json!("qkvo")));
    assert_eq!(sweep.grid, [("n".to_owned(), vec![json!(3)])]);
    let whole = load_files(WHOLE, &[], None, &["sweep.one_at_a_time={ rank = [2] }"]).unwrap();
    assert_eq!(whole.sweep.one_at_a_time.len(), 1);
}

#[test]
fn an_input_can_be_an_axis() {
    let text = WHOLE
        .replace("inputs  = { pairs = \"pairs\" }", "inputs = { pairs = \"${which}\" }")
        .replace(
            "grid          = { n = [1, 3] }",
            "grid = { n = [1, 3], which = [\"pairs\", \"test\"] }",
        );
    let pipeline = load(&text);
    let lora = instance(&pipeline, "lora[modules=qkvo, n=3, rank=2, which=test]");
    assert_eq!(pipeline.instances[lora.inputs["pairs"]].to_string(), "test");
}

#[test]
fn a_base_may_have_params_that_nobody_uses() {
    let base = WHOLE.replace("[params]", "[params]\nspare = 1");
    let main = "extends = \"base.toml\"\n";
    assert!(load_files(main, &[("toy/base.toml", &base)], None, &[]).is_ok());
}

#[test]
fn a_dollar_escapes_a_reference() {
    let pipeline = load(&WHOLE.replace("rank ${rank} at", "$${HOME} ${rank}"));
    let lora = instance(&pipeline, "lora[modules=qkvo, n=3, rank=2]");
    assert_eq!(lora.params["note"], "${HOME} 2 16");
}

#[test]
fn tables_name_stages_and_axes() {
    let pipeline = load(WHOLE);
    let table = &pipeline.tables[0];
    assert_eq!(table.values, [("score".to_owned(), "f1".to_owned())]);
    assert_eq!(table.rows, ["modules", "rank"]);
    assert_eq!(table.columns.as_deref(), Some("n"));
}

#[test]
fn fifteen_thousand_instances_are_planned_quickly() {
    let numbers: Vec<_> = (0..5000).map(|n| n.to_string()).collect();
    let text = WHOLE
        .replace(
            "grid          = { n = [1, 3] }",
            &format!("grid = {{ n = [1], seed = [{}] }}", numbers.join(", ")),
        )
        .replace("modules = [\"qk\", \"qkvo\"] }", "modules = [\"qkvo\"] }")
        .replace("rank = [2, 4],", "")
        .replace("rows    = [\"modules\", \"rank\"]", "")
        .replace("count = \"${n}\"", "count = \"${n}\"\nseed = \"${seed}\"");
    let start = std::time::Instant::now();
    let pipeline = load(&text);
    let took = start.elapsed();
    assert_eq!(pipeline.instances.len(), 15_001);
    // A bar that only a change of order can break; the benchmark is elsewhere.
    assert!(took.as_secs() < 60, "{took:?}");
}

#[test]
fn the_pipelines_of_this_repository_load_with_every_profile() {
    let read = |path: &std::path::Path| std::fs::read_to_string(path);
    let mut seen = 0;
    for entry in std::fs::read_dir("pipelines").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        let profiles = text.get("profiles").and_then(toml::Value::as_table);
        let names = profiles.into_iter().flat_map(|profiles| profiles.keys().cloned().map(Some));
        for profile in names.chain([None]) {
            let options = LoadOptions { profile, ..LoadOptions::default() };
            let start = std::time::Instant::now();
            match load_with(crate::stages::STAGES, &path, &options, &read) {
                Ok(pipeline) => {
                    println!(
                        "{} {:?}: {} instances in {:?}",
                        path.display(),
                        options.profile,
                        pipeline.instances.len(),
                        start.elapsed()
                    );
                    assert_eq!(
                        pipeline.warnings,
                        [""; 0],
                        "{} {:?}",
                        path.display(),
                        options.profile
                    );
                }
                Err(errors) => {
                    panic!("{} {:?}\n{}", path.display(), options.profile, render(&errors))
                }
            }
            seen += 1;
        }
    }
    assert!(seen > 1);
}
