//! Stages and how they are connected.

use super::changed;

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
fn an_unknown_port_is_shown_and_not_the_missing_one() {
    let text = changed(r#"{ adapter = "lora","#, r#"{ adaptor = "lora","#);
    insta::assert_snapshot!(text, @r#"
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
