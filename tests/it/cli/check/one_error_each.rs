//! One mistake gives one error, with its place and what to do.

use std::fmt::Write;

use crate::cli::Shell;

/// Single mistakes in the starter: what was written, and what stands there instead.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("stage in an input", "pairs = \"examples\"", "pairs = \"exampels\""),
    ("stage in a table", "score.f1", "scor.f1"),
    ("metric in a table", "score.f1", "score.f2"),
    ("axis in a table", "columns = \"n\"", "columns = \"m\""),
    ("parameter", "frames = 9\n\n[stages.prompt]", "frmaes = 9\n\n[stages.prompt]"),
    ("reference", "\"${n}\"", "\"${m}\""),
    ("open reference", "\"${n}\"", "\"${n\""),
    ("kind", "\"interpolate\"", "\"interpolat\""),
    ("no kind", "kind   = \"decode\"\n", ""),
    ("choice", "\"qkvo\"", "\"qkov\""),
    ("data set", "builtin:figures", "builtin:figure"),
    ("model of five stages", "builtin:tiny", "builtin:tny"),
    ("port", "inputs = { videos = \"clips\" }", "inputs = { video = \"clips\" }"),
    ("no port", "inputs = { videos = \"clips\" }\n", ""),
    ("port's artifact", "videos = \"clips\"", "videos = \"examples\""),
    ("inputs", "{ samples = \"predict\" }", "\"predict\""),
    ("cycle", "pairs = \"examples\"", "pairs = \"clips\""),
    ("type", "steps   = 5", "steps   = \"five\""),
    ("quoted number", "2e-3", "\"2e-3\""),
    ("negative number", "steps = 120", "steps = -120"),
    ("no number", "2e-3", "nan"),
    ("size of two stages", "[64, 64]", "[63, 64]"),
    ("frames", "frames = 9", "frames = 8"),
    ("empty axis", "n = [1, 4]", "n = []"),
    ("axis of one value", "n = [1, 4]", "n = 4"),
    ("grid", "{ n = [1, 4] }", "[1, 4]"),
    ("axis in two sections", "n = [1, 4]", "n = [1, 4], rank = [8]"),
    ("no baseline", "baseline      = { rank = 32 }\n", ""),
    ("key of the sweep", "grid  ", "gird  "),
    ("section of axes", "[sweep]", "[sweeps]"),
    ("section of params", "[params]", "[param]"),
    ("section of a stage", "[stages.prompt]", "[stage.prompt]"),
    ("base", "seed = 42", "seed = 42\nextends = \"base.toml\""),
    ("quote", "\"quadratic\"", "\"quadratic"),
    ("brace", "samples = \"predict\" }", "samples = \"predict\""),
    ("bracket", "[stages.prompt]", "[stages.prompt"),
    ("value", "steps   = 5", "steps   = five"),
    ("key twice", "seed = 42", "seed = 42\nseed = 43"),
    ("stage twice", "[stages.prompt]", "[stages.clips]"),
];

#[test]
fn one_mistake_is_one_error() {
    let shell = Shell::new();
    shell.succeed("init first");
    let right = std::fs::read_to_string(shell.path("first.toml")).unwrap();
    let mut told = String::new();
    for (mistake, old, new) in MISTAKES {
        assert!(right.contains(old), "{mistake}: {old}");
        shell.write("wrong.toml", &right.replacen(old, new, 1));
        let output = shell.output("check --json wrong.toml");
        assert_eq!(output.status.code(), Some(2), "{mistake}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let errors = json["files"][0]["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1, "{mistake}: {errors:#?}");
        let error = &errors[0];
        assert!(error["line"].as_u64().is_some(), "{mistake}: {error:#}");
        let message = error["message"].as_str().unwrap();
        let help = error["help"].as_str();
        // What a value must be is what to do about it.
        assert!(help.is_some() || message.contains("must be"), "{mistake}: {message}");
        let help = help.map(|help| format!(" | {help}")).unwrap_or_default();
        writeln!(told, "{mistake}: {message}{help}").unwrap();
    }
    insta::assert_snapshot!(told, @r#"
    stage in an input: there is no stage `exampels` | did you mean `examples`?
    stage in a table: there is no stage `scor` | did you mean `score`?
    metric in a table: stage `score` gives no `f2` | it can be `f1`, `match_rate`, `precision`, `pooled_f1`, `pooled_match_rate`, `pooled_precision`
    axis in a table: there is no sweep axis `m` | it can be `n`, `rank`
    parameter: unknown key `frmaes` | did you mean `frames`?
    reference: there is no param or sweep axis `m` | it can be `model`, `data`, `size`, `steps`, `n`, `rank`
    open reference: `${` has no closing `}` | write `${name}`, or `$${` for a plain `${`
    kind: unknown stage kind `interpolat` | did you mean `interpolate`?
    no kind: stage `answers` has no `kind` | it can be `dataset`, `transform`, `interpolate`, `text_encode`, `vae_encode`, `lora_train`, `lora_merge`, `sample`, `decode`, `color_correct`, `metric`, `pretrain`, `command`
    choice: `modules` has no choice `qkov` | did you mean `qkvo`?
    data set: `source.source` has no choice `builtin:figure` | did you mean `builtin:figures`?
    model of five stages: stage `prompt`: `model`: there is no built-in model `tny` | did you mean `builtin:tiny`?
    port: a stage of kind `vae_encode` has no input `video` | did you mean `videos`?
    no port: stage `latents` needs the input `videos` | add `videos = "<a stage that gives videos>"` to its `inputs`
    port's artifact: stage `latents` needs videos, but `examples` gives pairs | name a stage that gives videos
    inputs: `inputs` must be a table, but is the string "predict" | write `inputs = { samples = "predict" }`
    cycle: stages need each other: clips <- clips | let one of them take its input from elsewhere
    type: `steps` must be a whole number, zero or more, but is the string "five"
    quoted number: `learning_rate` must be a number, but is the string "2e-3" | write it without quotes: 2e-3
    negative number: `steps` must be at least 0, but is -120
    no number: the number must be finite | write a number that is
    size of two stages: stage `examples`: `size`: sides must be even, 8 to 4096, but are [63, 64] | give [height, width] in pixels; the model may ask for more, such as multiples of 16
    frames: stage `clips`: `frames` must be 4k + 1, at least 5, but is 8 | the nearest are 5 and 9
    empty axis: `sweep.grid.n` has no values | list its values, or take the axis out
    axis of one value: `sweep.grid.n` must be a list of values, but is the number 4 | write it in brackets, also where there is one value
    grid: `sweep.grid` must be a table of axes, but is a list | write `grid = { <axis> = ... }`
    axis in two sections: the axis `rank` is in `grid` and in `one_at_a_time` | take it out of one of them
    no baseline: the axis `rank` has no baseline | add `rank = ...` to `sweep.baseline`
    key of the sweep: unknown key `sweep.gird` | did you mean `grid`?
    section of axes: unknown key `sweeps` | did you mean `sweep`?
    section of params: unknown key `param` | did you mean `params`?
    section of a stage: unknown key `stage` | did you mean `stages`?
    base: cannot read `base.toml`: No such file or directory (os error 2) | check the path, which is meant from the folder of the file that names it
    quote: invalid basic string, expected `"` | close the string with the quote it begins with, on the same line
    brace: missing comma between key-value pairs, expected `,` | close the table before this with `}`, or put a comma between its entries
    bracket: unclosed table, expected `]` | close the bracket with `]`
    value: invalid boolean, expected `false` | put it in quotes if it is text
    key twice: duplicate key | take one of them out; a table such as `[stages.lora]` can be opened only once
    stage twice: duplicate key | take one of them out; a table such as `[stages.lora]` can be opened only once
    "#);
}

/// What `check first.toml` says with these, and with the starter so changed.
fn told(shell: &Shell, change: [&str; 2], line: &str) -> String {
    shell.succeed("init first");
    let text = std::fs::read_to_string(shell.path("first.toml")).unwrap();
    assert!(text.contains(change[0]));
    shell.write("first.toml", &text.replacen(change[0], change[1], 1));
    shell.transcript(&format!("check first.toml {line}"))
}

const NOTHING: [&str; 2] = ["", ""];

#[test]
fn each_set_is_told_apart_with_what_to_write() {
    let shell = Shell::new();
    let line = "--set lora=3 --set parms.steps=3 --set stps=3 --set lora[n=1].steps=3 \
                --set examples.cuont=2 --set seed=99999999999999999999";
    insta::assert_snapshot!(told(&shell, NOTHING, line), @r#"
    $ pipe check first.toml --set lora=3 --set parms.steps=3 --set stps=3 --set lora[n=1].steps=3 --set examples.cuont=2 --set seed=[HASH]
    ? 2
    --- stderr
      × `lora` is a stage, so `--set` must name one of its keys
       ╭─[--set:1:1]
     1 │ lora=3
       · ──┬─
       ·   ╰── a stage
       ╰────
      help: write `--set lora.KEY=3`; the file sets `kind`, `inputs`, `model`, `rank`, `modules`,
            `steps`, `batch_size`, `learning_rate`, `lr_schedule`

      × `--set parms.steps` names neither a stage nor a param of `first.toml`
       ╭─[--set:1:1]
     1 │ parms.steps=3
       · ─────┬─────
       ·      ╰── unknown
       ╰────
      help: did you mean `params.steps`?

      × `--set stps` names neither a stage nor a param of `first.toml`
       ╭─[--set:1:1]
     1 │ stps=3
       · ──┬─
       ·   ╰── unknown
       ╰────
      help: did you mean `steps`?

      × `--set` sets a key of all cells of `lora`, not of one
       ╭─[--set:1:1]
     1 │ lora[n=1].steps=3
       · ────────┬────────
       ·         ╰── one cell
       ╰────
      help: write `--set lora.steps=3`; for a value that depends on the cell, refer to a param such as
            `{ by = "n", ... }`; `--only 'lora[n=1]'` runs one cell

      × unknown key `cuont`
       ╭─[--set:1:1]
     1 │ examples.cuont=2
       · ───────┬──────
       ·        ╰── nothing reads this
       ╰────
      help: did you mean `count`?

      × the number does not fit in 64 bits
       ╭─[--set:1:6]
     1 │ seed=[HASH]
       ·      ──────────┬─────────
       ·                ╰── here
       ╰────
      help: whole numbers go from -[HASH] to [HASH]
    first.toml: 6 errors
    "#);
}

#[test]
fn a_value_set_in_place_of_an_axis_says_how_the_axis_is_set() {
    insta::assert_snapshot!(told(&Shell::new(), NOTHING, "--set lora.rank=7"), @"
    $ pipe check first.toml --set lora.rank=7
    ? 2
    --- stderr
      × `stages.lora.rank` is the value of the sweep axis `rank`, which nothing uses now
       ╭─[--set:1:11]
     1 │ lora.rank=7
       ·           ┬
       ·           ╰── in place of the axis
       ╰────
      help: `--set sweep.baseline.rank=7` sets its baseline, and `--set
            'sweep.one_at_a_time.rank=[7]'` the values it is varied over
            the axis: first.toml:20:19
    first.toml: 1 error
    ");
    let profile = ["[tables", "[profiles.small.stages.lora]\nrank = 8\n\n[tables"];
    insta::assert_snapshot!(told(&Shell::new(), profile, "--profile small"), @"
    $ pipe check first.toml --profile small
    ? 2
    --- stderr
      × `stages.lora.rank` is the value of the sweep axis `rank`, which nothing uses now
        ╭─[first.toml:20:19]
     19 │ baseline      = { rank = 32 }
     20 │ one_at_a_time = { rank = [16, 32] }
        ·                   ──┬─
        ·                     ╰── the axis
     21 │ grid          = { n = [1, 4] }
        ╰────
        ╭─[first.toml:90:8]
     89 │ [profiles.small.stages.lora]
     90 │ rank = 8
        ·        ┬
        ·        ╰── in place of the axis
     91 │ 
        ╰────
      help: set `one_at_a_time = { rank = ... }` in the profile's `sweep` instead
    first.toml: 1 error
    ");
    // An axis that something else uses may be replaced in one place.
    let shell = Shell::new();
    let two = ["steps   = 5", "steps   = \"${rank}\""];
    insta::assert_snapshot!(told(&shell, two, "--set lora.rank=7"), @"
    $ pipe check first.toml --set lora.rank=7
    ? 0
    --- stdout
    first.toml: fine, 22 stages
    ");
}

#[test]
fn a_baseline_of_a_misspelt_axis_is_one_error() {
    let misspelt = ["{ rank = 32 }", "{ rnak = 32 }"];
    insta::assert_snapshot!(told(&Shell::new(), misspelt, ""), @"
    $ pipe check first.toml 
    ? 2
    --- stderr
      × there is no axis `rnak` to give a baseline
        ╭─[first.toml:19:19]
     18 │ [sweep]
     19 │ baseline      = { rnak = 32 }
        ·                   ──┬─
        ·                     ╰── unknown axis
     20 │ one_at_a_time = { rank = [16, 32] }
        ╰────
      help: did you mean `rank`?
    first.toml: 1 error
    ");
}

#[test]
fn a_stage_of_unknown_kind_is_checked_all_the_same() {
    let shell = Shell::new();
    shell.write(
        "wrong.toml",
        "[params]\nrank = 3\n\n[stages.lora]\nkind = \"lora_trian\"\n\
         inputs = { latents = \"latnts\" }\nrank = \"${rnak}\"\n\n\
         [stages.latents]\nkind = \"text_encode\"\nmodel = \"${rank}\"\n",
    );
    insta::assert_snapshot!(shell.transcript("check wrong.toml"), @r#"
    $ pipe check wrong.toml
    ? 2
    --- stderr
      × `model` must be a string, but is the number 3
       ╭─[wrong.toml:2:8]
     1 │ [params]
     2 │ rank = 3
       ·        ┬
       ·        ╰── must be a string
     3 │ 
       ╰────
        ╭─[wrong.toml:11:9]
     10 │ kind = "text_encode"
     11 │ model = "${rank}"
        ·         ────┬────
        ·             ╰── used here
        ╰────

      × unknown stage kind `lora_trian`
       ╭─[wrong.toml:5:8]
     4 │ [stages.lora]
     5 │ kind = "lora_trian"
       ·        ──────┬─────
       ·              ╰── no such kind
     6 │ inputs = { latents = "latnts" }
       ╰────
      help: did you mean `lora_train`?

      × there is no stage `latnts`
       ╭─[wrong.toml:6:22]
     5 │ kind = "lora_trian"
     6 │ inputs = { latents = "latnts" }
       ·                      ────┬───
       ·                          ╰── unknown stage
     7 │ rank = "${rnak}"
       ╰────
      help: did you mean `latents`?

      × there is no param or sweep axis `rnak`
       ╭─[wrong.toml:7:9]
     6 │ inputs = { latents = "latnts" }
     7 │ rank = "${rnak}"
       ·         ───┬───
       ·            ╰── unknown
     8 │ 
       ╰────
      help: did you mean `rank`?
    wrong.toml: 4 errors
    "#);
}

#[test]
fn values_that_are_none_or_cannot_be_say_what_to_do() {
    let mut all = String::new();
    for new in [
        "seed =",
        "seed = # none",
        "seed = 99999999999999999999",
        "seed = -1",
        "seed = inf",
        "seed = 1979-05-27",
        "seed = 1\nextra = { a =  }",
    ] {
        let said = told(&Shell::new(), ["seed = 42", new], "--json");
        let said = &said[said.find('{').unwrap()..];
        let said: serde_json::Value = serde_json::from_str(said).unwrap();
        let error = &said["files"][0]["errors"][0];
        let (message, help) = (error["message"].as_str().unwrap(), error["help"].as_str());
        let place = format!("{}:{}", error["line"], error["column"]);
        writeln!(all, "{new:?}: {place}: {message} | {}", help.unwrap_or_default()).unwrap();
    }
    insta::assert_snapshot!(all, @r#"
    "seed =": 7:7: `seed` has no value | write one after `=`, or take the key out
    "seed = # none": 7:8: `seed` has no value | write one after `=`, or take the key out
    "seed = 99999999999999999999": 7:8: the number does not fit in 64 bits | whole numbers go from -[HASH] to [HASH]
    "seed = -1": 7:8: `seed` must be a whole number, zero or more, but is the number -1 | 
    "seed = inf": 7:8: the number must be finite | write a number that is
    "seed = 1979-05-27": 7:8: a pipeline has no dates | put it in quotes if it is text
    "seed = 1\nextra = { a =  }": 8:16: `a` has no value | write one after `=`, or take the key out
    "#);
    insta::assert_snapshot!(told(&Shell::new(), ["\"${n}\"", "-1"], "--set test.count=0"), @r#"
    $ pipe check first.toml --set test.count=0
    ? 2
    --- stderr
      × no stage uses the sweep axis `n`
        ╭─[first.toml:21:19]
     20 │ one_at_a_time = { rank = [16, 32] }
     21 │ grid          = { n = [1, 4] }
        ·                   ┬
        ·                   ╰── changes nothing
     22 │ 
        ╰────
      help: use `${n}` in a stage, or take the axis out

      × `count` must be at least 1, but is -1
        ╭─[first.toml:29:10]
     28 │ split  = "train"
     29 │ count  = -1
        ·          ─┬
        ·           ╰── must be at least 1
     30 │ size   = "${size}"
        ╰────
      help: or leave `count` out

      × `count` must be at least 1, but is 0
       ╭─[--set:1:12]
     1 │ test.count=0
       ·            ┬
       ·            ╰── must be at least 1
       ╰────
      help: or leave `count` out
    first.toml: 3 errors
    "#);
}

#[test]
fn setting_an_axis_says_how_it_is_done() {
    let shell = Shell::new();
    shell.succeed("init first");
    insta::assert_snapshot!(shell.transcript("check first.toml --set n=7"), @"
    $ pipe check first.toml --set n=7
    ? 2
    --- stderr
      × `n` is an axis of the sweep, not a param
       ╭─[--set:1:1]
     1 │ n=7
       · ┬
       · ╰── an axis
       ╰────
      help: `--set 'sweep.grid.n=[7]'` sets its values
    first.toml: 1 error
    ");
    shell.succeed("check first.toml --set sweep.grid.n=[7]");
    insta::assert_snapshot!(shell.transcript("check first.toml --set rank=7"), @"
    $ pipe check first.toml --set rank=7
    ? 2
    --- stderr
      × `rank` is an axis of the sweep, not a param
       ╭─[--set:1:1]
     1 │ rank=7
       · ──┬─
       ·   ╰── an axis
       ╰────
      help: `--set sweep.baseline.rank=7` sets its baseline, and `--set
            'sweep.one_at_a_time.rank=[7]'` the values it is varied over
    first.toml: 1 error
    ");
    shell
        .succeed("check first.toml --set sweep.baseline.rank=7 --set sweep.one_at_a_time.rank=[7]");
}

#[test]
fn wrong_files_and_folders_say_what_to_do() {
    let shell = Shell::new();
    shell.succeed("init first");
    shell.write("based.toml", "extends = \"base/few_shot.toml\"\n");
    shell.write("taken", "");
    insta::assert_snapshot!(shell.transcript("check based.toml"), @r#"
    $ pipe check based.toml
    ? 2
    --- stderr
      × cannot read `base/few_shot.toml`: No such file or directory (os error 2)
       ╭─[based.toml:1:11]
     1 │ extends = "base/few_shot.toml"
       ·           ──────────┬─────────
       ·                     ╰── named here
       ╰────
      help: check the path, which is meant from the folder of the file that names it
    based.toml: 1 error
    "#);
    insta::assert_snapshot!(shell.transcript("check first"), @"
    $ pipe check first
    ? 2
    --- stderr
      × cannot read `first`: No such file or directory (os error 2)
      help: did you mean `first.toml`?
    first: 1 error
    ");
    insta::assert_snapshot!(shell.transcript("check nowhere.toml"), @"
    $ pipe check nowhere.toml
    ? 2
    --- stderr
      × cannot read `nowhere.toml`: No such file or directory (os error 2)
      help: check the path; `pipe init` writes a file to start from
    nowhere.toml: 1 error
    ");
    insta::assert_snapshot!(shell.transcript("plan first.toml --cache taken"), @"
    $ pipe plan first.toml --cache taken
    ? 3
    --- stderr
      × `taken` cannot be the cache: it, or what it lies in, is a file
      help: name a cache, or a folder that is empty or absent, with `--cache DIR` or `PIPE_CACHE`
    ");
    insta::assert_snapshot!(shell.transcript("run first.toml --cache taken/cache"), @"
    $ pipe run first.toml --cache taken/cache
    ? 3
    --- stderr
      × `taken/cache` cannot be the cache: it, or what it lies in, is a file
      help: name a cache, or a folder that is empty or absent, with `--cache DIR` or `PIPE_CACHE`
    ");
    insta::assert_snapshot!(shell.transcript("init there/first"), @"
    $ pipe init there/first
    ? 3
    --- stderr
      × cannot write `there/first.toml`: No such file or directory (os error 2)
      help: there is no folder `there`: make it first
    ");
    insta::assert_snapshot!(shell.transcript("check first.toml --set params.steps="), @r#"
    $ pipe check first.toml --set params.steps=
    ? 2
    --- stderr
      × `--set params.steps=` gives no value
       ╭─[--set:1:1]
     1 │ params.steps=
       · ──────┬──────
       ·       ╰── nothing after `=`
       ╰────
      help: for an empty text write `""`, in quotes that the shell keeps
    first.toml: 1 error
    "#);
    insta::assert_snapshot!(shell.transcript("plan first.toml --jobs 0"), @"
    $ pipe plan first.toml --jobs 0
    ? 2
    --- stderr
    error: invalid value '0' for '--jobs <N>': must be a whole number, at least 1

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(shell.transcript("export first.toml test --to taken"), @"
    $ pipe export first.toml test --to taken
    ? 2
    --- stderr
      × `taken` is a file, but the export is a folder
      help: name another folder with `--to DIR`
    ");
}

#[test]
fn commands_to_copy_are_quoted() {
    let shell = Shell::new();
    let run = |arguments: &[&str]| {
        let output = crate::cli::command(shell.dir.path()).args(arguments).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    insta::assert_snapshot!(run(&["init", "my first"]), @"next: `pipe plan 'my first.toml'`, then `pipe run 'my first.toml'`");
    insta::assert_snapshot!(run(&["export", "my first.toml", "lora", "--to", "out"]), @"
    × not in the cache: `lora[n=1, rank=32]` and 3 more
    help: `pipe run 'my first.toml' --only 'lora[n=1, rank=32]'` computes it
    ");
}
