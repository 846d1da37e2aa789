//! The end of commands that outlive their run.

use std::{
    io,
    process::{Child, Command, ExitStatus},
};

#[cfg(unix)]
use self::unix::Watch;
#[cfg(unix)]
use crate::sync::Unpoisoned;

/// Ends the commands of a run, and its workers, when this process is no more, even by `kill -9`.
///
/// One shell does it for all of a run. Each command leads a group of processes of its own, which
/// the shell is told of before the command starts, and again when it has ended; it waits for the
/// end of its input, which this process alone holds open. Until it is told, the command waits, too,
/// and does not start if this process is gone by then. So no moment is left in which a command is
/// nobody's.
///
/// While this process lives, the number of a group stays that of the command: it is waited for only
/// when its group was ended and the shell told (on Linux and FreeBSD; elsewhere a moment before).
/// Once this process is gone, a command that ends by itself before the shell acts gives its number
/// back. That would have to be given to another group in that moment for it to be ended instead;
/// Linux gives numbers in turn.
///
/// The kernel's own way, a signal at the death of the parent, is set between `fork` and `exec`,
/// where only unsafe code runs; it exists on Linux alone and reaches the command's shell, but not
/// what that started.
#[derive(Debug, Default)]
pub struct CommandGuard {
    #[cfg(unix)]
    watch: std::sync::Mutex<Watch>,
}

/// A command that runs; it ends when this is dropped, with all that it started.
pub(super) struct Running<'a> {
    #[cfg_attr(not(unix), expect(dead_code, reason = "groups are those of Unix"))]
    guard: &'a CommandGuard,
    child: Child,
    is_over: bool,
}

impl CommandGuard {
    /// Starts `sh -eu` on a script, with nothing to read.
    pub(super) fn start(&self, shell: &mut Command, script: &str) -> io::Result<Running<'_>> {
        #[cfg(unix)]
        {
            let child = unix::spawn_held(shell, script)?;
            let mut running = Running { guard: self, child, is_over: false };
            self.watch().add(unix::Target::group(running.group()))?;
            unix::let_go(&mut running.child)?;
            Ok(running)
        }
        #[cfg(not(unix))]
        {
            shell.args(["-eu", "-c", script]).stdin(std::process::Stdio::null());
            Ok(Running { guard: self, child: shell.spawn()?, is_over: false })
        }
    }

    /// Ends a process of this one as well, but not what it started, until it is told that it has
    /// ended. It would end by itself, unless somebody stops it: that leaves nothing but a signal to
    /// end it.
    pub fn add(&self, process: &Child) -> io::Result<()> {
        #[cfg(unix)]
        self.watch().add(unix::Target::process(process.id()))?;
        #[cfg(not(unix))]
        let _ = process;
        Ok(())
    }

    /// Tells that a process has ended.
    pub fn remove(&self, process: &Child) {
        #[cfg(unix)]
        self.watch().remove(unix::Target::process(process.id()));
        #[cfg(not(unix))]
        let _ = process;
    }

    #[cfg(unix)]
    fn watch(&self) -> std::sync::MutexGuard<'_, Watch> {
        self.watch.lock().unpoisoned()
    }
}

impl Running<'_> {
    /// Whether the command has ended; what it started may go on.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        #[cfg(unix)]
        {
            unix::has_ended(&mut self.child)
        }
        #[cfg(not(unix))]
        {
            Ok(self.child.try_wait()?.is_some())
        }
    }

    /// Ends the command and what it started, and says how it ended.
    pub fn end(mut self) -> io::Result<ExitStatus> {
        self.close()
    }

    #[cfg(unix)]
    fn group(&self) -> u32 {
        self.child.id()
    }

    fn close(&mut self) -> io::Result<ExitStatus> {
        self.is_over = true;
        #[cfg(unix)]
        {
            unix::end_group(self.group());
            self.guard.watch().remove(unix::Target::group(self.group()));
        }
        #[cfg(not(unix))]
        // Fails for one that has ended, whose state is kept.
        let _ = self.child.kill();
        self.child.wait()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // There is nobody to be told.
            let _ = self.close();
        }
    }
}

#[cfg(unix)]
mod unix {
    use std::{
        collections::BTreeSet,
        io::{self, Write},
        os::unix::process::CommandExt,
        process::{Child, ChildStdin, Command, Stdio},
    };

    use nix::{sys::signal, unistd::Pid};

    /// Put before a command, on its first line, so that what the shell says of lines holds.
    const HOLD: &str = "read _||exit;exec </dev/null;";

    /// Keeps what it is told of (`+ -12`) until it is told that it ended (`- -12`).
    pub(super) const WATCH: &str = r#"trap '' HUP INT QUIT TERM
all=' '
while read -r change one; do
    case $change in
        +) all="$all$one " ;;
        -) all="${all%% $one *} ${all#* $one }" ;;
    esac
done
for one in $all; do kill -s KILL -- "$one"; done"#;

    /// What is ended, as `kill` takes it: a process by its number, a group by that of its leader
    /// with a minus.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub(super) struct Target(i64);

    impl Target {
        pub fn process(number: u32) -> Self {
            Self(i64::from(number))
        }

        pub fn group(leader: u32) -> Self {
            Self(-i64::from(leader))
        }
    }

    /// The shell that watches, once there is something to watch.
    #[derive(Debug, Default)]
    pub(super) struct Watch {
        shell: Option<(Child, ChildStdin)>,
        targets: BTreeSet<Target>,
    }

    impl Watch {
        /// Tells what is to be ended. Where somebody has ended the shell, another one is told of
        /// all.
        pub fn add(&mut self, target: Target) -> io::Result<()> {
            self.targets.insert(target);
            if self.shell.is_some() && self.tell(&format!("+ {}\n", target.0)).is_ok() {
                return Ok(());
            }
            self.stop();
            self.shell = Some(start()?);
            let all: Vec<String> =
                self.targets.iter().map(|one| format!("+ {}\n", one.0)).collect();
            self.tell(&all.concat())
        }

        /// Tells what has ended; a shell that cannot be told has ended as well.
        pub fn remove(&mut self, target: Target) {
            if self.targets.remove(&target) {
                let _ = self.tell(&format!("- {}\n", target.0));
            }
        }

        fn tell(&mut self, lines: &str) -> io::Result<()> {
            let (_, input) = self.shell.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
            input.write_all(lines.as_bytes())
        }

        fn stop(&mut self) {
            if let Some((mut shell, input)) = self.shell.take() {
                drop(input);
                let _ = shell.wait();
            }
        }

        #[cfg(test)]
        pub fn shell(&self) -> Option<u32> {
            self.shell.as_ref().map(|(shell, _)| shell.id())
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            if let (true, Some((shell, _))) = (self.targets.is_empty(), &mut self.shell) {
                // It has nothing to do any more, also if somebody has stopped it.
                let _ = shell.kill();
            }
            self.stop();
        }
    }

    fn start() -> io::Result<(Child, ChildStdin)> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", WATCH]).env_clear().process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut shell = shell.spawn()?;
        let input = shell.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok((shell, input))
    }

    /// Starts a shell that leads a group and waits for leave to run its script.
    pub(super) fn spawn_held(shell: &mut Command, script: &str) -> io::Result<Child> {
        let held = format!("{HOLD}{script}");
        shell.args(["-eu", "-c", &held]).stdin(Stdio::piped()).process_group(0).spawn()
    }

    /// Lets it run. One that has been ended already is found out as any that ends.
    pub(super) fn let_go(shell: &mut Child) -> io::Result<()> {
        let mut input = shell.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        match input.write_all(b"\n") {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
            _ => Ok(()),
        }
    }

    /// Whether a child has ended; it is not waited for, so its number stays its own.
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    pub(super) fn has_ended(child: &mut Child) -> io::Result<bool> {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let state = waitid(Id::Pid(pid(child.id())), flags)?;
        Ok(state != WaitStatus::StillAlive)
    }

    /// The same where `nix` knows no `waitid`: the number of the child is its own a moment less.
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    pub(super) fn has_ended(child: &mut Child) -> io::Result<bool> {
        Ok(child.try_wait()?.is_some())
    }

    pub(super) fn end_group(leader: u32) {
        // Failure means that nobody is in it any more.
        let _ = signal::killpg(pid(leader), signal::Signal::SIGKILL);
    }

    fn pid(number: u32) -> Pid {
        Pid::from_raw(number.cast_signed())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        fs,
        path::Path,
        time::{Duration, Instant},
    };

    use super::*;

    /// Whether a process is there and has not ended.
    fn lives(pid: u32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
    }

    fn until(done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_mins(1), "too late");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The number that a command writes to a file, and that is all of it.
    fn number_in(path: &Path) -> u32 {
        let text = || fs::read_to_string(path).unwrap_or_default();
        until(|| text().ends_with('\n'));
        text().trim().parse().expect("the number of a process")
    }

    fn start<'a>(guard: &'a CommandGuard, script: &str, folder: &Path) -> Running<'a> {
        guard.start(Command::new("/bin/sh").current_dir(folder), script).expect("a shell")
    }

    /// Leaves a command as the end of this process would: nobody ends it, and the shell's input
    /// closes.
    fn abandon(running: Running<'_>) -> u32 {
        let group = running.group();
        std::mem::forget(running);
        group
    }

    #[test]
    fn what_runs_at_the_end_is_ended_and_what_has_ended_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let guard = CommandGuard::default();
        let (one, two, three) = (
            start(&guard, "sleep 98701 & echo $! > started; wait", dir.path()),
            start(&guard, "sleep 98702", dir.path()),
            start(&guard, "trap '' TERM; while :; do sleep 98703; done", dir.path()),
        );
        let sleep = number_in(&dir.path().join("started"));
        let (one, two, three) = (abandon(one), abandon(two), abandon(three));
        // As if it had ended, and another group had its number.
        guard.watch().remove(unix::Target::group(two));
        assert!(lives(sleep) && lives(one) && lives(two) && lives(three));
        drop(guard);
        until(|| !lives(sleep) && !lives(one) && !lives(three));
        assert!(lives(two));
        unix::end_group(two);
    }

    #[test]
    fn a_process_that_is_stopped_is_ended_and_its_group_is_not() {
        let guard = CommandGuard::default();
        let mut process = Command::new("sleep").arg("98707").spawn().unwrap();
        guard.add(&process).unwrap();
        let status = Command::new("kill").args(["-STOP", &process.id().to_string()]).status();
        assert!(status.unwrap().success() && lives(process.id()));
        drop(guard);
        assert!(!process.wait().unwrap().success());
        let guard = CommandGuard::default();
        let mut process = Command::new("sleep").arg("98708").spawn().unwrap();
        guard.add(&process).unwrap();
        guard.remove(&process);
        drop(guard);
        assert!(lives(process.id()));
        process.kill().unwrap();
        process.wait().unwrap();
    }

    #[test]
    fn a_shell_that_somebody_ended_is_replaced_and_told_of_all() {
        let dir = tempfile::tempdir().unwrap();
        let guard = CommandGuard::default();
        let one = abandon(start(&guard, "sleep 98706", dir.path()));
        let shell = guard.watch().shell().unwrap();
        unix::end_group(shell);
        until(|| !lives(shell));
        assert!(lives(one));
        let two = abandon(start(&guard, "sleep 98704", dir.path()));
        assert_ne!(guard.watch().shell().unwrap(), shell);
        drop(guard);
        until(|| !lives(one) && !lives(two));
    }

    #[test]
    fn a_command_that_nobody_lets_go_does_not_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut shell = Command::new("/bin/sh");
        let mut held = unix::spawn_held(shell.current_dir(dir.path()), "echo > started").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(!unix::has_ended(&mut held).unwrap());
        // As if this process were gone.
        drop(held.stdin.take());
        assert_eq!(held.wait().unwrap().code(), Some(1));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_command_leaves_running_ends_with_it_and_its_own_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let guard = CommandGuard::default();
        let mut running =
            start(&guard, "sleep 98705 & echo $! > left; cat; kill -s USR1 $$", dir.path());
        let left = number_in(&dir.path().join("left"));
        let start = Instant::now();
        while !running.has_ended().unwrap() {
            assert!(start.elapsed() < Duration::from_mins(1), "too late");
        }
        let status = running.end().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(nix::sys::signal::Signal::SIGUSR1 as i32), "{status}");
        until(|| !lives(left));
        // The shell goes on for the next one.
        assert!(lives(guard.watch().shell().unwrap()));
    }
}
