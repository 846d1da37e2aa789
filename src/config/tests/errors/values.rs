//! Keys and values.

use super::{WHOLE, changed, errors};

#[test]
fn a_misspelt_key_gets_a_suggestion() {
    let text = changed(
        r#"rank    = "${rank}""#,
        r#"rnak    = "${rank}"
rank = "${rank}""#,
    );
    insta::assert_snapshot!(text, @r#"
     × unknown key `rnak`
       ╭─[toy/main.toml:32:1]
    31 │ inputs  = { pairs = "pairs" }
    32 │ rnak    = "${rank}"
       · ──┬─
       ·   ╰── nothing reads this
    33 │ rank = "${rank}"
       ╰────
     help: did you mean `rank`?
    "#);
}

#[test]
fn a_misspelt_section_gets_a_suggestion() {
    let text = changed("[sweep]", "[sweeps]\n[sweep]");
    insta::assert_snapshot!(text, @r#"
     × unknown key `sweeps`
       ╭─[toy/main.toml:13:2]
    12 │ 
    13 │ [sweeps]
       ·  ───┬──
       ·     ╰── nothing reads this
    14 │ [sweep]
       ╰────
     help: did you mean `sweep`?
    "#);
}

#[test]
fn control_characters_in_names_are_shown_written_out() {
    let text = WHOLE
        .replace("name = \"toy\"", "name = \"toy\\u001b[2J\"\ntitle = \"a\\nb\"")
        .replace("[stages.test]", "[stages.\"te\\u0007st\"]")
        .replace("pairs = \"test\"", "pairs = \"te\\u0007st\"");
    insta::assert_snapshot!(errors(&text), @r#"
     × `name` cannot have control characters, but is "toy\u{1b}[2J"
      ╭─[toy/main.toml:1:8]
    1 │ name = "toy\u001b[2J"
      ·        ───────┬──────
      ·               ╰── has control characters
    2 │ title = "a\nb"
      ╰────
     help: take them out

     × `title` cannot have control characters, but is "a\nb"
      ╭─[toy/main.toml:2:9]
    1 │ name = "toy\u001b[2J"
    2 │ title = "a\nb"
      ·         ───┬──
      ·            ╰── has control characters
    3 │ seed = 7
      ╰────
     help: take them out

     × a name cannot have control characters, but is "te\u{7}st"
       ╭─[toy/main.toml:25:9]
    24 │ 
    25 │ [stages."te\u0007st"]
       ·         ──────┬─────
       ·               ╰── has control characters
    26 │ kind  = "data"
       ╰────
     help: take them out
    "#);
}

#[test]
fn names_that_are_parts_of_a_path_cannot_look_like_one() {
    let stage = |name| {
        format!(
            "\n[stages.\"{name}\"]\nkind = \"data\"\ncount = 1\nfrom = {{ source = \"figures\" }}\n"
        )
    };
    let text = WHOLE
        .replace("[params]", "[params]\n\"x/y\" = 1")
        .replace("{ n = [1, 3] }", "{ n = [1, 3], \"o.lr\" = [1] }")
        .replace("[tables.main]", "[tables.\" \"]");
    let all = errors(&(text + &stage("") + &stage("a.b[c=1]") + "[profiles.\"a.b\"]\n"));
    let told: Vec<_> = all.lines().filter(|line| line.contains('×')).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    × a name cannot have one of `.`, `[`, `]`, `=`, `/`, but is "x/y"
    × a name cannot have one of `.`, `[`, `]`, `=`, `/`, but is "o.lr"
    × a name cannot be empty, but is " "
    × a name cannot be empty, but is ""
    × a name cannot have one of `.`, `[`, `]`, `=`, `/`, but is "a.b[c=1]"
    "#);
}

#[test]
fn a_wrong_type_is_shown() {
    let text = changed("count = 5", r#"count = "5""#);
    insta::assert_snapshot!(text, @r#"
     × `count` must be a whole number, zero or more, but is the string "5"
       ╭─[toy/main.toml:27:9]
    26 │ from  = "${data}"
    27 │ count = "5"
       ·         ─┬─
       ·          ╰── must be a whole number, zero or more
    28 │ 
       ╰────
     help: write it without quotes: 5
    "#);
}

#[test]
fn a_wrong_type_inside_a_tagged_table_is_shown() {
    let text = changed(
        r#"[params]
data  = { source = "figures" }"#,
        r#"[params]
data  = { source = "folder", root = "x", limit = "many" }"#,
    );
    insta::assert_snapshot!(text, @r#"
     × `from.limit` must be a whole number, zero or more, but is the string "many"
      ╭─[toy/main.toml:5:50]
    4 │ [params]
    5 │ data  = { source = "folder", root = "x", limit = "many" }
      ·                                                  ───┬──
      ·                                                     ╰── must be a whole number, zero or more
    6 │ steps = { by = "n", 1 = 10, 3 = 30 }
      ╰────
    "#);
}

#[test]
fn a_wrong_axis_value_shows_both_places() {
    let text = changed("rank = [2, 4]", r#"rank = [2, "four"]"#);
    insta::assert_snapshot!(text, @r#"
     × `rank` must be a whole number, zero or more, but is the string "four"
       ╭─[toy/main.toml:15:30]
    14 │ baseline      = { rank = 4, modules = "qkvo" }
    15 │ one_at_a_time = { rank = [2, "four"], modules = ["qk", "qkvo"] }
       ·                              ───┬──
       ·                                 ╰── must be a whole number, zero or more
    16 │ grid          = { n = [1, 3] }
       ╰────
       ╭─[toy/main.toml:32:11]
    31 │ inputs  = { pairs = "pairs" }
    32 │ rank    = "${rank}"
       ·           ────┬────
       ·               ╰── used here
    33 │ modules = "${modules}"
       ╰────
    "#);
}

#[test]
fn a_list_of_wrong_length_is_shown() {
    let text = changed("dims  = [16, 8]", "dims  = [16, 8, 3]");
    insta::assert_snapshot!(text, @r#"
     × `size` must be a list of 2 values, but is a list of 3
      ╭─[toy/main.toml:7:9]
    6 │ steps = { by = "n", 1 = 10, 3 = 30 }
    7 │ dims  = [16, 8, 3]
      ·         ─────┬────
      ·              ╰── must be a list of 2 values
    8 │ 
      ╰────
       ╭─[toy/main.toml:22:9]
    21 │ count = "${n}"
    22 │ size  = "${dims}"
       ·         ────┬────
       ·             ╰── used here
    23 │ 
       ╰────
    "#);
}

#[test]
fn a_value_out_of_range_is_shown() {
    let text = changed("count = 5", "count = 0");
    insta::assert_snapshot!(text, @r#"
     × `count` must be at least 1, but is 0
       ╭─[toy/main.toml:27:9]
    26 │ from  = "${data}"
    27 │ count = 0
       ·         ┬
       ·         ╰── must be at least 1
    28 │ 
       ╰────
    "#);
}

#[test]
fn a_broken_rule_of_a_stage_is_shown() {
    let text = changed(
        r#"steps   = "${steps}""#,
        r#"steps   = "${steps}"
optimizer = { warmup = 20 }"#,
    );
    insta::assert_snapshot!(text, @r#"
     × stage `lora`: `optimizer.warmup` must be at most 10, but is 20
       ╭─[toy/main.toml:35:24]
    34 │ steps   = "${steps}"
    35 │ optimizer = { warmup = 20 }
       ·                        ─┬
       ·                         ╰── `optimizer.warmup`
    36 │ note    = "rank ${rank} at ${dims.0}"
       ╰────
     help: train for more steps
    "#);
}

#[test]
fn an_unknown_choice_is_shown() {
    let text = changed(r#"["qk", "qkvo"]"#, r#"["qk", "qkov"]"#);
    insta::assert_snapshot!(text, @r#"
     × `modules` has no choice `qkov`
       ╭─[toy/main.toml:15:51]
    14 │ baseline      = { rank = 4, modules = "qkvo" }
    15 │ one_at_a_time = { rank = [2, 4], modules = ["qk", "qkov"] }
       ·                                                   ───┬──
       ·                                                      ╰── not one of the choices
    16 │ grid          = { n = [1, 3] }
       ╰────
       ╭─[toy/main.toml:33:11]
    32 │ rank    = "${rank}"
    33 │ modules = "${modules}"
       ·           ──────┬─────
       ·                 ╰── used here
    34 │ steps   = "${steps}"
       ╰────
     help: did you mean `qkvo`?
    "#);
}

#[test]
fn a_missing_key_is_shown() {
    let text = changed(
        r#"rank    = "${rank}"
"#,
        r#"note2 = "${rank}"
"#,
    );
    insta::assert_snapshot!(text, @r#"
     × stage `lora` has no `rank`
       ╭─[toy/main.toml:29:9]
    28 │ 
    29 │ [stages.lora]
       ·         ──┬─
       ·           ╰── `rank` is not set here
    30 │ kind    = "train"
       ╰────
     help: add `rank = ...`

     × unknown key `note2`
       ╭─[toy/main.toml:32:1]
    31 │ inputs  = { pairs = "pairs" }
    32 │ note2 = "${rank}"
       · ──┬──
       ·   ╰── nothing reads this
    33 │ modules = "${modules}"
       ╰────
     help: did you mean `note`?
    "#);
}
