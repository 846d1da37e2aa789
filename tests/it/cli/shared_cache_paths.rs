//! Pipelines of one path that are not the same: those of containers that share a cache.

use std::fs;

use super::{CLIPS, Shell};

/// Does something as in the container whose `work` is this folder.
fn inside(shell: &Shell, folder: &str, line: &str) -> String {
    fs::rename(shell.path(folder), shell.path("work")).unwrap();
    let said = shell.transcript(line);
    fs::rename(shell.path("work"), shell.path(folder)).unwrap();
    said
}

/// A pipeline that has this method alone.
fn of(method: &str) -> String {
    let sweep = CLIPS.replace("[\"linear\", \"quadratic\"]", &format!("[\"{method}\"]"));
    sweep.replace("{ method = \"linear\" }", &format!("{{ method = \"{method}\" }}"))
}

/// Two containers, each with a pipeline of its own at `work/clips.toml`.
fn two() -> Shell {
    let shell = Shell::new();
    for (folder, method) in [("one", "linear"), ("two", "quadratic")] {
        fs::create_dir(shell.path(folder)).unwrap();
        shell.write(&format!("{folder}/clips.toml"), &of(method));
    }
    shell
}

#[test]
fn containers_that_share_a_cache_keep_what_each_other_computed() {
    let shell = two();
    for folder in ["one", "two", "one"] {
        inside(&shell, folder, "run work/clips.toml");
    }
    for line in ["cache gc", "cache gc work/clips.toml"] {
        for folder in ["one", "two"] {
            let said = inside(&shell, folder, line);
            assert!(said.contains("nothing to remove"), "{said}");
        }
    }
    for folder in ["two", "one"] {
        let said = inside(&shell, folder, "run work/clips.toml");
        assert!(said.contains("0 stages ran"), "{said}");
    }
}

#[test]
fn a_cell_that_one_container_has_no_more_is_freed() {
    let shell = two();
    for folder in ["one", "two"] {
        inside(&shell, folder, "run work/clips.toml");
    }
    shell.write("one/clips.toml", &of("discrete"));
    inside(&shell, "one", "run work/clips.toml");
    let said = inside(&shell, "one", "cache gc");
    assert!(said.contains("removed clips: clips[method=linear]"), "{said}");
    assert!(!said.contains("quadratic"), "{said}");
}

#[test]
fn a_folder_that_was_made_anew_is_told_what_changed() {
    let shell = two();
    inside(&shell, "one", "run work/clips.toml");
    fs::create_dir(shell.path("clone")).unwrap();
    shell.write("clone/clips.toml", &of("linear").replace("frames = 5", "frames = 9"));
    let said = inside(&shell, "clone", "plan work/clips.toml");
    assert!(said.contains("frames 5 -> 9 (work/clips.toml:"), "{said}");
}
