//! What is said of the names of models: names that lead nowhere, and one model in the place of another.

use std::fs;

use super::{Shell, bad_weights::copy_of_the_model};

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
        ("org/repo", "help: for the repository `org/repo` write `hf:org/repo`"),
        ("builtin", "help: did you mean `builtin:tiny`?"),
        ("cog1", "help: did you mean `cog10`?"),
    ] {
        let said = check(model);
        assert!(said.contains("? 0\n") && said.contains(wanted), "{model}: {said}");
    }
    assert!(!check("cog10").contains("help"));
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
