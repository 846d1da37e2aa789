//! The pipelines of the scripts in `tests/interop`. The scripts run by hand, as they need other
//! programs; what they have `pipe` run must check all the same, so that a key that is renamed is
//! noticed.

use std::{collections::BTreeSet, path::Path};

use super::{Shell, walk};
use crate::{ltx_video::Fixture, training::write_model};

/// That of the built-in model, as the fixture has none.
fn copy_text_encoder(model: &Path) {
    let builtin = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/builtin_tiny");
    for folder in ["text_encoder", "tokenizer"] {
        std::fs::create_dir_all(model.join(folder)).unwrap();
        for file in walk(&builtin.join(folder)) {
            std::fs::copy(&file, model.join(file.strip_prefix(&builtin).unwrap())).unwrap();
        }
    }
}

#[test]
fn the_pipelines_of_the_interop_scripts_check() {
    let shell = Shell::new();
    let fixture = Fixture::read();
    let model = shell.path("ltx_video");
    write_model(&model, &fixture.config, &fixture.transformer, &fixture.vae);
    copy_text_encoder(&model);
    let ltx_video = format!("--set params.model={}", model.display());
    let as_scripts_run_them = [
        ("adapters.toml", String::new(), 28),
        ("adapters.toml", "--set params.size=[48,80] --set params.frames=9".to_owned(), 28),
        ("adapters.toml", format!("--profile ltx_video {ltx_video}"), 28),
        ("adapters_back.toml", String::new(), 1),
        ("ltx_video.toml", ltx_video, 12),
        ("provenance.toml", String::new(), 3),
        ("remote.toml", String::new(), 3),
        ("remote_more.toml", String::new(), 4),
        ("whole.toml", String::new(), 8),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    for (file, layers, stages) in &as_scripts_run_them {
        let checked = shell.succeed(&format!("check {} {layers}", folder.join(file).display()));
        assert!(checked.contains(&format!("fine, {stages} stage")), "{checked}");
    }

    let (mut found, mut scripts) = (BTreeSet::new(), String::new());
    for file in walk(&folder) {
        match file.extension().and_then(|ending| ending.to_str()) {
            Some("toml") => {
                found.insert(file.file_name().unwrap().to_string_lossy().into_owned());
            }
            // The mistakes that the schema must refuse are its own.
            Some("py") if !file.ends_with("schema.py") => {
                scripts += &std::fs::read_to_string(&file).unwrap();
            }
            _ => {}
        }
    }
    let checked: BTreeSet<_> =
        as_scripts_run_them.iter().map(|(file, ..)| (*file).to_owned()).collect();
    assert_eq!(found, checked, "each file is checked here");
    assert!(found.iter().all(|file| scripts.contains(file)), "each file is run by a script");
    assert!(!scripts.contains("[stages."), "a script has a pipeline of its own");
}
