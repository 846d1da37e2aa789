//! Stages that do little, and go wrong where they are told to.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use pipe::{
    artifact::ArtifactKind,
    stages::{Inputs, Output, Port, Ports, Stage, StageContext, StageError, StageKind},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

    /// Writes down how many items a call is for, where the file for that is there.
    fn note_call(&self, items: usize) {
        if self.is_set("calls") {
            let calls = std::fs::OpenOptions::new().append(true).open(self.0.join("calls"));
            writeln!(calls.unwrap(), "{items}").unwrap();
        }
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
    /// How many words it takes side by side.
    #[serde(default)]
    batch: usize,
}

impl Stage for Shout {
    fn mapped_port(&self) -> Option<&'static str> {
        Some("words")
    }

    fn side_by_side(&self) -> usize {
        self.batch
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        self.trap.note_call(inputs.items("words").len());
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
        let file = cx.checkpoints.unwrap().path().join("step");
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
