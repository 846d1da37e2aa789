//! `command`: a shell command with declared inputs and outputs.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::{Inputs, Output, ParamError, Port, Ports, Stage, StageContext, StageError, StageKind};
use crate::{artifact::ArtifactKind, regular};

/// The item that holds all outputs.
pub const ITEM: &str = "files";

/// Where programs are looked for, unless `env` sets another `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const ANY: &[ArtifactKind] = &[
    ArtifactKind::Pairs,
    ArtifactKind::Videos,
    ArtifactKind::TextEmbeddings,
    ArtifactKind::Latents,
    ArtifactKind::LoraAdapter,
    ArtifactKind::Samples,
    ArtifactKind::Frames,
    ArtifactKind::Metrics,
    ArtifactKind::Model,
    ArtifactKind::Files,
];

/// Runs a shell command on copies of its inputs and keeps the files it declares.
///
/// It runs only if the run says `--allow-commands`, so that a stranger's file cannot execute code.
///
/// The command is given to `sh -eu` in an empty folder, which is removed afterwards. It finds each
/// input under `$IN/<port>/<item>/<file>` and writes its outputs to `$OUT`, as files or links to files in
/// there; what it leaves running is ended. Nothing else of the
/// environment is passed on: `PATH` is the system's, `HOME` and `TMPDIR` are below that folder,
/// `LANG` is `C.UTF-8`; `env` adds to these. The key knows the command, `env` and the inputs, but
/// not other files that the command reads: change `revision` when one of those changes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShellCommand {
    /// The script, for `sh`.
    pub command: String,
    /// Names of the files it writes to `$OUT`.
    pub outputs: Vec<String>,
    /// Further environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Any text; another one makes the command run again.
    #[serde(default)]
    pub revision: String,
    /// The command is stopped after this many seconds; never by default. Not in the key.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub timeout_secs: Option<u64>,
}

impl StageKind for ShellCommand {
    const KIND: &'static str = "command";
    const VERSION: u32 = 1; // 1: first
    const PORTS: Ports = Ports {
        inputs: &[
            Port { name: "input", kinds: ANY, required: false },
            Port { name: "second", kinds: ANY, required: false },
            Port { name: "third", kinds: ANY, required: false },
        ],
        output: ArtifactKind::Files,
    };
}

impl Stage for ShellCommand {
    fn validate(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        if self.command.trim().is_empty() {
            errors.push(ParamError::new("command", "must not be empty"));
        }
        if self.outputs.is_empty() {
            errors.push(
                ParamError::new("outputs", "must name at least one file")
                    .help("a stage without output would never be up to date"),
            );
        }
        let mut seen = HashSet::new();
        for name in &self.outputs {
            if !is_plain(name) {
                errors.push(
                    ParamError::new("outputs", format!("`{name}` is not a plain file name"))
                        .help("name files directly below `$OUT`"),
                );
            }
            if !seen.insert(name) {
                errors.push(ParamError::new("outputs", format!("`{name}` is there twice")));
            }
        }
        for name in self.env.keys() {
            if name.is_empty() || name.contains(['=', '\0']) || ["IN", "OUT"].contains(&&**name) {
                errors.push(
                    ParamError::new("env", format!("`{name}` cannot be set"))
                        .help("`IN` and `OUT` are set by the stage; a name has no `=`"),
                );
            }
        }
        if self.timeout_secs == Some(0) {
            errors.push(ParamError::new("timeout_secs", "must be at least 1, but is 0"));
        }
        errors
    }

    fn params_without_effect(&self) -> &'static [(&'static str, Option<usize>)] {
        &[("timeout_secs", None)]
    }

    fn command(&self) -> Option<&str> {
        Some(&self.command)
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        if !cx.allow_commands {
            return Err(StageError::failed("shell commands are not allowed in this run")
                .with_help(format!(
                    "read the command, then run again with --allow-commands: {}",
                    self.command.trim().lines().next().unwrap_or_default()
                )));
        }
        let folder = Folder::new(out.work_folder()?)?;
        for Port { name, .. } in Self::PORTS.inputs {
            folder.write_inputs(inputs, name)?;
        }
        cx.tick(0, 1, "command")?;
        let status = self.execute(&folder, cx)?;
        if !status.success() {
            return Err(StageError::failed(format!(
                "the command ended with {status}{}",
                folder.last_words()
            )));
        }
        let files: Vec<_> = self
            .outputs
            .iter()
            .map(|name| Ok((name.as_str(), folder.output(name)?)))
            .collect::<Result<_, StageError>>()?;
        out.item_of_files(ITEM, &files)
    }
}

impl ShellCommand {
    /// Runs the command to its end, and stops it when the run or its time is over.
    fn execute(&self, folder: &Folder, cx: &StageContext<'_>) -> Result<ExitStatus, StageError> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-eu", "-c", &self.command])
            .current_dir(folder.work())
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .env("HOME", folder.work())
            .env("TMPDIR", folder.work())
            .envs(&self.env)
            .env("IN", folder.inputs())
            .env("OUT", folder.out())
            .stdin(Stdio::null())
            .stdout(folder.log()?)
            .stderr(folder.log()?);
        // Before the command: killed between the two, this process would leave it to nobody.
        let guard = Guard::new().map_err(cannot_start)?;
        guard.takes(&mut command);
        let mut child = command.spawn().map_err(cannot_start)?;
        let started = Instant::now();
        let limit = self.timeout_secs.map(Duration::from_secs);
        let mut pause = Duration::from_millis(1);
        loop {
            let ended = child.try_wait().map_err(|e| {
                StageError::environment(format!("cannot wait for the command: {e}"))
            })?;
            if let Some(status) = ended {
                // Whatever it left behind could still write to its outputs.
                guard.stop(&mut child);
                return Ok(status);
            }
            let is_late = limit.is_some_and(|limit| started.elapsed() > limit);
            if cx.cancel.is_cancelled() || is_late {
                guard.stop(&mut child);
                cx.cancel.check()?;
                return Err(StageError::failed(format!(
                    "the command did not end within {} s{}",
                    limit.unwrap_or_default().as_secs(),
                    folder.last_words()
                ))
                .with_help("raise `timeout_secs`"));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

fn cannot_start(error: io::Error) -> StageError {
    StageError::environment(format!("cannot start `/bin/sh`: {error}"))
}

/// A shell that ends the command when this process is no more, even by `kill -9`.
///
/// It leads the group of processes that the command and all it starts are in, and waits for the end of
/// its input, which this process alone holds open. The kernel's own way, a signal at the death of the
/// parent, is set between `fork` and `exec`, where only unsafe code runs; it exists on Linux alone and
/// reaches the shell, but not what the shell started.
struct Guard(#[cfg(unix)] Child);

impl Guard {
    #[cfg(unix)]
    fn new() -> io::Result<Self> {
        let mut guard = Command::new("/bin/sh");
        guard.args(["-c", "read _; kill -s KILL 0"]).env_clear().stdin(Stdio::piped());
        guard.stdout(Stdio::null()).stderr(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut guard, 0);
        guard.spawn().map(Self)
    }

    #[cfg(not(unix))]
    fn new() -> io::Result<Self> {
        Ok(Self())
    }

    /// The group, by the number of its leader.
    #[cfg(unix)]
    fn group(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// Lets the command start in the group; where the guard has ended it, the command does not start.
    fn takes(&self, command: &mut Command) {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, self.group());
        #[cfg(not(unix))]
        let _ = command;
    }

    /// Ends the command, what it started, and the guard.
    fn stop(&self, child: &mut Child) {
        #[cfg(unix)]
        self.end_group();
        let _ = child.kill();
        let _ = child.wait();
    }

    #[cfg(unix)]
    fn end_group(&self) {
        use nix::{sys::signal, unistd::Pid};
        // Failure means that the group is gone already.
        let _ = signal::killpg(Pid::from_raw(self.group()), signal::Signal::SIGKILL);
    }
}

#[cfg(unix)]
impl Drop for Guard {
    fn drop(&mut self) {
        self.end_group();
        let _ = self.0.wait();
    }
}

/// The folder of one command.
struct Folder(TempDir);

impl Folder {
    fn new(folder: TempDir) -> Result<Self, StageError> {
        let folder = Self(folder);
        for sub in [folder.inputs(), folder.out(), folder.work()] {
            fs::create_dir(&sub).map_err(|e| cannot_write(&sub, &e))?;
        }
        Ok(folder)
    }

    /// The file that is an output, where it is one.
    fn output(&self, name: &str) -> Result<PathBuf, StageError> {
        let path = self.out().join(name);
        let did_not = |e: std::io::Error| {
            StageError::failed(format!("the command did not write `{name}`: {e}"))
                .with_help("write every file of `outputs` to the folder `$OUT`")
        };
        let file = fs::canonicalize(&path).map_err(did_not)?;
        let out = fs::canonicalize(self.out()).map_err(did_not)?;
        if !file.starts_with(&out) {
            return Err(StageError::failed(format!(
                "the output `{name}` of the command is a link to `{}`, which is not in `$OUT`",
                file.display()
            ))
            .with_help("copy the file instead (`cp -L`): an output is what the command wrote"));
        }
        regular::check(fs::metadata(&file).map_err(did_not)?.file_type()).map_err(|e| {
            StageError::failed(format!("the output `{name}` of the command cannot be kept: {e}"))
                .with_help("write a file, or a link to one in `$OUT`")
        })?;
        Ok(file)
    }

    fn inputs(&self) -> PathBuf {
        self.0.path().join("in")
    }

    fn out(&self) -> PathBuf {
        self.0.path().join("out")
    }

    fn work(&self) -> PathBuf {
        self.0.path().join("work")
    }

    fn log(&self) -> Result<File, StageError> {
        let path = self.0.path().join("log");
        File::options().append(true).create(true).open(&path).map_err(|e| cannot_write(&path, &e))
    }

    /// The last lines that the command printed, for an error message.
    fn last_words(&self) -> String {
        let text = fs::read(self.0.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned();
        let lines: Vec<_> = text.trim().lines().collect();
        if lines.is_empty() {
            return String::new();
        }
        format!("; it printed: {}", lines[lines.len().saturating_sub(10)..].join("\n"))
    }

    fn write_inputs(&self, inputs: &Inputs<'_>, port: &str) -> Result<(), StageError> {
        for item in inputs.items(port) {
            if !is_plain(&item.name) || !item.files.keys().all(|file| is_plain(file)) {
                return Err(StageError::failed("the item's name cannot be a folder's name")
                    .on_item(&item.name));
            }
            let folder = self.inputs().join(port).join(&item.name);
            fs::create_dir_all(&folder).map_err(|e| cannot_write(&folder, &e))?;
            for file in item.files.keys() {
                inputs.write(item, file, &folder.join(file))?;
            }
        }
        Ok(())
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> StageError {
    StageError::environment(format!("cannot write `{}`: {error}", path.display()))
        .with_help("make room on the disk of the cache, or name another with `--cache DIR`")
}

/// Whether a name names a file in a folder and nothing above or below it.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stages::support::Bench;

    fn stage(command: &str, outputs: &[&str]) -> ShellCommand {
        serde_json::from_value(json!({ "command": command, "outputs": outputs })).unwrap()
    }

    /// Runs the stage on one item `a` with the file `n.txt` that says 20.
    fn run(stage: &ShellCommand, allow: bool) -> Result<Vec<String>, StageError> {
        let bench = Bench::new();
        let item = bench.item("a", &[("n.txt", b"20")]);
        let inputs = bench.inputs(&[("input", ArtifactKind::Files, &[item])]);
        let items = bench.run_with(stage, &inputs, allow)?;
        assert_eq!(items.len(), 1);
        let read = |file| String::from_utf8(inputs.read(&items[0], file).unwrap()).unwrap();
        Ok(items[0].files.keys().map(|name| format!("{name}={}", read(name))).collect())
    }

    fn text(error: &StageError) -> String {
        match error {
            StageError::Failed { message, help, .. } => {
                format!("{message} | {}", help.as_deref().unwrap_or_default())
            }
            other => other.to_string(),
        }
    }

    #[test]
    fn declared_outputs_are_kept() {
        let sum = stage(
            r#"n=$(cat "$IN/input/a/n.txt"); printf %s $((n + 1)) > "$OUT/sum.txt"; touch "$OUT/extra""#,
            &["sum.txt"],
        );
        assert_eq!(run(&sum, true).unwrap(), ["sum.txt=21"]);
    }

    #[test]
    fn a_run_that_does_not_allow_commands_refuses() {
        let error = run(&stage("touch $OUT/x", &["x"]), false).unwrap_err();
        insta::assert_snapshot!(text(&error), @"shell commands are not allowed in this run | read the command, then run again with --allow-commands: touch $OUT/x");
    }

    #[test]
    fn a_failing_command_and_a_missing_output_are_named() {
        let error =
            run(&stage("echo about to fail; false; echo not here", &["x"]), true).unwrap_err();
        insta::assert_snapshot!(text(&error), @"the command ended with exit status: 1; it printed: about to fail | ");
        let error = run(&stage("true", &["x"]), true).unwrap_err();
        assert!(text(&error).starts_with("the command did not write `x`"), "{error}");
    }

    #[test]
    fn the_environment_is_clean_but_for_what_is_declared() {
        let mut list = stage("env | cut -d= -f1 | sort | tr '\\n' ' ' > $OUT/names", &["names"]);
        list.env.insert("WORD".into(), "x".into());
        let names = run(&list, true).unwrap();
        // The shell itself sets `PWD`, and some shells `OLDPWD`, `SHLVL` and `_`.
        let names: Vec<_> = names[0]["names=".len()..]
            .split_whitespace()
            .filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name))
            .collect();
        assert_eq!(names, ["HOME", "IN", "LANG", "OUT", "PATH", "TMPDIR", "WORD"]);
    }

    #[test]
    fn a_command_that_takes_too_long_is_stopped_with_its_children() {
        let mut slow = stage("sleep 60 & sleep 60", &["x"]);
        slow.timeout_secs = Some(1);
        let started = Instant::now();
        let error = run(&slow, true).unwrap_err();
        assert!(text(&error).contains("did not end within 1 s"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn an_output_is_a_file_that_the_command_wrote() {
        for (command, wanted) in [
            ("ln -s /etc/passwd $OUT/x", "is a link to `/etc/passwd`, which is not in `$OUT`"),
            ("ln -s ../in/input/a/n.txt $OUT/x", "which is not in `$OUT`"),
            ("mkfifo $OUT/x", "it is a FIFO, not a regular file"),
            ("ln -s /dev/zero $OUT/x", "which is not in `$OUT`"),
        ] {
            let error = text(&run(&stage(command, &["x"]), true).unwrap_err());
            assert!(error.starts_with("the output `x` of the command"), "{error}");
            assert!(error.contains(wanted), "{error}");
        }
        assert!(run(&stage("mkdir $OUT/x", &["x"]), true).is_err());
        let link = stage("echo 1 > $OUT/y; ln -s y $OUT/x", &["x", "y"]);
        assert_eq!(run(&link, true).unwrap(), ["x=1\n", "y=1\n"]);
    }

    #[test]
    fn a_longer_time_is_no_other_command() {
        let mut slow = stage("true", &["x"]);
        slow.timeout_secs = Some(9);
        assert_eq!(slow.params_without_effect(), [("timeout_secs", None)]);
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let mut wrong = stage(" ", &["../x", "y", "y"]);
        wrong.env.insert("OUT".into(), "/".into());
        let messages: Vec<_> = wrong.validate().into_iter().map(|e| e.message).collect();
        insta::assert_snapshot!(messages.join("\n"), @r"
        must not be empty
        `../x` is not a plain file name
        `y` is there twice
        `OUT` cannot be set
        ");
    }
}
