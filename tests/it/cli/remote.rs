//! A cache that machines share, through the command line.

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use super::{CLIPS, Shell, command, walk};

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
    assert!(!shell.path("three").exists(), "a dry run makes no cache");
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
    insta::assert_snapshot!(Shell::new().transcript("cache push --remote az://container/folder"), @"
    $ pipe cache push --remote az://container/folder
    ? 3
    --- stderr
      × Azure Blob Storage cannot be asked for the remote cache: Account must be specified; no
      │ variable for it is set
      help: set `AZURE_STORAGE_ACCOUNT_NAME`, and `AZURE_STORAGE_ACCOUNT_KEY` to a key as the portal
            shows it, in base64; for Azurite `AZURE_STORAGE_USE_EMULATOR` to `true`, and
            `AZURITE_BLOB_STORAGE_URL` to its address if that is another one than
            `http://127.0.0.1:10000`
    ");
    insta::assert_snapshot!(Shell::new().transcript("cache push --remote ftp://host/folder"), @"
    $ pipe cache push --remote ftp://host/folder
    ? 2
    --- stderr
      × no remote cache can be at an address that begins with `ftp:`
      help: an address is `s3://bucket/folder`, `gs://bucket/folder`, `az://container/folder`,
            `file:///folder` or a folder
    ");
}

#[test]
fn a_server_that_cannot_be_reached_is_named_with_what_to_check() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    std::fs::create_dir(shell.path("cache")).unwrap();
    shell.write("cache/format", "2\n");
    let told = |arguments: &[&str], code: i32| {
        // A port that nobody listens on.
        let output = command(shell.dir.path())
            .args(arguments)
            .args(["--remote", "s3://bucket/folder"])
            .env("AWS_ENDPOINT_URL", "http://user:secret@127.0.0.1:9")
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code));
        String::from_utf8(output.stderr).unwrap()
    };
    insta::assert_snapshot!(told(&["cache", "push"], 3), @"
    × the remote cache `s3://bucket/folder` at `http://127.0.0.1:9/` cannot be reached: Connection
    │ refused (os error 111)
    help: see that the network is there, and `AWS_ENDPOINT_URL` right for a server that is not
          Amazon's (else `AWS_REGION`); `HTTPS_PROXY` and `HTTP_PROXY` name a proxy
    ");
    // A run goes on without it.
    let run = told(&["run", "clips.toml"], 0);
    let left_alone = "From here on without remote cache: the remote cache \
        `s3://bucket/folder` at `http://127.0.0.1:9/` cannot be reached";
    assert!(run.contains(left_alone) && run.contains("AWS_ENDPOINT_URL"), "{run}");
    assert!(!run.contains("secret"), "{run}");
}

#[test]
fn what_is_damaged_at_the_remote_is_made_again_and_replaced() {
    let (shell, shared) = (Shell::new(), "--remote shared");
    shell.write("clips.toml", CLIPS);
    shell.succeed(&format!("run clips.toml --cache one {shared}"));
    let record = walk(&shell.path("one/actions")).remove(0);
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    let output = record["record"]["output"].as_str().unwrap();
    let object = shell.path("shared/objects").join(&output[..2]).join(&output[2..]);
    std::fs::write(&object, "damaged").unwrap();
    let second = shell.transcript(&format!("run clips.toml --cache two {shared}"));
    assert!(second.contains("1 stage ran") && second.contains("sent 1 result"), "{second}");
    let third = shell.transcript(&format!("run clips.toml --cache three {shared}"));
    assert!(third.contains("0 stages ran, 3 reused"), "{third}");
}

/// More folders than sets of files are kept of one.
#[test]
fn a_fresh_machine_fetches_the_data_sets_of_a_sweep_over_many_folders() {
    const MANY: usize = 12;
    let shell = Shell::new();
    std::fs::create_dir(shell.path("files")).unwrap();
    for at in 0..MANY {
        shell.pair(&format!("files/data/{at}"), &format!("picture{at}"), at as u8);
    }
    let axis: Vec<_> = (0..MANY).map(|at| format!("\"{at}\"")).collect();
    let text = format!(
        "name = \"many\"\n[sweep]\ngrid = {{ of = [{}] }}\n[stages.pairs]\nkind = \"dataset\"\n\
         source = {{ source = \"folder\", root = \"data/${{of}}\" }}\ntask = \"pairs\"\nholdout = 0.0\nsize = [32, 32]\n",
        axis.join(", ")
    );
    shell.write("files/many.toml", &text);
    shell.succeed("run files/many.toml --cache one --remote shared");
    // Elsewhere, with the data beside the pipeline file as well.
    std::fs::rename(shell.path("files"), shell.path("moved")).unwrap();
    let fresh = shell.transcript("run moved/many.toml --cache two --remote shared");
    assert!(fresh.contains(&format!("0 stages ran, {MANY} reused")), "{fresh}");
    let alone = shell.transcript("run moved/many.toml --cache two");
    assert!(alone.contains(&format!("0 stages ran, {MANY} reused")), "{alone}");
}

#[test]
fn what_is_not_computed_yet_is_not_pushed_in_silence() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml --only pairs");
    insta::assert_snapshot!(shell.transcript("cache push clips.toml --remote shared"), @"
    $ pipe cache push clips.toml --remote shared
    ? 0
    --- stdout
    sent clips: pairs, [SIZE]
    sent 1 result, [SIZE]; 0 there already
    --- stderr
    2 stages are not computed yet: `clips[method=linear]`, `clips[method=quadratic]`; `pipe run clips.toml` computes them
    ");
    insta::assert_snapshot!(shell.transcript("cache pin clips.toml"), @"
    $ pipe cache pin clips.toml
    ? 0
    --- stdout
    pinned 1 result
    --- stderr
    2 stages are not computed yet: `clips[method=linear]`, `clips[method=quadratic]`; `pipe run clips.toml` computes them
    ");
    assert!(!shell.transcript("cache pin clips.toml pairs").contains("not computed"));
    shell.succeed("run clips.toml --only clips[method=linear]");
    let one = shell.transcript("cache push clips.toml --remote shared");
    assert!(one.contains("1 stage is not computed yet: `clips[method=quadratic]`"), "{one}");
    shell.succeed("run clips.toml");
    assert!(!shell.transcript("cache push clips.toml --remote shared").contains("not computed"));
}

#[test]
fn results_are_chosen_as_for_a_run() {
    let shell = Shell::new();
    shell.write(
        "clips.toml",
        &format!("{CLIPS}\n[profiles.other]\n[profiles.other.stages.pairs]\nseed = 3\n"),
    );
    shell.succeed("run clips.toml --only clips[method=linear] --set pairs.seed=7");
    let chosen = "clips.toml --set pairs.seed=7 --remote shared";
    insta::assert_snapshot!(shell.transcript(&format!("cache push {chosen}")), @"
    $ pipe cache push clips.toml --set pairs.seed=7 --remote shared
    ? 0
    --- stdout
    sent clips: pairs, [SIZE]
    sent clips: clips[method=linear], [SIZE]
    sent 2 results, [SIZE]; 0 there already
    --- stderr
    1 stage is not computed yet: `clips[method=quadratic]`; `pipe run clips.toml --set 'pairs.seed=7'` computes it
    ");
    let pull = shell.transcript(&format!("cache pull {chosen} --only pairs --cache two"));
    assert!(pull.contains("fetched 1 result,") && !pull.contains("neither"), "{pull}");
    let rest = shell.transcript(&format!("cache pull {chosen} --cache two"));
    assert!(rest.contains("fetched 1 result,"), "{rest}");
    let other = "cache pull clips.toml --profile other --only pairs --remote shared";
    let pull = shell.transcript(other);
    assert!(
        pull.contains("`pipe run clips.toml --profile other --only pairs` computes it"),
        "{pull}"
    );
    let none = shell.transcript("cache push --set pairs.seed=7 --remote shared");
    assert!(none.contains("? 2\n") && none.contains("none is named"), "{none}");
    // One of several files that has no such profile goes by its own values.
    shell.write("plain.toml", CLIPS);
    let both = shell.transcript("cache push clips.toml plain.toml --profile other --remote shared");
    assert!(both.contains("plain.toml: there is no profile `other`"), "{both}");
}

#[test]
fn what_was_asked_about_and_is_nowhere_is_no_success() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml --only pairs --set pairs.seed=7 --remote shared");
    let push = shell.transcript_at_home("cache push clips.toml --remote shared");
    insta::assert_snapshot!(push, @"
    $ pipe cache push clips.toml --remote shared
    ? 1
    --- stderr
      × nothing of `clips.toml` is in this cache
      help: `pipe run clips.toml` computes it
    ");
    let pull = shell.transcript_at_home("cache pull clips.toml --remote shared");
    insta::assert_snapshot!(pull, @"
    $ pipe cache pull clips.toml --remote shared
    ? 1
    --- stdout
    fetched 0 results, [SIZE]; 0 there already
    --- stderr
      × nothing of `clips.toml` is here or in `file://[HOME]/shared/`
      help: `pipe run clips.toml` computes it
    ");
    shell.succeed("run clips.toml --only pairs --remote shared");
    let pull = shell.transcript("cache pull clips.toml --remote shared --cache two");
    assert!(pull.contains("? 0") && pull.contains("2 stages are neither here nor in"), "{pull}");
    let output = command(shell.dir.path())
        .args(["cache", "pull", "clips.toml", "--cache", "three", "--remote", "s3://bucket/folder"])
        .env("AWS_ENDPOINT_URL", cutting())
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("3 results did not get through"), "{told}");
}

/// A server that answers each request by its head, with what `answer` gives; its address.
pub(super) fn answering(answer: fn(&str) -> &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..read]);
            let _ = stream.write_all(answer(&head).as_bytes());
        }
    });
    address
}

/// What refuses a request.
pub(super) const FORBIDDEN: &str =
    "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A server that has the file `format`, and refuses all else; its address.
fn cutting() -> String {
    answering(|head| {
        if head.contains("/format") {
            "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
             Content-Length: 2\r\nConnection: close\r\n\r\n3\n"
        } else {
            FORBIDDEN
        }
    })
}

#[test]
fn a_cache_of_a_machine_is_no_remote_one() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    for line in ["run clips.toml --remote cache", "cache push --remote cache"] {
        let told = shell.transcript(line);
        assert!(
            told.contains("? 3") && told.contains("is a cache that runs use themselves"),
            "{told}"
        );
    }
    shell.succeed("run clips.toml --remote shared --cache two");
    let told = shell.transcript_at_home("run clips.toml --cache shared");
    insta::assert_snapshot!(told, @"
    $ pipe run clips.toml --cache shared
    ? 3
    --- stderr
      × `shared` is a remote cache, which machines share, and cannot be used as their own
      help: name it with `--remote`, and another folder with `--cache DIR` or `PIPE_CACHE`
    ");
    assert!(shell.transcript("run clips.toml").contains("3 reused"));
}

#[cfg(unix)]
#[test]
fn a_server_that_never_answers_is_not_waited_for_after_a_signal() {
    use std::{
        process::Stdio,
        time::{Duration, Instant},
    };

    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    // It takes connections, by the system, and nobody reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    for line in ["run clips.toml --cache two", "cache push clips.toml", "cache pull clips.toml"] {
        let child = command(shell.dir.path())
            .args(line.split(' '))
            .args(["--remote", "s3://bucket/folder"])
            .env("AWS_ENDPOINT_URL", &endpoint)
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_secs(1));
        let since = Instant::now();
        let pid = child.id().to_string();
        let kill = std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
        assert!(kill.success());
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{line}: {told}");
        assert!(since.elapsed() < Duration::from_secs(15), "{line}: {:?}", since.elapsed());
    }
}

#[test]
fn an_address_that_says_no_place_is_no_folder() {
    let shell = Shell::new();
    insta::assert_snapshot!(shell.transcript("cache push --remote s3://"), @"
    $ pipe cache push --remote s3://
    ? 2
    --- stderr
      × `s3://` does not say where the remote cache is
      help: an address is `s3://bucket/folder`, `gs://bucket/folder`, `az://container/folder`,
            `file:///folder` or a folder
    ");
    for address in ["s3:", "s3:bucket", "gs:///folder", "az://", "file://", "file:"] {
        let told = shell.transcript(&format!("cache push --remote {address}"));
        let wanted = format!("`{address}` does not say where the remote cache is");
        assert!(told.contains("? 2") && told.contains(&wanted), "{told}");
    }
}

#[test]
fn a_folder_in_the_place_of_the_format_file_is_told_before_anything_is_sent() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    std::fs::create_dir_all(shell.path("shared/format")).unwrap();
    insta::assert_snapshot!(shell.transcript("cache push --remote shared"), @"
    $ pipe cache push --remote shared
    ? 3
    --- stderr
      × what is at the address of the remote cache has a file `format` that no `pipe` wrote
      help: if it is your cache, remove its file `format`, which the next `pipe cache push` writes
            anew; else name an address where nothing is yet
    ");
    assert_eq!(walk(&shell.path("shared")).len(), 0);
}

#[test]
fn what_is_damaged_or_gone_at_the_remote_is_told_of_each_result_by_name() {
    let (shell, shared) = (Shell::new(), "--remote shared");
    shell.write("clips.toml", CLIPS);
    shell.succeed(&format!("run clips.toml --cache one {shared}"));
    let lock = shell.path("one/actions");
    let outputs = walk(&lock).into_iter().map(|file| {
        let record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let record = &record["record"];
        let output = record["output"].as_str().unwrap().to_owned();
        (record["ingredients"]["kind"].as_str().unwrap().to_owned(), output)
    });
    let outputs: Vec<_> = outputs.collect();
    let object = |output: &str| shell.path("shared/objects").join(&output[..2]).join(&output[2..]);
    let (_, pairs) = outputs.iter().find(|(kind, _)| kind == "dataset").unwrap();
    std::fs::write(object(pairs), "damaged").unwrap();
    for (_, clips) in outputs.iter().filter(|(kind, _)| kind == "interpolate") {
        std::fs::remove_file(object(clips)).unwrap();
    }
    let pull = shell.transcript(&format!("cache pull clips.toml --cache two {shared}"));
    let pull = pull.replace(&shell.dir.path().display().to_string(), "[HOME]");
    insta::assert_snapshot!(pull, @r"
    $ pipe cache pull clips.toml --cache two --remote shared
    ? 3
    --- stdout
    fetched 0 results, [SIZE]; 0 there already
    --- stderr
    left out: pairs: 1 file is damaged
      × 1 result is not whole in `file://[HOME]/shared/`
      help: `pipe run` with this remote computes again what is not whole, and replaces it there
    ");
    let all = shell.transcript(&format!("cache pull --all --dry-run --cache two {shared}"));
    assert!(all.contains("? 3") && all.contains("3 results are not whole"), "{all}");
    let run = shell.transcript(&format!("run clips.toml --cache two {shared}"));
    assert_eq!(run.matches("is computed anew").count(), 3, "{run}");
    assert!(run.contains("`pairs` is computed anew"), "{run}");
    assert!(run.contains("sent 3 results"), "{run}");
    let pull = shell.transcript(&format!("cache pull clips.toml --cache three {shared}"));
    assert!(pull.contains("? 0") && pull.contains("fetched 3 results"), "{pull}");
}
