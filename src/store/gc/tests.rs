use serde_json::json;

use super::{needed::UNFINISHED, *};
use crate::{
    artifact::{ArtifactKind, Item, Manifest},
    store::{FORMAT_VERSION, Ingredients, ItemRecord, Owner, Pinner},
};

struct Cache {
    dir: tempfile::TempDir,
    store: Store,
}

impl Cache {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        Self { dir, store }
    }

    /// A result with one file of this content.
    fn result(&self, name: &str, content: &[u8]) -> Fingerprint {
        self.training(name, content, None)
    }

    fn training(&self, name: &str, content: &[u8], end: Option<(Fingerprint, u64)>) -> Fingerprint {
        let files = [("file".to_owned(), self.store.put(content).unwrap())].into();
        let manifest = Manifest {
            kind: ArtifactKind::Files,
            format_version: 1,
            items: vec![Item { name: "item".into(), files }],
        };
        let key = Fingerprint::of(name.as_bytes());
        let ingredients = json!({
            "kind": "toy", "version": 1, "output_format": 1, "params": {}, "inputs": {},
            "weights": null, "sources": {},
        });
        let record = Record {
            format_version: FORMAT_VERSION,
            fingerprint: key,
            output: self.store.put_manifest(&manifest).unwrap(),
            files: Record::few_files(&manifest),
            ingredients: serde_json::from_value::<Ingredients>(ingredients).unwrap(),
            trajectory: end.map(|(trajectory, _)| trajectory),
            reached: end.map(|(_, step)| step),
            traced: None,
            source_root: None,
            started: "2026-01-01T00:00:00Z".into(),
            wall_secs: 1.0,
            cpu_secs: 1.0,
            device_secs: None,
            peak_memory: None,
            went_on_from: None,
            model: None,
            device: "cpu".into(),
            card: None,
            pipe_version: "0".into(),
            items_run: 1,
            items_total: 1,
        };
        self.store.commit(&record).unwrap();
        key
    }

    /// Says that a pipeline has these instances now, and was last run some hours ago.
    fn run(&self, file: &str, instances: &[(&str, Fingerprint)], hours: u64) {
        let owner = Owner::new(Path::new(file), None, file);
        let mut history = self.store.history(&owner).unwrap();
        for (name, key) in instances {
            history.note(name, *key).unwrap();
        }
        history.ran(&instances.iter().map(|(name, _)| (*name).to_owned()).collect()).unwrap();
        let hours = crate::store::now() - Duration::from_hours(hours);
        let root = self.store.roots().unwrap().into_iter().find(|root| root.is_of(Path::new(file)));
        let mut root = root.unwrap();
        root.used = hours;
        self.store.compact(&root, &self.all()).unwrap();
    }

    fn all(&self) -> HashSet<Fingerprint> {
        let files = files_below(&self.dir.path().join("actions")).unwrap();
        files.iter().filter_map(|(path, _)| hash_of(path)).collect()
    }

    /// Makes a record old.
    fn age(&self, key: Fingerprint, hours: u64) {
        let path = self.store.sharded("actions", &key.to_string());
        let time = crate::store::now() - Duration::from_hours(hours);
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    fn pin(&self, key: Fingerprint) {
        let by = Pinner {
            owner: Owner::new(Path::new("toy"), None, "toy"),
            set: Vec::new(),
            stage: None,
            instance: "lora".into(),
        };
        self.store.pin(key, &by).unwrap();
    }

    fn checkpoint(&self, trajectory: Fingerprint, name: &str) -> PathBuf {
        let path = self.store.checkpoints(trajectory).unwrap().path().join(name);
        fs::write(&path, "state").unwrap();
        path
    }

    fn gc(&self, change: impl FnOnce(&mut GcPolicy)) -> GcReport {
        let mut policy = GcPolicy::default();
        change(&mut policy);
        self.store.gc(&policy, &|| false).unwrap()
    }
}

fn names(report: &GcReport) -> Vec<&str> {
    report.results.iter().map(|removed| removed.name.as_deref().unwrap_or("?")).collect()
}

#[test]
fn gc_waits_for_no_run_but_says_so() {
    let cache = Cache::new();
    let orphan = cache.store.put(b"orphan").unwrap();
    let run = cache.store.in_use(&|| false).unwrap();
    assert!(matches!(
        cache.store.gc(&GcPolicy::default(), &|| false),
        Err(StoreError::Busy { .. })
    ));
    drop(run);
    let dry = cache.gc(|policy| policy.dry_run = true);
    assert_eq!(dry.removed["objects"], Count { files: 1, bytes: 6 });
    assert!(cache.store.read(&orphan).is_ok());
    assert_eq!(cache.gc(|_| {}), dry);
    assert!(cache.store.read(&orphan).is_err());
}

#[test]
fn what_a_pipeline_no_longer_has_is_removed_by_name() {
    let cache = Cache::new();
    let (one, three) = (cache.result("1", b"one"), cache.result("3", b"three"));
    let before = cache.result("before", b"three");
    cache.run("a", &[("lora[n=1]", before), ("lora[n=3]", three)], 1);
    cache.run("a", &[("lora[n=1]", one)], 0);
    let report = cache.gc(|_| {});
    assert_eq!(names(&report), ["a: lora[n=1]", "a: lora[n=3]"]);
    // Both had the same content, which is counted once.
    assert_eq!(report.results.iter().filter(|removed| removed.bytes == 0).count(), 1);
    assert_eq!(cache.all(), [one].into());
    assert_eq!(cache.gc(|_| {}).results, []);
}

#[test]
fn only_the_pipelines_named_count() {
    let cache = Cache::new();
    let (a, b) = (cache.result("a", b"a"), cache.result("b", b"b"));
    cache.run("a", &[("lora", a)], 0);
    cache.run("b", &[("lora", b)], 0);
    let extra = cache.result("extra", b"extra");
    let report = cache.gc(|policy| {
        policy.files = Some(vec!["a".into()]);
        policy.keep.push(extra);
    });
    assert_eq!(names(&report), ["b: lora"]);
    assert_eq!(cache.all(), [a, extra].into());
    let owners: Vec<_> = cache.store.roots().unwrap().into_iter().map(|root| root.owner).collect();
    assert_eq!(owners.len(), 1, "the history of `b` names nothing any more");
}

#[test]
fn a_pin_and_youth_protect() {
    let cache = Cache::new();
    let [old, young, pinned] = ["old", "young", "pinned"].map(|n| cache.result(n, n.as_bytes()));
    cache.age(old, 48);
    cache.age(pinned, 48);
    cache.pin(pinned);
    let day = Duration::from_hours(24);
    let report = cache.gc(|policy| policy.min_age = Some(day));
    assert_eq!((report.results.len(), report.pinned), (1, 1));
    assert_eq!(cache.all(), [young, pinned].into());
    cache.gc(|_| {});
    assert_eq!(cache.all(), [pinned].into());
}

#[test]
fn what_a_clock_that_jumped_wrote_is_young() {
    let cache = Cache::new();
    let [old, ahead] = ["old", "ahead"].map(|name| cache.result(name, name.as_bytes()));
    let unfinished = cache.checkpoint(Fingerprint::of(b"ahead"), "rolling-00000100-aa.safetensors");
    cache.age(old, 48);
    let day = Duration::from_hours(24);
    let in_a_year = crate::store::now() + 365 * day;
    for path in [cache.store.sharded("actions", &ahead.to_string()), unfinished.clone()] {
        fs::File::options().write(true).open(path).unwrap().set_modified(in_a_year).unwrap();
    }
    let report = cache.gc(|policy| policy.min_age = Some(day));
    assert_eq!(report.results.len(), 1);
    assert_eq!(cache.all(), [ahead].into());
    assert_eq!(report.unfinished, 1);
    assert!(unfinished.exists());
}

#[test]
fn results_are_given_up_until_the_rest_fits() {
    let cache = Cache::new();
    let result = |name: &str, size: usize| cache.result(name, &vec![name.as_bytes()[0]; size]);
    let (stale, small) = (result("stale", 4000), result("c", 500));
    let (large, pinned) = (result("large", 8000), result("pinned", 2000));
    for key in [stale, small, large, pinned] {
        cache.age(key, 100);
    }
    cache.run("old", &[("x", stale)], 50);
    cache.run("new", &[("x", small), ("y", large)], 1);
    cache.pin(pinned);
    assert_eq!(cache.gc(|policy| policy.max_bytes = Some(100_000)).results, []);
    let report = cache.gc(|policy| policy.max_bytes = Some(12_000));
    assert_eq!(names(&report), ["old: x"]);
    let report = cache.gc(|policy| policy.max_bytes = Some(4_000));
    assert_eq!(names(&report), ["new: y"], "of equally old ones, the largest");
    cache.gc(|policy| policy.max_bytes = Some(0));
    assert_eq!(cache.all(), [pinned].into());
}

#[test]
fn gc_removes_no_file_of_another_shape() {
    let cache = Cache::new();
    cache.store.put(b"orphan").unwrap();
    let foreign = ["objects/teapot.obj", "objects/ab/notes", "tmp/draft", "checkpoints/best.pt"];
    for name in foreign {
        let path = cache.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "mine").unwrap();
    }
    fs::write(cache.dir.path().join("tmp/.tmpAb3dEf"), "cut short").unwrap();
    let report = cache.gc(|_| {});
    assert_eq!(report.removed["objects"].files, 1);
    assert_eq!(report.removed["tmp"].files, 1);
    assert_eq!(report.removed["checkpoints"].files, 0);
    for name in foreign {
        assert_eq!(fs::read_to_string(cache.dir.path().join(name)).unwrap(), "mine", "{name}");
    }
}

#[test]
fn checkpoints_stay_for_kept_and_for_unfinished_trainings() {
    let cache = Cache::new();
    let key = |name: &[u8]| Fingerprint::of(name);
    let kept = cache.training("kept", b"kept", Some((key(b"long"), 1000)));
    cache.run("a", &[("lora", kept)], 0);
    let end = cache.checkpoint(key(b"long"), "final-00001000-aa.safetensors");
    let shorter = cache.checkpoint(key(b"long"), "final-00000500-aa.safetensors");
    let killed = cache.checkpoint(key(b"killed"), "rolling-00000100-aa.safetensors");
    let ended = cache.checkpoint(key(b"ended"), "final-00000100-aa.safetensors");
    let forgotten = cache.checkpoint(key(b"forgotten"), "rolling-00000100-aa.safetensors");
    let long_ago = crate::store::now() - 2 * UNFINISHED;
    fs::File::options().write(true).open(&forgotten).unwrap().set_modified(long_ago).unwrap();
    let report = cache.gc(|_| {});
    assert_eq!((report.removed["checkpoints"].files, report.unfinished), (3, 1));
    assert!(end.exists() && killed.exists());
    assert!(!shorter.exists() && !ended.exists() && !forgotten.exists());
    assert!(!forgotten.parent().unwrap().exists(), "an empty folder goes too");
    cache.gc(|policy| policy.drop_checkpoints = true);
    assert!(!end.exists() && killed.exists());
    cache.gc(|policy| policy.drop_unfinished = true);
    assert!(!killed.exists());
}

#[test]
fn what_a_killed_training_had_half_written_goes() {
    let cache = Cache::new();
    let trajectory = Fingerprint::of(b"long");
    let kept = cache.training("kept", b"kept", Some((trajectory, 1000)));
    cache.run("a", &[("lora", kept)], 0);
    let end = cache.checkpoint(trajectory, "final-00001000-aa.safetensors");
    let cut = cache.checkpoint(trajectory, ".tmpAb3dEf");
    fs::write(&cut, "a state, but not all of it").unwrap();
    assert_eq!(cache.store.checkpoint_size(trajectory).unwrap(), "state".len() as u64);
    assert_eq!(cache.gc(|_| {}).removed["checkpoints"].files, 1);
    assert!(end.exists() && !cut.exists());
}

#[test]
fn items_stay_for_unfinished_stages_and_go_with_results() {
    let cache = Cache::new();
    let item = |name: &str, content: &[u8]| {
        let (key, file) = (Fingerprint::of(name.as_bytes()), cache.store.put(content).unwrap());
        cache.store.commit_item(key, [("file".into(), file)].into()).unwrap();
        cache.store.sharded("items", &key.to_string())
    };
    let kept = cache.result("kept", b"kept");
    cache.run("a", &[("clips", kept)], 0);
    cache.result("left", b"left");
    let [kept, left] = [item("kept", b"kept"), item("left", b"left")];
    let [stopped, forgotten] = [item("stopped", b"stopped"), item("forgotten", b"forgotten")];
    let long_ago = crate::store::now() - 2 * UNFINISHED;
    fs::File::options().write(true).open(&forgotten).unwrap().set_modified(long_ago).unwrap();
    let report = cache.gc(|_| {});
    assert_eq!(report.unfinished_items, Count { files: 1, bytes: 7 });
    assert_eq!(report.removed["items"].files, 2);
    assert!(kept.exists() && stopped.exists());
    assert!(!left.exists() && !forgotten.exists());
    let key = Fingerprint::of(b"stopped");
    assert!(cache.store.lookup_item(key).unwrap().is_some(), "its file is kept, too");
    let report = cache.gc(|policy| policy.drop_unfinished = true);
    assert_eq!((report.removed["items"].files, report.unfinished_items.files), (1, 0));
    assert!(kept.exists() && !stopped.exists());
}

#[test]
fn records_of_items_that_nobody_believes_are_removed() {
    let cache = Cache::new();
    let key = Fingerprint::of(b"clip");
    let record = ItemRecord { format_version: 2, key: None, files: BTreeMap::new() };
    let path = cache.store.sharded("items", &key.to_string());
    cache.store.write_json(&path, &record).unwrap();
    assert_eq!(cache.gc(|_| {}).removed["items"].files, 1);
    assert!(!path.exists());
}

#[test]
fn pictures_go_with_the_results_they_show() {
    let cache = Cache::new();
    let [kept, left] = ["kept", "left"].map(|name| cache.result(name, name.as_bytes()));
    cache.run("a.toml", &[("answers", kept)], 1);
    let [folder, other] = ["pictures/a", "pictures/b"].map(|name| cache.dir.path().join(name));
    let picture = |key, rest: &str| {
        let output = cache.store.lookup(key).unwrap().found().unwrap().output.short();
        folder.join(format!("answers-n=1-{output}-{rest}.png"))
    };
    let (all, own) = ("0123456789ab", "0123456789ab-ba9876543210");
    let kept = [
        picture(kept, own),
        // As older versions called them; the last may be of any answers of this file.
        picture(kept, all),
        folder.join(format!("answers-n=1-{all}.png")),
        // Not ours.
        folder.join("mine.png"),
    ];
    let left = [
        picture(left, own),
        picture(left, all),
        folder.join(format!("answer-n=1-{all}.png")),
        other.join(format!("answers-n=1-{all}.png")),
    ];
    for picture in kept.iter().chain(&left) {
        fs::create_dir_all(picture.parent().unwrap()).unwrap();
        fs::write(picture, "png").unwrap();
    }
    assert_eq!(cache.gc(|_| {}).removed["pictures"].files, 4);
    assert!(kept.iter().all(|picture| picture.exists()));
    assert!(!left.iter().any(|picture| picture.exists()));
    assert!(!other.exists());
    assert_eq!(cache.gc(|policy| policy.files = Some(Vec::new())).removed["pictures"].files, 3);
}
