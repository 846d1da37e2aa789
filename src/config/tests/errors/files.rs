//! Files, profiles and the command line.

use super::changed;
use crate::config::tests::toys::{WHOLE, load_files, render};

#[test]
fn a_syntax_error_is_shown() {
    let text = changed("count = 5", "count = = 5");
    insta::assert_snapshot!(text, @r#"
     × extra `=`, expected nothing
       ╭─[toy/main.toml:27:9]
    26 │ from  = "${data}"
    27 │ count = = 5
       ·         ┬
       ·         ╰── here
    28 │ 
       ╰────
     help: a line of TOML is `key = value`, `[table]` or `# comment`; text stands in quotes
    "#);
}

#[test]
fn a_profile_with_an_unknown_param_is_shown() {
    let text = changed("dims  = [160, 80]", "dmis  = [160, 80]");
    insta::assert_snapshot!(text, @r#"
     × profile `big` sets the param `dmis`, which is not there
       ╭─[toy/main.toml:11:1]
    10 │ data  = { source = "folder", root = "pictures" }
    11 │ dmis  = [160, 80]
       · ──┬─
       ·   ╰── no such param
    12 │ 
       ╰────
     help: did you mean `dims`?
    "#);
}

#[test]
fn an_unknown_profile_is_shown() {
    let errors = load_files(WHOLE, &[], Some("bgi"), &[]).err().unwrap();
    insta::assert_snapshot!(render(&errors), @r#"
     × there is no profile `bgi`
      ╭─[--profile:1:11]
    1 │ --profile bgi
      ·           ─┬─
      ·            ╰── unknown
      ╰────
     help: did you mean `big`?
    "#);
}

#[test]
fn bad_sets_are_shown_together() {
    let set = ["lora", "lroa.rank=3", "params.dim=1", "lora.rank=[1", "lora.rnk=1"];
    let errors = load_files(WHOLE, &[], None, &set).err().unwrap();
    insta::assert_snapshot!(render(&errors), @"
     × `--set lora` has no `=`
      ╭─[--set:1:1]
    1 │ lora
      · ──┬─
      ·   ╰── must be `key=value`
      ╰────
     help: write it as `--set stage.key=value` or `--set params.name=value`

     × `--set lroa.rank` names neither a stage nor a param of `toy/main.toml`
      ╭─[--set:1:1]
    1 │ lroa.rank=3
      · ────┬────
      ·     ╰── unknown
      ╰────
     help: did you mean `lora.rank`?

     × `--set` names the param `dim`, which is not in `toy/main.toml`
      ╭─[--set:1:1]
    1 │ params.dim=1
      · ─────┬────
      ·      ╰── unknown
      ╰────
     help: did you mean `dims`?

     × unclosed array, expected `]`
      ╭─[--set:1:12]
    1 │ lora.rank=[1
      ·            ┬
      ·            ╰── here
      ╰────
     help: close the bracket with `]`

     × unknown key `rnk`
      ╭─[--set:1:1]
    1 │ lora.rnk=1
      · ────┬───
      ·     ╰── nothing reads this
      ╰────
     help: did you mean `rank`?
    ");
}

#[test]
fn what_only_files_can_say_is_not_set() {
    let set = ["extends=x.toml", "profiles.big.steps=3"];
    insta::assert_snapshot!(render(&load_files(WHOLE, &[], None, &set).err().unwrap()), @"
     × `--set` cannot set `extends`
      ╭─[--set:1:1]
    1 │ extends=x.toml
      · ───┬───
      ·    ╰── read in files only
      ╰────
     help: write it at the top of the file, or write a file of your own that extends this
           one

     × `--set` cannot set `profiles`
      ╭─[--set:1:1]
    1 │ profiles.big.steps=3
      · ─────────┬────────
      ·          ╰── read in files only
      ╰────
     help: choose a profile with `--profile NAME`, and set the values themselves with
           `--set`
    ");
}

#[test]
fn a_cycle_of_files_is_shown() {
    let base = "extends = \"main.toml\"\n";
    let main = format!("extends = \"base.toml\"\n{WHOLE}");
    let errors = load_files(&main, &[("toy/base.toml", base)], None, &[]).err().unwrap();
    insta::assert_snapshot!(render(&errors), @r#"
     × files extend each other: toy/main.toml -> toy/base.toml -> toy/main.toml
      ╭─[toy/base.toml:1:11]
    1 │ extends = "main.toml"
      ·           ─────┬─────
      ·                ╰── comes back here
      ╰────
     help: take out one `extends`
    "#);
}

#[test]
fn a_file_that_is_not_there_is_shown() {
    let errors = load_files("extends = \"nope.toml\"", &[], None, &[]).err().unwrap();
    insta::assert_snapshot!(render(&errors), @r#"
     × cannot read `toy/nope.toml`: entity not found
      ╭─[toy/main.toml:1:11]
    1 │ extends = "nope.toml"
      ·           ─────┬─────
      ·                ╰── named here
      ╰────
     help: check the path, which is meant from the folder of the file that names it
    "#);
}
