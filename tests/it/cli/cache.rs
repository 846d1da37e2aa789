//! What lies in the cache: exported, counted, collected, verified.

use super::{CLIPS, Shell, walk};

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
