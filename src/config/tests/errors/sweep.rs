//! The sweep, and tables over it.

use super::{changed, errors, load_files};
use crate::config::{
    ConfigError,
    tests::toys::{WHOLE, render},
};

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
fn a_choice_without_any_values_is_one_error() {
    let set = load_files(WHOLE, &[], None, &["params.steps={by=\"n\"}"]);
    insta::assert_snapshot!(render(&set.err().unwrap()), @r#"
     × the choice by `n` has no values
      ╭─[--set:1:14]
    1 │ params.steps={by="n"}
      ·              ────┬───
      ·                  ╰── has only `by`
      ╰────
     help: add one for each case, as in `1 = ...`
    "#);
}

#[test]
fn an_axis_that_is_misspelt_on_the_command_line_gets_a_suggestion() {
    let set = ["sweep.baseline.rnk=4", "sweep.grid.modles=[1]", "sweep.baseline.other=1"];
    insta::assert_snapshot!(render(&load_files(WHOLE, &[], None, &set).err().unwrap()), @"
     × no stage uses the sweep axis `rnk`
      ╭─[--set:1:1]
    1 │ sweep.baseline.rnk=4
      · ─────────┬────────
      ·          ╰── changes nothing
      ╰────
     help: did you mean `sweep.baseline.rank`?

     × no stage uses the sweep axis `modles`
      ╭─[--set:1:1]
    1 │ sweep.grid.modles=[1]
      · ────────┬────────
      ·         ╰── changes nothing
      ╰────
     help: did you mean `sweep.one_at_a_time.modules`?

     × no stage uses the sweep axis `other`
      ╭─[--set:1:1]
    1 │ sweep.baseline.other=1
      · ──────────┬─────────
      ·           ╰── changes nothing
      ╰────
     help: use `${other}` in a stage, or take the axis out
    ");
}

#[test]
fn places_far_apart_are_shown_in_excerpts_of_their_own() {
    let far = "# far\n".repeat(100);
    let text = far.clone() + &WHOLE.replace("[params]", &format!("[params]\nn = 3\n{far}"));
    insta::assert_snapshot!(errors(&text), @r#"
     × `n` is both a param and a sweep axis
        ╭─[toy/main.toml:105:1]
    104 │ [params]
    105 │ n = 3
        · ┬
        · ╰── the param
    106 │ # far
        ╰────
        ╭─[toy/main.toml:218:19]
    217 │ one_at_a_time = { rank = [2, 4], modules = ["qk", "qkvo"] }
    218 │ grid          = { n = [1, 3] }
        ·                   ┬
        ·                   ╰── the axis
    219 │ 
        ╰────
     help: rename one of them
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

/// A grid of `count` axes with ten values each.
fn powers_of_ten(count: usize, rest: &str) -> String {
    let axes: Vec<_> =
        (0..count).map(|axis| format!("a{axis} = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]")).collect();
    let uses: Vec<_> = (0..count).map(|axis| format!("${{a{axis}}}")).collect();
    format!(
        "[sweep]\ngrid = {{ {} }}\n{rest}\n\
         [stages.pairs]\nkind = \"data\"\nfrom = {{ source = \"figures\" }}\ncount = 1\n\
         [stages.lora]\nkind = \"train\"\ninputs = {{ pairs = \"pairs\" }}\nrank = 1\nsteps = 1\n\
         note = \"of {}\"\n",
        axes.join(", "),
        uses.join(" ")
    )
}

#[test]
fn a_value_listed_twice_is_shown() {
    insta::assert_snapshot!(changed("rank = [2, 4]", "rank = [2, 4, 2]"), @r#"
     × `sweep.one_at_a_time.rank` lists the number 2 twice
       ╭─[toy/main.toml:15:33]
    14 │ baseline      = { rank = 4, modules = "qkvo" }
    15 │ one_at_a_time = { rank = [2, 4, 2], modules = ["qk", "qkvo"] }
       ·                           ┬     ┬
       ·                           │     ╰── here again
       ·                           ╰── first here
    16 │ grid          = { n = [1, 3] }
       ╰────
     help: take one of them out
    "#);
}

#[test]
fn a_sweep_of_a_million_cells_is_asked_back() {
    let told = |count, rest: &str| {
        let errors = load_files(&powers_of_ten(count, rest), &[], None, &[]).err().unwrap();
        let line = |error: &ConfigError| {
            format!("{}\n  help: {}", error.message, error.help.as_deref().unwrap_or("none"))
        };
        errors.errors.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(told(5, ""), @"
    the sweep has 100000 cells: 10 of `a0` x 10 of `a1` x 10 of `a2` x 10 of `a3` x 10 of `a4`
      help: if all of them are meant, set `max_cells = 100000` in `[sweep]`; if not, shorten an axis, or move some from `grid` to `one_at_a_time`
    ");
    assert!(told(5, "max_cells = 99_999").starts_with("the sweep has 100000 cells: "));
    insta::assert_snapshot!(told(1, "max_cells = 0"), @"
    `sweep.max_cells` must be a whole number from 1 to 1000000, but is the number 0
      help: none
    ");
    // Nothing is expanded before it is counted: this would fill any memory.
    let huge = told(40, "max_cells = 1_000_000");
    assert!(huge.starts_with("the sweep has more than 10^19 cells: 10 of `a0` x 10 of"), "{huge}");
    assert!(huge.contains("help: a sweep can have 1000000; shorten an axis"), "{huge}");
    assert_eq!(
        load_files(&powers_of_ten(4, ""), &[], None, &[]).unwrap().sweep.cells.len(),
        10_000
    );
}

#[test]
fn more_axes_than_a_sweep_can_have_are_an_error_in_each_section() {
    for section in ["grid", "one_at_a_time"] {
        let axes: Vec<_> = (0..66).map(|n| format!("sweep.{section}.a{n}=[1]")).collect();
        let bases = (0..66).map(|n| format!("sweep.baseline.a{n}=1"));
        let bases: Vec<_> = bases.filter(|_| section == "one_at_a_time").collect();
        let set: Vec<&str> = axes.iter().chain(&bases).map(String::as_str).collect();
        let text = render(&load_files(WHOLE, &[], None, &set).err().unwrap());
        assert!(text.contains("a sweep has at most 64 axes"), "{section}: {text}");
    }
}

#[test]
fn an_entry_of_exclude_that_says_nothing_is_shown() {
    let text = changed(
        "grid          = { n = [1, 3] }",
        "grid          = { n = [1, 3] }\nexclude = [{}, { n = [] }, 1]",
    );
    insta::assert_snapshot!(text, @"
     × an entry of `sweep.exclude` names no axis
       ╭─[toy/main.toml:17:12]
    16 │ grid          = { n = [1, 3] }
    17 │ exclude = [{}, { n = [] }, 1]
       ·            ─┬
       ·             ╰── must name one
    18 │ 
       ╰────
     help: write `{ <axis> = ... }`, or take the entry out

     × an entry of `sweep.exclude` has no values of `n`
       ╭─[toy/main.toml:17:22]
    16 │ grid          = { n = [1, 3] }
    17 │ exclude = [{}, { n = [] }, 1]
       ·                      ─┬
       ·                       ╰── must have at least one
    18 │ 
       ╰────
     help: list those to leave out, or take the axis out

     × `sweep.exclude` must be a table of axes with their values, but is the number 1
       ╭─[toy/main.toml:17:28]
    16 │ grid          = { n = [1, 3] }
    17 │ exclude = [{}, { n = [] }, 1]
       ·                            ┬
       ·                            ╰── must be a table of axes with their values
    18 │ 
       ╰────
    ");
}

#[test]
fn what_is_wrong_with_a_range_is_shown() {
    let of = |range: &str| changed("n = [1, 3] }", &format!("n = {range} }}"));
    insta::assert_snapshot!(of("{ form = 1, to = 3 }"), @r#"
     × unknown key `sweep.grid.n.form`
       ╭─[toy/main.toml:16:25]
    15 │ one_at_a_time = { rank = [2, 4], modules = ["qk", "qkvo"] }
    16 │ grid          = { n = { form = 1, to = 3 } }
       ·                         ──┬─
       ·                           ╰── not a key of a range
    17 │ 
       ╰────
     help: did you mean `from`?
    "#);
    insta::assert_snapshot!(of("{ from = 1 }"), @r#"
     × the range `sweep.grid.n` has no `to`
       ╭─[toy/main.toml:16:23]
    15 │ one_at_a_time = { rank = [2, 4], modules = ["qk", "qkvo"] }
    16 │ grid          = { n = { from = 1 } }
       ·                       ──────┬─────
       ·                             ╰── a table of values is a range
    17 │ 
       ╰────
     help: write `{ from = 0, to = 9 }`, both ends included, or a list of values in
           brackets
    "#);
    insta::assert_snapshot!(of("{ from = 1, to = 2.5 }"), @r#"
     × `sweep.grid.n.to` must be a whole number, but is the number 2.5
       ╭─[toy/main.toml:16:40]
    15 │ one_at_a_time = { rank = [2, 4], modules = ["qk", "qkvo"] }
    16 │ grid          = { n = { from = 1, to = 2.5 } }
       ·                                        ─┬─
       ·                                         ╰── must be a whole number
    17 │ 
       ╰────
    "#);
    insta::assert_snapshot!(of("{ from = 3, to = 1 }"), @r#"
     × the range `sweep.grid.n` ends at 1, before it begins at 3
       ╭─[toy/main.toml:16:40]
    15 │ one_at_a_time = { rank = [2, 4], modules = ["qk", "qkvo"] }
    16 │ grid          = { n = { from = 3, to = 1 } }
       ·                                        ┬
       ·                                        ╰── counts upwards
    17 │ 
       ╰────
    "#);
    insta::assert_snapshot!(of("{ from = 1, to = 3, step = 0 }"), @r#"
     × the step of `sweep.grid.n` must be 1 or more, but is 0
       ╭─[toy/main.toml:16:50]
    15 │ one_at_a_time = { rank = [2, 4], modules = ["qk", "qkvo"] }
    16 │ grid          = { n = { from = 1, to = 3, step = 0 } }
       ·                                                  ┬
       ·                                                  ╰── counts upwards
    17 │ 
       ╰────
    "#);
    insta::assert_snapshot!(of("{ from = -9223372036854775808, to = 9223372036854775807 }"), @r#"
     × the range `sweep.grid.n` has more values than a sweep can have cells
       ╭─[toy/main.toml:16:23]
    15 │ one_at_a_time = { rank = [2, 4], modules = ["qk", "qkvo"] }
    16 │ grid          = { n = { from = -9223372036854775808, to = 9223372036854775807 } }
       ·                       ────────────────────────────┬────────────────────────────
       ·                                                   ╰── 18446744073709551615, more than 1000000
    17 │ 
       ╰────
     help: let it end earlier, or take a greater `step`
    "#);
}

#[test]
fn a_count_for_what_is_missing_from_no_mean_is_shown() {
    let text = changed("columns = \"n\"", "columns = \"n\"\nmissing = 0");
    assert!(text.contains("`missing` of table `main` does nothing without `average`"), "{text}");
}

#[test]
fn a_spread_of_nothing_is_shown() {
    let text = changed("columns = \"n\"", "columns = \"n\"\nspread  = \"bootstrap\"");
    insta::assert_snapshot!(text, @r#"
     × `spread` of table `main` does nothing without `average`
       ╭─[toy/main.toml:44:11]
    43 │ columns = "n"
    44 │ spread  = "bootstrap"
       ·           ─────┬─────
       ·                ╰── nothing is averaged
    45 │ rows    = ["modules", "rank"]
       ╰────
     help: name the axes that are averaged, or take it out
    "#);
}
