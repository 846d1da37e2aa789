//! `command`: a shell command with declared inputs and outputs.

mod folder;
mod guard;

pub use guard::CommandGuard;

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::Path,
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    folder::{Folder, is_plain},
    guard::Running,
};
use super::{Inputs, Output, ParamError, Port, Ports, Stage, StageContext, StageError, StageKind};
use crate::artifact::ArtifactKind;

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
/// input under `$IN/<port>/<item>/<file>` and writes its outputs to `$OUT`, as files or links to
/// files in there; what it leaves running is ended, but for what began a session of its own
/// (`setsid`). Nothing else of the environment is passed on: `PATH` is the system's, `HOME` and
/// `TMPDIR` are below that folder, `LANG` is `C.UTF-8`; `env` adds to these. The key knows the
/// command, `env` and the inputs, but not other files that the command reads: change `revision` when
/// one of those changes.
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
        if let Some(path) = folder.removed() {
            return Err(without_folder(path, status, &folder));
        }
        if !status.success() {
            return Err(ended_badly(status, &folder, out.free_space()));
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
        let mut shell = Command::new("/bin/sh");
        shell
            .current_dir(folder.work())
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .env("HOME", folder.work())
            .env("TMPDIR", folder.work())
            .envs(&self.env)
            .env("IN", folder.inputs())
            .env("OUT", folder.out())
            .stdout(folder.log()?)
            .stderr(folder.log()?);
        let running = cx.commands.start(&mut shell, &self.command).map_err(|e| cannot_start(&e))?;
        if let Some(status) = self.wait(running, cx)? {
            return Ok(status);
        }
        cx.cancel.check()?;
        Err(StageError::failed(format!(
            "the command did not end within {} s{}",
            self.timeout_secs.unwrap_or_default(),
            folder.last_words()
        ))
        .with_help("raise `timeout_secs`"))
    }

    /// How the command ended; none if it was stopped. Whatever it left behind is ended in any case,
    /// as it could still write to its outputs.
    fn wait(
        &self,
        mut running: Running<'_>,
        cx: &StageContext<'_>,
    ) -> Result<Option<ExitStatus>, StageError> {
        let failed =
            |e: io::Error| StageError::environment(format!("cannot wait for the command: {e}"));
        let started = Instant::now();
        let limit = self.timeout_secs.map(Duration::from_secs);
        let mut pause = Duration::from_millis(1);
        loop {
            if running.has_ended().map_err(failed)? {
                return running.end().map(Some).map_err(failed);
            }
            let is_late = limit.is_some_and(|limit| started.elapsed() > limit);
            if cx.cancel.is_cancelled() || is_late {
                running.end().map_err(failed)?;
                return Ok(None);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// What is said of a command that failed; a disk with so little space left (bytes) is why, and took
/// its last words.
fn ended_badly(status: ExitStatus, folder: &Folder, free: Option<u64>) -> StageError {
    const FULL: u64 = 64 << 10;
    let ended = format!("the command ended with {status}{}", folder.last_words());
    if free.is_none_or(|free| free >= FULL) {
        return StageError::failed(ended);
    }
    StageError::environment(format!("the disk of the cache is full, where it writes: {ended}"))
        .with_help("free space with `pipe cache gc`, or name another disk with `--cache DIR`")
}

/// What is said of a command whose folder somebody removed, however it ended.
fn without_folder(path: &Path, status: ExitStatus, folder: &Folder) -> StageError {
    StageError::environment(format!(
        "`{}` was removed while the command worked in it; it ended with {status}{}",
        path.display(),
        folder.last_words()
    ))
    .with_help("leave the cache alone while a run uses it: `pipe cache gc` removes nothing then")
}

fn cannot_start(error: &io::Error) -> StageError {
    StageError::environment(format!("cannot start `/bin/sh`: {error}"))
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
    fn a_folder_that_was_removed_is_told_with_what_was_printed() {
        let remove = "echo working; cd /; rm -rf \"$(dirname $OUT)\"";
        for (end, status) in [("ls $OUT/x 2> /dev/null || exit 2", 2), ("true", 0)] {
            let error = run(&stage(&format!("{remove}; {end}"), &["x"]), true).unwrap_err();
            let wanted = format!(
                "was removed while the command worked in it; it ended with exit status: {status}; \
                 it printed: working"
            );
            assert!(text(&error).contains(&wanted), "{error}");
        }
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
            ("mkdir $OUT/x", "is a folder | name the files to be kept"),
        ] {
            let error = text(&run(&stage(command, &["x"]), true).unwrap_err());
            assert!(error.starts_with("the output `x` of the command"), "{error}");
            assert!(error.contains(wanted), "{error}");
        }
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
