//! A program that a test started.

use super::{PATIENCE, until, within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// A running program. Killed when it is dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it prints is added to the file `log`.
    pub fn start(program: &Path, args: &[&str], log: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let name = program.file_name().unwrap().to_string_lossy().into_owned();
        Self { name, child, log: log.to_owned() }
    }

    /// Waits until it is ready; fails with what it printed if it ends before that, or takes too long.
    pub fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) {
        let mut ended = None;
        let held = within(PATIENCE, || {
            ended = self.child.try_wait().unwrap();
            ended.is_some() || ready()
        });
        let name = &self.name;
        assert!(ended.is_none(), "{name} ended with {ended:?}:\n{}", self.tail());
        assert!(held, "{name} is not {what} after {PATIENCE:?}:\n{}", self.tail());
    }

    /// The process that was started.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`. Fails if it had ended by itself.
    pub fn kill(mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} ended by itself with {status}:\n{}", self.name, self.tail());
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it then ended. What it printed is shown if that is not with 0.
    pub fn terminate(mut self) -> ExitStatus {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        let mut ended = None;
        until(&format!("{} has drained and stopped", self.name), || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        let status = ended.unwrap();
        if !status.success() {
            println!("{} ended with {status}:\n{}", self.name, self.tail());
        }
        status
    }

    fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
