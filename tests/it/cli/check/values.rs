//! Values that some stage could not take or would not read, told before anything runs.

use crate::cli::{CLIPS, Experiment, SCORE, Shell};

/// An experiment with the built-in model.
pub(super) fn experiment() -> String {
    let experiment = Experiment {
        params: "size = [64, 64]\n",
        count: 2,
        size: "\"${size}\"",
        frames: 9,
        lora: "steps  = 4\n",
        predict: "steps  = 5\n",
        ..Experiment::default()
    };
    experiment.toml()
}

#[test]
fn what_the_model_does_not_take_is_told_where_it_is_written() {
    let shell = Shell::new();
    shell.write("right.toml", &experiment());
    shell.succeed("check right.toml");
    let wrong = experiment()
        .replace("[64, 64]", "[62, 64]")
        .replace("steps  = 5\n", "steps  = 2000\nframes = 10\nsampler = \"flow_euler\"\n")
        .replace("steps  = 4\n", "steps  = 4\ntimestep_distribution = \"shifted_logit_normal\"\n");
    shell.write("wrong.toml", &wrong);
    insta::assert_snapshot!(shell.transcript("check wrong.toml"), @r#"
    $ pipe check wrong.toml
    ? 2
    --- stderr
      × stage `latents`: height must be a multiple of 8 pixels for the model's transformer, of 4 for
      │ its autoencoder, but is 62
       ╭─[wrong.toml:4:8]
     3 │ [params]
     4 │ size = [62, 64]
       ·        ────┬───
       ·            ╰── `size`
     5 │ 
       ╰────
        ╭─[wrong.toml:11:10]
     10 │ count  = 2
     11 │ size   = "${size}"
        ·          ────┬────
        ·              ╰── used here
     12 │ 
        ╰────
      help: take 56 or 64

      × stage `lora`: `timestep_distribution` must be `uniform` or `logit_normal` for this family of
      │ models, but is `shifted_logit_normal`
        ╭─[wrong.toml:32:25]
     31 │ steps  = 4
     32 │ timestep_distribution = "shifted_logit_normal"
        ·                         ───────────┬──────────
        ·                                    ╰── `timestep_distribution`
     33 │ 
        ╰────

      × stage `predict`: `steps` must be at most 1000, but is 2000
        ╭─[wrong.toml:38:10]
     37 │ model  = "builtin:tiny"
     38 │ steps  = 2000
        ·          ──┬─
        ·            ╰── `steps`
     39 │ frames = 10
        ╰────
      help: the model was trained with that many timesteps; 50 are usual

      × stage `predict`: the number of frames must be 4k + 1, but is 10
        ╭─[wrong.toml:39:10]
     38 │ steps  = 2000
     39 │ frames = 10
        ·          ─┬
        ·           ╰── `frames`
     40 │ sampler = "flow_euler"
        ╰────
      help: take 9 or 13 frames

      × stage `predict`: `sampler` must be `dpm` or `ddim` for this family of models, but is
      │ `flow_euler`
        ╭─[wrong.toml:40:11]
     39 │ frames = 10
     40 │ sampler = "flow_euler"
        ·           ──────┬─────
        ·                 ╰── `sampler`
        ╰────
    wrong.toml: 5 errors
    "#);
}

#[test]
fn a_clip_that_the_transformer_cannot_divide_is_told() {
    let shell = Shell::new();
    let odd = experiment().replace("[64, 64]", "[60, 64]");
    shell.write("odd.toml", &odd);
    insta::assert_snapshot!(shell.transcript("check odd.toml"), @r#"
    $ pipe check odd.toml
    ? 2
    --- stderr
      × stage `lora`: a clip of 9 frames of height 60 and width 64 does not fit the model: latent
      │ height must be a multiple of 2, but is 15
       ╭─[odd.toml:4:8]
     3 │ [params]
     4 │ size = [60, 64]
       ·        ────┬───
       ·            ╰── `size`
     5 │ 
       ╰────
        ╭─[odd.toml:11:10]
     10 │ count  = 2
     11 │ size   = "${size}"
        ·          ────┬────
        ·              ╰── used here
     12 │ 
        ╰────
      help: take height 56 or 64
    odd.toml: 1 error
    "#);
}

#[test]
fn guidance_without_a_negative_prompt_is_told() {
    let shell = Shell::new();
    let guided = experiment().replace("steps  = 5", "steps  = 5\nguidance_scale = 6.0");
    shell.write("guided.toml", &guided);
    insta::assert_snapshot!(shell.transcript("check guided.toml"), @"
    $ pipe check guided.toml
    ? 2
    --- stderr
      × stage `predict`: `guidance_scale` 6 needs the input `negative`
        ╭─[guided.toml:38:18]
     37 │ steps  = 5
     38 │ guidance_scale = 6.0
        ·                  ─┬─
        ·                   ╰── `guidance_scale`
        ╰────
      help: connect a `text_encode` stage of the negative prompt to `negative`
    guided.toml: 1 error
    ");
}

/// A mismatch gives wrong colours and no other sign.
#[test]
fn sampling_that_differs_from_the_training_is_told() {
    let shell = Shell::new();
    let wrong = experiment().replace("steps  = 5\n", "steps  = 5\nimage_latent_scale = 1.0\n");
    shell.write("wrong.toml", &wrong);
    insta::assert_snapshot!(shell.transcript("check wrong.toml"), @r#"
    $ pipe check wrong.toml
    ? 2
    --- stderr
      × stage `predict`: the image's latent is multiplied by 1.0000 here, but by 1.4286 in the
      │ training of the adapter
        ╭─[wrong.toml:38:22]
     37 │ steps  = 5
     38 │ image_latent_scale = 1.0
        ·                      ─┬─
        ·                       ╰── `image_latent_scale`
        ╰────
      help: set the same `image_latent_scale` in both stages, or "paper_mismatch" in both where the
            mismatch is meant
    wrong.toml: 1 error
    "#);
    let both = wrong.replace("steps  = 4\n", "steps  = 4\nimage_latent_scale = 1.0\n");
    shell.write("both.toml", &both);
    shell.succeed("check both.toml");
    let merge = "\n[stages.merged]\nkind = \"lora_merge\"\ninputs = { first = \"lora\" }\n";
    let merged = format!("{}{merge}", wrong.replace("lora = \"lora\"", "lora = \"merged\""));
    shell.write("merged.toml", &merged);
    let said = shell.transcript("check merged.toml");
    assert!(said.contains("`predict`: the image's latent is multiplied by 1.0000"), "{said}");
    shell.write("meant.toml", &both.replace("= 1.0\n", "= \"paper_mismatch\"\n"));
    shell.succeed("check meant.toml");
}

#[test]
fn another_latent_of_the_image_than_in_training_is_warned_of() {
    let shell = Shell::new();
    let mean = experiment()
        .replace("kind   = \"vae_encode\"\n", "kind   = \"vae_encode\"\nposterior = \"mean\"\n");
    let merge = "\n[stages.merged]\nkind = \"lora_merge\"\ninputs = { first = \"lora\" }\n";
    let merged = format!("{}{merge}", mean.replace("lora = \"lora\"", "lora = \"merged\""));
    for (file, text) in [("mean.toml", &mean), ("merged.toml", &merged)] {
        shell.write(file, text);
        let said = shell.transcript(&format!("check {file}"));
        let wanted = "warning: `predict` takes a draw from the posterior for the image's latent, but training \
                      had the mean of it, from `latents`; for the same, set `posterior = \"mean\"`";
        assert!(said.contains(wanted), "{said}");
    }
    let both = mean.replace("steps  = 5\n", "steps  = 5\nposterior = \"mean\"\n");
    shell.write("both.toml", &both);
    let said = shell.transcript("check both.toml");
    assert!(!said.contains("warning"), "{said}");
}

#[test]
fn settings_that_the_family_does_not_read_are_told() {
    let shell = Shell::new();
    let wrong =
        experiment().replace("steps  = 4\n", "steps  = 4\ncausal_time = true\nframe_rate = 25\n");
    let decode = "[stages.answers]\nkind = \"decode\"\ninputs = { samples = \"predict\" }\n\
                  model = \"builtin:tiny\"\nnoise = { scale = 0.1 }\n";
    let negative = "text = \"prompt\", negative = \"prompt\"";
    let wrong = wrong.replace("text = \"prompt\", lora", &format!("{negative}, lora"));
    shell.write("wrong.toml", &format!("{wrong}\n{decode}"));
    let said = shell.transcript("check wrong.toml");
    for part in [
        "`causal_time` is not for this family of models",
        "`frame_rate` is not for this family of models",
        "`noise` does nothing: the decoder of this model takes none",
        "`inputs.negative` does nothing here",
        "4 errors",
    ] {
        assert!(said.contains(part), "{said}");
    }
    // Beside an axis that turns guidance on in some cells, the port does something.
    let swept = experiment()
        .replace("[params]", "[sweep]\ngrid = { guidance = [1.0, 2.0] }\n\n[params]")
        .replace("text = \"prompt\", lora", &format!("{negative}, lora"))
        .replace("steps  = 5\n", "steps  = 5\nguidance_scale = \"${guidance}\"\n");
    shell.write("swept.toml", &swept);
    shell.succeed("check swept.toml");
}

#[test]
fn a_model_that_is_not_here_is_not_asked() {
    let shell = Shell::new();
    let text = experiment().replace("builtin:tiny", "hf:org/repo").replace("[64, 64]", "[62, 64]");
    shell.write("elsewhere.toml", &text);
    shell.succeed("check elsewhere.toml");
}

#[test]
fn parameters_that_do_nothing_are_told() {
    let shell = Shell::new();
    let idle = experiment()
        .replace("task   = \"pose\"", "task   = \"pose\"\nframes = 9\nclass  = \"cat\"")
        .replace("frames = 9\n\n[stages.prompt]", "frames = 9\ngrid   = 2\n\n[stages.prompt]")
        .replace("steps  = 4\n", "steps  = 4\nwarmup_steps = 10\n");
    shell.write("idle.toml", &idle);
    insta::assert_snapshot!(shell.transcript("check idle.toml"), @r#"
    $ pipe check idle.toml
    ? 2
    --- stderr
      × stage `pairs`: `frames` does nothing here
        ╭─[idle.toml:10:1]
      9 │ task   = "pose"
     10 │ frames = 9
        · ───┬──
        ·    ╰── changes nothing
     11 │ class  = "cat"
        ╰────
      help: take it out; it is read where `task` is `world`

      × stage `pairs`: `class` does nothing here
        ╭─[idle.toml:11:1]
     10 │ frames = 9
     11 │ class  = "cat"
        · ──┬──
        ·   ╰── changes nothing
     12 │ count  = 2
        ╰────
      help: take it out; it is read where `task` is `segmentation`

      × stage `clips`: `grid` does nothing here
        ╭─[idle.toml:19:1]
     18 │ frames = 9
     19 │ grid   = 2
        · ──┬─
        ·   ╰── changes nothing
     20 │ 
        ╰────
      help: take it out; it is read where `method` is `tiles`

      × stage `lora`: `warmup_steps` does nothing here
        ╭─[idle.toml:35:1]
     34 │ steps  = 4
     35 │ warmup_steps = 10
        · ──────┬─────
        ·       ╰── changes nothing
     36 │ 
        ╰────
      help: take it out; it is read where `lr_schedule` is `constant_with_warmup` or `cosine`
    idle.toml: 4 errors
    "#);
    // What another value would make useful stays: it may be for the next run.
    let tiles = experiment().replace("frames = 9", "frames = 9\nmethod = \"tiles\"\ngrid   = 2");
    shell.write("tiles.toml", &tiles);
    shell.succeed("check tiles.toml");
    shell.succeed("check tiles.toml --set clips.method=linear");
}

#[test]
fn settings_of_data_that_are_not_read_are_told() {
    let shell = Shell::new();
    let pairs = |source: &str, task: &str, more: &str| {
        format!(
            "name = \"d\"\n[stages.pairs]\nkind = \"dataset\"\nsource = {source}\ntask = \"{task}\"\n\
             count = 1\nsize = [32, 32]\n{more}\n"
        )
    };
    let coco = "{ source = \"coco\", root = \"coco\" }";
    let swap = "[stages.swapped]\nkind = \"transform\"\ninputs = { pairs = \"pairs\" }\n\
                operation = \"swap\"\napply = \"input\"";
    for (text, param) in [
        (pairs(coco, "scene", "min_share = 0.1"), "`min_share`"),
        (pairs(coco, "images", "min_share = 0.1"), "`min_share`"),
        (pairs(coco, "images", "crowd = \"skip\""), "`crowd`"),
        (pairs(coco, "pose", "grey_rule = \"off\""), "`grey_rule`"),
        (pairs(coco, "pose", "holdout_by = \"subject\""), "`holdout_by`"),
        (pairs(coco, "pose", "without_depth = \"skip\""), "`without_depth`"),
        (
            pairs("\"builtin:figures\"", "symbols", "symbols = { per_class = 3 }"),
            "`symbols.per_class`",
        ),
        (pairs("\"builtin:figures\"", "pose", swap), "`apply`"),
    ] {
        shell.write("data.toml", &text);
        let said = shell.transcript("check data.toml");
        assert!(said.contains(&format!("{param} does nothing here")), "{said}");
    }
    shell.write("data.toml", &pairs(coco, "pose", "min_share = 0.1"));
    shell.succeed("check data.toml");
}

#[test]
fn sizes_that_no_machine_holds_are_refused() {
    let shell = Shell::new();
    let vast = experiment()
        .replace("count  = 2", "count  = 1000000000")
        .replace("steps  = 4", "steps  = 4\nrank   = 1000000000")
        .replace("frames = 9", "frames = 4097")
        .replace("[64, 64]", "[4096, 4096]");
    shell.write("vast.toml", &vast);
    insta::assert_snapshot!(shell.transcript("check vast.toml"), @r#"
    $ pipe check vast.toml
    ? 2
    --- stderr
      × `count` must be at most 10000000, but is 1000000000
        ╭─[vast.toml:10:10]
      9 │ task   = "pose"
     10 │ count  = 1000000000
        ·          ─────┬────
        ·               ╰── must be at most 10000000
     11 │ size   = "${size}"
        ╰────
      help: or leave `count` out

      × `rank` must be at most 16384, but is 1000000000
        ╭─[vast.toml:32:10]
     31 │ steps  = 4
     32 │ rank   = 1000000000
        ·          ─────┬────
        ·               ╰── must be at most 16384
     33 │ 
        ╰────
    vast.toml: 2 errors
    "#);
}

#[test]
fn a_clip_that_no_machine_holds_is_refused() {
    let shell = Shell::new();
    let vast =
        experiment().replace("frames = 9", "frames = 4097").replace("[64, 64]", "[4096, 4096]");
    shell.write("vast.toml", &vast);
    let said = shell.transcript("check vast.toml");
    assert!(
        said.contains("4097 frames of height 4096 and width 4096 is larger than [SIZE]"),
        "{said}"
    );
    assert!(said.contains("help: take fewer frames or smaller images"), "{said}");
}

#[test]
fn an_error_in_a_very_long_line_is_shown() {
    let shell = Shell::new();
    let long = format!("x = [{}], y = oops", "1, ".repeat(70_000));
    shell.write("long.toml", &format!("name = \"long\"\n[params]\na = {{ {long} }}\n"));
    insta::assert_snapshot!(shell.transcript("check long.toml"), @"
    $ pipe check long.toml
    ? 2
    --- stderr
      × string values must be quoted, expected literal string
       ╭─[long.toml:3:210019]
     2 │ [params]
     3 │ …, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, ], y = oops }
       ·                                                              ──┬─
       ·                                                                ╰── here
       ╰────
      help: put it in quotes if it is text
    long.toml: 1 error
    ");
    let text = "x".repeat(200_000);
    shell.write("text.toml", &CLIPS.replace("\"pose\"", &format!("\"{text}\"")));
    let said = shell.transcript("check text.toml");
    assert!(said.contains("…xxx") && said.contains("text.toml: 1 error"), "{said}");
    assert!(said.contains("did you mean") || said.contains("it can be `pose`"), "{said}");
    assert!(said.len() < 4000, "{said}");
}

#[test]
fn a_file_without_stages_is_wrong() {
    let shell = Shell::new();
    shell.write("empty.toml", "");
    insta::assert_snapshot!(shell.transcript("check empty.toml"), @"
    $ pipe check empty.toml
    ? 2
    --- stderr
      × `empty.toml` has no stages
      help: add a `[stages.<name>]` with a `kind`, or let `pipe init` write a file to start from
    empty.toml: 1 error
    ");
}

#[test]
fn values_of_several_types_and_empty_names_say_what_they_can_be() {
    let shell = Shell::new();
    let wrong = experiment()
        .replace("name = \"experiment\"", "name = \" \"")
        .replace("[stages.lora]", "image_noise = 3\n\n[stages.lora]")
        .replace("steps  = 5", "steps  = 5\nimage_latent_scale = \"reverse\"");
    shell.write("wrong.toml", &wrong);
    insta::assert_snapshot!(shell.transcript("check wrong.toml"), @r#"
    $ pipe check wrong.toml
    ? 2
    --- stderr
      × `name` must not be empty
       ╭─[wrong.toml:1:8]
     1 │ name = " "
       ·        ─┬─
       ·         ╰── empty
     2 │ 
       ╰────
      help: leave it out to take the file's name

      × `image_noise` must be "off", or a table of `mean` and `std`
        ╭─[wrong.toml:27:15]
     26 │ 
     27 │ image_noise = 3
        ·               ┬
        ·               ╰── here
     28 │ 
        ╰────

      × `image_latent_scale` must be a number, `inverse`, `direct` or `paper_mismatch`
        ╭─[wrong.toml:40:22]
     39 │ steps  = 5
     40 │ image_latent_scale = "reverse"
        ·                      ────┬────
        ·                          ╰── here
        ╰────
    wrong.toml: 3 errors
    "#);
    std::fs::write(shell.path("pixels.toml"), [0x89, 0xff, 0xfe]).unwrap();
    let said = shell.transcript("check pixels.toml");
    assert!(said.contains("help: a pipeline file is TOML, in UTF-8"), "{said}");
}

#[test]
fn pieces_and_tiles_are_not_smaller_than_a_pixel() {
    let shell = Shell::new();
    let file = |pieces: usize, tiles: usize| {
        format!(
            r#"name = "pieces"

[stages.images]
kind   = "dataset"
source = "builtin:figures"
task   = "images"
count  = 1
size   = [8, 12]

[stages.pairs]
kind      = "transform"
inputs    = {{ pairs = "images" }}
operation = "jigsaw"
grid      = {pieces}

[stages.clips]
kind   = "interpolate"
inputs = {{ pairs = "pairs" }}
method = "tiles"
grid   = {tiles}
frames = 9
"#
        )
    };
    shell.write("pieces.toml", &file(8, 8));
    shell.succeed("run pieces.toml");
    shell.write("pieces.toml", &file(9, 16));
    insta::assert_snapshot!(shell.transcript("check pieces.toml"), @r#"
    $ pipe check pieces.toml
    ? 2
    --- stderr
      × stage `pairs`: `grid` divides a side into 9, but the height has only 8 pixels
        ╭─[pieces.toml:14:13]
     13 │ operation = "jigsaw"
     14 │ grid      = 9
        ·             ┬
        ·             ╰── `grid`
     15 │ 
        ╰────
      help: take 8 at most, or larger images

      × stage `clips`: `grid` divides a side into 16, but the height has only 8 pixels
        ╭─[pieces.toml:20:10]
     19 │ method = "tiles"
     20 │ grid   = 16
        ·          ─┬
        ·           ╰── `grid`
     21 │ frames = 9
        ╰────
      help: take 8 at most, or larger images
    pieces.toml: 2 errors
    "#);
}

/// It failed after the training, with all its steps done.
#[test]
fn a_merge_of_the_adapters_along_a_training_is_told() {
    let shell = Shell::new();
    let merged = "\n[stages.merged]\nkind = \"lora_merge\"\ninputs = { first = \"lora\" }\n";
    let wrong = experiment().replace("steps  = 4\n", "steps  = 4\nsave_at = [2, 4]\n");
    shell.write("wrong.toml", &format!("{wrong}{merged}"));
    let said = shell.transcript("check wrong.toml").replace("\n  │ ", " ");
    let wanted = "stage `merged`: `first` must hold one adapter, but the training on it gives 2, one for each step of \
                  `save_at`";
    assert!(said.contains("? 2") && said.contains(wanted), "{said}");
    assert!(said.contains("leave `save_at` out of that training"), "{said}");
    shell.write("right.toml", &(experiment() + merged));
    shell.succeed("check right.toml");
}

/// It failed after all trainings.
#[test]
fn more_attempts_than_a_training_leaves_adapters_is_told() {
    let shell = Shell::new();
    let arc = SCORE.replace("\"image\"", "\"arc\"\nattempts = 3");
    let text = experiment().replace("steps  = 4\n", "steps  = 4\nsave_at = [2, 4]\n");
    shell.write("wrong.toml", &format!("{text}{arc}"));
    let check = |line: &str| shell.transcript(&format!("check wrong.toml{line}"));
    let said = check("");
    for part in [
        "stage `score`: `attempts` is 3, but there are 2 to be made",
        "attempts = 3",
        "help: lower it, or add steps to `save_at` of the training",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert!(!check(" --set lora.save_at=[1,2,4]").contains("to be made"));
    assert!(!check(" --set score.attempts=2").contains("to be made"));
    // What another training answers is one more.
    assert!(!check(" --set score.inputs.second=answers").contains("to be made"));
    // Without `save_at`, there is one adapter.
    shell.write("wrong.toml", &(experiment() + &arc));
    assert!(check("").contains("`attempts` is 3, but there are 1 to be made"));
}
