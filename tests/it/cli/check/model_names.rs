//! What is said of the names of models: names that lead nowhere, and one model in the place of
//! another.

use std::fs;

use crate::cli::{
    Shell,
    bad_weights::{copy_of_the_model, latents},
};

const START: &str = r#"[stages.start]
kind  = "pretrain"
part  = "vae"
like  = "MODEL"
steps = 0
"#;

#[test]
fn a_name_that_leads_nowhere_is_told_with_what_may_be_meant() {
    let shell = Shell::new();
    copy_of_the_model(&shell);
    fs::rename(shell.path("model"), shell.path("cog10")).unwrap();
    let check = |model: &str| {
        shell.write("start.toml", &START.replace("MODEL", model));
        shell.transcript("check start.toml").replace("\n  │ ", " ").replace("\n        ", " ")
    };
    for (model, wanted) in [
        ("HF:org/repo", "`like` must begin with `hf:` as it is written here"),
        ("HF:org/repo", "did you mean `hf:org/repo`?"),
        ("https://huggingface.co/org/repo", "`like` must name a model"),
        ("https://huggingface.co/org/repo", "did you mean `hf:org/repo`?"),
        ("~/m", "`like` must be a path without `~`"),
    ] {
        let said = check(model);
        assert!(said.contains("? 2\n") && said.contains(wanted), "{model}: {said}");
    }
    // What these name may be on another machine.
    for (model, wanted) in [
        ("org/repo", "help: did you mean `hf:org/repo`, the repository on the hub?"),
        ("builtin", "help: did you mean `builtin:tiny`?"),
        ("cog1", "help: did you mean `cog10`?"),
    ] {
        let said = check(model);
        assert!(said.contains("? 0\n") && said.contains(wanted), "{model}: {said}");
    }
    assert!(!check("cog10").contains("help"));
}

/// Wherever the pipeline file lies, and before anything else runs.
#[test]
fn a_repository_without_its_prefix_is_refused_before_any_stage_runs() {
    let shell = Shell::new();
    fs::create_dir(shell.path("work")).unwrap();
    let text = latents("zai-org/CogVideoX-5b-I2V");
    shell.write("work/latents.toml", &text);
    for (command, code) in [("check", 0), ("plan", 0), ("table --compute", 3), ("run --jobs 1", 3)]
    {
        let told = shell.transcript(&format!("{command} work/latents.toml"));
        let told = told.replace("\n  │ ", " ").replace("\n        ", " ");
        assert!(told.contains(&format!("? {code}\n")), "{told}");
        assert!(
            told.contains("there is no model folder `work/zai-org/CogVideoX-5b-I2V`"),
            "{told}"
        );
        assert!(told.contains("help: did you mean `hf:zai-org/CogVideoX-5b-I2V`"), "{told}");
        assert!(!told.contains("ran "), "{told}");
    }
    // Where there is such a folder, it is meant, and told what it lacks.
    fs::create_dir_all(shell.path("work/zai-org/CogVideoX-5b-I2V")).unwrap();
    let told = shell.transcript("run work/latents.toml").replace("\n  │ ", " ");
    assert!(
        told.contains("is not a model in diffusers' layout") && !told.contains("hf:"),
        "{told}"
    );
}

#[test]
fn another_model_is_no_change_of_its_weights() {
    let shell = Shell::new();
    let weights = copy_of_the_model(&shell);
    let config = weights.with_file_name("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n")).unwrap();
    shell.write("start.toml", &START.replace("MODEL", "builtin:tiny"));
    shell.succeed("run start.toml");
    let told = shell.succeed("plan start.toml --set start.like=model");
    assert!(told.contains("start  like builtin:tiny -> model (--set"), "{told}");
    let told = shell.succeed("explain start.toml start --set start.like=model");
    assert!(told.contains("like builtin:tiny -> model") && !told.contains("weights of"), "{told}");
    shell.succeed("run start.toml --set start.like=model");
    fs::write(&config, format!("{text}\n\n")).unwrap();
    let told = shell.succeed("plan start.toml --set start.like=model");
    assert!(told.contains("the weights of `model` changed"), "{told}");
}
