//! Downloads from a hub on this machine that speaks the hub's protocol and fails as real ones do.

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pipe::models::{
    ModelSource,
    hub::{FetchError, Hub, Name, fetch, snapshot},
};

use crate::hub_server::{COMMIT, FakeHub, Fault, sha256};

const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

fn small(token: Option<&str>) -> FakeHub {
    let mut files: BTreeMap<String, Vec<u8>> =
        ["transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json"]
            .map(|file| (file.to_owned(), b"{}".to_vec()))
            .into();
    files.insert(VAE.to_owned(), (0..100_000_u32).flat_map(u32::to_le_bytes).collect());
    files.insert("README.md".to_owned(), b"no part of it".to_vec());
    FakeHub::new(files, token)
}

/// Downloads the VAE of a name into a cache.
fn get(
    hub: &FakeHub,
    cache: &Path,
    name: &str,
    token: Option<&str>,
) -> Result<PathBuf, FetchError> {
    let client = Hub::new(&hub.endpoint, token.map(str::to_owned));
    let client = client.with_pause(Duration::from_millis(2));
    let name = Name::parse(name).unwrap();
    fetch(&client, cache, &name, &["vae"], &mut |_| ControlFlow::Continue(()))
}

fn error(result: Result<PathBuf, FetchError>) -> String {
    match result.unwrap_err() {
        FetchError::Load(error) => format!("{error}\n{}", error.help().unwrap_or_default()),
        FetchError::Stopped => "stopped".to_owned(),
    }
}

fn redacted(text: &str, hub: &FakeHub) -> String {
    text.replace(&hub.endpoint, "[HUB]")
}

/// All files in a repository's folder that hold bytes, by path.
fn content(cache: &Path) -> Vec<String> {
    fn walk(root: &Path, at: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(at).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    let root = cache.join("models--org--tiny");
    walk(&root, &root, &mut found);
    found.sort();
    found
}

#[test]
fn what_a_part_needs_is_fetched_once_into_the_layout_of_the_shared_cache() {
    let (hub, cache) = (small(None), tempfile::tempdir().unwrap());
    let folder = get(&hub, cache.path(), "org/tiny", None).unwrap();
    assert_eq!(folder, cache.path().join("models--org--tiny/snapshots").join(COMMIT));
    let name = Name::parse("org/tiny").unwrap();
    assert_eq!(snapshot(&name, cache.path()).unwrap(), folder, "the branch leads to the commit");
    assert!(ModelSource::Folder(folder.clone()).has(VAE));
    assert!(!folder.join("README.md").exists());
    let link = fs::read_link(folder.join(VAE)).unwrap();
    let bytes = fs::read(folder.join(VAE)).unwrap();
    assert_eq!(link, Path::new("../../../blobs").join(sha256(&bytes)));
    // Equal files are kept once.
    assert_eq!(content(cache.path()).iter().filter(|file| file.starts_with("blobs/")).count(), 2);
    assert_eq!(hub.requests().len(), 1 + 1 + 2, "the list, one `{{}}`, and a file on another host");

    get(&hub, cache.path(), "org/tiny@refs/pr/1", None).unwrap();
    get(&hub, cache.path(), &format!("org/tiny@{COMMIT}"), None).unwrap();
    assert_eq!(hub.requests().len(), 2, "only lists: the content is here");
}

/// The repository of [`small`] with other weights of the VAE.
fn with_weights(weights: &[(&str, &str)]) -> FakeHub {
    let settings =
        ["transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json"];
    let files = settings.map(|file| (file, "{}"));
    let files = files.iter().chain(weights);
    FakeHub::new(files.map(|(file, text)| ((*file).to_owned(), (*text).into())).collect(), None)
}

const INDEX: &str = "vae/diffusion_pytorch_model.safetensors.index.json";
const TWO: &str = r#"{"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}"#;

#[test]
fn what_the_list_shows_is_told_before_anything_is_fetched() {
    let told = |hub: &FakeHub| {
        let cache = tempfile::tempdir().unwrap();
        // As an earlier version left it.
        let refs = cache.path().join("models--org--tiny/refs");
        fs::create_dir_all(&refs).unwrap();
        fs::write(refs.join("main"), COMMIT).unwrap();
        let message = error(get(hub, cache.path(), "org/tiny", None));
        assert_eq!((content(cache.path()), hub.requests().len()), (vec!["refs/main".into()], 1));
        message
    };
    let single = [("model.safetensors".to_owned(), b"x".to_vec())];
    insta::assert_snapshot!(told(&FakeHub::new(single.into(), None)), @"
    the repository `org/tiny` is not in diffusers' layout: `transformer/config.json` is missing
    take another repository or revision, or name a local folder in diffusers' layout
    ");
    let pickled = with_weights(&[("vae/diffusion_pytorch_model.bin", "x")]);
    insta::assert_snapshot!(told(&pickled), @"
    `vae/diffusion_pytorch_model.bin` of the repository `org/tiny` is a pickle file, which can run code when it is read
    take a revision that has `vae/diffusion_pytorch_model.safetensors`, or name a local folder in diffusers' layout that does
    ");
    let mirror = small(None);
    mirror.bare();
    insta::assert_snapshot!(told(&mirror), @"
    the hub's list of the files of `org/tiny` states no size and hash of `scheduler/scheduler_config.json`, so what arrives cannot be checked
    set `HF_ENDPOINT` to a hub that states them, such as `https://huggingface.co`, or name a local folder in diffusers' layout
    ");
}

#[test]
fn a_shard_that_is_absent_is_told_before_the_others_are_fetched() {
    let cache = tempfile::tempdir().unwrap();
    let hub = with_weights(&[(INDEX, TWO), ("vae/x-1.safetensors", "a")]);
    insta::assert_snapshot!(error(get(&hub, cache.path(), "org/tiny", None)), @"
    `vae/diffusion_pytorch_model.safetensors.index.json` of the repository `org/tiny` names the shard `vae/x-2.safetensors`, which is not in the repository
    take another repository or revision, or name a local folder in diffusers' layout
    ");
    assert!(!hub.requests().iter().any(|request| request.contains("x-1")));
    assert!(
        snapshot(&Name::parse("org/tiny").unwrap(), cache.path()).is_err(),
        "no branch leads there"
    );
    // What they are called does not matter.
    let shards = [(INDEX, TWO), ("vae/x-1.safetensors", "a"), ("vae/x-2.safetensors", "b")];
    let (hub, cache) = (with_weights(&shards), tempfile::tempdir().unwrap());
    let folder = get(&hub, cache.path(), "org/tiny", None).unwrap();
    assert_eq!(fs::read(folder.join("vae/x-2.safetensors")).unwrap(), b"b");
}

#[test]
fn a_cut_connection_goes_on_where_it_broke() {
    let (hub, cache) = (small(None), tempfile::tempdir().unwrap());
    // The first answer is a configuration's.
    hub.faults(&[Fault::Cut(1), Fault::Cut(1), Fault::Busy, Fault::Cut(1000), Fault::NoRange]);
    let folder = get(&hub, cache.path(), "org/tiny", None).unwrap();
    assert_eq!(fs::read(folder.join(VAE)).unwrap().len(), 400_000);
    assert_eq!(fs::read(folder.join("vae/config.json")).unwrap(), b"{}");
    let ranges: Vec<_> =
        hub.requests().into_iter().filter(|request| request.starts_with("/files/")).collect();
    assert!(ranges.iter().any(|request| request.ends_with("bytes=1000-")), "{ranges:?}");
}

#[test]
fn a_hub_that_asks_for_a_wait_gets_it() {
    let (hub, cache) = (small(None), tempfile::tempdir().unwrap());
    hub.faults(&[Fault::Rest(1)]);
    let start = std::time::Instant::now();
    get(&hub, cache.path(), "org/tiny", None).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_download_that_was_stopped_is_taken_up_by_the_next() {
    let (hub, cache) = (small(None), tempfile::tempdir().unwrap());
    let client = Hub::new(&hub.endpoint, None);
    let name = Name::parse("org/tiny").unwrap();
    let stopped = fetch(&client, cache.path(), &name, &["vae"], &mut |progress| {
        assert!(progress.done <= progress.total && progress.total > 400_000);
        if progress.done > 100_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(FetchError::Stopped)));
    assert!(snapshot(&name, cache.path()).is_err(), "no branch leads to half a commit");
    let partial: Vec<_> =
        content(cache.path()).into_iter().filter(|file| file.ends_with(".incomplete")).collect();
    assert_eq!(partial.len(), 1);
    hub.requests();
    get(&hub, cache.path(), "org/tiny", None).unwrap();
    assert!(hub.requests().iter().any(|request| request.contains(" bytes=")), "not from the start");
    assert!(!content(cache.path()).iter().any(|file| file.ends_with(".incomplete")));
}

#[test]
fn wrong_content_is_never_kept() {
    let (hub, cache) = (small(None), tempfile::tempdir().unwrap());
    let hash = sha256(&(0..100_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    get(&hub, cache.path(), "org/tiny", None).unwrap();
    let blob = cache.path().join("models--org--tiny/blobs").join(&hash);
    fs::remove_file(&blob).unwrap();
    hub.faults(&[Fault::Wrong]);
    let message = error(get(&hub, cache.path(), "org/tiny", None));
    assert!(message.contains("another content than the hub states"), "{message}");
    assert!(message.contains(&hash), "{message}");
    assert!(!content(cache.path()).iter().any(|file| file.contains(&hash)));

    // A partial file that the machine damaged is thrown away, and the file fetched anew.
    fs::write(blob.with_extension("incomplete"), [7; 1000]).unwrap();
    let folder = get(&hub, cache.path(), "org/tiny", None).unwrap();
    assert_eq!(sha256(&fs::read(folder.join(VAE)).unwrap()), hash);
}

/// As a crash of another program may leave it.
#[test]
fn a_damaged_file_that_nothing_led_to_is_fetched_anew() {
    let (hub, cache) = (small(None), tempfile::tempdir().unwrap());
    let whole = fs::read(get(&hub, cache.path(), "org/tiny", None).unwrap().join(VAE)).unwrap();
    let repo = cache.path().join("models--org--tiny");
    let blob = repo.join("blobs").join(sha256(&whole));
    fs::write(&blob, vec![0; whole.len()]).unwrap();
    fs::remove_dir_all(repo.join("snapshots")).unwrap();
    let folder = get(&hub, cache.path(), "org/tiny", None).unwrap();
    assert!(fs::read(folder.join(VAE)).unwrap() == whole);
}

#[test]
fn refusals_say_what_to_do() {
    let (hub, cache) = (small(Some("secret")), tempfile::tempdir().unwrap());
    let refused = |name: &str, token| {
        let message = error(get(&hub, cache.path(), name, token));
        redacted(&message, &hub)
    };
    insta::assert_snapshot!(refused("org/tiny", None), @"
    `[HUB]` has no repository `org/tiny` for you (401)
    check the name; if it is private, set `HF_TOKEN` to a token that may read it
    ");
    insta::assert_snapshot!(refused("org/tiny", Some("wrong")), @"
    `[HUB]` has no repository `org/tiny` for you (401)
    check the name, and that the token may read it
    ");
    insta::assert_snapshot!(refused("org/tiny@v9", Some("secret")), @"
    the repository `org/tiny` has no revision `v9`
    see its branches at [HUB]/org/tiny/tree/main
    ");
    insta::assert_snapshot!(refused("org/other", Some("secret")), @"
    `[HUB]` has no repository `org/other` for you (404)
    check the name, and that the token may read it
    ");
    assert!(content(cache.path()).is_empty());
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_where_files_lie() {
    let (hub, cache) = (small(Some("secret")), tempfile::tempdir().unwrap());
    get(&hub, cache.path(), "org/tiny", Some("secret\n")).unwrap();
    for request in hub.requests() {
        assert_eq!(request.ends_with(" with token"), !request.starts_with("/files/"), "{request}");
    }
}

#[test]
fn a_hub_that_is_not_there_is_asked_a_few_times() {
    let cache = tempfile::tempdir().unwrap();
    let mut hub = small(None);
    // A port that nobody listens on.
    hub.endpoint = "http://127.0.0.1:9".to_owned();
    let message = error(get(&hub, cache.path(), "org/tiny", None));
    assert!(
        message.contains("failed 6 times: `http://127.0.0.1:9` cannot be reached"),
        "{message}"
    );
    assert!(message.contains("local folder"), "{message}");
    assert!(content(cache.path()).is_empty());
}

/// An address of the hub itself.
const BACK: &str =
    "/org/tiny/resolve/0123456789abcdef0123456789abcdef01234567/transformer/config.json";

#[test]
fn a_redirect_to_what_is_no_address_of_the_web_is_refused() {
    for (to, shown) in [
        ("file:///etc/passwd", "`file:///etc/passwd`"),
        ("data:,x", "`data:,x`"),
        ("ftp://127.0.0.1/x", "`ftp://127.0.0.1/x`"),
        ("http://", "`http://`"),
        ("", "``"),
    ] {
        let (hub, cache) = (small(None), tempfile::tempdir().unwrap());
        hub.faults(&[Fault::Redirect(to)]);
        let message = error(get(&hub, cache.path(), "org/tiny", None));
        let wanted = format!("`[HUB]` redirects to an address that cannot be used: {shown}");
        assert!(redacted(&message, &hub).starts_with(&wanted), "{message}");
        assert!(message.contains("local folder"), "{message}");
    }
    let (hub, cache) = (small(None), tempfile::tempdir().unwrap());
    hub.faults(&[Fault::Redirect(BACK); 20]);
    let message = error(get(&hub, cache.path(), "org/tiny", None));
    assert!(message.contains("redirects without an end"), "{message}");
    // One that leads back is followed.
    hub.requests();
    let (hub, cache) = (small(None), tempfile::tempdir().unwrap());
    hub.faults(&[Fault::Redirect(BACK)]);
    get(&hub, cache.path(), "org/tiny", None).unwrap();
}

#[test]
fn an_address_of_a_hub_that_is_none_is_told_at_once() {
    let cache = tempfile::tempdir().unwrap();
    let mut hub = small(None);
    for bad in ["huggingface.co", "file:///srv/hub", ""] {
        hub.endpoint = bad.to_owned();
        let message = error(get(&hub, cache.path(), "org/tiny", None));
        assert!(message.contains("is not the address of a hub\nset `HF_ENDPOINT`"), "{message}");
    }
}

#[test]
fn a_list_of_files_that_drips_is_given_up() {
    let (hub, cache) = (small(None), tempfile::tempdir().unwrap());
    hub.drip();
    let client = Hub::new(&hub.endpoint, None).with_listing_time(Duration::from_millis(500));
    let name = Name::parse("org/tiny").unwrap();
    let start = Instant::now();
    let got = fetch(&client, cache.path(), &name, &["vae"], &mut |_| ControlFlow::Continue(()));
    let message = redacted(&error(got), &hub);
    assert!(
        message.starts_with("`[HUB]` takes more than 0.5 s to list the files of `org/tiny`"),
        "{message}"
    );
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(hub.requests().len(), 1, "it is not asked again");
}

#[test]
fn who_waits_for_the_network_can_stop() {
    let stopped = |hub: &FakeHub, pause| {
        let (cache, start) = (tempfile::tempdir().unwrap(), Instant::now());
        let client = Hub::new(&hub.endpoint, None).with_pause(pause);
        let client = client.with_stop(move || start.elapsed() > Duration::from_millis(300));
        let name = Name::parse("org/tiny").unwrap();
        let got = fetch(&client, cache.path(), &name, &["vae"], &mut |_| ControlFlow::Continue(()));
        assert!(matches!(got, Err(FetchError::Stopped)));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    };
    let short = Duration::from_millis(2);
    let dripping = small(None);
    dripping.drip();
    stopped(&dripping, short);
    let stalling = small(None);
    stalling.faults(&[Fault::Stall(1)]);
    stopped(&stalling, short);
    let busy = small(None);
    busy.faults(&[Fault::Busy]);
    stopped(&busy, Duration::from_mins(5));
}
