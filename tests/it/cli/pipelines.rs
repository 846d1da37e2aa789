//! The pipelines of this repository: each must check and plan in each of its profiles, also on a
//! machine that has neither the data nor the weights.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{Shell, walk};

/// The profiles of a file and of what it extends.
fn profiles(file: &Path) -> BTreeSet<String> {
    let table: toml::Table = std::fs::read_to_string(file).unwrap().parse().unwrap();
    let own = table.get("profiles").and_then(toml::Value::as_table);
    let mut names: BTreeSet<String> =
        own.into_iter().flat_map(toml::Table::keys).cloned().collect();
    if let Some(base) = table.get("extends").and_then(toml::Value::as_str) {
        names.extend(profiles(&file.parent().unwrap().join(base)));
    }
    names
}

/// Each pipeline below a folder with each of its profiles.
fn cases(folder: &str) -> Vec<(PathBuf, Option<String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut cases = Vec::new();
    for file in walk(&folder).into_iter().filter(|file| file.extension() == Some("toml".as_ref())) {
        cases.push((file.clone(), None));
        cases.extend(profiles(&file).into_iter().map(|name| (file.clone(), Some(name))));
    }
    cases
}

#[test]
fn every_experiment_is_there_at_three_scales() {
    let files = cases("pipelines").into_iter().map(|(file, _)| file);
    for file in files.filter(|file| !file.iter().any(|part| part == "base")) {
        let names = profiles(&file);
        for scale in ["quick", "full"] {
            assert!(names.contains(scale), "{} has no profile `{scale}`", file.display());
        }
        // What no published weights or data belong to.
        let stem = file.file_stem().unwrap().to_string_lossy();
        let is_of_the_paper = !["few_shot_effect", "pretrain_tiny"].contains(&&*stem);
        assert_eq!(names.contains("paper"), is_of_the_paper, "{}", file.display());
    }
}

#[test]
fn every_pipeline_checks_and_plans_in_every_profile() {
    let shell = Shell::new();
    let cases = [cases("pipelines"), cases("docs")].concat();
    assert!(cases.len() >= 8, "{cases:?}");
    for (file, profile) in cases {
        let profile = profile.map_or(String::new(), |name| format!(" --profile {name}"));
        let line = format!("{}{profile}", file.display());
        let checked = shell.succeed(&format!("check {line}"));
        let plan = shell.plan(&line);
        assert!(checked.contains(&format!("fine, {} stages", plan.len())), "{checked}");
        assert!(plan.iter().any(|stage| stage["state"] != "pending"), "{line}");
        if profile == " --profile quick" {
            assert!(plan.iter().all(|stage| stage["state"] != "blocked"), "{line} needs data");
        }
    }
}

/// The file as a profile makes it.
fn merged(shell: &Shell, file: &Path, profile: &str) -> toml::Table {
    let shown = shell.succeed(&format!("show {} --profile {profile}", file.display()));
    shown.parse().unwrap_or_else(|error| panic!("{} is shown as no TOML: {error}", file.display()))
}

/// As published trainers of CogVideoX have it: noise on the image differs from step to step.
#[test]
fn published_models_learn_from_images_with_ever_new_noise() {
    let shell = Shell::new();
    let mut trainings = 0;
    for (file, _) in
        cases("pipelines").into_iter().filter(|(_, name)| name.as_deref() == Some("paper"))
    {
        let stages = merged(&shell, &file, "paper")["stages"].clone();
        let stages = stages.as_table().unwrap();
        for lora in stages.values().filter(|stage| stage["kind"].as_str() == Some("lora_train")) {
            let latents = &stages[lora["inputs"]["latents"].as_str().unwrap()];
            let pool = latents.get("image_latent_pool").map(ToString::to_string);
            let wanted = ["16", "\"${pool}\""].contains(&pool.as_deref().unwrap_or("none"));
            assert!(wanted, "{}: {pool:?}", file.display());
            trainings += 1;
        }
    }
    assert!(trainings > 18, "{trainings} trainings");
}

#[test]
fn with_its_data_a_pipeline_plans_to_run() {
    let Some(root) = crate::real_data::data() else { return };
    let shell = Shell::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let set = [
        ("pose_ablation", format!("params.data={{source=\"coco\",root={:?}}}", root.join("coco"))),
        ("arc_agi", format!("params.data.root={:?}", root.join("arc"))),
    ];
    for (name, set) in set {
        let file = folder.join(format!("{name}.toml"));
        let plan = shell.plan(&format!("{} --set {set}", file.display()));
        assert!(plan.iter().any(|stage| stage["state"] == "stale"), "{name}");
        assert!(plan.iter().all(|stage| stage["state"] != "blocked"), "{name}");
    }
}

/// The published model on a data set that nobody put there.
const PUBLISHED: &str = r#"name = "published"

[stages.pairs]
kind   = "dataset"
source = { source = "coco", root = "coco" }
task   = "pose"
size   = [480, 720]

[stages.clips]
kind   = "interpolate"
inputs = { pairs = "pairs" }
frames = 9

[stages.prompt]
kind  = "text_encode"
model = "hf:zai-org/CogVideoX1.5-5B-I2V"

[stages.latents]
kind   = "vae_encode"
inputs = { videos = "clips" }
model  = "hf:zai-org/CogVideoX1.5-5B-I2V"
"#;

#[test]
fn what_a_machine_lacks_is_a_state_in_the_plan_and_an_error_in_a_run() {
    let shell = Shell::new();
    shell.write("published.toml", PUBLISHED);
    insta::assert_snapshot!(shell.transcript("plan published.toml"), @"
    $ pipe plan published.toml
    ? 0
    --- stdout
    lacks  pairs  the data folder `coco`
    maybe  clips  after pairs
    lacks  prompt  the model `hf:zai-org/CogVideoX1.5-5B-I2V`
    lacks  latents  the model `hf:zai-org/CogVideoX1.5-5B-I2V`
    0 stages to run, 1 waiting for others, 0 cached, 3 that cannot run here; how long is not known, as nothing like it ran here yet
    missing: there is no data folder `coco` (published.toml:5:36); needed by `pairs`
      help: put the data there, or set `stages.pairs.source.root` to its folder
    missing: the model `hf:zai-org/CogVideoX1.5-5B-I2V` cannot be read: `zai-org/CogVideoX1.5-5B-I2V` at revision `main` is not in the Hugging Face cache `hub` (published.toml:16:9); needed by `prompt` and 1 more
      help: a run downloads it once nothing else is missing; or name a local folder in diffusers' layout
    ");
    insta::assert_snapshot!(shell.transcript("run published.toml"), @"
    $ pipe run published.toml
    ? 3
    --- stderr
      × there is no data folder `coco` (published.toml:5:36); needed by `pairs`
      help: put the data there, or set `stages.pairs.source.root` to its folder
      × the model `hf:zai-org/CogVideoX1.5-5B-I2V` cannot be read: `zai-org/CogVideoX1.5-5B-I2V` at
      │ revision `main` is not in the Hugging Face cache `hub` (published.toml:16:9); needed by
      │ `prompt` and 1 more
      help: a run downloads it once nothing else is missing; or name a local folder in diffusers'
            layout
    ");
    assert!(!shell.path("cache/objects").exists() || walk(&shell.path("cache/objects")).is_empty());
    insta::assert_snapshot!(shell.transcript("explain published.toml prompt"), @"
    $ pipe explain published.toml prompt
    ? 0
    --- stdout
    prompt  (text_encode, version 2)
      cannot run here: the model `hf:zai-org/CogVideoX1.5-5B-I2V` cannot be read: `zai-org/CogVideoX1.5-5B-I2V` at revision `main` is not in the Hugging Face cache `hub`
        help: a run downloads it once nothing else is missing; or name a local folder in diffusers' layout
      parameters:
        max_length = null  default
        model      = hf:zai-org/CogVideoX1.5-5B-I2V  published.toml:16:9
        prompt     =   default
    ");
    let plan = shell.plan("published.toml");
    let states: Vec<_> = plan.iter().map(|stage| stage["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["blocked", "pending", "blocked", "blocked"]);
    assert_eq!(plan[0]["missing"]["what"], "the data folder `coco`");
    // What needs nothing of it can run.
    insta::assert_snapshot!(shell.transcript("plan published.toml --only clips"), @"
    $ pipe plan published.toml --only clips
    ? 0
    --- stdout
    lacks  pairs  the data folder `coco`
    maybe  clips  after pairs
    0 stages to run, 1 waiting for others, 0 cached, 1 that cannot run here; how long is not known, as nothing like it ran here yet
    missing: there is no data folder `coco` (published.toml:5:36); needed by `pairs`
      help: put the data there, or set `stages.pairs.source.root` to its folder
    ");
}

#[test]
fn a_model_that_cannot_exist_is_an_error_of_the_file() {
    let shell = Shell::new();
    shell.write(
        "published.toml",
        &PUBLISHED.replace("hf:zai-org/CogVideoX1.5-5B-I2V", "builtin:tyni"),
    );
    insta::assert_snapshot!(shell.transcript("check published.toml"), @r#"
    $ pipe check published.toml
    ? 2
    --- stderr
      × stage `prompt`: `model`: there is no built-in model `tyni`
        ╭─[published.toml:16:9]
     15 │ kind  = "text_encode"
     16 │ model = "builtin:tyni"
        ·         ───────┬──────
        ·                ╰── `model`
     17 │ 
        ╰────
      help: did you mean `builtin:tiny`?

      × stage `latents`: `model`: there is no built-in model `tyni`
        ╭─[published.toml:21:10]
     20 │ inputs = { videos = "clips" }
     21 │ model  = "builtin:tyni"
        ·          ───────┬──────
        ·                 ╰── `model`
        ╰────
      help: did you mean `builtin:tiny`?
    published.toml: 2 errors
    "#);
}
