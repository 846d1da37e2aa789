//! The pipelines of this repository: each must check and plan in each of its profiles, also on a
//! machine that has neither the data nor the weights.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{Shell, walk};
use crate::real_data::data;

/// The pipelines of the folder, as the README lists them.
pub(super) const EXPERIMENTS: [&str; 22] = [
    "arc_agi",
    "color_correction",
    "colorization",
    "concept_arc",
    "custom_pairs",
    "depth",
    "edges",
    "few_shot_effect",
    "few_shot_tasks",
    "geometric",
    "inpainting",
    "jigsaw",
    "lora_composition",
    "mask_to_image",
    "model_comparison",
    "model_comparison_segmentation",
    "pose_ablation",
    "pretrain_tiny",
    "sampling_steps",
    "segmentation_ablation",
    "style_transfer",
    "tiny_imagenet",
];

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
    let mut stems = BTreeSet::new();
    let files = cases("pipelines").into_iter().map(|(file, _)| file);
    for file in files.filter(|file| !file.iter().any(|part| part == "base")) {
        let names = profiles(&file);
        for scale in ["quick", "full"] {
            assert!(names.contains(scale), "{} has no profile `{scale}`", file.display());
        }
        // What no published weights or data belong to.
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        let is_of_the_paper = stem != "pretrain_tiny";
        assert_eq!(names.contains("paper"), is_of_the_paper, "{}", file.display());
        stems.insert(stem);
    }
    assert_eq!(stems, EXPERIMENTS.map(str::to_owned).into());
}

#[test]
fn the_readme_lists_every_pipeline() {
    let readme = std::fs::read_to_string(format!("{}/README.md", env!("CARGO_MANIFEST_DIR")));
    let readme = readme.unwrap();
    let mut listed = BTreeSet::new();
    for line in readme.lines() {
        let Some((name, _)) =
            line.strip_prefix("| `pipelines/").and_then(|l| l.split_once(".toml`"))
        else {
            continue;
        };
        // As a shell expands it: `a{,_b}` and `{a,b}`.
        match name.split_once('{') {
            Some((stem, ends)) => {
                let ends = ends.trim_end_matches('}').split(',');
                listed.extend(ends.map(|end| format!("{stem}{end}")));
            }
            None => drop(listed.insert(name.to_owned())),
        }
    }
    assert_eq!(listed, EXPERIMENTS.map(str::to_owned).into());
}

#[test]
fn every_pipeline_checks_and_plans_in_every_profile() {
    let shell = Shell::new();
    for (file, profile) in [cases("pipelines"), cases("docs")].concat() {
        let needs_nothing = matches!(profile.as_deref(), None | Some("quick" | "full"));
        let profile = profile.map_or(String::new(), |name| format!(" --profile {name}"));
        let line = format!("{}{profile}", file.display());
        let checked = shell.succeed(&format!("check {line}"));
        let plan = shell.plan(&line);
        assert!(checked.contains(&format!("fine, {} stages", plan.len())), "{checked}");
        assert!(plan.iter().any(|stage| stage["state"] != "pending"), "{line}");
        if needs_nothing {
            assert!(plan.iter().all(|stage| stage["state"] != "blocked"), "{line} needs data");
        }
    }
}

/// Its header says: this file needs no other.
#[test]
fn the_file_to_copy_runs_elsewhere_on_pictures_of_ones_own() {
    let shell = Shell::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    std::fs::copy(folder.join("custom_pairs.toml"), shell.path("mine.toml")).unwrap();
    for shade in 0..10 {
        shell.pair("ten", &format!("{shade}"), 20 * shade);
        if shade < 3 {
            shell.pair("three", &format!("{shade}"), 20 * shade);
        }
    }
    let short = "--set params.steps=1 --set predict.steps=1 --set params.size=[32,32]";
    let told = shell.succeed(&format!("run mine.toml --set params.data.root=ten {short}"));
    assert!(told.contains("score.psnr") && !told.contains("(a)"), "{told}");
    // Four fifths are learnt from, and all others are scored.
    let pairs = |stage: &str| {
        let line = format!("show mine.toml {stage} --json --set params.data.root=ten {short}");
        let shown: serde_json::Value = serde_json::from_str(&shell.succeed(&line)).unwrap();
        shown["artifacts"][0]["artifact"]["items"].as_array().unwrap().len()
    };
    assert_eq!([pairs("pairs"), pairs("test")], [8, 2]);
    // As the header says, the folder can be written into the file, and new pictures need no target.
    let text = std::fs::read_to_string(shell.path("mine.toml")).unwrap();
    shell.write("mine.toml", &text.replace("root = \"custom_pairs\"", "root = \"ten\""));
    shell.succeed(&format!("export mine.toml answers --to answers {short}"));
    shell.pair("unknown", "fresh", 77);
    std::fs::rename(shell.path("unknown/input"), shell.path("new")).unwrap();
    let settings = "--set test.source={source=\"folder\",root=\"new\"} --set test.task=images --set test.holdout=1";
    shell.succeed(&format!("run mine.toml --only answers {settings} {short}"));
    shell.succeed(&format!("export mine.toml answers --to fresh {settings} {short}"));
    assert!(shell.path("fresh/fresh.png").exists());
    // Their sheet shows what was asked and answered: a margin of 4, and two pictures that have
    // grown to 128.
    let sheet = image::open(shell.path("fresh/sheet.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (4 + 2 * (128 + 4), 128 + 8));
    // With any other number it works as well.
    shell.succeed("check mine.toml --set params.data.root=three");
    assert!(shell.plan("mine.toml --profile paper").len() > 5);
}

#[test]
fn with_its_data_a_pipeline_plans_to_run() {
    let shell = Shell::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    for (name, profile, part) in
        [("pose_ablation", "", "coco"), ("arc_agi", "--profile corpus", "arc")]
    {
        let Some(data) = data(part).map(|root| root.join(part)) else { continue };
        let set = match part {
            "coco" => format!("params.data={{source=\"coco\",root={data:?}}}"),
            _ => format!("params.data.root={data:?}"),
        };
        let file = folder.join(format!("{name}.toml"));
        let plan = shell.plan(&format!("{} {profile} --set {set}", file.display()));
        assert!(plan.iter().any(|stage| stage["state"] == "stale"), "{name}");
        assert!(plan.iter().all(|stage| stage["state"] != "blocked"), "{name}");
    }
}

/// Each profile that reads data from outside finds all that it asks for in real data, small parts
/// of which are enough if the sweep is cut. What the weights would be asked is not.
#[test]
fn with_its_data_every_profile_of_data_checks() {
    /// Two pairs, both of which are one photograph and what it was made into.
    const STYLE: &str = "style/fast_style_transfer";
    let shell = Shell::new();
    std::fs::create_dir_all(shell.path("style")).unwrap();
    for (name, file) in [("in", "content/chicago.jpg"), ("out", "results/chicago_wave.jpg")] {
        let Some(root) = data(STYLE) else { break };
        for copy in 0..2 {
            let copy = shell.path(&format!("style/{copy}_{name}.jpg"));
            std::fs::copy(root.join(STYLE).join(file), copy).unwrap();
        }
    }
    let one = "--set sweep.grid.n=[1] --set sweep.grid.subset=[0] --set sweep.exclude=[] \
               --set params.test_images=1";
    for (file, profile, part, set) in [
        ("pose_ablation", "coco_tiny", "coco", ""),
        ("segmentation_ablation", "coco_tiny", "coco", ""),
        ("concept_arc", "corpus", "conceptarc", ""),
        ("arc_agi", "corpus", "arc", ""),
        ("edges", "bsds", "edges", ""),
        ("edges", "paper_bsds", "edges", one),
        ("style_transfer", "pairs", STYLE, ""),
        ("style_transfer", "paper_pairs", STYLE, one),
        ("tiny_imagenet", "paper", "tiny-imagenet-200", ""),
        ("geometric", "paper", "dreambooth", ""),
        ("depth", "paper", "depth/icl_rendered", one),
    ] {
        let Some(root) = data(part) else { continue };
        let data = if part == STYLE { shell.path("style") } else { root.join(part) };
        let pipeline = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(file);
        let line = format!(
            "{}.toml --profile {profile} --set params.data.root={data:?} {set}",
            pipeline.display()
        );
        let checked = shell.succeed(&format!("check {line}"));
        assert!(checked.contains(": fine, "), "{line}: {checked}");
        let plan = shell.plan(&line);
        // Data is there, and no stage is made that no other reads.
        assert!(plan.iter().any(|stage| stage["state"] == "stale"), "{line}");
        let is_there = |stage: &serde_json::Value| {
            !stage["missing"]["what"].as_str().unwrap_or_default().contains("data folder")
        };
        assert!(plan.iter().all(is_there), "{line}");
    }
}

/// Profiles that take other data replace what made pairs: nothing may be made that no other stage
/// reads.
#[test]
fn no_profile_makes_pairs_that_nothing_reads() {
    for (file, profile) in cases("pipelines") {
        let options = pipe::config::LoadOptions { profile: profile.clone(), ..Default::default() };
        let pipeline = pipe::config::load(&file, &options).unwrap();
        let instances = &pipeline.instances;
        let read: BTreeSet<usize> =
            instances.iter().flat_map(|instance| instance.inputs.values().copied()).collect();
        for (place, instance) in instances.iter().enumerate() {
            if ["dataset", "transform"].contains(&instance.entry.kind) {
                assert!(read.contains(&place), "{} {profile:?}: {instance}", file.display());
            }
        }
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
    0 stages to run, 1 waiting for others, 0 cached, 3 that cannot run here; how long is not known, as no run of this file and profile timed the like yet
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
    0 stages to run, 1 waiting for others, 0 cached, 1 that cannot run here; how long is not known, as no run of this file and profile timed the like yet
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
