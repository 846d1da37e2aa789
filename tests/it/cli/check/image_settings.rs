//! How the image was given in trainings follows adapters through merges, into models and out of
//! files: a mismatch gives wrong colours and no other sign, so none may get through.

use crate::cli::{Experiment, Shell};

const ADAPTERS: &str = r#"
[stages.one]
kind   = "lora_train"
inputs = { latents = "latents", text = "prompt" }
model  = "builtin:tiny"
rank   = 1
steps  = 1
image_latent_scale = 0.3

[stages.two]
kind   = "lora_train"
inputs = { latents = "latents", text = "prompt" }
model  = "builtin:tiny"
rank   = 1
steps  = 1
seed   = 2
image_latent_scale = 0.3
"#;

/// As far as the latents that adapters are trained on.
fn encoded() -> String {
    let experiment =
        Experiment { name: "two", clips: "method = \"linear\"\n", ..Experiment::default() };
    experiment.up_to_latents()
}

/// Two trainings.
fn two() -> String {
    encoded() + ADAPTERS
}

const MERGED: &str = r#"
[stages.merged]
kind   = "lora_merge"
inputs = { first = "one", second = "two" }
"#;

/// Two merges one after the other: the second adapter goes onto what the first one was merged into.
const INTO_MODEL: &str = r#"
[stages.whole]
kind   = "lora_merge"
inputs = { first = "one" }
model  = "builtin:tiny"

[stages.whole_again]
kind   = "lora_merge"
inputs = { first = "two", model = "whole" }
model  = "builtin:tiny"
"#;

/// A stage that samples with what `INPUT` connects.
const PREDICT: &str = r#"
[stages.predict]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt", INPUT }
model  = "builtin:tiny"
frames = 5
steps  = 1
"#;

fn predict(input: &str) -> String {
    PREDICT.replace("INPUT", input)
}

/// What was said, with broken lines as one.
fn unwrapped(said: &str) -> String {
    said.replace("\n  │ ", " ")
}

/// The second adapter trained with another multiple.
fn contradicting(pipeline: &str) -> String {
    pipeline.replace("seed   = 2\nimage_latent_scale = 0.3", "seed   = 2\nimage_latent_scale = 0.9")
}

#[test]
fn adapters_that_contradict_each_other_are_not_merged() {
    let shell = Shell::new();
    let text = format!("{}{MERGED}{}", two(), predict(r#"lora = "merged""#));
    shell.write("wrong.toml", &contradicting(&text));
    insta::assert_snapshot!(shell.transcript("check wrong.toml"), @r#"
    $ pipe check wrong.toml
    ? 2
    --- stderr
      × stage `merged`: the image's latent was multiplied by 0.3000 in the training of the adapter on
      │ `first`, but by 0.9000 in that of the adapter on `second`: no sampling is right for both
        ╭─[wrong.toml:42:9]
     41 │ 
     42 │ [stages.merged]
        ·         ───┬──
        ·            ╰── `inputs`
     43 │ kind   = "lora_merge"
        ╰────
      help: train them with one `image_latent_scale`, or sample with each on its own
    wrong.toml: 1 error
    "#);
    shell.write("right.toml", &format!("{text}image_latent_scale = 0.3\n"));
    shell.succeed("check right.toml");
    shell.write("default.toml", &text);
    let said = shell.transcript("check default.toml");
    assert!(
        unwrapped(&said).contains("by 1.4286 here, but by 0.3000 in the training of the adapter"),
        "{said}"
    );

    shell.write("onto.toml", &contradicting(&(two() + INTO_MODEL)));
    let said = shell.transcript("check onto.toml");
    let wanted =
        "by 0.9000 in the training of the adapter on `first`, but by 0.3000 in that of the model";
    assert!(unwrapped(&said).contains(wanted), "{said}");
}

#[test]
fn a_merged_model_is_sampled_and_trained_on_as_its_adapters_were_trained() {
    let shell = Shell::new();
    let base = two() + INTO_MODEL;
    let three = r#"
[stages.three]
kind   = "lora_train"
inputs = { latents = "latents", text = "prompt", model = "whole_again" }
model  = "builtin:tiny"
rank   = 1
steps  = 1
"#;
    let wrong = format!("{base}{three}{}", predict(r#"model = "whole_again""#));
    shell.write("wrong.toml", &wrong);
    insta::assert_snapshot!(shell.transcript("check wrong.toml"), @r#"
    $ pipe check wrong.toml
    ? 2
    --- stderr
      × stage `three`: the image's latent is multiplied by 1.4286 here, but by 0.3000 in the training
      │ of the model on `model`
        ╭─[wrong.toml:52:9]
     51 │ 
     52 │ [stages.three]
        ·         ──┬──
        ·           ╰── `image_latent_scale`
     53 │ kind   = "lora_train"
        ╰────
      help: set the same `image_latent_scale` in both stages, or "paper_mismatch" in both where the
            mismatch is meant

      × stage `predict`: the image's latent is multiplied by 1.4286 here, but by 0.3000 in the
      │ training of the model on `model`
        ╭─[wrong.toml:59:9]
     58 │ 
     59 │ [stages.predict]
        ·         ───┬───
        ·            ╰── `image_latent_scale`
     60 │ kind   = "sample"
        ╰────
      help: set the same `image_latent_scale` in both stages, or "paper_mismatch" in both where the
            mismatch is meant
    wrong.toml: 2 errors
    "#);
    let stated = |text: &str| format!("{text}image_latent_scale = 0.3\n");
    let sampled = stated(&predict(r#"model = "whole_again""#));
    shell.write("right.toml", &format!("{base}{}{sampled}", stated(three)));
    shell.succeed("run right.toml");
}

/// Of a file that came from elsewhere, only its user can tell how it was trained.
#[test]
fn adapters_of_files_are_asked_how_they_were_trained() {
    let shell = Shell::new();
    shell.write("train.toml", &two());
    shell.succeed("run train.toml --only one");
    shell.succeed("export train.toml one --to adapters --format comfyui");
    let read = "\n[stages.read]\nkind  = \"lora_merge\"\nroot  = \"adapters\"\n\
                files = [\"comfyui_lora.safetensors\"]\n";
    let encoded = encoded();
    let base = encoded.split("[stages.latents]").next().unwrap();
    let merged = "\n[stages.merged]\nkind = \"lora_merge\"\ninputs = { first = \"read\" }\n";
    let text =
        |stated: &str| format!("{base}{read}{stated}{merged}{}", predict(r#"lora = "merged""#));
    shell.write("unknown.toml", &text(""));
    insta::assert_snapshot!(shell.transcript("check unknown.toml"), @"
    $ pipe check unknown.toml
    ? 0
    --- stdout
    unknown.toml: fine, 6 stages
    --- stderr
    warning: `predict` samples with adapters of `files` whose training is not known: wrong colours would be the only sign of a mismatch; state `image_latent_scale` in `read`, as it was in their training
    ");
    let run = shell.output("run unknown.toml");
    let told = String::from_utf8(run.stderr).unwrap();
    assert!(
        run.status.success() && told.matches("state `image_latent_scale`").count() == 1,
        "{told}"
    );

    shell.write("stated.toml", &text("image_latent_scale = 0.3\n"));
    let said = shell.transcript("check stated.toml");
    assert!(unwrapped(&said).contains("by 0.3000 in the training of the adapter"), "{said}");
    let right = format!("{}image_latent_scale = 0.3\n", text("image_latent_scale = 0.3\n"));
    shell.write("right.toml", &right);
    let said = shell.transcript("run right.toml");
    assert!(said.contains("? 0\n") && !said.contains("warning"), "{said}");
    let by_rule = text("image_latent_scale = \"inverse\"\n");
    shell.write("rule.toml", &by_rule);
    shell.succeed("check rule.toml");
    shell.write(
        "idle.toml",
        &format!("{}{MERGED}image_latent_scale = 0.3\ncausal_time = false\n", two()),
    );
    let said = shell.transcript("check idle.toml");
    for param in ["image_latent_scale", "causal_time"] {
        assert!(said.contains(&format!("`{param}` does nothing here")), "{said}");
    }
}

#[test]
fn a_model_is_sampled_as_it_was_trained_in_full() {
    let shell = Shell::new();
    let full = r#"
[stages.full]
kind   = "pretrain"
inputs = { latents = "latents", text = "prompt" }
part   = "transformer"
like   = "builtin:tiny"
steps  = 1
image_latent_scale = 0.5
"#;
    shell.write("wrong.toml", &format!("{}{full}{}", two(), predict(r#"model = "full""#)));
    let said = shell.transcript("check wrong.toml");
    let wanted = "by 1.4286 here, but by 0.5000 in the training of the model on `model`";
    assert!(unwrapped(&said).contains(wanted), "{said}");
}
