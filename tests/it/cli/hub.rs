//! A model that the pipeline names on the hub.

use super::{CLIPS, Shell, command, redact, walk};
use crate::hub_server::{COMMIT, FakeHub, Fault};

const LATENTS: &str = r#"
[stages.latents]
kind   = "vae_encode"
inputs = { videos = "clips" }
model  = "hf:org/tiny"
"#;

/// Exit code and stderr of a line, with the hub that `endpoint` names.
fn run(shell: &Shell, hub: &FakeHub, line: &str, variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = command(shell.dir.path());
    command.args(line.split_whitespace()).env("HF_ENDPOINT", &hub.endpoint);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap().replace(&hub.endpoint, "[HUB]");
    (output.status.code().unwrap(), redact(&text))
}

#[test]
fn a_run_downloads_what_its_stages_read() {
    let (shell, hub) = (Shell::new(), FakeHub::tiny(Some("secret")));
    shell.write("latents.toml", &format!("{CLIPS}{LATENTS}").replace(", \"quadratic\"", ""));
    let plan = shell.succeed("plan latents.toml");
    assert!(plan.contains("lacks  latents"), "{plan}");
    assert!(hub.requests().is_empty(), "a plan needs no network");

    let (code, told) = run(&shell, &hub, "run latents.toml", &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(code, 3);
    assert!(told.contains("`HF_HUB_OFFLINE` forbids to download it"), "{told}");
    let (code, told) = run(&shell, &hub, "run latents.toml", &[]);
    assert_eq!(code, 3);
    insta::assert_snapshot!(told, @"
    fetching org/tiny at main (vae) into hub
      × `[HUB]` has no repository `org/tiny` for you (401)
      help: check the name; if it is private, set `HF_TOKEN` to a token that may read it
    ");
    // What is refused is refused before anything is downloaded.
    let command = "\n[stages.shell]\nkind = \"command\"\noutputs = [\"a\"]\ncommand = \"true\"\n";
    let latents = std::fs::read_to_string(shell.path("latents.toml")).unwrap();
    shell.write("shell.toml", &format!("{latents}{command}"));
    hub.requests();
    let (code, told) = run(&shell, &hub, "run shell.toml", &[]);
    assert!(code == 2 && told.contains("which was not allowed: true"), "{told}");
    assert_eq!(hub.requests().len(), 0);
    run(&shell, &hub, "run latents.toml", &[]);

    let token = [("HF_TOKEN", "secret")];
    // Stages that do not read the model need no download.
    assert_eq!(run(&shell, &hub, "run latents.toml --only clips", &token).0, 0);
    assert_eq!(hub.requests().len(), 1, "the one that was refused");

    hub.faults(&[Fault::Cut(1)]);
    let (code, told) = run(&shell, &hub, "run latents.toml --jobs 1", &token);
    assert_eq!(code, 0, "{told}");
    insta::assert_snapshot!(told, @"
    fetching org/tiny at main (vae) into hub
    fetched org/tiny at main: [SIZE] in [TIME]; `hf:org/tiny@[HASH]` pins it
    clips: 3 stages on cpu
    ran      latents[method=linear]  new  [TIME]
    done     1 stage ran, 2 reused in [TIME]
    ");
    let has = |name: &str| walk(&shell.path("hub")).iter().any(|path| path.ends_with(name));
    assert!(has("vae/diffusion_pytorch_model.safetensors"));
    assert!(!has("transformer/diffusion_pytorch_model.safetensors"));

    // The key is made of the content: the same model by another name runs nothing.
    hub.requests();
    let built_in = "run latents.toml --set latents.model=builtin:tiny";
    let (_, told) = run(&shell, &hub, built_in, &[]);
    assert!(told.contains("3 reused"), "{told}");
    let (code, told) = run(&shell, &hub, "run latents.toml", &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(code, 0, "{told}");
    // The branch stays at that commit, wherever it is at the hub.
    let taken = "org/tiny at main is taken as the cache has it; `hf:org/tiny@[HASH]` pins it\n";
    assert!(told.starts_with(taken), "{told}");
    let (_, online) = run(&shell, &hub, "run latents.toml", &[]);
    assert!(online.starts_with(taken), "{online}");
    let pinned = format!("run latents.toml --set latents.model=hf:org/tiny@{COMMIT}");
    let (code, told) = run(&shell, &hub, &pinned, &[]);
    assert!(code == 0 && !told.contains("pins it"), "{told}");
    assert!(hub.requests().is_empty(), "what is here is not asked for again");
}

#[test]
fn what_a_configuration_tells_is_told_before_weights_are_fetched() {
    let (shell, hub) = (Shell::new(), FakeHub::tiny(None));
    let clips = CLIPS.replace("[32, 32]", "[34, 34]");
    assert_ne!(clips, CLIPS);
    shell.write("latents.toml", &format!("{clips}{LATENTS}"));
    let (code, told) = run(&shell, &hub, "run latents.toml", &[]);
    assert_eq!(code, 2, "{told}");
    assert!(
        told.contains("height must be a multiple of 8 pixels for the model's transformer"),
        "{told}"
    );
    let here = walk(&shell.path("hub"));
    assert!(here.iter().any(|path| path.ends_with("vae/config.json")));
    assert!(!here.iter().any(|path| path.ends_with("diffusion_pytorch_model.safetensors")));
    shell.write("latents.toml", &format!("{CLIPS}{LATENTS}"));
    assert_eq!(run(&shell, &hub, "run latents.toml", &[]).0, 0);
}

#[test]
fn memory_is_told_by_configurations_alone() {
    let (shell, hub) = (Shell::new(), FakeHub::tiny(None));
    let clips = CLIPS.replace("[32, 32]", "[4096, 4096]").replace("frames = 5", "frames = 81");
    shell.write("latents.toml", &format!("{clips}{LATENTS}"));
    let (code, told) = run(&shell, &hub, "run latents.toml", &[]);
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("needs about") && told.contains("but the device has"), "{told}");
    let here = walk(&shell.path("hub"));
    assert!(here.iter().any(|path| path.ends_with("vae/config.json")));
    assert!(!here.iter().any(|path| path.ends_with("diffusion_pytorch_model.safetensors")));
    // They are in the cache by now, or in any folder.
    let plan = shell.succeed("plan latents.toml");
    assert!(plan.contains("lacks  latents") && plan.contains("needs "), "{plan}");
    assert!(plan.contains("too little memory: `latents"), "{plan}");
}

#[test]
fn a_lock_holds_the_commit_of_a_model_from_the_hub() {
    let (shell, hub) = (Shell::new(), FakeHub::tiny(None));
    shell.write("latents.toml", &format!("{CLIPS}{LATENTS}").replace(", \"quadratic\"", ""));
    let locked = || -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(shell.path("latents.lock")).unwrap()).unwrap()
    };
    let (code, told) = run(&shell, &hub, "run latents.toml --lock", &[]);
    assert_eq!(code, 0, "{told}");
    // The pipeline names no revision: the branch `main` is at this commit.
    assert_eq!(locked()["models"], serde_json::json!({ "hf:org/tiny": { "commit": COMMIT } }));
    assert_eq!(run(&shell, &hub, "run latents.toml --locked", &[]).0, 0);

    // A folder has no commit, and neither has what is built in.
    let built_in = "run latents.toml --lock --set latents.model=builtin:tiny";
    assert_eq!(run(&shell, &hub, built_in, &[]).0, 0);
    assert_eq!(locked()["models"], serde_json::json!({ "builtin:tiny": { "commit": null } }));
}
