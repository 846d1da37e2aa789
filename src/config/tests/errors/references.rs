//! References and params.

use super::changed;

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
fn a_chain_of_params_that_no_stack_would_hold_is_an_error() {
    const LINKS: usize = 20_000;
    let link = |i: usize| format!("p{i} = \"${{p{}}}\"\n", i + 1);
    let down: String = (0..LINKS).map(link).collect();
    let up: String = (0..LINKS).rev().map(link).collect();
    // Leaf first, each link is known when the next one asks, but not when a stage does.
    for (links, place) in [(down + "p20000 = 8\n", "p63"), ("p20000 = 8\n".to_owned() + &up, "p63")]
    {
        let text = changed("dims  = [16, 8]", &format!("{links}dims = [16, \"${{p0}}\"]"));
        let count = text.matches("params refer to each other over more than 64 steps").count();
        assert_eq!(count, 1, "{text}");
        assert!(text.contains(place), "{text}");
    }
}
