//! A changed image is one changed item of every stage that maps items, with the real stages.

use super::Shell;

const MAPPED: &str = r#"name = "mapped"

[stages.examples]
kind   = "dataset"
source = { source = "folder", root = "data/examples" }
task   = "pairs"
size   = [32, 32]
holdout = 0.0

[stages.mirrored]
kind      = "transform"
inputs    = { pairs = "examples" }
operation = "hflip"

[stages.clips]
kind   = "interpolate"
inputs = { pairs = "mirrored" }
frames = 5

[stages.latents]
kind   = "vae_encode"
inputs = { videos = "clips" }
model  = "builtin:tiny"

[stages.test]
kind   = "dataset"
source = { source = "folder", root = "data/test" }
task   = "pairs"
size   = [32, 32]
holdout = 0.0

[stages.prompt]
kind  = "text_encode"
model = "builtin:tiny"

[stages.predict]
kind   = "sample"
inputs = { pairs = "test", text = "prompt" }
model  = "builtin:tiny"
frames = 5
steps  = 1

[stages.answers]
kind   = "decode"
inputs = { samples = "predict" }
model  = "builtin:tiny"

[stages.score]
kind   = "metric"
inputs = { predictions = "answers", pairs = "test" }
metric = "image"
"#;

/// What a run computed: the stages with their items, without times.
fn ran(shell: &Shell) -> String {
    let said = shell.transcript("run mapped.toml");
    assert!(said.contains("? 0\n"), "{said}");
    let lines = said.lines().filter(|line| line.starts_with("ran "));
    lines.map(|line| line.rsplit_once("  ").unwrap().0.to_owned() + "\n").collect()
}

/// The stages of `MAPPED` that cost little for each image.
const CHEAP: &str = r#"name = "mapped"

[stages.examples]
kind   = "dataset"
source = { source = "folder", root = "data/examples" }
task   = "pairs"
size   = [16, 16]
holdout = 0.0

[stages.mirrored]
kind      = "transform"
inputs    = { pairs = "examples" }
operation = "hflip"

[stages.clips]
kind   = "interpolate"
inputs = { pairs = "mirrored" }
frames = 5
"#;

#[test]
fn one_changed_image_in_500_is_one_item_of_every_stage() {
    let shell = Shell::new();
    shell.write("mapped.toml", CHEAP);
    let picture = |number: u32, name: &str| {
        for side in ["input", "target"] {
            let folder = shell.path("data/examples").join(side);
            std::fs::create_dir_all(&folder).unwrap();
            // No two are alike.
            let color =
                |x: u32, y: u32| image::Rgb([number as u8, (number >> 8) as u8, (x ^ y) as u8]);
            image::RgbImage::from_fn(16, 16, color).save(folder.join(name)).unwrap();
        }
    };
    for number in 0..500 {
        picture(number, &format!("e{number:03}.png"));
    }
    ran(&shell);
    assert_eq!(ran(&shell), "");

    picture(1000, "e250.png");
    insta::assert_snapshot!(ran(&shell), @"
    ran      examples  `input/e250.png` changed, `target/e250.png` changed
    ran      mirrored  input `pairs` changed, because examples: `input/e250.png` changed and 1 more  1 of 500 items
    ran      clips  input `pairs` changed, because examples: `input/e250.png` changed and 1 more  1 of 500 items
    ");

    picture(1001, "f.png");
    insta::assert_snapshot!(ran(&shell), @"
    ran      examples  `input/f.png` added, `target/f.png` added
    ran      mirrored  input `pairs` changed, because examples: `input/f.png` added and 1 more  1 of 501 items
    ran      clips  input `pairs` changed, because examples: `input/f.png` added and 1 more  1 of 501 items
    ");
}

#[test]
fn one_image_is_one_item_of_every_stage() {
    let shell = Shell::new();
    shell.write("mapped.toml", MAPPED);
    for index in 0..12 {
        shell.pair("data/examples", &format!("e{index:02}"), index * 20);
    }
    for index in 0..4 {
        shell.pair("data/test", &format!("t{index}"), index * 20);
    }
    ran(&shell);
    assert_eq!(ran(&shell), "");

    shell.pair("data/examples", "e05", 250);
    insta::assert_snapshot!(ran(&shell), @"
    ran      examples  `input/e05.png` changed, `target/e05.png` changed
    ran      mirrored  input `pairs` changed, because examples: `input/e05.png` changed and 1 more  1 of 12 items
    ran      clips  input `pairs` changed, because examples: `input/e05.png` changed and 1 more  1 of 12 items
    ran      latents  input `videos` changed, because examples: `input/e05.png` changed and 1 more  1 of 12 items
    ");

    shell.pair("data/test", "t4", 250);
    insta::assert_snapshot!(ran(&shell), @"
    ran      test  `input/t4.png` added, `target/t4.png` added
    ran      predict  input `pairs` changed, because test: `input/t4.png` added and 1 more  1 of 5 items
    ran      answers  input `samples` changed, because test: `input/t4.png` added and 1 more  1 of 5 items
    ran      score  input `pairs` changed, input `predictions` changed, because test: `input/t4.png` added and 1 more
    ");

    for side in ["input", "target"] {
        std::fs::remove_file(shell.path(&format!("data/test/{side}/t4.png"))).unwrap();
    }
    insta::assert_snapshot!(ran(&shell), @"");

    // A renamed image is another item until it is encoded; the others have a new place, no more.
    for side in ["input", "target"] {
        let path = |name: &str| shell.path(&format!("data/examples/{side}/{name}.png"));
        std::fs::rename(path("e00"), path("z00")).unwrap();
    }
    insta::assert_snapshot!(ran(&shell), @"
    ran      examples  `input/z00.png` added, `input/e00.png` deleted, `target/z00.png` added, `target/e00.png` deleted
    ran      mirrored  input `pairs` changed, because examples: `input/z00.png` added and 3 more  1 of 12 items
    ran      clips  input `pairs` changed, because examples: `input/z00.png` added and 3 more  1 of 12 items
    ran      latents  input `videos` changed, because examples: `input/z00.png` added and 3 more  0 of 12 items
    ");
}
