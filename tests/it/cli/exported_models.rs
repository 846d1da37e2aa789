//! Parts of models that are exported into folders where something is already.

use std::fs;

use super::{
    Shell,
    bad_weights::{copy_of_the_model, latents},
};

const START: &str = r#"name = "start"

[stages.start]
kind  = "pretrain"
part  = "vae"
like  = "builtin:tiny"
steps = 0
"#;

const INDEX: &str = "diffusion_pytorch_model.safetensors.index.json";

/// As every published CogVideoX is: the index would win over what is exported, in silence.
#[test]
fn weights_do_not_go_beside_shards_that_would_be_read_in_their_place() {
    let shell = Shell::new();
    shell.write("start.toml", START);
    shell.succeed("run start.toml");
    let single = copy_of_the_model(&shell);
    let (vae, whole) = (single.parent().unwrap(), fs::read(&single).unwrap());
    fs::write(vae.join(INDEX), "{}").unwrap();
    fs::remove_file(&single).unwrap();
    let told = shell.transcript("export start.toml start --to model/vae");
    let told =
        told.lines().map(|line| line.trim_start_matches([' ', '│'])).collect::<Vec<_>>().join(" ");
    assert!(
        told.contains("? 2") && told.contains("`model/vae` holds other weights, in shards"),
        "{told}"
    );
    assert!(
        told.contains("export to a new folder and put it in the place of `model/vae`"),
        "{told}"
    );
    assert!(!single.exists(), "nothing is written");

    fs::write(&single, whole).unwrap();
    shell.write("latents.toml", &latents("model"));
    for command in ["check latents.toml", "run latents.toml --jobs 1"] {
        let told = shell.transcript(command);
        assert!(
            told.contains("the model has two sets of weights") && !told.contains("? 0"),
            "{told}"
        );
    }
    fs::remove_file(vae.join(INDEX)).unwrap();
    shell.succeed("check latents.toml");
}

#[test]
fn a_configuration_that_said_something_else_is_not_replaced_in_silence() {
    let shell = Shell::new();
    shell.write("start.toml", START);
    shell.succeed("run start.toml");
    fs::create_dir(shell.path("vae")).unwrap();
    fs::write(shell.path("vae/config.json"), r#"{"latent_channels": 3}"#).unwrap();
    let told = shell.transcript("export start.toml start --to vae");
    assert!(told.contains("replaced `vae/config.json`, which was another one"), "{told}");
    let value: serde_json::Value =
        serde_json::from_slice(&fs::read(shell.path("vae/config.json")).unwrap()).unwrap();
    fs::write(shell.path("vae/config.json"), value.to_string()).unwrap();
    let told = shell.transcript("export start.toml start --to vae");
    assert!(!told.contains("replaced"), "the same, written in another way: {told}");
}
