//! Pictures that are learnt from and asked about, whatever their names.

use super::{Experiment, SCORE, Shell};

/// Two parts of one folder.
const PARTS: &str = r#"name = "own"

[stages.examples]
kind   = "dataset"
source = { source = "folder", root = "data" }
task   = "pairs"
split  = "train"
size   = [32, 32]

[stages.pairs]
kind   = "dataset"
source = { source = "folder", root = "data" }
task   = "pairs"
split  = "test"
size   = [32, 32]
"#;

/// One part is learnt from, and answers to the other are scored.
fn experiment() -> String {
    let text = Experiment::default().toml();
    let (_, stages) = text.split_once("\n[stages.clips]").unwrap();
    let stages = stages.replace("{ pairs = \"pairs\" }", "{ pairs = \"examples\" }");
    format!("{PARTS}\n[stages.clips]{stages}{SCORE}")
}

#[test]
fn a_picture_in_both_parts_of_the_data_is_told() {
    let shell = Shell::new();
    for (part, name, shade) in
        [("train", "a", 10), ("train", "b", 90), ("test", "c", 200), ("test", "d", 90)]
    {
        shell.pair(&format!("data/{part}"), name, shade);
    }
    shell.write("own.toml", &experiment());
    let warnings = |shell: &Shell| {
        let said = shell.transcript("run own.toml");
        let lines = said.lines().filter(|line| line.starts_with("warning"));
        lines.collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(warnings(&shell), @"warning: `pairs` asks about 1 picture that `examples` learns from, such as `d`, there `b`: its scores are partly those of answers that were learnt");
    // It is no matter of what was computed just now.
    insta::assert_snapshot!(warnings(&shell), @"warning: `pairs` asks about 1 picture that `examples` learns from, such as `d`, there `b`: its scores are partly those of answers that were learnt");
    // Before anything is trained, and a check knows it as well.
    let said = shell.transcript("run own.toml --force examples --force lora");
    let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("no {text} in {said}"));
    assert!(at("warning: `pairs` asks about") < at("ran      lora"), "{said}");
    let checked = shell.transcript("check own.toml");
    assert!(
        checked.contains("? 0") && checked.contains("warning: `pairs` asks about 1 picture"),
        "{checked}"
    );
    // Every score carries it.
    let note = "note: `pairs` asks about 1 picture";
    let shown = shell.succeed("show own.toml score");
    assert_eq!(shown.matches(note).count(), 1, "{shown}");
    assert!(shell.succeed("show own.toml score --json").contains("\"`pairs` asks about 1 picture"));
    assert!(!shell.succeed("show own.toml answers").contains(note));
    shell.succeed("export own.toml score --to score");
    let exported = std::fs::read_to_string(shell.path("score/metrics.json")).unwrap();
    assert!(exported.contains("\"`pairs` asks about 1 picture"), "{exported}");
    // Pictures are counted where they are asked about, however often one of them was learnt.
    for name in ["e", "f"] {
        shell.pair("data/train", name, 90);
    }
    shell.pair("data/test", "g", 90);
    insta::assert_snapshot!(warnings(&shell), @"warning: `pairs` asks about 2 pictures that `examples` learns from, such as `g`, there `b`: its scores are partly those of answers that were learnt");
    for name in [
        "data/train/input/e.png",
        "data/train/target/e.png",
        "data/train/input/f.png",
        "data/train/target/f.png",
        "data/test/input/g.png",
        "data/test/target/g.png",
    ] {
        std::fs::remove_file(shell.path(name)).unwrap();
    }
    // A table says so as well, in each of its forms.
    let table = "[tables.t]\nvalues = [\"score.psnr\"]\n";
    shell.write("own.toml", &(experiment() + table));
    let note = "asks about 1 picture that";
    for (form, place) in [
        ("text", "\nnote: `pairs` asks about"),
        ("markdown", "\nnote: `pairs` asks about"),
        ("csv", "`pairs` asks about"),
        ("json", "\n        \"`pairs` asks about"),
    ] {
        let said = shell.succeed(&format!("table own.toml --format {form}"));
        assert!(said.contains(place) && said.matches(note).count() == 1, "{said}");
    }
    shell.pair("data/test", "d", 130);
    assert_eq!(warnings(&shell), "");
    assert!(!shell.succeed("table own.toml").contains(note));
}

#[test]
fn parts_of_one_source_that_are_divided_in_two_ways_are_refused() {
    let shell = Shell::new();
    for name in ["a", "b", "c", "d", "e"] {
        shell.pair("data", name, name.as_bytes()[0]);
    }
    let whole = experiment();
    shell.write("own.toml", &whole);
    shell.succeed("check own.toml");
    // Each of the two alone has its default, a fifth.
    let other = whole.replace("split  = \"test\"", "split  = \"test\"\nholdout = 0.5");
    shell.write("own.toml", &other);
    let said = shell.transcript("check own.toml");
    assert!(said.contains("? 2"), "{said}");
    for part in [
        "`pairs` and `examples` divide one source into training and test in two ways",
        "holdout = 0.5",
        "give both the same `holdout`, `holdout_seed` and `holdout_by`",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let both = other.replace("split  = \"train\"", "split  = \"train\"\nholdout = 0.5");
    shell.write("own.toml", &both);
    shell.succeed("check own.toml");
}

/// Two seeds put the photographs of one part together in two ways.
#[test]
fn photographs_that_grids_share_are_told() {
    let shell = Shell::new();
    for class in ["n1", "n2"] {
        let folder = shell.path(&format!("data/train/{class}/images"));
        std::fs::create_dir_all(&folder).unwrap();
        for shot in 0..3u8 {
            let shade = image::Rgb([shot * 60, class.as_bytes()[1], 9]);
            let picture = image::RgbImage::from_pixel(16, 16, shade);
            picture.save(folder.join(format!("{class}_{shot}.png"))).unwrap();
        }
    }
    std::fs::create_dir_all(shell.path("data/val/images")).unwrap();
    shell.write("data/wnids.txt", "n1\nn2\n");
    shell.write("data/val/val_annotations.txt", "val_0.png\tn1\nval_1.png\tn2\n");
    for shot in 0..2u8 {
        let picture = image::RgbImage::from_pixel(16, 16, image::Rgb([shot, 200, 9]));
        picture.save(shell.path(&format!("data/val/images/val_{shot}.png"))).unwrap();
    }
    let grids = |split: &str| {
        let symbols = "task   = \"symbols\"\ncount  = 3\nsymbols = { side = 2 }";
        let text = experiment()
            .replace("source = \"folder\"", "source = \"tiny_imagenet\"")
            .replace("task   = \"pairs\"", symbols)
            .replace("split  = \"test\"", &format!("split  = \"{split}\"\nseed = 5"));
        shell.write("own.toml", &text);
        let said = shell.transcript("run own.toml --only examples --only pairs");
        let lines = said.lines().filter(|line| line.starts_with("warning"));
        lines.map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(grids("train"), @"warning: `pairs` asks about 4 pictures that `examples` learns from, such as `n1_1` in `grid-000002`, there in `grid-000000`: its scores are partly those of answers that were learnt");
    assert_eq!(grids("test"), "");
}

/// TUM's pictures without its lists: depths of 5000 units per metre, read as millimetres.
#[test]
fn distances_in_other_units_are_told_by_a_run_and_beside_its_scores() {
    let shell = Shell::new();
    for name in ["a", "b", "c", "d", "e"] {
        let path = |what: &str| shell.path(&format!("data/{name}_{what}.png"));
        std::fs::create_dir_all(shell.path("data")).unwrap();
        let color = image::Rgb([name.as_bytes()[0], 0, 9]);
        image::RgbImage::from_pixel(32, 32, color).save(path("color")).unwrap();
        let depth = image::ImageBuffer::<image::Luma<u16>, _>::from_fn(32, 32, |x, _| {
            image::Luma([if x < 24 { 15_000 } else { 7_500 }])
        });
        depth.save(path("depth")).unwrap();
    }
    let table = "\n[tables.t]\nvalues = [\"score.psnr\"]\n";
    let text = (experiment() + table)
        .replace("source = \"folder\"", "source = \"rgbd\", units = 1000")
        .replace("task   = \"pairs\"", "task   = \"depth\"");
    shell.write("own.toml", &text);
    let said = shell.transcript("run own.toml");
    let warning = "`pairs` takes pictures with 75 % of the known distances beyond `depth.range`";
    assert_eq!(said.matches(&format!("warning: {warning}")).count(), 1, "{said}");
    let other = "`examples` takes pictures with 75 %";
    let table = shell.succeed("table own.toml");
    // What is learnt from in wrong units is part of the answers.
    for part in [warning, other] {
        assert_eq!(table.matches(&format!("note: {part}")).count(), 1, "{table}");
    }
    assert!(shell.succeed("show own.toml score").contains(&format!("note: {warning}")));
    shell.write("own.toml", &text.replace("units = 1000", "units = 5000"));
    let right = shell.transcript("run own.toml");
    assert!(right.contains("? 0") && !right.contains("depth.range"), "{right}");
}
