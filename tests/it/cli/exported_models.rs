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

#[test]
fn a_whole_model_that_is_there_is_not_lost_in_silence() {
    let shell = Shell::new();
    shell.write("start.toml", START);
    shell.succeed("run start.toml");
    shell.succeed("export start.toml start --to whole --whole");
    let again = |more: &str| {
        let told = shell.transcript(&format!("export start.toml start --to whole --whole {more}"));
        told.replace("\n  │ ", " ")
    };
    let told = again("");
    assert!(told.contains("? 0\n") && !told.contains("replaced"), "the same: {told}");

    // Of the base and of the part, and of nothing that says the same in other words.
    let changed = ["model_index.json", "scheduler/scheduler_config.json", "vae/config.json"];
    for file in changed {
        fs::write(shell.path("whole").join(file), r#"{"x": 3}"#).unwrap();
    }
    let same = shell.path("whole/text_encoder/config.json");
    let value: serde_json::Value = serde_json::from_slice(&fs::read(&same).unwrap()).unwrap();
    fs::write(&same, value.to_string()).unwrap();
    let told = again("");
    let replaced = |file: &str| format!("replaced `whole/{file}`, which was another one");
    assert!(changed.iter().all(|file| told.contains(&replaced(file))), "{told}");
    assert_eq!(told.matches("replaced").count(), changed.len(), "{told}");

    // Weights of the usual names, of the base and of the part.
    for part in ["text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors"] {
        let (path, config) = (shell.path("whole").join(part), shell.path("whole/vae/config.json"));
        let before = fs::read(&path).unwrap();
        let mut own = before.clone();
        *own.last_mut().unwrap() ^= 1;
        fs::write(&path, &own).unwrap();
        fs::write(&config, "{}").unwrap();
        let (folder, name) = part.split_once('/').unwrap();
        let told = again("");
        let wanted = format!("`whole/{folder}` holds other weights, `{name}`");
        assert!(told.contains("? 2\n") && told.contains(&wanted), "{told}");
        assert_eq!(fs::read(&path).unwrap(), own);
        assert_eq!(fs::read(&config).unwrap(), b"{}", "nothing is written");
        fs::write(&path, before).unwrap();
    }

    // Without the rest of the model they are replaced, and that is said.
    let weights = shell.path("whole/vae/diffusion_pytorch_model.safetensors");
    fs::write(&weights, "own").unwrap();
    let told = shell.transcript("export start.toml start --to whole/vae");
    let wanted = replaced("vae/diffusion_pytorch_model.safetensors");
    assert!(told.replace("\n  │ ", " ").contains(&wanted), "{told}");
}

/// The built-in model of a merge or training goes on in programs that load whole pipelines.
#[test]
fn a_part_is_exported_with_the_rest_of_its_model() {
    let shell = Shell::new();
    shell.write("start.toml", START);
    shell.succeed("run start.toml");
    let told = shell.transcript("export start.toml start --to whole --whole");
    assert!(
        told.contains("? 0\n") && told.contains("as copies: scheduler, text_encoder"),
        "{told}"
    );
    let folder = shell.path("whole");
    let here = |file: &str| folder.join(file).is_file();
    for file in ["model_index.json", "tokenizer/tokenizer.json", "vae/config.json", "vae/log.json"]
    {
        assert!(here(file), "{file}");
    }
    shell.write("latents.toml", &latents("whole"));
    shell.succeed("run latents.toml");

    // Of a model that is a folder: by links too, and not onto itself.
    shell.succeed("export start.toml start --to linked --whole --base whole --link");
    let link = shell.path("linked/text_encoder/model.safetensors");
    assert_eq!(
        fs::read_link(&link).unwrap(),
        folder.canonicalize().unwrap().join("text_encoder/model.safetensors")
    );
    assert!(!shell.path("linked/vae/config.json").is_symlink());
    shell.succeed("check latents.toml --set latents.model=linked");
    shell.succeed("export start.toml start --to linked --whole --base whole");
    assert!(!link.is_symlink(), "a copy takes the place of the link");

    let refused = |line: &str, code: u8, wanted: &str| {
        let told = shell.transcript(&format!("export start.toml start {line}"));
        let told = told.replace("\n  │ ", " ");
        assert!(told.contains(&format!("? {code}\n")) && told.contains(wanted), "{line}: {told}");
    };
    refused("--to linked --whole --base linked", 2, "is the model itself");
    refused("--to new --whole --base nowhere", 3, "there is no model folder `nowhere`");
    let name = "a name without `hf:` is a folder;";
    refused("--to new --whole --base org/repo", 3, name);
    refused("--to new --link", 2, "--whole");
    let index = shell.path("linked/model_index.json");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("AutoencoderKLCogVideoX", "AutoencoderKLLTXVideo")).unwrap();
    let wanted = "`vae` is of the class `AutoencoderKLCogVideoX`, but that of `linked` is";
    refused("--to new --whole --base linked", 2, wanted);
    fs::write(shell.path("linked/transformer").join(INDEX), "{}").unwrap();
    refused("--to linked --whole", 2, "`linked/transformer` holds other weights");
    fs::remove_file(folder.join("tokenizer/tokenizer.json")).unwrap();
    refused("--to new --whole --base whole", 3, "no tokenizer");
    assert!(!shell.path("new/vae").exists(), "nothing is written of what is not whole");
}

#[test]
fn what_is_no_part_of_a_model_is_not_made_whole() {
    let shell = Shell::new();
    shell.write("latents.toml", &latents("builtin:tiny"));
    let told = shell.transcript("export latents.toml pairs --to out --whole");
    assert!(told.contains("? 2\n") && told.contains("`--whole` is for parts of models"), "{told}");
}
