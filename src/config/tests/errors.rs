//! One snapshot for each class of error.

use super::toys::{WHOLE, errors, load_files, render};

/// The errors of the whole file after a change.
fn changed(from: &str, to: &str) -> String {
    assert!(WHOLE.contains(from), "{from}");
    errors(&WHOLE.replace(from, to))
}

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
     × stage `lora`: warmup must be at most 10, but is 20
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

#[test]
fn an_unknown_kind_is_shown() {
    let text = changed(r#"kind    = "train""#, r#"kind    = "trian""#);
    insta::assert_snapshot!(text, @r#"
     × unknown stage kind `trian`
       ╭─[toy/main.toml:30:11]
    29 │ [stages.lora]
    30 │ kind    = "trian"
       ·           ───┬───
       ·              ╰── no such kind
    31 │ inputs  = { pairs = "pairs" }
       ╰────
     help: did you mean `train`?
    "#);
}

#[test]
fn an_unknown_stage_is_shown() {
    let text = changed(r#"pairs = "test" }"#, r#"pairs = "tset" }"#);
    insta::assert_snapshot!(text, @r#"
     × there is no stage `tset`
       ╭─[toy/main.toml:39:38]
    38 │ kind   = "score"
    39 │ inputs = { adapter = "lora", pairs = "tset" }
       ·                                      ───┬──
       ·                                         ╰── unknown stage
    40 │ 
       ╰────
     help: did you mean `test`?
    "#);
}

#[test]
fn an_unknown_port_and_a_missing_one_are_shown() {
    let text = changed(r#"{ adapter = "lora","#, r#"{ adaptor = "lora","#);
    insta::assert_snapshot!(text, @r#"
     × stage `score` needs the input `adapter`
       ╭─[toy/main.toml:39:10]
    38 │ kind   = "score"
    39 │ inputs = { adaptor = "lora", pairs = "test" }
       ·          ──────────────────┬─────────────────
       ·                            ╰── not connected here
    40 │ 
       ╰────
     help: add `adapter = "<a stage that gives lora_adapter>"` to its `inputs`

     × a stage of kind `score` has no input `adaptor`
       ╭─[toy/main.toml:39:12]
    38 │ kind   = "score"
    39 │ inputs = { adaptor = "lora", pairs = "test" }
       ·            ───┬───
       ·               ╰── no such input
    40 │ 
       ╰────
     help: did you mean `adapter`?
    "#);
}

#[test]
fn an_unknown_param_is_shown() {
    let text = changed(
        r#""${data}"
count = 5"#,
        r#""${dota}"
count = 5"#,
    );
    insta::assert_snapshot!(text, @r#"
     × there is no param or sweep axis `dota`
       ╭─[toy/main.toml:26:10]
    25 │ kind  = "data"
    26 │ from  = "${dota}"
       ·          ───┬───
       ·             ╰── unknown
    27 │ count = 5
       ╰────
     help: did you mean `data`?
    "#);
}

#[test]
fn an_unknown_key_of_a_param_is_shown() {
    let text = changed("${dims.0}", "${data.sauce}");
    insta::assert_snapshot!(text, @r#"
     × `data` has no key `sauce`
       ╭─[toy/main.toml:35:28]
    34 │ steps   = "${steps}"
    35 │ note    = "rank ${rank} at ${data.sauce}"
       ·                            ──────┬──────
       ·                                  ╰── unknown key
    36 │ 
       ╰────
     help: did you mean `source`?
    "#);
}

#[test]
fn an_unclosed_reference_is_shown() {
    let text = changed("${dims.0}", "${dims.0");
    insta::assert_snapshot!(text, @r#"
     × `${` has no closing `}`
       ╭─[toy/main.toml:35:28]
    34 │ steps   = "${steps}"
    35 │ note    = "rank ${rank} at ${dims.0"
       ·                            ────┬───
       ·                                ╰── here
    36 │ 
       ╰────
     help: write `${name}`, or `$${` for a plain `${`
    "#);
}

#[test]
fn a_table_inside_text_is_shown() {
    let text = changed("${dims.0}", "${dims}");
    insta::assert_snapshot!(text, @r#"
     × `${dims}` is a list, which cannot be put into text
       ╭─[toy/main.toml:35:28]
    34 │ steps   = "${steps}"
    35 │ note    = "rank ${rank} at ${dims}"
       ·                            ───┬───
       ·                               ╰── stands inside a string
    36 │ 
       ╰────
     help: refer to one of its keys, or let the string be only this
    "#);
}

#[test]
fn a_cycle_of_params_is_shown() {
    let text = changed(
        "dims  = [16, 8]",
        r#"dims  = ["${more}", 8]
more = "${dims.0}""#,
    );
    insta::assert_snapshot!(text, @r#"
     × params refer to each other: more -> dims -> more
      ╭─[toy/main.toml:7:11]
    6 │ steps = { by = "n", 1 = 10, 3 = 30 }
    7 │ dims  = ["${more}", 8]
      ·           ───┬───
      ·              ╰── comes back here
    8 │ more = "${dims.0}"
      ╰────

     × params refer to each other: dims -> more -> dims
      ╭─[toy/main.toml:8:9]
    7 │ dims  = ["${more}", 8]
    8 │ more = "${dims.0}"
      ·         ────┬────
      ·             ╰── comes back here
    9 │ 
      ╰────
    "#);
}

#[test]
fn a_cycle_of_stages_is_shown() {
    let text = changed(
        r#"inputs  = { pairs = "pairs" }"#,
        r#"inputs  = { pairs = "pairs", base = "lora" }"#,
    );
    insta::assert_snapshot!(text, @r#"
     × stages need each other: lora <- lora
       ╭─[toy/main.toml:31:37]
    30 │ kind    = "train"
    31 │ inputs  = { pairs = "pairs", base = "lora" }
       ·                                     ───┬──
       ·                                        ╰── closes the circle
    32 │ rank    = "${rank}"
       ╰────
     help: let one of them take its input from elsewhere
    "#);
}

#[test]
fn a_wrong_artifact_kind_is_shown() {
    let text = changed(
        r#"{ adapter = "lora", pairs = "test" }"#,
        r#"{ adapter = "lora", pairs = "lora" }"#,
    );
    insta::assert_snapshot!(text, @r#"
     × stage `score` needs pairs, but `lora` gives lora_adapter
       ╭─[toy/main.toml:39:38]
    38 │ kind   = "score"
    39 │ inputs = { adapter = "lora", pairs = "lora" }
       ·                                      ───┬──
       ·                                         ╰── a stage of kind `train`
    40 │ 
       ╰────
     help: name a stage that gives pairs
    "#);
}

#[test]
fn an_unused_axis_is_shown() {
    let text = changed(
        "grid          = { n = [1, 3] }",
        "grid          = { n = [1, 3], frames = [5, 9] }",
    );
    insta::assert_snapshot!(text, @r#"
     × no stage uses the sweep axis `frames`
       ╭─[toy/main.toml:16:31]
    15 │ one_at_a_time = { rank = [2, 4], modules = ["qk", "qkvo"] }
    16 │ grid          = { n = [1, 3], frames = [5, 9] }
       ·                               ───┬──
       ·                                  ╰── changes nothing
    17 │ 
       ╰────
     help: use `${frames}` in a stage, or take the axis out
    "#);
}

#[test]
fn an_unused_param_is_shown() {
    let text = changed("[params]", "[params]\nspare = 1");
    insta::assert_snapshot!(text, @r#"
     × the param `spare` is never used
      ╭─[toy/main.toml:5:1]
    4 │ [params]
    5 │ spare = 1
      · ──┬──
      ·   ╰── never used
    6 │ data  = { source = "figures" }
      ╰────
     help: refer to it as `${spare}`, or take it out
    "#);
}

#[test]
fn a_choice_without_a_value_is_shown() {
    let text = changed("3 = 30", "10 = 30");
    insta::assert_snapshot!(text, @r#"
     × the choice has no value for n = 3
      ╭─[toy/main.toml:6:9]
    5 │ data  = { source = "figures" }
    6 │ steps = { by = "n", 1 = 10, 10 = 30 }
      ·         ──────────────┬──────────────
      ·                       ╰── has only `1`, `10`
    7 │ dims  = [16, 8]
      ╰────
     help: add `3 = ...`
    "#);
}

#[test]
fn an_axis_without_a_baseline_is_shown() {
    let text = changed("{ rank = 4, modules", "{ modules");
    insta::assert_snapshot!(text, @r#"
     × the axis `rank` has no baseline
       ╭─[toy/main.toml:15:19]
    14 │ baseline      = { modules = "qkvo" }
    15 │ one_at_a_time = { rank = [2, 4], modules = ["qk", "qkvo"] }
       ·                   ──┬─
       ·                     ╰── varied one at a time
    16 │ grid          = { n = [1, 3] }
       ╰────
     help: add `rank = ...` to `sweep.baseline`
    "#);
}

#[test]
fn an_unknown_axis_in_exclude_is_shown() {
    let text = changed(
        "grid          = { n = [1, 3] }",
        "grid          = { n = [1, 3] }\nexclude = [{ m = 1 }]",
    );
    insta::assert_snapshot!(text, @r#"
     × there is no axis `m`
       ╭─[toy/main.toml:17:14]
    16 │ grid          = { n = [1, 3] }
    17 │ exclude = [{ m = 1 }]
       ·              ┬
       ·              ╰── unknown axis
    18 │ 
       ╰────
     help: it can be `n`, `rank`, `modules`
    "#);
}

#[test]
fn a_table_with_wrong_names_is_shown() {
    let text = changed(
        r#"value   = "score.f1"
columns = "n""#,
        r#"value   = "scor.f1"
columns = "num""#,
    );
    insta::assert_snapshot!(text, @r#"
     × there is no stage `scor`
       ╭─[toy/main.toml:42:11]
    41 │ [tables.main]
    42 │ value   = "scor.f1"
       ·           ────┬────
       ·               ╰── unknown stage
    43 │ columns = "num"
       ╰────
     help: did you mean `score`?

     × there is no sweep axis `num`
       ╭─[toy/main.toml:43:11]
    42 │ value   = "scor.f1"
    43 │ columns = "num"
       ·           ──┬──
       ·             ╰── unknown axis
    44 │ rows    = ["modules", "rank"]
       ╰────
     help: it can be `n`, `rank`, `modules`
    "#);
}

#[test]
fn a_table_of_no_metrics_is_shown() {
    let text = changed(r#""score.f1""#, r#""lora.f1""#);
    insta::assert_snapshot!(text, @r#"
     × a table shows metrics, but `lora` gives lora_adapter
       ╭─[toy/main.toml:42:11]
    41 │ [tables.main]
    42 │ value   = "lora.f1"
       ·           ────┬────
       ·               ╰── a stage of kind `train`
    43 │ columns = "n"
       ╰────
    "#);
}

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

     × unexpected key or value, expected newline, `#`
       ╭─[toy/main.toml:27:11]
    26 │ from  = "${data}"
    27 │ count = = 5
       ·           ▲
       ·           ╰── here
    28 │ 
       ╰────
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
    insta::assert_snapshot!(render(&errors), @r#"
     × `--set lora` has no `=`
      ╭─[--set:1:1]
    1 │ lora
      · ──┬─
      ·   ╰── must be `key=value`
      ╰────
     help: write it as `--set stage.key=value` or `--set params.name=value`

     × `--set lroa.rank` names neither a stage nor a param
      ╭─[--set:1:1]
    1 │ lroa.rank=3
      · ────┬────
      ·     ╰── unknown
      ╰────
     help: did you mean `lora`?

     × `--set` names the param `dim`, which is not there
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

     × unknown key `rnk`
      ╭─[--set:1:1]
    1 │ lora.rnk=1
      · ────┬───
      ·     ╰── nothing reads this
      ╰────
     help: did you mean `rank`?
    "#);
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
    "#);
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
    toy/main.toml:24:9 stage `test` has no `count`
    toy/main.toml:27:1 unknown key `cuont`
    toy/main.toml:28:8 `size` must be a list of 2 values, but is the string "big"
    toy/main.toml:34:12 there is no param or sweep axis `modlues`
    toy/main.toml:39:10 unknown stage kind `scores`
    toy/main.toml:44:11 there is no sweep axis `x`
    "#);
    let json = errors.to_json();
    insta::assert_snapshot!(serde_json::to_string_pretty(&json["errors"][0]).unwrap(), @r#"
    {
      "code": "missing_key",
      "column": 9,
      "end_column": 13,
      "end_line": 24,
      "file": "toy/main.toml",
      "help": "add `count = ...`",
      "line": 24,
      "message": "stage `test` has no `count`"
    }
    "#);
}
