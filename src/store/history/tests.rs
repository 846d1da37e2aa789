//! Histories that are written, read, damaged and shortened.

use std::{io::Write as _, time::Duration};

use super::*;

fn owner(file: &str, profile: Option<&str>) -> Owner {
    Owner::new(Path::new(file), profile, "toy")
}

fn key(text: &str) -> Fingerprint {
    Fingerprint::of(text.as_bytes())
}

#[test]
fn the_last_line_wins_and_a_torn_one_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut history = store.history(&owner("a.toml", None)).unwrap();
    history.note("lora[n=1]", key("1")).unwrap();
    history.note("lora[n=1]", key("2")).unwrap();
    history.note("lora[n=3]", key("3")).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&history.file.path).unwrap();
    file.write_all(b"0123 \"lor").unwrap();
    let history = store.history(&owner("a.toml", None)).unwrap();
    assert_eq!(history.of("lora[n=1]"), Some(key("2")));
    assert_eq!(history.before("lora[n=1]"), [key("1")]);
    assert_eq!(history.before("lora[n=3]"), []);
    assert_eq!(history.of_stage("lora").count(), 2);
    assert_eq!(history.of_stage("lor").count(), 0);
    let [root] = &store.roots().unwrap()[..] else { panic!() };
    assert_eq!(root.live.len(), 2);
    assert_eq!(root.name_of(key("1")).unwrap(), "toy: lora[n=1]");
}

#[test]
fn a_damaged_file_is_known_and_written_anew_by_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let owner = owner("a.toml", None);
    let mut history = store.history(&owner).unwrap();
    let instances = ["lora[n=1]", "lora[n=3]"];
    for instance in instances {
        history.note(instance, key(instance)).unwrap();
    }
    let (path, whole) = (history.file.path.clone(), fs::read(&history.file.path).unwrap());
    assert!(!store.roots().unwrap()[0].is_damaged);
    let cut = |from: usize, to: usize| [&whole[..from], &whole[to..]].concat();
    for damage in [Vec::new(), b"{}\n".to_vec(), b"\0\x01".to_vec(), cut(5, 9), cut(150, 190)] {
        fs::write(&path, damage).unwrap();
        assert!(store.roots().unwrap()[0].is_damaged);
        let mut history = store.history(&owner).unwrap();
        for instance in instances {
            history.note(instance, key(instance)).unwrap();
        }
        history.ran(&instances.map(str::to_owned).into()).unwrap();
        let [root] = &store.roots().unwrap()[..] else { panic!() };
        assert!(!root.is_damaged);
        assert_eq!((root.owner.clone(), root.live.len()), (Some(owner.clone()), 2));
    }
}

#[test]
fn files_and_profiles_of_one_name_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let owners = [owner("a.toml", None), owner("a.toml", Some("paper")), owner("b.toml", None)];
    for owner in &owners {
        let key = key(&owner.file_name());
        store.history(owner).unwrap().note("lora", key).unwrap();
    }
    for owner in &owners {
        let found = store.history(owner).unwrap().of("lora");
        assert_eq!(found, Some(key(&owner.file_name())));
    }
    let roots = store.roots().unwrap();
    assert_eq!(roots.len(), 3);
    assert_eq!(roots.iter().filter(|root| root.is_of(Path::new("a.toml"))).count(), 2);
}

#[test]
fn an_instance_that_is_gone_explains_but_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let owner = owner("a.toml", None);
    let mut history = store.history(&owner).unwrap();
    history.note("lora[n=1]", key("1")).unwrap();
    history.note("lora[n=3]", key("3")).unwrap();
    history.ran(&["lora[n=1]".to_owned()].into()).unwrap();
    let mut history = store.history(&owner).unwrap();
    assert_eq!(history.of("lora[n=3]"), Some(key("3")));
    assert_eq!(store.roots().unwrap()[0].live, [key("1")]);
    // It comes back when the pipeline has it again.
    history.note("lora[n=3]", key("3")).unwrap();
    assert_eq!(store.roots().unwrap()[0].live.len(), 2);
}

#[test]
fn what_an_instance_was_stays_in_order_when_some_of_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let owner = owner("a.toml", None);
    let mut history = store.history(&owner).unwrap();
    for text in ["4", "1", "3", "2"] {
        history.note("lora", key(text)).unwrap();
    }
    assert_eq!(history.before("lora"), ["4", "1", "3"].map(key));
    let root = |store: &Store| store.roots().unwrap().remove(0);
    let kept = ["4", "3", "2"].map(key);
    store.compact(&root(&store), &kept.into()).unwrap();
    let history = store.history(&owner).unwrap();
    assert_eq!(history.before("lora"), ["4", "3"].map(key));
    assert_eq!((history.of("lora"), root(&store).live), (Some(key("2")), vec![key("2")]));
    // Without what it is now, nothing of it counts as that.
    store.compact(&root(&store), &[key("4")].into()).unwrap();
    assert!(root(&store).live.is_empty());
}

#[test]
fn what_an_older_version_wrote_keeps_its_results() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    fs::write(dir.path().join("history/toy"), format!("{} \"lora\"\n", key("1"))).unwrap();
    let [root] = &store.roots().unwrap()[..] else { panic!() };
    assert_eq!((root.owner.clone(), root.live.clone()), (None, vec![key("1")]));
}

/// The owner of a file of this path, in a folder that is another one for each number.
fn elsewhere(number: u8) -> Owner {
    Owner { place: Some(number.to_string()), ..owner("a.toml", None) }
}

#[test]
fn places_of_one_path_do_not_take_their_instances_for_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for round in 0..2 {
        for number in [1, 2] {
            let mut history = store.history(&elsewhere(number)).unwrap();
            let [own, both] = [format!("lora[n={number}]"), "pairs".to_owned()];
            history.note(&own, key(&own)).unwrap();
            history.note(&both, key(&format!("{number}"))).unwrap();
            history.ran(&[own, both].into()).unwrap();
            let live: usize = store.roots().unwrap().iter().map(|root| root.live.len()).sum();
            assert_eq!(live, if round == 0 && number == 1 { 2 } else { 4 });
        }
    }
}

#[test]
fn what_ran_elsewhere_explains_until_something_ran_here() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut first = store.history(&elsewhere(1)).unwrap();
    for (instance, text) in
        [("lora[n=1]", "0"), ("lora[n=1]", "1"), ("lora[n=3]", "3"), ("pairs", "p")]
    {
        first.note(instance, key(text)).unwrap();
    }
    let mut second = store.history(&elsewhere(2)).unwrap();
    assert!(!second.is_empty());
    assert_eq!(
        (second.of("lora[n=1]"), second.before("lora[n=1]")),
        (Some(key("1")), &[key("0")][..])
    );
    assert_eq!(second.of_stage("lora").count(), 2);
    second.note("lora[n=1]", key("2")).unwrap();
    assert_eq!((second.of("lora[n=1]"), second.before("lora[n=1]")), (Some(key("2")), &[][..]));
    assert_eq!(second.of_stage("lora").collect::<Vec<_>>(), [("lora[n=1]", key("2"))]);
    assert_eq!(second.of("pairs"), Some(key("p")));
    second.ran(&["lora[n=1]".to_owned()].into()).unwrap();
    // It keeps nothing here and says nothing of there.
    let live: Vec<_> = store.roots().unwrap().iter().map(|root| root.live.len()).collect();
    assert_eq!((live.iter().sum::<usize>(), live.len()), (4, 2));
}

#[test]
fn a_place_where_nothing_was_run_for_long_keeps_nothing_once_another_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let run = |number: u8, days: u64| {
        let mut history = store.history(&elsewhere(number)).unwrap();
        history.note("lora", key(&number.to_string())).unwrap();
        let time = crate::store::now() - Duration::from_hours(24 * days);
        fs::File::options()
            .append(true)
            .open(&history.file.path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    };
    let live = || {
        let mut live: Vec<_> =
            store.roots().unwrap().into_iter().flat_map(|root| root.live).collect();
        live.sort();
        live
    };
    let keys = |numbers: &[&str]| {
        let mut keys: Vec<_> = numbers.iter().map(|number| key(number)).collect();
        keys.sort();
        keys
    };
    run(1, 300);
    assert_eq!(live(), keys(&["1"]), "however long ago the last run was");
    run(2, 200);
    assert_eq!(live(), keys(&["2"]));
    run(3, 80);
    assert_eq!(live(), keys(&["3"]));
    run(4, 0);
    assert_eq!(live(), keys(&["3", "4"]));
    // What is no more wanted is forgotten, also where another place keeps the same.
    let kept = keys(&["1", "2", "3", "4"]).into_iter().collect();
    for root in store.roots().unwrap() {
        store.compact(&root, &kept).unwrap();
    }
    assert_eq!(store.roots().unwrap().len(), 2);
}

#[test]
fn a_place_whose_clock_jumped_keeps_its_results() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let day = Duration::from_hours(24);
    let now = crate::store::now();
    // The second and the third ran by a clock that was a year ahead.
    for (number, time) in [(1, now - 300 * day), (2, now + 364 * day), (3, now + 365 * day)] {
        let mut history = store.history(&elsewhere(number)).unwrap();
        history.note("lora", key(&number.to_string())).unwrap();
        let file = fs::File::options().append(true).open(&history.file.path).unwrap();
        file.set_modified(time).unwrap();
    }
    let mut live: Vec<_> = store.roots().unwrap().into_iter().flat_map(|root| root.live).collect();
    live.sort();
    let mut wanted = vec![key("2"), key("3")];
    wanted.sort();
    assert_eq!(live, wanted, "the one that is old is superseded, the one that is ahead is not");
}

#[test]
fn a_folder_is_the_same_one_whatever_it_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other, work] = ["one", "other", "work"].map(|name| dir.path().join(name));
    let at = |folder: &Path| {
        fs::rename(folder, &work).unwrap();
        let owner = owner(work.join("a.toml").to_str().unwrap(), None);
        fs::rename(&work, folder).unwrap();
        owner
    };
    for folder in [&one, &other] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("a.toml"), "").unwrap();
    }
    let [first, second] = [&one, &other].map(|folder| at(folder));
    assert_eq!(first.file, second.file);
    assert_ne!(first.place, second.place);
    fs::remove_file(one.join("a.toml")).unwrap();
    fs::write(one.join("a.toml"), "name = \"a\"").unwrap();
    assert_eq!(at(&one), first, "as an editor saves it");
}
