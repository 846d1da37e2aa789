//! A pipeline of toy stages to edit, and what a run of it did, as text.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::tensor::Device;
use pipe::{
    config::{
        Instance, Layer, Pipeline, Places, Sweep,
        origin::Sources,
        value::{Node, parse_document},
    },
    exec::{ExecOptions, Executor, RunEvent, RunSummary},
    plan::{self, Freshness, Plan, PlanOptions},
    stages::{StageEntry, StageKind},
    store::Store,
};
use serde_json::{Value, json};

use crate::toys::{Letters, Shout, Words};

/// Says that the test at hand was skipped, and why; also where the output of tests that pass is
/// kept back.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let _ =
        std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped {test}: {why}\n"));
}

/// A pipeline, a cache and a folder of traps.
pub struct TestPipeline {
    pub dir: Arc<tempfile::TempDir>,
    pub pipeline: Pipeline,
    pub options: ExecOptions,
}

impl TestPipeline {
    pub fn empty() -> Self {
        Self::at(Arc::new(tempfile::tempdir().unwrap()))
    }

    /// Without stages, on the cache and traps of another.
    pub fn at(dir: Arc<tempfile::TempDir>) -> Self {
        std::fs::create_dir_all(dir.path().join("traps")).unwrap();
        let pipeline = Pipeline {
            path: "toy.toml".into(),
            files: vec!["toy.toml".into()],
            name: "toy".into(),
            title: None,
            seed: 0,
            profile: None,
            instances: Vec::new(),
            sweep: Sweep::default(),
            tables: Vec::new(),
            root: Node::table().into(),
            set: Vec::new(),
            warnings: Vec::new(),
            undecoded: false,
            asked_and_learnt: BTreeSet::default(),
        };
        Self { dir, pipeline, options: ExecOptions::new(Device::flex(), "cpu") }
    }

    /// `words` -> `shout` (mapped) -> `letters`.
    pub fn words(words: &[&str]) -> Self {
        Self::empty().with_words(words)
    }

    pub fn with_words(self, words: &[&str]) -> Self {
        let trap = self.dir.path().join("traps");
        self.stage::<Words>("words", json!({ "words": words, "trap": trap }), &[])
            .stage::<Shout>("shout", json!({ "mark": "!", "trap": trap }), &[("words", "words")])
            .stage::<Letters>("letters", json!({ "step": 10, "trap": trap }), &[("words", "shout")])
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers write `json!` in place")]
    pub fn stage<S: StageKind>(
        mut self,
        name: &str,
        params: Value,
        inputs: &[(&str, &str)],
    ) -> Self {
        let named = |name: &str| self.index(name);
        let inputs = inputs.iter().map(|(port, input)| ((*port).to_owned(), named(input)));
        let instance = Instance {
            stage: name.to_owned(),
            cell: BTreeMap::new(),
            entry: const { &StageEntry::of::<S>() },
            work: Arc::new(serde_json::from_value::<S>(params.clone()).unwrap()),
            params: params.as_object().unwrap().clone().into(),
            inputs: inputs.collect(),
            places: Places::default(),
        };
        self.pipeline.instances.push(instance);
        self
    }

    /// Changes a parameter, as if written on line 7.
    pub fn edit<S: StageKind>(mut self, stage: &str, param: &str, value: impl Into<Value>) -> Self {
        let index = self.index(stage);
        let instance = &mut self.pipeline.instances[index];
        Arc::make_mut(&mut instance.params).insert(param.to_owned(), value.into());
        let params = Value::Object((*instance.params).clone());
        instance.work = Arc::new(serde_json::from_value::<S>(params).unwrap());
        let text = format!("\n\n\n\n\n\n{param:<6}= 0");
        let mut sources = Sources::default();
        let file = sources.add("toy.toml", &text, Path::new(""));
        let node = parse_document(&text, file, Layer::File).unwrap();
        instance.places = Places::new(Arc::new(node), Arc::new(sources));
        self
    }

    pub fn index(&self, stage: &str) -> usize {
        self.pipeline.instances.iter().position(|instance| instance.stage == stage).unwrap()
    }

    pub fn trap(&self, what: &str) -> PathBuf {
        let path = self.dir.path().join("traps").join(what);
        std::fs::write(&path, "").unwrap();
        path
    }

    pub fn store(&self) -> Store {
        Store::open(&self.dir.path().join("cache")).unwrap()
    }

    pub fn plan(&self) -> Plan<'_> {
        let wanted =
            PlanOptions { force: self.options.force.clone(), only: self.options.only.clone() };
        plan::build(&self.pipeline, &self.store(), &wanted).unwrap()
    }

    /// The plan as text: a line per stage.
    pub fn plan_story(&self) -> String {
        let plan = self.plan();
        let mut story = String::new();
        for (node, instance) in plan.nodes.iter().zip(&self.pipeline.instances) {
            let state = match &node.freshness {
                Freshness::Fresh(_) => "fresh".to_owned(),
                Freshness::Stale(reasons) => format!("stale: {}", sentences(reasons)),
                Freshness::Pending { upstream } => {
                    let names = upstream.iter().map(|i| self.pipeline.instances[*i].to_string());
                    format!("pending: {}", names.collect::<Vec<_>>().join(", "))
                }
                Freshness::Blocked(lack) => format!("blocked: {lack}"),
            };
            let items = node.items.map_or(String::new(), |items| {
                format!(" ({} of {} cached)", items.cached, items.total)
            });
            writeln!(story, "{instance} {state}{items}").unwrap();
        }
        redact(&story)
    }

    /// Runs it with a store opened anew and returns what happened.
    pub fn run(&self) -> Run {
        let mut events = Vec::new();
        let store = self.store();
        let executor = Executor::new(&store, self.options.clone());
        let summary = executor.execute(&self.pipeline, &mut |event| events.push(event)).unwrap();
        Run { events, summary }
    }

    /// The text that a stage gave for an item.
    pub fn text(&self, stage: &str, item: &str) -> String {
        let Freshness::Fresh(record) = &self.plan().nodes[self.index(stage)].freshness else {
            panic!("`{stage}` is not fresh")
        };
        let store = self.store();
        let manifest = store.manifest(record.output).unwrap();
        let file = manifest.item(item).unwrap().files["text"];
        String::from_utf8(store.read(&file).unwrap()).unwrap()
    }

    /// The file in the cache that holds this text.
    pub fn object(&self, text: &str) -> PathBuf {
        let hex = pipe::store::Digest::of(text.as_bytes()).to_string();
        self.dir.path().join("cache/objects").join(&hex[..2]).join(&hex[2..])
    }
}

/// What happened in a run.
pub struct Run {
    pub events: Vec<RunEvent>,
    pub summary: RunSummary,
}

impl Run {
    /// A line per stage, in the order of their ends.
    pub fn story(&self) -> String {
        let mut why = BTreeMap::new();
        let mut story = String::new();
        for event in &self.events {
            match event {
                RunEvent::StageStarted { index, reasons, .. } => {
                    why.insert(*index, sentences(reasons));
                }
                RunEvent::StageFinished {
                    index,
                    stage,
                    items_run: run,
                    items_total: all,
                    unchanged,
                    ..
                } => {
                    let same = if *unchanged { ", same output" } else { "" };
                    let why = &why[index];
                    writeln!(story, "ran {stage} ({run} of {all}{same}): {why}").unwrap();
                }
                RunEvent::StageReused { stage, .. } => writeln!(story, "reused {stage}").unwrap(),
                RunEvent::StageFailed { stage, error, item, help, .. } => {
                    let item = item.as_ref().map_or(String::new(), |item| format!(" at {item}"));
                    let help = help.as_ref().map_or(String::new(), |help| format!(" ({help})"));
                    writeln!(story, "failed {stage}{item}: {error}{help}").unwrap();
                }
                RunEvent::StageSkipped { stage, because, .. } => {
                    writeln!(story, "skipped {stage}: {because} failed").unwrap();
                }
                _ => {}
            }
        }
        redact(&story)
    }

    pub fn count(&self, is: impl Fn(&RunEvent) -> bool) -> usize {
        self.events.iter().filter(|event| is(event)).count()
    }
}

fn sentences(reasons: &[plan::StaleReason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Digests depend on formats that these tests are not about.
fn redact(text: &str) -> String {
    regex::Regex::new("[0-9a-f]{12}").unwrap().replace_all(text, "#").into_owned()
}
