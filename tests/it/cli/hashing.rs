//! What is said while large weights are hashed, by whichever command has to.

use std::fs;

use super::{Shell, bad_weights::copy_of_the_model};

const FILE: &str = r#"name = "prompt"

[stages.prompt]
kind   = "text_encode"
model  = "model"
prompt = "a"

[stages.shell]
kind    = "command"
command = "echo > $OUT/f"
outputs = ["f"]
"#;

#[test]
fn every_command_tells_of_large_weights_that_it_hashes() {
    let shell = Shell::new();
    copy_of_the_model(&shell);
    shell.write("prompt.toml", FILE);
    let told = |line: &str| {
        let said = String::from_utf8(shell.output(line).stderr).unwrap();
        let word = "hashing 0 B of 1.0 GiB of `model`, text_encoder/model.safetensors";
        said.contains(word)
    };
    assert!(!told("plan prompt.toml"), "small ones take no time");
    let weights = shell.path("model/text_encoder/model.safetensors");
    fs::File::options().write(true).open(weights).unwrap().set_len(1 << 30).unwrap();
    // Before a run begins, and where there is no cache that remembers it.
    for line in [
        "plan prompt.toml",
        "table prompt.toml --compute",
        "export prompt.toml prompt --to out",
        "verify prompt.toml",
        "explain prompt.toml prompt",
    ] {
        assert!(told(line), "{line}");
    }
    assert!(told("run prompt.toml"), "of a run that is refused its commands");
    assert!(!told("table prompt.toml --compute"), "it is known by now");
}
