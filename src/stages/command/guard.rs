//! The end of a command that outlives its run.

use std::{
    io,
    process::{Child, Command, Stdio},
};

/// A command may signal its whole group, as `trap 'kill 0' EXIT` does.
#[cfg(unix)]
const SCRIPT: &str = "trap '' HUP INT QUIT TERM; read _; kill -s KILL 0";

/// A shell that ends the command when this process is no more, even by `kill -9`.
///
/// It leads the group of processes that the command and all it starts are in, and waits for the end of
/// its input, which this process alone holds open. The kernel's own way, a signal at the death of the
/// parent, is set between `fork` and `exec`, where only unsafe code runs; it exists on Linux alone and
/// reaches the shell, but not what the shell started.
pub(super) struct Guard(#[cfg(unix)] Child);

impl Guard {
    #[cfg(unix)]
    pub fn new() -> io::Result<Self> {
        let mut guard = Command::new("/bin/sh");
        guard.args(["-c", SCRIPT]).env_clear().stdin(Stdio::piped());
        guard.stdout(Stdio::null()).stderr(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut guard, 0);
        guard.spawn().map(Self)
    }

    #[cfg(not(unix))]
    pub fn new() -> io::Result<Self> {
        Ok(Self())
    }

    /// The group, by the number of its leader.
    #[cfg(unix)]
    fn group(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// Lets the command start in the group; where the guard has ended it, the command does not start.
    pub fn takes(&self, command: &mut Command) {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, self.group());
        #[cfg(not(unix))]
        let _ = command;
    }

    /// Ends the command, what it started, and the guard.
    pub fn stop(&self, child: &mut Child) {
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
