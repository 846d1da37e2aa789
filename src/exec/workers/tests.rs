//! Calls in workers that are shell scripts, which do what no real one does at a word. Real ones are
//! in `tests/it/cli/workers.rs`.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use burn::tensor::Device;

use super::{
    Launch, Slot, SlotContext, Talk, Workers,
    protocol::Task,
    serve::{VERSION, stage},
};
use crate::{
    artifact::{ArtifactKind, Item, Manifest},
    config::{LoadOptions, load, load_with},
    exec::{
        ExecOptions, Executor, Outcome, RunEvent,
        call::{Call, Caller, Made},
        failure::Failure,
        meter::Usage,
    },
    models::ModelCache,
    stages::{CommandGuard, STAGES, StageError},
    store::Store,
};

const TEXT: &str = "[stages.pairs]\nkind = \"dataset\"\nsource = { source = \"builtin:figures\" }\n\
    task = \"pose\"\ncount = 2\nsize = [32, 32]\n\
    [stages.clips]\nkind = \"interpolate\"\ninputs = { pairs = \"pairs\" }\nframes = 5\n\
    [stages.latents]\nkind = \"vae_encode\"\ninputs = { videos = \"clips\" }\nmodel = \"builtin:tiny\"\n\
    [stages.prompt]\nkind = \"text_encode\"\nmodel = \"builtin:tiny\"\n";
const LATENTS: usize = 2;
const PROMPT: usize = 3;

/// A run whose worker is a script; `$DIR` is a folder of its own, `ready` says that it is.
struct Run {
    dir: tempfile::TempDir,
    options: ExecOptions,
    said: Arc<Mutex<Vec<String>>>,
    events: RefCell<Vec<RunEvent>>,
    spent: Mutex<Usage>,
}

impl Run {
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ready = format!("ready() {{ echo '{{\"ready\":{{\"version\":\"{VERSION}\"}}}}'; }}\n");
        let launch = Launch {
            program: "sh".into(),
            args: vec!["-c".into(), format!("{ready}{script}").into()],
            env: vec![("DIR".to_owned(), dir.path().display().to_string())],
            patience: Duration::from_secs(20),
        };
        let slot =
            Slot { name: "toy:0".to_owned(), card_name: None, on_host: true, memory: None, launch };
        let said = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&said);
        let options = ExecOptions {
            slots: vec![slot],
            talk: Talk::to(move |line| heard.lock().unwrap().push(line.to_owned())),
            ..ExecOptions::new(Device::flex(), "toy:0")
        };
        Self { dir, options, said, events: RefCell::default(), spent: Mutex::default() }
    }

    /// Calls a stage, of which the items of the mapped port are `a` and `b`.
    fn call(&self, index: usize) -> Result<Made, StageError> {
        let read = |_: &Path| Ok(TEXT.to_owned());
        let pipeline =
            load_with(STAGES, Path::new("x.toml"), &LoadOptions::default(), &read).unwrap();
        let store = Store::open(&self.dir.path().join("cache")).unwrap();
        let commands = Arc::<CommandGuard>::default();
        let (models, workers) = (ModelCache::default(), Workers::new(1, Arc::clone(&commands)));
        let caller = Caller {
            pipeline: &pipeline,
            store: &store,
            options: &self.options,
            models: &models,
            workers: &workers,
            commands: &commands,
        };
        let item = |name: &str| Item { name: name.to_owned(), files: BTreeMap::new() };
        let videos = Manifest {
            kind: ArtifactKind::Videos,
            format_version: 1,
            items: ["a", "b"].map(item).to_vec(),
        };
        let given = match index {
            LATENTS => [("videos".to_owned(), Arc::new(videos))].into(),
            _ => [].into(),
        };
        let on_event = |event| self.events.borrow_mut().push(event);
        let at = SlotContext { slot: 0, room: None, spent: &self.spent, on_event: &on_event };
        let call = Call {
            index,
            given,
            sources: None,
            trajectory: None,
            weights: None,
            into: &store,
            at: Some(at),
        };
        let cancel = &self.options.cancel;
        caller.call(call, &|_| cancel.cancel(), &mut |_| Ok(()))
    }

    /// What was told of retries.
    fn retries(&self) -> Vec<String> {
        let events = self.events.borrow();
        let reason = |event: &RunEvent| match event {
            RunEvent::StageRetried { stage, device, reason, .. } => {
                let number = regex::Regex::new(r"process \d+").unwrap();
                let reason = number.replace(reason, "process N").into_owned();
                Some(format!("{stage} {device} {reason}"))
            }
            _ => None,
        };
        events.iter().filter_map(reason).collect()
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    fn wrote(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(file)).unwrap()
    }
}

/// What it says once it is called.
const DONE: &str =
    r#"'{"done":{"steps":3,"usage":{"cpu_secs":1.5,"device_secs":null,"peak_memory":7}}}'"#;

#[test]
fn a_worker_is_told_of_a_call_and_says_what_came_of_it() {
    let run = Run::new(&format!(
        "ready; read order; echo \"$order\" > $DIR/order; echo noise; echo log >&2\n\
         echo '{{\"item\":{{\"name\":\"x\",\"files\":{{}}}}}}'; echo {DONE}; read end"
    ));
    let made = run.call(PROMPT).unwrap();
    assert_eq!((made.steps, made.items.len()), (3, 1));
    let spent = *run.spent.lock().unwrap();
    assert_eq!((spent.cpu_secs, spent.peak_memory), (1.5, Some(7)));
    assert!(run.wrote("order").starts_with("{\"call\":{\"number\":1,\"kind\":\"text_encode\""));
    assert!(run.said().contains(&"noise".to_owned()) && run.retries().is_empty());
}

#[test]
fn a_worker_that_dies_is_replaced_once() {
    let first = "[ -e $DIR/second ] || { touch $DIR/second; read order; kill -9 $$; }";
    let run = Run::new(&format!("ready; {first}; read order; echo {DONE}; read end"));
    assert_eq!(run.call(PROMPT).unwrap().steps, 3);
    insta::assert_snapshot!(run.retries().join("\n"), @"prompt toy:0 its worker (process N) was killed by signal 9 (SIGKILL)");
}

#[test]
fn a_worker_whose_device_is_lost_is_replaced() {
    let lost = r#"echo '{"failed":{"panicked":"The device is poisoned\\nCaused by:\\n  an illegal address"}}'"#;
    let first = format!("[ -e $DIR/second ] || {{ touch $DIR/second; {lost}; read end; exit; }}");
    let run = Run::new(&format!("ready; read order; {first}; echo {DONE}; read end"));
    assert_eq!(run.call(PROMPT).unwrap().steps, 3);
    insta::assert_snapshot!(run.retries().join("\n"), @"prompt toy:0 its worker (process N) says that the device is lost to this process: an illegal address");

    let run = Run::new(&format!("ready; read order; {lost}; read end"));
    let failure = Failure::of(&run.call(PROMPT).unwrap_err());
    assert_eq!(failure.outcome, Outcome::Environment, "as without workers");
    assert_eq!(failure.error, "the device is lost to this process: an illegal address");
}

#[test]
fn a_worker_that_dies_twice_fails_the_stage_with_its_last_words() {
    let run = Run::new("ready; read order; echo out of luck >&2; kill -9 $$");
    let failure = Failure::of(&run.call(PROMPT).unwrap_err());
    assert_eq!((failure.outcome, run.retries().len()), (Outcome::Failed, 1));
    insta::assert_snapshot!(failure.error, @r"
    its worker on toy:0 was lost twice: the second one was killed by signal 9 (SIGKILL); the last that it said:
    out of luck
    ");
    // Also before it is ready.
    let run = Run::new("exit 3");
    let error = run.call(PROMPT).unwrap_err();
    assert!(matches!(error, StageError::NoWorker { .. }), "{error:?}");
    let failure = Failure::of(&error);
    assert!(failure.error.ends_with("the second one ended with exit code 3"), "{}", failure.error);
}

#[test]
fn items_that_were_made_before_a_death_are_not_made_again() {
    let item = |name: &str| format!(r#"echo '{{"item":{{"name":"{name}","files":{{}}}}}}'"#);
    let run = Run::new(&format!(
        "ready; read order\n\
         [ -e $DIR/second ] || {{ touch $DIR/second; {}; sleep 0.2; kill -9 $$; }}\n\
         echo \"$order\" > $DIR/order; {}; echo {DONE}; read end",
        item("a"),
        item("b"),
    ));
    let names: Vec<_> = run.call(LATENTS).unwrap().items.into_iter().map(|i| i.name).collect();
    assert_eq!(names, ["a", "b"]);
    let order = run.wrote("order");
    assert!(!order.contains(r#""name":"a""#) && order.contains(r#""name":"b""#), "{order}");
    // All of them, and then it died.
    let run = Run::new(&format!(
        "ready; read order; echo >> $DIR/calls; {}; {}; sleep 0.2; kill -9 $$",
        item("a"),
        item("b"),
    ));
    assert_eq!(run.call(LATENTS).unwrap().items.len(), 2);
    assert_eq!(run.wrote("calls"), "\n");
}

#[test]
fn what_a_stage_says_is_no_death() {
    let run = Run::new(
        "ready; read order; echo '{\"failed\":{\"failed\":{\"message\":\"no\",\"item\":\"a\",\"help\":null}}}'; \
         read end",
    );
    let failure = Failure::of(&run.call(PROMPT).unwrap_err());
    assert_eq!((failure.error.as_str(), failure.item.as_deref()), ("no", Some("a")));
    assert!(run.retries().is_empty());
}

#[test]
fn who_cannot_serve_says_why_and_who_says_nothing_is_given_up() {
    let unfit = "echo '{\"unfit\":{\"message\":\"there is no card\",\"help\":\"look\"}}'";
    let failure = Failure::of(&Run::new(unfit).call(PROMPT).unwrap_err());
    assert_eq!(
        (failure.outcome, failure.error.as_str()),
        (Outcome::Environment, "there is no card")
    );

    let other = "echo '{\"ready\":{\"version\":\"0.0.0\"}}'; read order";
    let failure = Failure::of(&Run::new(other).call(PROMPT).unwrap_err());
    assert!(failure.error.contains("replaced by another version"), "{}", failure.error);

    let mut run = Run::new("exec sleep 60");
    run.options.slots[0].launch.patience = Duration::from_millis(200);
    let failure = Failure::of(&run.call(PROMPT).unwrap_err());
    assert_eq!(failure.error, "the worker of toy:0 was not ready after 0.2 s");
    assert!(run.retries().is_empty());
}

#[test]
fn a_device_that_runs_full_fails_the_stage_with_what_was_planned() {
    let full =
        r#"echo '{"failed":{"panicked":"out of device memory allocating 8589934592 bytes"}}'"#;
    let run = Run::new(&format!("ready; read order; {full}; read order; echo {DONE}; read end"));
    let failure = Failure::of(&run.call(LATENTS).unwrap_err());
    assert_eq!(failure.outcome, Outcome::Environment);
    insta::assert_snapshot!(failure.error, @"the device ran out of memory; it was planned to need 9.6 MiB of memory (weights 7.0 MiB, activations 2.5 MiB, clips 12.0 KiB)");
    insta::assert_snapshot!(failure.help.unwrap(), @"run fewer stages at once (`--jobs 1`); or see that no other program uses the device");
    assert!(run.retries().is_empty(), "more of the same would not help");
}

#[test]
fn a_device_that_is_out_of_order_leaves_its_stages_to_the_others() {
    let mut run = Run::new("echo '{\"unfit\":{\"message\":\"no card\",\"help\":null}}'");
    let item = r#"'{"item":{"name":"x","files":{}}}'"#;
    let works =
        Run::new(&format!("ready; while read order; do sleep 0.2; echo {item}; echo {DONE}; done"));
    let mut second = works.options.slots[0].clone();
    second.name = "toy:1".to_owned();
    run.options.slots.push(second);
    run.options.jobs = 2;
    run.options.keep_going = true;
    let prompts = ["a", "b", "c", "d"].map(|prompt| {
        format!(
            "[stages.{prompt}]\nkind = \"text_encode\"\nmodel = \"builtin:tiny\"\n\
             prompt = \"{prompt}\"\n"
        )
    });
    let read = |_: &Path| Ok(prompts.concat());
    let pipeline = load_with(STAGES, Path::new("x.toml"), &LoadOptions::default(), &read).unwrap();
    let store = Store::open(&run.dir.path().join("cache")).unwrap();
    let mut events = Vec::new();
    let execute = |slots: usize, events: &mut Vec<RunEvent>| {
        let mut options = run.options.clone();
        options.slots.truncate(slots);
        options.force = vec!["a".to_owned()];
        Executor::new(&store, options).execute(&pipeline, &mut |event| events.push(event)).unwrap()
    };
    let summary = execute(2, &mut events);
    assert_eq!((summary.outcome, summary.ran, summary.failed), (Outcome::Done, 4, 0), "{events:?}");
    let dropped = |event: &&RunEvent| matches!(event, RunEvent::DeviceDropped { .. });
    assert_eq!(events.iter().filter(dropped).count(), 1, "{events:?}");
    // The last one that is left says what is wrong.
    let summary = execute(1, &mut events);
    assert_eq!((summary.outcome, summary.failed), (Outcome::Environment, 1), "{events:?}");
    assert_eq!(events.iter().filter(dropped).count(), 1);
}

#[test]
fn a_worker_is_told_to_stop() {
    // The first progress stops the run.
    let run = Run::new(
        "ready; read order; echo '{\"progress\":{\"done\":1,\"total\":2,\"message\":\"step\"}}'\n\
         read stop; echo \"$stop\" > $DIR/stop; echo '{\"failed\":\"cancelled\"}'; read end",
    );
    assert!(matches!(run.call(PROMPT), Err(StageError::Cancelled)));
    assert_eq!(run.wrote("stop"), "{\"stop\":1}\n");
}

#[test]
fn who_waits_for_a_worker_that_takes_its_time_to_stop_is_told() {
    let progress = r#"echo '{"progress":{"done":1,"total":2,"message":"step"}}'"#;
    let run = Run::new(&format!(
        "ready; read order; {progress}; read stop; sleep 3; echo '{{\"failed\":\"cancelled\"}}'; read end"
    ));
    assert!(matches!(run.call(PROMPT), Err(StageError::Cancelled)));
    let number = regex::Regex::new(r"process \d+").unwrap();
    let said = run.said().join("\n");
    insta::assert_snapshot!(number.replace(&said, "process N"), @"waiting for `prompt` in the worker of toy:0 (process N)");
}

#[test]
fn stages_are_the_same_in_a_worker() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "toml"));
    let mut kinds = BTreeSet::new();
    for pipeline in files.filter_map(|path| load(&path, &LoadOptions::default()).ok()) {
        for instance in pipeline.instances.iter().filter(|instance| instance.work.uses_device()) {
            let task = Task {
                number: 1,
                kind: instance.entry.kind.to_owned(),
                params: (*instance.params).clone(),
                given: [].into(),
                trajectory: None,
                weights: None,
                room: None,
            };
            let line = serde_json::to_string(&task).unwrap();
            let task: Task = serde_json::from_str(&line).unwrap();
            assert!(stage(&task).is_ok(), "{instance}: {line}");
            kinds.insert(instance.entry.kind);
        }
    }
    let all = ["decode", "lora_train", "pretrain", "sample", "text_encode", "vae_encode"];
    assert!(kinds.into_iter().eq(all));
}
