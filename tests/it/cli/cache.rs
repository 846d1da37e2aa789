//! What lies in the cache: exported, counted, collected, verified.

use super::{CLIPS, Shell, command, walk};

#[test]
fn export_writes_ordinary_files() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    insta::assert_snapshot!(shell.transcript("export clips.toml clips --to out"), @"
    $ pipe export clips.toml clips --to out
    ? 1
    --- stderr
      × not in the cache: `clips[method=linear]` and 1 more
      help: `pipe run clips.toml --only 'clips[method=linear]'` computes it
    ");
    assert!(shell.output("run clips.toml").status.success());
    insta::assert_snapshot!(shell.transcript("export clips.toml clips --to out"), @"
    $ pipe export clips.toml clips --to out
    ? 0
    --- stdout
    out/method=linear
    out/method=quadratic
    ");
    let names = |folder: &str| {
        let files = walk(&shell.path(folder));
        let endings = files.iter().map(|file| {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            name.split_once('.').unwrap().1.to_owned()
        });
        endings.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("out/method=linear"), "gif strip.png gif strip.png png");
    assert!(shell.output("export clips.toml pairs --to pairs").status.success());
    assert_eq!(names("pairs"), "input.png target.png input.png target.png png");
}

#[test]
fn the_cache_is_counted_collected_and_verified() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    assert!(shell.output("run clips.toml").status.success());
    assert_eq!(shell.output("cache stats").status.code(), Some(0));
    insta::assert_snapshot!(shell.transcript("cache gc --dry-run"), @"
    $ pipe cache gc --dry-run
    ? 0
    --- stdout
    nothing to remove
    kept 13 objects, [SIZE]
    ");
    assert_eq!(shell.output("cache verify").status.code(), Some(0));

    let objects: Vec<_> = walk(&shell.path("cache/objects"));
    let mut permissions = std::fs::metadata(&objects[0]).unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a file of this test only")]
    permissions.set_readonly(false);
    std::fs::set_permissions(&objects[0], permissions).unwrap();
    std::fs::write(&objects[0], "damaged").unwrap();
    insta::assert_snapshot!(shell.transcript("cache verify"), @"
    $ pipe cache verify
    ? 4
    --- stdout
    checked 13 objects, [SIZE]
    damaged and removed: [HASH]
    --- stderr
    the next `pipe run` makes it again
    ");
}

#[test]
fn a_folder_that_is_no_cache_is_left_alone() {
    let shell = Shell::new();
    for name in ["mesh/objects", "mesh/tmp"] {
        std::fs::create_dir_all(shell.path(name)).unwrap();
    }
    shell.write("mesh/objects/teapot.obj", "v 0 0 0");
    shell.write("mesh/tmp/draft.txt", "mine");
    let before = walk(&shell.path("mesh"));
    for line in ["cache gc --cache mesh", "cache stats --cache mesh", "cache verify --cache mesh"] {
        let text = shell.transcript(line);
        assert!(text.contains("? 3"), "{text}");
        assert!(text.contains("`mesh` is not a cache of `pipe`"), "{text}");
        assert!(text.contains("help: name a cache, or a folder that is empty"), "{text}");
    }
    assert_eq!(walk(&shell.path("mesh")), before);
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let shell = Shell::new();
    let mut stats = command(shell.dir.path());
    stats.args(["cache", "stats"]);
    for name in ["PIPE_CACHE", "PIPE_DEVICE", "PIPE_JOBS", "PIPE_LOG"] {
        stats.env(name, "");
    }
    let output = stats.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("cache\n"));
    let entries = std::fs::read_dir(shell.dir.path()).unwrap();
    assert_eq!(entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), ["cache"]);
}
