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
