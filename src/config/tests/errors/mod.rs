//! One snapshot for each class of error.

mod files;
mod graph;
mod references;
mod sweep;
mod values;

use super::toys::{WHOLE, errors, load_files};

/// The errors of the whole file after a change.
fn changed(from: &str, to: &str) -> String {
    assert!(WHOLE.contains(from), "{from}");
    errors(&WHOLE.replace(from, to))
}

#[test]
fn all_errors_are_shown_at_once() {
    let text = WHOLE
        .replace("count = 5", "cuont = 5\nsize = \"big\"")
        .replace("\"${modules}\"", "\"${modlues}\"")
        .replace("kind   = \"score\"", "kind   = \"scores\"")
        .replace("columns = \"n\"", "columns = \"x\"");
    let errors = load_files(&text, &[], None, &[]).err().unwrap();
    let lines: Vec<_> = errors
        .errors
        .iter()
        .map(|error| format!("{} {}", error.place.as_ref().unwrap(), error.message))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    toy/main.toml:27:1 unknown key `cuont`
    toy/main.toml:28:8 `size` must be a list of 2 values, but is the string "big"
    toy/main.toml:34:12 there is no param or sweep axis `modlues`
    toy/main.toml:39:10 unknown stage kind `scores`
    toy/main.toml:44:11 there is no sweep axis `x`
    "#);
    let json = errors.to_json();
    insta::assert_snapshot!(serde_json::to_string_pretty(&json[0]).unwrap(), @r#"
    {
      "code": "unknown_key",
      "column": 1,
      "end_column": 6,
      "end_line": 27,
      "file": "toy/main.toml",
      "help": "did you mean `count`?",
      "line": 27,
      "message": "unknown key `cuont`"
    }
    "#);
}
