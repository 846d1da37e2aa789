//! A cache that machines share, through the command line.

use super::{CLIPS, Shell};

#[test]
fn push_without_an_address_says_how_to_give_one() {
    insta::assert_snapshot!(Shell::new().transcript("cache push"), @"
    $ pipe cache push
    ? 2
    --- stderr
      × no remote cache is set
      help: name one with `--remote URL` or `PIPE_REMOTE`, as in `s3://bucket/folder`
    ");
}

#[test]
fn what_one_machine_computed_another_fetches() {
    let (shell, shared) = (Shell::new(), "--remote shared");
    shell.write("clips.toml", CLIPS);
    let first = shell.transcript(&format!("run clips.toml --cache one {shared}"));
    assert!(first.contains("sent 3 results"), "{first}");
    let dry = shell.transcript(&format!("cache pull clips.toml --dry-run --cache three {shared}"));
    assert!(dry.contains("would fetch 3 results"), "{dry}");
    let second = shell.transcript(&format!("run clips.toml --cache two {shared}"));
    assert!(second.contains("fetched 3 results"), "{second}");
    // Alone again, everything is there.
    let plan = shell.transcript("plan clips.toml --cache two");
    assert!(plan.contains("0 stages to run"), "{plan}");
    let push = shell.transcript(&format!("cache push clips.toml --cache two {shared}"));
    assert!(push.contains("sent 0 results, [SIZE]; 3 there already"), "{push}");
    let pull = shell.transcript(&format!("cache pull --all --cache four {shared}"));
    assert!(pull.contains("fetched 3 results"), "{pull}");
}

#[test]
fn an_address_without_what_it_needs_says_where_that_comes_from() {
    insta::assert_snapshot!(Shell::new().transcript("cache push --remote az://container/folder"), @"");
    insta::assert_snapshot!(Shell::new().transcript("cache push --remote ftp://host/folder"), @"");
}
