//! Prompts that are longer than their model takes, as a user is told of them.

use super::Shell;

const PROMPTS: &str = r#"name = "prompts"

[params]
text = "a quick brown fox jumps over the lazy dog\n  and into the river, which is deep"

[stages.long]
kind   = "text_encode"
model  = "builtin:tiny"
prompt = "${text}"
max_length = 12

[stages.fits]
kind   = "text_encode"
model  = "builtin:tiny"
prompt = "a fox"
max_length = 12

[stages.default]
kind   = "text_encode"
model  = "builtin:tiny"
prompt = "The picture slowly turns into a drawing of the person, who stands still in the middle of a wide field, while the grass moves a little in the wind and nothing else changes, and the light stays as it is until the end of the clip, when all of it is black lines on white paper, thin and clear, as an artist who knows what he does would draw them with a pen in a quiet hour of the afternoon, before he goes home to write letters to all of his friends in other towns, whom he has not seen for many years, and who would like to know how he is and what he draws and for whom, and if he has enough paper for it all, and ink, and time for them, too."
"#;

#[test]
fn what_is_cut_off_a_prompt_is_told_with_its_place() {
    let shell = Shell::new();
    shell.write("prompts.toml", PROMPTS);
    insta::assert_snapshot!(shell.transcript("check prompts.toml"), @r#"
    $ pipe check prompts.toml
    ? 0
    --- stdout
    prompts.toml: fine, 3 stages
    --- stderr
    warning: `long` encodes a prompt of 79 tokens, of which `max_length` allows 12; left out is "own fox jumps over the lazy dog and into the river, which is deep" (prompts.toml:4:8)
    warning: `default` encodes a prompt of 641 tokens, of which the model takes 8; left out is "cture slowly turns into a drawing of the person, who stands still in the middle of a wide field, while the grass moves a little in the wind and nothing else changes, and the light stays as it is until the end of the clip, when all of it is black lines on white paper, thin and clear, as an artist who knows what he does would draw them with a pen in a quiet hour of the afternoon, before he goes home…" (prompts.toml:21:10)
    "#);
    let ran = shell.transcript("run prompts.toml --only long");
    assert!(ran.contains("warning: `long` encodes a prompt of"), "{ran}");
}
