//! The table of `tests/golden/README.md`, from what the tests print of their own errors.
//!
//! `cargo test --release --test it parity_table -- --ignored --nocapture`, with `PIPE_GOLDEN_DIR`
//! also of the folders that it names, with `:` between them, and with `PIPE_FULL_SIZE_DIR` of the
//! parts of full size that are in that folder.

use std::{fmt::Write as _, path::Path, process::Command};

use regex::Regex;

/// A row of the table, or several where tolerances differ.
struct Row {
    name: &'static str,
    /// The tests whose errors it holds.
    tests: &'static str,
    /// What the tests call what they compare, and what the table calls it; elsewhere both are the
    /// same.
    called: &'static [(&'static str, &'static str)],
}

const FACTORS: (&str, &str) = (r"lora_[AB]", "final factors");
const GRADIENTS: (&str, &str) = (r"lora_[AB]", "gradients");
const NORM: (&str, &str) = (r"^norm$", "gradient norm");
const SLOW: (&str, &str) = (r"^slow$", "at 12 frames per second");

const ROWS: &[Row] = &[
    Row {
        name: "CogVideoX transformer, 1.5 and 1.0, the latter also with fewer frames and of another aspect",
        tests: r"^parity::transformer_",
        called: &[],
    },
    Row {
        name: "CogVideoX VAE of four and of three levels, 1, 9 and 17 frames",
        tests: r"^parity::(vae_of|tiled)",
        called: &[],
    },
    Row {
        name: "CogVideoX LoRA trace, four steps",
        tests: r"^training::a_lora_training_trace",
        called: &[FACTORS, NORM],
    },
    Row {
        name: "CogVideoX batches drawn from a set",
        tests: r"^training_batches::batches_are_drawn",
        called: &[],
    },
    Row {
        name: "CogVideoX, a step over two such batches",
        tests: r"^training_batches::a_step_over_two",
        called: &[GRADIENTS, NORM],
    },
    Row {
        name: "CogVideoX, whole sampling runs of four steps",
        tests: r"^training::whole_sampling",
        called: &[],
    },
    Row { name: "LTX-Video transformer", tests: r"^ltx_video::transformer", called: &[SLOW] },
    Row {
        name: "LTX-Video VAE of 0.9.0, 0.9.1 and 0.9.5",
        tests: r"^ltx_video::vae_of",
        called: &[("^sampled$", "decoded with noise")],
    },
    Row {
        name: "LTX-Video LoRA trace, three steps",
        tests: r"^ltx_video::a_lora_training_trace",
        called: &[FACTORS, NORM],
    },
    Row {
        name: "LTX-Video, whole sampling runs of four steps",
        tests: r"^ltx_video::whole_sampling",
        called: &[SLOW],
    },
    Row {
        name: "the same by the condition pipeline",
        tests: r"^ltx_video::whole_runs_of_the_condition",
        called: &[SLOW, ("^weak$", "with an image of strength 0.6"), ("^one$", "of one step")],
    },
    Row {
        name: "the same with an autoencoder of less compression",
        tests: r"^ltx_video::whole_runs_with",
        called: &[("^plain$", "basic pipeline"), ("^condition$", "condition pipeline")],
    },
    Row {
        name: "the condition pipeline from the text of the prompts on",
        tests: r"^ltx_text::the_condition_pipeline",
        called: &[("^embedding", "embeddings")],
    },
    Row {
        name: "LTX-Video, the last frame decoded alone, against the whole clip",
        tests: r"^ltx_video::the_last_frame",
        called: &[],
    },
    Row {
        name: "adapters combined as peft does",
        tests: r"^golden_adapters::(combined|a_decomposition|a_merged)",
        called: &[
            ("^cat ", "`cat`"),
            ("^linear ", "`linear`"),
            ("^svd ", "`svd`"),
            ("^merged ", "merged weights"),
        ],
    },
    Row {
        name: "predictions with adapters of peft (plain, `use_rslora`, `rank_pattern` and `alpha_pattern`, both)",
        tests: r"^golden_adapters::.*as_peft$",
        called: &[(", merged$", "merged"), ("", "in branches")],
    },
];

/// The parts of full size, by the folders that `tests/golden/full_size/make.py` writes, each with
/// its row.
const FULL_SIZE: &[(&str, Row)] = &[
    (
        "ltx_video",
        Row {
            name: "LTX-Video transformer of full size",
            tests: r"^ltx_video::the_full_size_transformer_agrees$",
            called: &[],
        },
    ),
    (
        "cogvideox_15",
        Row {
            name: "a block of CogVideoX1.5-5B of full width, between the embeddings and the output",
            tests: r"^ltx_video::the_full_size_block_of_cogvideox_agrees$",
            called: &[("^ofs$", "`ofs`")],
        },
    ),
    (
        "t5_xxl",
        Row {
            name: "a layer of T5-XXL of full width, with the embedding of all tokens",
            tests: r"^ltx_video::the_full_size_layer_of_t5_agrees$",
            called: &[("^hidden$", "without a mask"), ("^masked$", "with a mask")],
        },
    ),
    (
        "cogvideox_vae",
        Row {
            name: "CogVideoX VAE of full size",
            tests: r"^ltx_video::the_full_size_vae_of_cogvideox_agrees$",
            called: &[],
        },
    ),
    (
        "ltx_video_vae_090",
        Row {
            name: "LTX-Video VAE of full size, 0.9.0",
            tests: r"^ltx_video::the_full_size_vae_of_0_9_0_agrees$",
            called: &[],
        },
    ),
    (
        "ltx_video_vae_091",
        Row {
            name: "LTX-Video VAE of full size, 0.9.1",
            tests: r"^ltx_video::the_full_size_vae_of_0_9_1_agrees$",
            called: &[],
        },
    ),
    (
        "ltx_video_vae_095",
        Row {
            name: "LTX-Video VAE of full size, 0.9.5",
            tests: r"^ltx_video::the_full_size_vae_of_0_9_5_agrees$",
            called: &[],
        },
    ),
];

/// The model folders of `external_golden`, each with its column.
const FOLDERS: [(&str, &str); 4] = [
    ("cogvideox15", "CogVideoX 1.5"),
    ("cogvideox10", "CogVideoX 1.0"),
    ("ltx09", "LTX-Video 0.9.0"),
    ("ltx091", "LTX-Video 0.9.1"),
];

/// What a test printed of a comparison.
struct Figure {
    test: String,
    what: String,
    error: f64,
    tolerance: String,
}

/// Runs tests of this binary one after the other, on a folder made elsewhere where they need one,
/// and reads what they print.
fn figures(folder: Option<&Path>, filters: &[&str]) -> Vec<Figure> {
    let mut tests = Command::new(std::env::current_exe().unwrap());
    if let Some(folder) = folder {
        tests.env("PIPE_GOLDEN_DIR", folder);
    }
    let output = tests.args(filters).args(["--nocapture", "--test-threads", "1"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    read(&text)
}

/// Reads `test parity::x ... block: 1.2e-7 of 2e-5`, where the first line of a test has its name
/// before it.
fn read(text: &str) -> Vec<Figure> {
    let name = Regex::new(r"^test (\S+) \.\.\. ").unwrap();
    let figure = Regex::new(r"^(.+): (\d[\d.e-]*) of (\d[\d.e-]*)$").unwrap();
    let mut test = String::new();
    let mut figures = Vec::new();
    for line in text.lines() {
        let mut line = line;
        if let Some(found) = name.captures(line) {
            found[1].clone_into(&mut test);
            line = &line[found[0].len()..];
        }
        if let Some(found) = figure.captures(line) {
            figures.push(Figure {
                test: test.clone(),
                what: found[1].to_owned(),
                error: found[2].parse().unwrap(),
                tolerance: found[3].to_owned(),
            });
        }
    }
    figures
}

/// Puts figures in rows, each with the largest error of all that is called the same; and fails
/// where one has no row.
fn table<'r>(figures: &[Figure], rows_of: impl IntoIterator<Item = &'r Row>) -> String {
    let mut table =
        String::from("| part | largest relative error | tolerance of the test |\n|---|---|---|\n");
    // The versions of a model, and the steps of a run.
    let numbers = Regex::new(r"^1[05] | \d+$").unwrap();
    let mut left = figures.len();
    for Row { name, tests, called } in rows_of {
        let tests = Regex::new(tests).unwrap();
        // By tolerance, in the order in which the tests print.
        let mut rows: Vec<(&str, Vec<(String, f64)>)> = Vec::new();
        for figure in figures.iter().filter(|figure| tests.is_match(&figure.test)) {
            left -= 1;
            let what = numbers.replace_all(&figure.what, "");
            let what = called
                .iter()
                .find(|(found, _)| Regex::new(found).unwrap().is_match(&what))
                .map_or_else(|| what.to_string(), |(_, name)| (*name).to_owned());
            let at = rows.iter().position(|(tolerance, _)| *tolerance == figure.tolerance);
            let at = at.unwrap_or_else(|| {
                rows.push((&figure.tolerance, Vec::new()));
                rows.len() - 1
            });
            match rows[at].1.iter_mut().find(|(known, _)| *known == what) {
                Some((_, largest)) => *largest = largest.max(figure.error),
                None => rows[at].1.push((what, figure.error)),
            }
        }
        for (tolerance, parts) in rows {
            let names: Vec<_> = parts.iter().map(|(what, _)| &**what).collect();
            let errors: Vec<_> = parts.iter().map(|(_, error)| shown(*error)).collect();
            let (names, errors) = (names.join(", "), errors.join(", "));
            writeln!(table, "| {name}: {names} | {errors} | {tolerance} |").unwrap();
        }
    }
    assert_eq!(left, 0, "figures without a row, or with two");
    table
}

/// Puts the figures of `external_golden`, such as `ltx09, vae, mean`, in a column for each folder.
fn columns(figures: &[Figure]) -> String {
    let names = FOLDERS.map(|(_, name)| name).join(" | ");
    let mut table = format!("| | {names} | tolerance |\n|---|---|---|---|---|---|\n");
    let mut rows: Vec<(String, &str, [Option<f64>; 4])> = Vec::new();
    for Figure { what, error, tolerance, .. } in figures {
        let (folder, part) = what.split_once(", ").unwrap();
        let column = FOLDERS.iter().position(|(of, _)| *of == folder).unwrap();
        let part = part.replacen(", ", ": ", 1);
        let at = rows.iter().position(|(of, ..)| *of == part).unwrap_or_else(|| {
            rows.push((part, tolerance, [None; 4]));
            rows.len() - 1
        });
        let largest = &mut rows[at].2[column];
        *largest = Some(largest.unwrap_or_default().max(*error));
    }
    for (part, tolerance, errors) in rows {
        let errors = errors.map(|error| error.map_or_else(|| "-".to_owned(), shown)).join(" | ");
        writeln!(table, "| {part} | {errors} | {tolerance} |").unwrap();
    }
    table
}

/// With one digit, rounded up: another machine rounds otherwise.
fn shown(error: f64) -> String {
    if error <= 0.0 {
        return "0".to_owned();
    }
    let magnitude = 10_f64.powi(error.log10().floor() as i32);
    format!("{:.0e}", (error / magnitude - 1e-6).ceil() * magnitude)
}

#[test]
#[ignore = "runs the tests that compare with reference values, and prints their figures as a table"]
fn parity_table() {
    let figures = figures(
        None,
        &[
            "parity::",
            "training::a_lora_training_trace",
            "training::whole_sampling",
            "training_batches::batches_are_drawn",
            "training_batches::a_step_over_two",
            "ltx_video::",
            "ltx_text::the_condition_pipeline",
            "golden_adapters::",
        ],
    );
    let table = self::table(&figures, ROWS);
    for Row { name, .. } in ROWS {
        assert!(table.contains(&format!("| {name}: ")), "nothing was printed for: {name}");
    }
    println!("{table}");
    if let Some(folder) = std::env::var_os("PIPE_FULL_SIZE_DIR") {
        println!("{}", full_size(Path::new(&folder)));
    }
    if let Some(folders) = std::env::var_os("PIPE_GOLDEN_DIR") {
        let external = ["external_golden::external_golden", "--exact", "--ignored"];
        let figures = std::env::split_paths(&folders)
            .flat_map(|folder| self::figures(Some(&folder), &external))
            .collect::<Vec<_>>();
        println!("{}", columns(&figures));
    }
}

/// The table of the parts of full size that are in a folder, each in a process of its own, as some
/// take all memory.
fn full_size(folder: &Path) -> String {
    let here: Vec<&Row> = FULL_SIZE
        .iter()
        .filter(|(part, _)| folder.join(part).is_dir())
        .map(|(_, row)| row)
        .collect();
    let name = |row: &Row| row.tests.trim_matches(['^', '$']).to_owned();
    let figures: Vec<_> =
        here.iter().flat_map(|row| figures(None, &[&name(row), "--exact", "--ignored"])).collect();
    let table = table(&figures, here.iter().copied());
    for Row { name, .. } in here {
        assert!(table.contains(&format!("| {name}: ")), "nothing was printed for: {name}");
    }
    table
}

#[test]
fn what_tests_print_becomes_rows() {
    let text = "\nrunning 2 tests\n\
        test parity::transformer_10_agrees ... block: 1.2e-7 of 2e-5\n\
        gradient: 0.0e0 of 2e-5\nok\n\
        test parity::transformer_15_agrees ... block: 2.4e-7 of 2e-5\nok\n\
        test training::a_lora_training_trace_agrees ... 15 loss 0: 3.0e-7 of 1e-4\n\
        10 norm 3: 1.0e-7 of 1e-4\nblocks.0.to_q.lora_A.weight: 1.5e-4 of 1e-3\nok\n";
    let external = "test external_golden::external_golden ... ltx09, vae, mean: 1.2e-6 of 5e-4\n\
        cogvideox10, vae, mean: 2.0e-6 of 5e-4\nltx09, vae, decoded: 0.0e0 of 5e-4\nok\n";
    insta::assert_snapshot!(columns(&read(external)), @"
    | | CogVideoX 1.5 | CogVideoX 1.0 | LTX-Video 0.9.0 | LTX-Video 0.9.1 | tolerance |
    |---|---|---|---|---|---|
    | vae: mean | - | 2e-6 | 2e-6 | - | 5e-4 |
    | vae: decoded | - | - | 0 | - | 5e-4 |
    ");
    let full = "test ltx_video::the_full_size_transformer_agrees ... output: 3.0e-6 of 1e-4\nok\n\
        test ltx_video::the_full_size_layer_of_t5_agrees ... hidden: 1.9e-6 of 1e-4\nmasked: 1.8e-6 of 1e-4\nok\n";
    insta::assert_snapshot!(table(&read(full), FULL_SIZE.iter().map(|(_, row)| row)), @"
    | part | largest relative error | tolerance of the test |
    |---|---|---|
    | LTX-Video transformer of full size: output | 3e-6 | 1e-4 |
    | a layer of T5-XXL of full width, with the embedding of all tokens: without a mask, with a mask | 2e-6, 2e-6 | 1e-4 |
    ");
    insta::assert_snapshot!(table(&read(text), ROWS), @"
    | part | largest relative error | tolerance of the test |
    |---|---|---|
    | CogVideoX transformer, 1.5 and 1.0, the latter also with fewer frames and of another aspect: block, gradient | 3e-7, 0 | 2e-5 |
    | CogVideoX LoRA trace, four steps: loss, gradient norm | 3e-7, 1e-7 | 1e-4 |
    | CogVideoX LoRA trace, four steps: final factors | 2e-4 | 1e-3 |
    ");
}
