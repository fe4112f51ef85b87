//! Programs that the demo starts, and their end: only they are ever signalled, each by its own process id.
use super::error::DemoError;
use super::scratch::{Kept, PROCESSES, Scratch};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running program, ended with the value.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// The signal that ends it.
    signal: &'static str,
    log: PathBuf,
    /// Tells the reaper about it.
    note: PathBuf,
    kept: Kept,
}

impl Program {
    /// Starts it in a process group of its own, so that Ctrl-C reaches only the demo, which then ends things in order.
    /// What it writes goes to `log`.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(
        command: &mut Command,
        signal: &'static str,
        log: PathBuf,
        scratch: &Scratch,
    ) -> Result<Self, DemoError> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&log);
        let file = file.map_err(DemoError::system(log.display().to_string()))?;
        let second = file.try_clone().map_err(DemoError::system(log.display().to_string()))?;
        command.stdin(Stdio::null()).stdout(second).stderr(file).process_group(0);
        let child = command.spawn().map_err(DemoError::system(format!("can't start {name}")))?;
        let mut program = Self { child, signal, log, note: PathBuf::new(), kept: scratch.kept().clone() };
        program.note = scratch.note_process(program.pid())?;
        Ok(program)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it logs.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.kept.is_set() {
            return;
        }
        if self.ended().is_none() {
            signal(self.pid(), self.signal);
        }
        let deadline = Instant::now() + PATIENCE;
        while self.ended().is_none() {
            if Instant::now() >= deadline {
                // It may have ended just now: there is nothing more to be done then.
                drop(self.child.kill());
                drop(self.child.wait());
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(std::fs::remove_file(&self.note));
    }
}

/// Sends a signal to a process that the demo started. The shell has `kill` built in, on every machine.
fn signal(pid: u32, name: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "kill -\"$1\" \"$2\"", "kill", name, &pid.to_string()]);
    drop(shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status());
}

/// Ends what the demo started and removes its directory if the demo is killed before it can do so itself.
///
/// A small shell waits at a pipe whose other end only this process holds: it closes however the process dies.
#[derive(Debug)]
pub struct Reaper {
    shell: Child,
    door: Option<ChildStdin>,
}

const REAPER: &str = r#"
trap '' INT TERM HUP
read -r word && [ "$word" = done ] && exit 0
for signal in QUIT KILL; do
    for note in "$1/$2"/*; do kill -"$signal" "${note##*/}"; done
    sleep 1
done
rm -rf -- "$1"
"#;

impl Reaper {
    /// Watches over the processes and files of `scratch`.
    ///
    /// # Errors
    /// When there is no shell.
    pub fn of(scratch: &Scratch) -> Result<Self, DemoError> {
        let mut command = Command::new("sh");
        command.args(["-c", REAPER, "pgshadow-demo-reaper"]).arg(scratch.path()).arg(PROCESSES);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut shell = command.spawn().map_err(DemoError::system("can't start sh"))?;
        let door = shell.stdin.take();
        Ok(Self { shell, door })
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        if let Some(mut door) = self.door.take() {
            drop(door.write_all(b"done\n"));
        }
        drop(self.shell.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(scratch: &Scratch) -> Program {
        let mut command = Command::new("sleep");
        command.arg("60");
        Program::start(&mut command, "TERM", scratch.path().join("log"), scratch).unwrap()
    }

    fn lives(pid: u32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn a_program_ends_with_its_value() {
        let scratch = Scratch::new().unwrap();
        let mut program = sleeper(&scratch);
        let pid = program.pid();
        assert!(program.ended().is_none() && lives(pid));
        drop(program);
        assert!(!lives(pid));
    }

    #[test]
    fn a_killed_demo_leaves_nothing() {
        let scratch = Scratch::new().unwrap();
        let program = sleeper(&scratch);
        let mut reaper = Reaper::of(&scratch).unwrap();
        // As if this process had died: its end of the pipe closes without a word.
        drop(reaper.door.take());
        drop(reaper);
        assert!(!lives(program.pid()) && !scratch.path().exists());
    }
}
