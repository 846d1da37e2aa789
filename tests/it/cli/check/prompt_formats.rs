//! The two ways to encode a prompt of LTX-Video, and which stages go with them.

use crate::cli::Shell;
use crate::ltx_text::write_model;

const EXPERIMENT: &str = r#"
name = "condition"

[stages.pairs]
kind   = "dataset"
source = "builtin:figures"
task   = "pose"
count  = 1
size   = [32, 64]

[stages.clips]
kind   = "interpolate"
inputs = { pairs = "pairs" }
method = "linear"
frames = 17

[stages.latents]
kind   = "vae_encode"
inputs = { videos = "clips" }
model  = "model"

[stages.prompt]
kind   = "text_encode"
model  = "model"

[stages.lora]
kind   = "lora_train"
inputs = { latents = "latents", text = "prompt" }
model  = "model"
rank   = 2
steps  = 1

[stages.predict]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt", lora = "lora" }
model  = "model"
frames = 17
steps  = 2
"#;

/// A model whose schedule is that of 0.9.5 is trained, sampled and given its prompt as published,
/// so a file goes with models of all versions.
#[test]
fn what_is_not_set_follows_the_pipeline_of_the_model() {
    let shell = Shell::new();
    write_model(&shell.path("model"));
    shell.write("unset.toml", EXPERIMENT);
    insta::assert_snapshot!(shell.transcript("check unset.toml"), @"
    $ pipe check unset.toml
    ? 0
    --- stdout
    unset.toml: fine, 6 stages; not looked into: values of weights (`model`)
    ");
    let scheduler = shell.path("model/scheduler/scheduler_config.json");
    let shifted =
        r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": true}"#;
    std::fs::write(scheduler, shifted).unwrap();
    insta::assert_snapshot!(shell.transcript("check unset.toml"), @"
    $ pipe check unset.toml
    ? 0
    --- stdout
    unset.toml: fine, 6 stages; not looked into: values of weights (`model`)
    ");
    let idle = EXPERIMENT.replace("steps  = 2", "steps  = 2\ncondition = { strength = 0.5 }");
    shell.write("idle.toml", &idle);
    insta::assert_snapshot!(shell.transcript("check idle.toml"), @r#"
    $ pipe check idle.toml
    ? 2
    --- stderr
      × stage `predict`: `condition` does nothing: the sampler of this model's pipeline takes none
        ╭─[idle.toml:39:13]
     38 │ steps  = 2
     39 │ condition = { strength = 0.5 }
        ·             ─────────┬────────
        ·                      ╰── `condition`
        ╰────
      help: leave it out, or set `sampler = "flow_condition"`
    idle.toml: 1 error
    "#);
}

#[test]
fn a_prompt_for_another_pipeline_is_told() {
    let shell = Shell::new();
    write_model(&shell.path("model"));
    let basic = EXPERIMENT
        .replace("rank   = 2", "rank   = 2\ncausal_time = false")
        .replace("steps  = 2", "steps  = 2\nsampler = \"flow_euler\"");
    shell.write("mixed.toml", &basic);
    insta::assert_snapshot!(shell.transcript("check mixed.toml"), @r#"
    $ pipe check mixed.toml
    ? 2
    --- stderr
      × stage `lora`: the prompt on `text` is encoded as in the condition pipeline, but training
      │ without `causal_time` is for the basic one
        ╭─[mixed.toml:31:15]
     30 │ rank   = 2
     31 │ causal_time = false
        ·               ──┬──
        ·                 ╰── `causal_time`
     32 │ steps  = 1
        ╰────
      help: set `causal_time = true`, or `format = "basic"` where the prompt is encoded

      × stage `predict`: the prompt on `text` is encoded as in the condition pipeline, but this
      │ sampler is that of the basic one
        ╭─[mixed.toml:40:11]
     39 │ steps  = 2
     40 │ sampler = "flow_euler"
        ·           ──────┬─────
        ·                 ╰── `sampler`
        ╰────
      help: set `sampler = "flow_condition"`, or `format = "basic"` where the prompt is encoded
    mixed.toml: 2 errors
    "#);
    let trained = EXPERIMENT.replace("rank   = 2", "rank   = 2\ncausal_time = true");
    let condition = trained.replace("steps  = 2", "steps  = 2\nsampler = \"flow_condition\"");
    shell.write("condition.toml", &condition);
    insta::assert_snapshot!(shell.transcript("check condition.toml"), @"
    $ pipe check condition.toml
    ? 0
    --- stdout
    condition.toml: fine, 6 stages; not looked into: values of weights (`model`)
    ");
    let basic = "kind   = \"text_encode\"\nformat = \"basic\"";
    let wrong = condition.replace("kind   = \"text_encode\"", basic);
    shell.write("wrong.toml", &wrong);
    insta::assert_snapshot!(shell.transcript("check wrong.toml"), @r#"
    $ pipe check wrong.toml
    ? 2
    --- stderr
      × stage `lora`: the prompt on `text` is encoded as in the basic pipeline, but `causal_time`
      │ trains for the condition pipeline
        ╭─[wrong.toml:32:15]
     31 │ rank   = 2
     32 │ causal_time = true
        ·               ──┬─
        ·                 ╰── `causal_time`
     33 │ steps  = 1
        ╰────
      help: set `causal_time = false`, or `format = "condition"` where the prompt is encoded

      × stage `predict`: the prompt on `text` is encoded as in the basic pipeline, but
      │ `flow_condition` samples as the condition pipeline does
        ╭─[wrong.toml:41:11]
     40 │ steps  = 2
     41 │ sampler = "flow_condition"
        ·           ────────┬───────
        ·                   ╰── `sampler`
        ╰────
      help: set another `sampler`, or `format = "condition"` where the prompt is encoded
    wrong.toml: 2 errors
    "#);
}

/// A run as the basic pipeline is possible, and said.
#[test]
fn sampling_a_model_of_the_condition_pipeline_as_the_basic_one_is_warned_of() {
    let shell = Shell::new();
    write_model(&shell.path("model"));
    let basic = "kind   = \"text_encode\"\nformat = \"basic\"";
    let text = EXPERIMENT
        .replace("kind   = \"text_encode\"", basic)
        .replace("rank   = 2", "rank   = 2\ncausal_time = false")
        .replace("steps  = 2", "steps  = 2\nsampler = \"flow_euler\"");
    // Said once for all cells.
    let swept =
        text.replace("[stages.pairs]", "[sweep]\ngrid = { rank = [1, 2] }\n\n[stages.pairs]");
    let swept = swept.replace("rank   = 2", "rank   = \"${rank}\"");
    shell.write("basic.toml", &swept);
    insta::assert_snapshot!(shell.transcript("check basic.toml"), @r#"
    $ pipe check basic.toml
    ? 0
    --- stdout
    basic.toml: fine, 8 stages; not looked into: values of weights (`model`)
    --- stderr
    warning: `predict` samples with `flow_euler`, as the basic pipeline does, but the schedule of its model has no shift: from LTX-Video 0.9.5 on, models are published with the condition pipeline; for that, set `sampler = "flow_condition"`
    "#);
}

#[test]
fn a_family_without_the_format_says_so() {
    let shell = Shell::new();
    shell.write(
        "prompt.toml",
        "[stages.prompt]\nkind = \"text_encode\"\nmodel = \"builtin:tiny\"\nformat = \"condition\"\n",
    );
    insta::assert_snapshot!(shell.transcript("check prompt.toml"), @r#"
    $ pipe check prompt.toml
    ? 2
    --- stderr
      × stage `prompt`: `format` must be `basic` for this family of models, but is `condition`
       ╭─[prompt.toml:4:10]
     3 │ model = "builtin:tiny"
     4 │ format = "condition"
       ·          ─────┬─────
       ·               ╰── `format`
       ╰────
    prompt.toml: 1 error
    "#);
}
