//! `pipe check` of several files, and stages of many cells that lack the same.

use crate::cli::Shell;

/// A data set that is there and a model that is not, in three cells.
const CELLS: &str = r#"
[sweep]
grid = { frames = [5, 9, 13] }

[stages.pairs]
kind   = "dataset"
source = "builtin:figures"
task   = "segmentation"
count  = 1
size   = [16, 16]

[stages.clips]
kind   = "interpolate"
inputs = { pairs = "pairs" }
frames = "${frames}"

[stages.latents]
kind   = "vae_encode"
inputs = { videos = "clips" }
model  = "hf:zai-org/CogVideoX1.5-5B-I2V"
"#;

#[test]
fn cells_that_lack_the_same_are_one_line_of_the_plan() {
    let shell = Shell::new();
    shell.write("cells.toml", CELLS);
    insta::assert_snapshot!(shell.transcript("plan cells.toml"), @"
    $ pipe plan cells.toml
    ? 0
    --- stdout
    run    pairs  new
    maybe  clips[frames=5]  after pairs
    maybe  clips[frames=9]  after pairs
    maybe  clips[frames=13]  after pairs
    lacks  latents[frames=5] and 2 more  the model `hf:zai-org/CogVideoX1.5-5B-I2V`
    1 stage to run, 3 waiting for others, 0 cached, 3 that cannot run here; how long is not known, as no run of this file and profile timed the like yet
    missing: the model `hf:zai-org/CogVideoX1.5-5B-I2V` cannot be read: `zai-org/CogVideoX1.5-5B-I2V` at revision `main` is not in the Hugging Face cache `hub` (cells.toml:20:10); needed by `latents[frames=5]` and 2 more
      help: a run downloads it once nothing else is missing; or name a local folder in diffusers' layout
    ");
    let all = shell.succeed("plan cells.toml --verbose");
    assert_eq!(all.lines().filter(|line| line.starts_with("lacks")).count(), 3, "{all}");
}

#[test]
fn what_several_files_lack_is_told_once() {
    let shell = Shell::new();
    shell.write("one.toml", CELLS);
    shell.write("two.toml", CELLS);
    insta::assert_snapshot!(shell.transcript("check one.toml two.toml"), @"
    $ pipe check one.toml two.toml
    ? 0
    --- stdout
    one.toml: fine, 7 stages; not looked into: weights (`hf:zai-org/CogVideoX1.5-5B-I2V`)
    two.toml: fine, 7 stages; lacks the model `hf:zai-org/CogVideoX1.5-5B-I2V`, too; not looked into: weights (`hf:zai-org/CogVideoX1.5-5B-I2V`)
    --- stderr
    warning: the model `hf:zai-org/CogVideoX1.5-5B-I2V` cannot be read: `zai-org/CogVideoX1.5-5B-I2V` at revision `main` is not in the Hugging Face cache `hub` (one.toml:20:10); needed by `latents[frames=5]` and 2 more
      help: a run downloads it once nothing else is missing; or name a local folder in diffusers' layout
    ");
}

#[test]
fn of_several_files_one_without_the_profile_is_checked_as_it_is() {
    let shell = Shell::new();
    let clips = &CELLS[..CELLS.find("[stages.latents]").unwrap()];
    shell.write("plain.toml", clips);
    shell.write("other.toml", &format!("{clips}\n[profiles.paper.stages.pairs]\ncount = 2\n"));
    insta::assert_snapshot!(shell.transcript("check plain.toml other.toml --profile paper"), @"
    $ pipe check plain.toml other.toml --profile paper
    ? 0
    --- stdout
    plain.toml: fine, 4 stages
    other.toml: fine, 4 stages
    --- stderr
    plain.toml: there is no profile `paper`, so the values of the file itself are checked
    ");
    // One that none of them has is misspelt.
    insta::assert_snapshot!(shell.transcript("check plain.toml other.toml --profile papr"), @"
    $ pipe check plain.toml other.toml --profile papr
    ? 2
    --- stderr
      × there is no profile `papr`
       ╭─[--profile:1:11]
     1 │ --profile papr
       ·           ──┬─
       ·             ╰── unknown
       ╰────
      help: the file has no `[profiles]`: leave `--profile` out, or add the profile
    plain.toml: 1 error
      × there is no profile `papr`
       ╭─[--profile:1:11]
     1 │ --profile papr
       ·           ──┬─
       ·             ╰── unknown
       ╰────
      help: did you mean `paper`?
    other.toml: 1 error
    ");
    insta::assert_snapshot!(shell.transcript("check plain.toml --profile paper"), @"
    $ pipe check plain.toml --profile paper
    ? 2
    --- stderr
      × there is no profile `paper`
       ╭─[--profile:1:11]
     1 │ --profile paper
       ·           ──┬──
       ·             ╰── unknown
       ╰────
      help: the file has no `[profiles]`: leave `--profile` out, or add the profile
    plain.toml: 1 error
    ");
    // What is wrong with the profile of a file is not taken for its absence.
    shell.write("wrong.toml", &format!("{clips}\n[profiles.paper]\nmodle = 1\n"));
    insta::assert_snapshot!(shell.transcript("check wrong.toml other.toml --profile paper"), @"
    $ pipe check wrong.toml other.toml --profile paper
    ? 2
    --- stdout
    other.toml: fine, 4 stages
    --- stderr
      × profile `paper` sets the param `modle`, which is not there
        ╭─[wrong.toml:19:1]
     18 │ [profiles.paper]
     19 │ modle = 1
        · ──┬──
        ·   ╰── no such param
        ╰────
      help: it can be `sweep`, `stages`, `tables`, `seed`, `title`
    wrong.toml: 1 error
    ");
}
