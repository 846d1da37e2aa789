//! Pipeline files: checked, started, shown, compared.

use super::Shell;

#[test]
fn all_errors_of_a_file_are_shown_at_once() {
    let shell = Shell::new();
    shell.write(
        "wrong.toml",
        r#"name = "wrong"

[stages.pairs]
kind   = "dataset"
source = { source = "builtin:figures" }
task   = "pose"
conut  = 3
size   = "large"

[stages.clips]
kind   = "interpolate"
inputs = { pairs = "pears" }
method = "quadratic"
"#,
    );
    insta::assert_snapshot!(shell.transcript("check wrong.toml"), @r#"
    $ pipe check wrong.toml
    ? 2
    --- stderr
      × unknown key `conut`
       ╭─[wrong.toml:7:1]
     6 │ task   = "pose"
     7 │ conut  = 3
       · ──┬──
       ·   ╰── nothing reads this
     8 │ size   = "large"
       ╰────
      help: did you mean `count`?

      × `size` must be a list of 2 values, but is the string "large"
       ╭─[wrong.toml:8:10]
     7 │ conut  = 3
     8 │ size   = "large"
       ·          ───┬───
       ·             ╰── must be a list of 2 values
     9 │ 
       ╰────

      × stage `clips` has no `frames`
        ╭─[wrong.toml:10:9]
      9 │ 
     10 │ [stages.clips]
        ·         ──┬──
        ·           ╰── `frames` is not set here
     11 │ kind   = "interpolate"
        ╰────
      help: add `frames = ...`

      × there is no stage `pears`
        ╭─[wrong.toml:12:20]
     11 │ kind   = "interpolate"
     12 │ inputs = { pairs = "pears" }
        ·                    ───┬───
        ·                       ╰── unknown stage
     13 │ method = "quadratic"
        ╰────
      help: did you mean `pairs`?
    wrong.toml: 4 errors
    "#);
}

#[test]
fn tables_are_checked_before_any_work() {
    let shell = Shell::new();
    shell.succeed("init first");
    let first = std::fs::read_to_string(shell.path("first.toml")).unwrap();
    let table = "values    = [\"score.f1\", \"score.precison\"]\n\
                 reference = { source = \"Table 1\", values = \"published.csv\" }";
    assert!(first.contains("value   = \"score.f1\""));
    let text = first.replace("value   = \"score.f1\"", table);
    shell.write("wrong.toml", &text);
    let said = shell.transcript("check wrong.toml");
    assert!(said.contains("? 2"), "{said}");
    assert!(said.contains("stage `score` gives no `precison`"), "{said}");
    assert!(said.contains("did you mean `precision`?"), "{said}");
    assert!(said.contains("cannot read the reference numbers in `published.csv`"), "{said}");
    shell.write("right.toml", &text.replace("precison", "precision"));
    shell.write("published.csv", "n,score\n10,0.5\n");
    let said = shell.transcript("check right.toml");
    assert!(said.contains("`published.csv` have no column `value`"), "{said}");
    shell.write("published.csv", "n,value\n10\n");
    let said = shell.transcript("check right.toml");
    assert!(said.contains("`published.csv` are no CSV"), "{said}");
    shell.write("published.csv", "n, value\n10,0.5\n");
    shell.succeed("check right.toml");
}

#[test]
fn a_missing_file_is_a_usage_error() {
    insta::assert_snapshot!(Shell::new().transcript("plan nowhere.toml"), @"
    $ pipe plan nowhere.toml
    ? 2
    --- stderr
      × cannot read `nowhere.toml`: No such file or directory (os error 2)
    ");
}

#[test]
fn the_starter_is_correct_and_never_overwritten() {
    let shell = Shell::new();
    insta::assert_snapshot!(shell.transcript("init first"), @"
    $ pipe init first
    ? 0
    --- stdout
    first.toml
    --- stderr
    next: `pipe plan first.toml`, then `pipe run first.toml`
    ");
    insta::assert_snapshot!(shell.transcript("check first.toml"), @"
    $ pipe check first.toml
    ? 0
    --- stdout
    first.toml: fine, 24 stages
    ");
    insta::assert_snapshot!(shell.transcript("init first"), @"
    $ pipe init first
    ? 2
    --- stderr
      × `first.toml` is already there
      help: choose another name: `pipe init NAME`
    ");
}

#[test]
fn show_says_where_each_value_was_written() {
    let shell = Shell::new();
    shell.write("base.toml", "seed = 1\n[params]\nsteps = 10\n");
    shell.write("top.toml", "extends = \"base.toml\"\nname = \"top\"\n[params]\nsize = [64, 64]\n");
    insta::assert_snapshot!(shell.transcript("show top.toml --set params.steps=20"), @r#"
    $ pipe show top.toml --set params.steps=20
    ? 0
    --- stdout
    seed = 1                # base.toml:1:8, by extends
    params.steps = 20       # --set:1:14
    params.size = [64, 64]  # top.toml:4:8
    name = "top"            # top.toml:2:8
    "#);
}

#[test]
fn diff_compares_files_and_revisions() {
    let shell = Shell::new();
    shell.write("a.toml", "name = \"a\"\nseed = 1\n");
    shell.write("b.toml", "name = \"b\"\nseed = 1\ntitle = \"new\"\n");
    insta::assert_snapshot!(shell.transcript("diff a.toml b.toml"), @r#"
    $ pipe diff a.toml b.toml
    ? 0
    --- stdout
    name  "a" -> "b"  (b.toml:1:8)
    title  unset -> "new"  (b.toml:3:9)
    "#);

    shell.commit("a.toml");
    shell.write("a.toml", "name = \"a\"\nseed = 2\n");
    insta::assert_snapshot!(shell.transcript("diff HEAD:a.toml a.toml"), @"
    $ pipe diff HEAD:a.toml a.toml
    ? 0
    --- stdout
    seed  1 -> 2  (a.toml:2:8)
    ");
}
