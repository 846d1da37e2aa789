//! Toy stages, a pipeline to edit, and what a run of it did, as text.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use burn::tensor::Device;
use pipe::{
    artifact::ArtifactKind,
    config::{
        Instance, Layer, Pipeline, Places, Sweep,
        origin::Sources,
        value::{Node, parse_document},
    },
    exec::{ExecOptions, Executor, RunEvent, RunSummary},
    plan::{self, Freshness, Plan, PlanOptions},
    stages::{Inputs, Output, Port, Ports, Stage, StageContext, StageEntry, StageError, StageKind},
    store::Store,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Says that the test at hand was skipped, and why; also where the output of tests that pass is kept
/// back.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let _ =
        std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped {test}: {why}\n"));
}

const FILES: &[ArtifactKind] = &[ArtifactKind::Files];

const fn takes(inputs: &'static [Port]) -> Ports {
    Ports { inputs, output: ArtifactKind::Files }
}

/// A folder whose files say what shall go wrong, and where. It is a path, so no key knows of it.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Trap(#[schemars(extend("format" = "path"))] PathBuf);

impl Trap {
    fn is_set(&self, what: &str) -> bool {
        !self.0.as_os_str().is_empty() && self.0.join(what).exists()
    }

    fn spring(&self, at: &str, cx: &StageContext<'_>) -> Result<(), StageError> {
        let set = |what: &str| self.is_set(what);
        while set(&format!("hold-{at}")) {
            cx.cancel.check()?;
            std::thread::yield_now();
        }
        if set(&format!("abort-{at}")) {
            std::process::abort();
        }
        if set(&format!("cancel-{at}")) {
            cx.cancel.cancel();
        }
        assert!(!set(&format!("panic-{at}")), "sprung");
        // As burn unwraps what CubeCL 0.11.3 says, whose `Debug` is its message.
        assert!(
            !set(&format!("full-{at}")),
            "called `Result::unwrap()` on an `Err` value: out of device memory allocating \
             17179869184 bytes
   0: backtrace"
        );
        assert!(
            !set(&format!("lost-{at}")),
            "The device is poisoned\nCaused by:\n  CUDA_ERROR_ILLEGAL_ADDRESS\nBacktrace:\n"
        );
        if set(&format!("fail-{at}")) {
            return Err(StageError::failed("it is a trap").on_item(at));
        }
        Ok(())
    }
}

/// One item per word.
#[derive(Serialize, Deserialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "it is what the parameter is called")]
pub struct Words {
    words: Vec<String>,
    #[serde(default)]
    trap: Trap,
    /// How long it takes.
    #[serde(default)]
    millis: u64,
}

impl Stage for Words {
    fn run(
        &self,
        _: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        self.trap.spring("words", cx)?;
        std::thread::sleep(Duration::from_millis(self.millis));
        // As a GPU that rounds otherwise than last time.
        let more = if self.trap.is_set("other-words") { "~" } else { "" };
        let give = |word: &String| out.item(word, &[("text", format!("{word}{more}").as_bytes())]);
        self.words.iter().try_for_each(give)
    }
}

impl StageKind for Words {
    const KIND: &'static str = "words";
    const VERSION: u32 = 1;
    const PORTS: Ports = takes(&[]);
}

/// Maps each word to capitals.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Shout {
    mark: String,
    #[serde(default)]
    trap: Trap,
    /// How long it takes for each word.
    #[serde(default)]
    millis: u64,
}

impl Stage for Shout {
    fn mapped_port(&self) -> Option<&'static str> {
        Some("words")
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        for item in inputs.items("words") {
            self.trap.spring(&item.name, cx)?;
            std::thread::sleep(Duration::from_millis(self.millis));
            let text = String::from_utf8_lossy(&inputs.read(item, "text")?).to_uppercase();
            out.item(&item.name, &[("text", format!("{text}{}", self.mark).as_bytes())])?;
        }
        Ok(())
    }
}

impl StageKind for Shout {
    const KIND: &'static str = "shout";
    const VERSION: u32 = 1;
    const PORTS: Ports = takes(&[Port { name: "words", kinds: FILES, required: true }]);
}

/// Puts each mark behind each word.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Cross {}

impl Stage for Cross {
    fn mapped_port(&self) -> Option<&'static str> {
        Some("words")
    }

    fn crossed_port(&self) -> Option<&'static str> {
        Some("marks")
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        _: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let mark = inputs.read(inputs.only("marks")?, "text")?;
        for item in inputs.items("words") {
            let text = [inputs.read(item, "text")?, mark.clone()].concat();
            out.item(&item.name, &[("text", &text)])?;
        }
        Ok(())
    }
}

impl StageKind for Cross {
    const KIND: &'static str = "cross";
    const VERSION: u32 = 1;
    const PORTS: Ports = takes(&[
        Port { name: "words", kinds: FILES, required: true },
        Port { name: "marks", kinds: FILES, required: true },
    ]);
}

/// The number of letters of all words, rounded down to a multiple of `step`.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Letters {
    step: usize,
    #[serde(default)]
    trap: Trap,
}

impl Stage for Letters {
    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        self.trap.spring("letters", cx)?;
        let mut letters = 0;
        for item in inputs.items("words") {
            letters += inputs.read(item, "text")?.len();
        }
        out.item("letters", &[("text", (letters / self.step * self.step).to_string().as_bytes())])
    }
}

impl StageKind for Letters {
    const KIND: &'static str = "letters";
    const VERSION: u32 = 1;
    const PORTS: Ports = takes(&[Port { name: "words", kinds: FILES, required: true }]);
}

/// Reads a word after its file in the cache was damaged, as on a disk that keeps nothing.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Spoil {
    #[schemars(extend("format" = "path"))]
    object: PathBuf,
}

impl Stage for Spoil {
    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        _: &StageContext<'_>,
    ) -> Result<(), StageError> {
        if std::fs::read(&self.object).is_ok_and(|text| text == b"one") {
            crate::incremental::corrupt(&self.object, true);
        }
        let texts: Result<Vec<_>, _> =
            inputs.items("words").iter().map(|item| inputs.read(item, "text")).collect();
        out.item("all", &[("text", &texts?.concat())])
    }
}

impl StageKind for Spoil {
    const KIND: &'static str = "spoil";
    const VERSION: u32 = 1;
    const PORTS: Ports = takes(&[Port { name: "words", kinds: FILES, required: true }]);
}

/// Reads the text files of a folder.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Texts {
    #[schemars(extend("format" = "path"))]
    root: PathBuf,
}

impl Stage for Texts {
    fn source_root(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn run(
        &self,
        _: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let sources = cx.sources.unwrap();
        for name in sources
            .list("")?
            .iter()
            .filter(|name| Path::new(name).extension().is_some_and(|e| e == "txt"))
        {
            out.item(name, &[("text", &sources.read(name)?)])?;
        }
        Ok(())
    }
}

impl StageKind for Texts {
    const KIND: &'static str = "texts";
    const VERSION: u32 = 1;
    const PORTS: Ports = takes(&[]);
}

/// Counts to `steps` from the last checkpoint, one tick a step.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Train {
    rate: u64,
    steps: u64,
    #[serde(default)]
    save_every: u64,
}

impl Stage for Train {
    fn trajectory_params(&self) -> &'static [&'static str] {
        &["steps"]
    }

    fn stops(&self) -> Vec<u64> {
        vec![self.steps]
    }

    fn effort_params(&self) -> &'static [&'static str] {
        &["steps"]
    }

    fn params_without_effect(&self) -> &'static [(&'static str, Option<usize>)] {
        &[("save_every", Some(0))]
    }

    fn run(
        &self,
        _: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let file = cx.checkpoints.unwrap().join("step");
        let saved = std::fs::read_to_string(&file).ok().and_then(|text| text.parse().ok());
        let first = saved.unwrap_or(0).min(self.steps);
        for step in first..self.steps {
            cx.tick(step + 1, self.steps, "step")?;
            cx.steps_made.fetch_add(1, Ordering::Relaxed);
            std::fs::write(&file, (step + 1).to_string()).unwrap();
        }
        out.item("weights", &[("text", (self.rate * self.steps).to_string().as_bytes())])
    }
}

impl StageKind for Train {
    const KIND: &'static str = "train";
    const VERSION: u32 = 1;
    const PORTS: Ports = takes(&[]);
}

/// Panics where the engine asks it something, before it does any work.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Clumsy {}

impl Stage for Clumsy {
    fn mapped_port(&self) -> Option<&'static str> {
        panic!("dropped a cup")
    }

    fn run(
        &self,
        _: &Inputs<'_>,
        _: &mut Output<'_>,
        _: &StageContext<'_>,
    ) -> Result<(), StageError> {
        Ok(())
    }
}

impl StageKind for Clumsy {
    const KIND: &'static str = "clumsy";
    const VERSION: u32 = 1;
    const PORTS: Ports = takes(&[]);
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
            let items =
                node.items.map_or(String::new(), |(n, of)| format!(" ({n} of {of} cached)"));
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
                RunEvent::StageFinished { index, stage, items: (run, all), unchanged, .. } => {
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
