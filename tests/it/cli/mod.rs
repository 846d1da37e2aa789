//! Transcripts of the binary: what a user types, and all that comes back.

mod ablation;
mod adapters;
mod bad_data;
mod bad_disk;
mod bad_models;
mod bad_weights;
mod behaviour;
mod cache;
mod causes;
mod check;
mod checkpoints;
mod compare_runs;
mod crash;
mod credentials;
mod damage;
mod dead_holder;
mod exported_models;
mod hashing;
mod help;
mod hub;
mod interop;
mod interrupt;
mod items;
mod lock;
mod model_stages;
mod odd_paths;
mod own_autoencoder;
mod pins;
mod pipeline_files;
mod pipelines;
mod plan;
mod pretrain_family;
mod prompts;
mod provenance;
mod quick;
mod remote;
mod result_names;
mod run;
mod schema;
mod settings;
mod shared_cache_paths;
mod train_test_overlap;
mod workers;

use std::{
    fmt::Write,
    path::Path,
    process::{Command, Output},
};

/// A folder to run `pipe` in, with nothing of this machine's settings.
struct Shell {
    dir: tempfile::TempDir,
}

impl Shell {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// The same where the path of the folder is told, whose length decides where lines break.
    fn transcript_at_home(&self, line: &str) -> String {
        let told = self.transcript(line).replace("\n  │ ", " ");
        told.replace(&self.dir.path().display().to_string(), "[HOME]")
    }

    /// Writes a small picture.
    fn picture(&self, name: &str) {
        let color = |x, y| image::Rgb([x as u8 * 6, y as u8 * 7, 9]);
        image::RgbImage::from_fn(40, 32, color).save(self.path(name)).unwrap();
    }

    /// A pair of equal pictures in the layout of `source = "folder"`.
    fn pair(&self, folder: &str, name: &str, shade: u8) {
        let color = |x, y| image::Rgb([shade, x as u8 * 8, y as u8 * 8]);
        for side in ["input", "target"] {
            let folder = self.path(folder).join(side);
            std::fs::create_dir_all(&folder).unwrap();
            let picture = image::RgbImage::from_fn(32, 32, color);
            picture.save(folder.join(format!("{name}.png"))).unwrap();
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn output(&self, line: &str) -> Output {
        command(self.dir.path()).args(line.split_whitespace()).output().unwrap()
    }

    /// Runs a line that must succeed.
    fn succeed(&self, line: &str) -> String {
        let output = self.output(line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pipe {line}\n{stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes the folder a git repository with one commit of a file.
    fn commit(&self, file: &str) {
        let git = |args: &[&str]| {
            let output = Command::new("git")
                .current_dir(self.dir.path())
                .args(["-c", "user.name=test", "-c", "user.email=test@example.org"])
                .args(args)
                .output()
                .unwrap();
            assert!(output.status.success(), "git {args:?}");
        };
        git(&["init", "-q"]);
        git(&["add", file]);
        git(&["commit", "-q", "-m", "first"]);
    }

    /// What `plan --json` says of each stage.
    fn plan(&self, line: &str) -> Vec<serde_json::Value> {
        let json = self.succeed(&format!("plan --json {line}"));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json["stages"].as_array().unwrap().clone()
    }

    /// Command, exit code, stdout and stderr as one text, with times redacted.
    fn transcript(&self, line: &str) -> String {
        let output = self.output(line);
        let mut text = format!("$ pipe {line}\n? {}\n", output.status.code().unwrap());
        for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
            if !bytes.is_empty() {
                let _ = write!(text, "--- {name}\n{}", String::from_utf8(bytes).unwrap());
            }
        }
        redact(&text)
    }
}

/// The binary, which gets signals even where the tests do not, as under `nohup` or in the
/// background of a script.
fn binary() -> Command {
    const PIPE: &str = env!("CARGO_BIN_EXE_pipe");
    if !cfg!(target_os = "linux") {
        return Command::new(PIPE);
    }
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,TERM", PIPE]);
    command
}

fn command(dir: &Path) -> Command {
    let mut command = binary();
    command
        .current_dir(dir)
        .env_clear()
        .env("HOME", dir)
        .env("HF_HUB_CACHE", "hub")
        .env("PATH", std::env::var("PATH").unwrap());
    command
}

fn redact(text: &str) -> String {
    // Whether a stage takes long enough to be heard of depends on the machine.
    let running = regex::Regex::new(r"(?m)^running  .*\n").unwrap();
    let text = running.replace_all(text, "");
    let durations = regex::Regex::new(r"\b\d+(\.\d+)? (s|min \d\d s)\b").unwrap();
    let bytes = regex::Regex::new(r"\b\d+(\.\d+)? (B|[KMGT]iB)\b").unwrap();
    let digests = regex::Regex::new(r"\b[0-9a-f]{12,64}\b").unwrap();
    let times = regex::Regex::new(r"\d{4}-\d\d-\d\dT[\d:.]+Z").unwrap();
    let text = durations.replace_all(&text, "[TIME]");
    let text = times.replace_all(&text, "[WHEN]");
    let text = bytes.replace_all(&text, "[SIZE]");
    digests.replace_all(&text, "[HASH]").into_owned()
}

/// An experiment on built-in figures with the built-in model, as the text of a pipeline file:
/// pairs, clips, a prompt, latents, an adapter and samples.
struct Experiment {
    name: &'static str,
    /// Lines of the table `[params]`.
    params: &'static str,
    /// Number of pairs.
    count: usize,
    /// Height and width of a pair, or a reference to them.
    size: &'static str,
    /// Further lines of the stage `clips`.
    clips: &'static str,
    frames: usize,
    /// Further lines of the stage `lora`.
    lora: &'static str,
    /// Further lines of the stage `predict`.
    predict: &'static str,
}

impl Default for Experiment {
    fn default() -> Self {
        Self {
            name: "experiment",
            params: "",
            count: 1,
            size: "[32, 32]",
            clips: "",
            frames: 5,
            lora: "rank   = 2\nsteps  = 1\n",
            predict: "steps  = 1\n",
        }
    }
}

impl Experiment {
    /// As far as its clips.
    fn up_to_clips(&self) -> String {
        let Self { name, params, count, size, clips, frames, .. } = self;
        let params =
            if params.is_empty() { String::new() } else { format!("[params]\n{params}\n") };
        format!(
            r#"name = "{name}"

{params}[stages.pairs]
kind   = "dataset"
source = "builtin:figures"
task   = "pose"
count  = {count}
size   = {size}

[stages.clips]
kind   = "interpolate"
inputs = {{ pairs = "pairs" }}
{clips}frames = {frames}
"#
        )
    }

    /// As far as its latents.
    fn up_to_latents(&self) -> String {
        const ENCODED: &str = r#"
[stages.prompt]
kind  = "text_encode"
model = "builtin:tiny"

[stages.latents]
kind   = "vae_encode"
inputs = { videos = "clips" }
model  = "builtin:tiny"
"#;
        self.up_to_clips() + ENCODED
    }

    /// As far as its adapter.
    fn up_to_lora(&self) -> String {
        const LORA: &str = r#"
[stages.lora]
kind   = "lora_train"
inputs = { latents = "latents", text = "prompt" }
model  = "builtin:tiny"
"#;
        self.up_to_latents() + LORA + self.lora
    }

    /// All of it.
    fn toml(&self) -> String {
        const PREDICT: &str = r#"
[stages.predict]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt", lora = "lora" }
model  = "builtin:tiny"
"#;
        self.up_to_lora() + PREDICT + self.predict
    }
}

/// From what `predict` samples for `pairs` to its scores.
const SCORE: &str = r#"
[stages.answers]
kind   = "decode"
inputs = { samples = "predict" }
model  = "builtin:tiny"

[stages.score]
kind   = "metric"
inputs = { predictions = "answers", pairs = "pairs" }
metric = "image"
"#;

/// Built-in figures and clips of them: a run without a model.
const CLIPS: &str = r#"name = "clips"

[sweep]
baseline      = { method = "linear" }
one_at_a_time = { method = ["linear", "quadratic"] }

[stages.pairs]
kind   = "dataset"
source = { source = "builtin:figures" }
task   = "pose"
count  = 2
size   = [32, 32]

[stages.clips]
kind   = "interpolate"
inputs = { pairs = "pairs" }
method = "${method}"
frames = 5
"#;

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}
