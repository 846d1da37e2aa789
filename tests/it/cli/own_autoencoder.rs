//! Stages that read an autoencoder alone, with one on their input `model` and none named.

use super::{Experiment, Shell};

const STAGES: &str = r#"
[stages.prompt]
kind   = "text_encode"
model  = "builtin:tiny"

[stages.vae]
kind   = "pretrain"
part   = "vae"
like   = "builtin:tiny"
steps  = 0

[stages.latents]
kind   = "vae_encode"
inputs = { videos = "clips", model = "vae" }

[stages.predict]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt", model = "vae" }
model  = "builtin:tiny"
frames = 5
steps  = 1

[stages.answers]
kind   = "decode"
inputs = { samples = "predict", model = "vae" }
"#;

fn own() -> String {
    Experiment { name: "own", ..Experiment::default() }.up_to_clips() + STAGES
}

#[test]
fn an_autoencoder_on_the_input_needs_no_model_beside_it() {
    let shell = Shell::new();
    shell.write("own.toml", &own());
    let said = shell.transcript("check own.toml");
    assert!(said.contains("? 0\n") && !said.contains("warning"), "{said}");
    shell.succeed("run own.toml");
    // It is the autoencoder that counts, not the model beside it.
    shell.succeed("export own.toml latents --to alone");
    shell.succeed("run own.toml --set latents.model=builtin:tiny --set answers.model=builtin:tiny");
    shell.succeed("export own.toml latents --to beside --set latents.model=builtin:tiny");
    let latents = |folder: &str| std::fs::read(super::walk(&shell.path(folder)).remove(0)).unwrap();
    assert!(latents("alone") == latents("beside"));
    let plan = shell.plan("own.toml");
    let states: Vec<_> = plan.iter().map(|stage| stage["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["fresh"; 7]);
    // Clips that do not fit it are told before anything runs.
    let said = shell.transcript("check own.toml --set clips.frames=9 --set pairs.size=[30,32]");
    assert!(said.contains("height must be a multiple of 4 pixels, but is 30"), "{said}");
}

#[test]
fn neither_an_autoencoder_nor_a_model_is_an_error_of_the_file() {
    let shell = Shell::new();
    let told = |text: &str| {
        shell.write("own.toml", text);
        let said = shell.transcript("check own.toml");
        assert!(said.contains("? 2\n"), "{said}");
        said.replace("\n  │ ", " ").replace("\n        ", " ")
    };
    let said = told(&own().replace("\"clips\", model = \"vae\"", "\"clips\""));
    assert!(said.contains("stage `latents`: `model` is missing: no model is named"), "{said}");
    let said = told(&own().replace("\"predict\", model = \"vae\"", "\"predict\""));
    assert!(said.contains("stage `answers`: `model` is missing: no model is named"), "{said}");
    let said = told(&own().replace("part   = \"vae\"", "part   = \"transformer\""));
    assert!(said.contains("the input `model` gives no autoencoder"), "{said}");
}
