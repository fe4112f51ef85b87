//! Programs with a time limit, signals by process id, and the end of what a killed test left behind.
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A program that ended by itself within its time.
#[derive(Debug)]
pub struct Finished {
    /// The program and its arguments, for messages.
    pub what: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Finished {
    /// Its standard output, if it ended with 0; otherwise a panic with all it wrote.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(
            self.status.success(),
            "{} ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.what,
            self.status,
            self.stdout,
            self.stderr
        );
        self.stdout
    }
}

/// Runs a program to its end. At the limit it and what it started are killed, and the test fails with what it had
/// written till then.
#[track_caller]
pub fn run(command: &mut Command, limit: Duration) -> Finished {
    run_with_input(command, "", limit)
}

/// [`run`] with text for its standard input.
#[track_caller]
pub fn run_with_input(command: &mut Command, input: &str, limit: Duration) -> Finished {
    let what = describe(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("can't start {what}: {error}"));
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        // A program may end without reading: that is its own affair.
        std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    }
    let stdout = read_all(child.stdout.take());
    let stderr = read_all(child.stderr.take());
    let status = wait(&mut child, limit);
    if status.is_none() {
        signal_group(child.id(), "KILL");
        drop(child.wait());
    }
    // Readers end when the last holder of the pipe does; a grandchild that lives on isn't waited for.
    let collect = |output: mpsc::Receiver<String>| output.recv_timeout(Duration::from_secs(2)).unwrap_or_default();
    let (stdout, stderr) = (collect(stdout), collect(stderr));
    match status {
        Some(status) => Finished { what, status, stdout, stderr },
        None => panic!("{what} did not end within {limit:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"),
    }
}

/// Waits for the end of a process; `None` when the limit comes first.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().expect("own child can be waited for") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Tries until there is a value; panics with `what` at the limit.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal (`"KILL"`, `"STOP"`, ...) to one process that this test started.
pub fn signal(pid: u32, name: &str) {
    kill(&format!("-{name}"), &pid.to_string());
}

fn signal_group(pid: u32, name: &str) {
    kill(&format!("-{name}"), &format!("-{pid}"));
}

fn kill(signal: &str, target: &str) {
    // The process may have ended just before.
    drop(Command::new("kill").args([signal, "--", target]).stderr(Stdio::null()).status());
}

/// The processes whose parent is `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|candidate| parent(*candidate) == Some(pid))
        .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "1234 (name, which may hold anything) S 1 ..."
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Ends a process and removes its directory when the test's own process dies without doing so, however it dies.
///
/// A small shell waits at a pipe of which this process holds the other end. It reads the id of the process to end from
/// `DIRECTORY/pid`, so that a restarted process is meant too.
#[derive(Debug)]
pub struct Reaper {
    shell: Child,
    door: Option<ChildStdin>,
}

const REAPER: &str = r#"
trap '' INT TERM HUP
read -r word && [ "$word" = done ] && exit 0
if read -r pid <"$1/pid"; then
    for child in $(ps -o pid= --ppid "$pid"); do kill -CONT "$child"; done
    kill -CONT "$pid"; kill -QUIT "$pid"; sleep 2; kill -KILL "$pid"
fi
rm -rf -- "$1"
"#;

impl Reaper {
    /// Watches over `directory`.
    pub fn of(directory: &Path) -> Reaper {
        let mut shell = Command::new("sh")
            .args(["-c", REAPER, "reaper"])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        let door = shell.stdin.take();
        Reaper { shell, door }
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

fn read_all(source: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            drop(source.read_to_end(&mut bytes));
        }
        drop(sender.send(String::from_utf8_lossy(&bytes).into_owned()));
    });
    receiver
}

fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}
