//! What a result is called that several pipelines have.

use super::{Shell, walk};

/// A pipeline with so many pairs, of which nothing else depends on its name.
fn pipeline(name: &str, count: usize) -> String {
    format!(
        "name = \"{name}\"\n\n[stages.pairs]\nkind = \"dataset\"\n\
         source = {{ source = \"builtin:figures\" }}\ntask = \"pose\"\ncount = {count}\n\
         size = [32, 32]\n"
    )
}

#[test]
fn it_is_named_with_others_and_by_those_that_still_have_it() {
    let shell = Shell::new();
    for name in ["a", "b"] {
        shell.write(&format!("{name}.toml"), &pipeline(name, 1));
        shell.succeed(&format!("run {name}.toml"));
    }
    let gc = shell.succeed("cache gc --dry-run --max-size 0");
    assert!(gc.starts_with("would remove a: pairs, and others, "), "{gc}");
    let push = shell.succeed("cache push --dry-run --all --remote shared");
    assert!(push.starts_with("would send a: pairs, and others, "), "{push}");
    shell.write("a.toml", &pipeline("a", 2));
    shell.succeed("run a.toml");
    let gc = shell.succeed("cache gc --dry-run --max-size 0");
    assert!(
        gc.contains("would remove a: pairs, ") && gc.contains("would remove b: pairs, "),
        "{gc}"
    );
}

#[test]
fn content_that_is_gone_is_named_by_all_who_have_it() {
    let shell = Shell::new();
    for name in ["a", "b"] {
        shell.write(&format!("{name}.toml"), &pipeline(name, 1));
        shell.succeed(&format!("run {name}.toml"));
    }
    for object in walk(&shell.path("cache/objects")) {
        std::fs::remove_file(object).unwrap();
    }
    let verify = shell.transcript("cache verify");
    assert!(verify.contains("content is gone of `a: pairs`, and others\n"), "{verify}");
    let json = shell.output("cache verify --json").stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["verify"]["gone"][0]["others"], serde_json::json!(["b: pairs"]));
}
