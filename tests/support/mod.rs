//! What the end-to-end tests share: guest programs compiled on the spot, commands under a time limit, outcomes compared.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub mod daemon;
pub mod fri;
pub mod gateway;
pub mod http;
pub mod left;
pub mod limits;
pub mod listed;
pub mod load;
pub mod machine;
pub mod tree;

/// Nothing that a test starts may take longer.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status, or 128 + N for death by signal N.
    pub status: i32,
    /// Whether a signal ended the command itself.
    pub by_signal: bool,
    /// Whether it had to be killed because its time was up.
    pub timed_out: bool,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Outcome {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The last line of stderr, parsed: what `--json` prints there.
    pub fn stats(&self) -> serde_json::Value {
        let line = self.stderr.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in the statistics: {}", self.stderr))
    }
}

/// 128 + N for death by signal N, as shells and `coppice run` have it.
pub fn status_number(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Runs a command to its end with `input` on stdin, or kills it when its time is up.
pub fn finish(command: &mut Command, input: &[u8], limit: Duration) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    let (stdin, input) = (child.stdin.take(), input.to_vec());
    let writer = std::thread::spawn(move || stdin.map(|mut s| s.write_all(&input)));
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let (status, timed_out) = wait(&mut child, limit);
    let _ = writer.join();
    Outcome {
        status: status_number(status),
        by_signal: status.signal().is_some(),
        timed_out,
        stdout: stdout.join().unwrap_or_default(),
        stderr: String::from_utf8_lossy(&stderr.join().unwrap_or_default()).into_owned(),
    }
}

/// Waits for a child of ours; kills it when the time is up. Whether that was needed is the second value.
pub fn wait(child: &mut Child, limit: Duration) -> (ExitStatus, bool) {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status, false);
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            return (child.wait().unwrap(), true);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn drain<R: Read + Send + 'static>(from: Option<R>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// The command under test.
pub fn coppice() -> Command {
    Command::new(env!("CARGO_BIN_EXE_coppice"))
}

/// A directory for what tests make, below the build directory.
pub fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// A fresh directory with a readable name.
pub fn fresh_dir(name: &str) -> tempfile::TempDir {
    tempfile::Builder::new().prefix(name).tempdir_in(scratch()).unwrap()
}

/// The same where everybody may reach it: this checkout may be below a directory that is its owner's alone, as those of mktemp(1) are.
#[allow(dead_code)]
pub fn open_dir(name: &str) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new().prefix(&format!("coppice-{name}-")).tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// How a guest program is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Static,
    Dynamic,
}

/// Compiles tests/programs/NAME.c once and gives its path.
pub fn program(name: &str, link: Link) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(|e| e.into_inner());
    let kind = if link == Link::Static { "static" } else { "dynamic" };
    let key = format!("{name}-{kind}-{}", std::process::id());
    if let Some(path) = built.get(&key) {
        return path.clone();
    }
    let dir = scratch().join("programs");
    std::fs::create_dir_all(&dir).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/programs").join(format!("{name}.c"));
    let (fresh, path) = (dir.join(&key), dir.join(format!("{name}-{kind}")));
    let mut gcc = Command::new("gcc");
    gcc.args(["-O1", "-g0", "-pthread", "-o"]).arg(&fresh).arg(&source);
    if link == Link::Static {
        gcc.arg("-static");
    }
    let outcome = finish(&mut gcc, b"", LIMIT);
    assert_eq!(outcome.status, 0, "gcc {name}: {}", outcome.stderr);
    // Another test binary may run the old one right now: replace it, never write into it.
    std::fs::rename(&fresh, &path).unwrap();
    built.insert(key, path.clone());
    path
}

/// Installs something with a package manager, once, in a directory of the build's; the directory.
pub fn installed(name: &str, install: impl Fn(&Path) -> Vec<Command>) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _guard = BUILDING.lock().unwrap_or_else(|e| e.into_inner());
    let dir = scratch().join("installed").join(name);
    if dir.join("complete").exists() {
        return dir;
    }
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    for mut command in install(&dir) {
        let outcome = finish(&mut command, b"", Duration::from_secs(900));
        assert_eq!(
            outcome.status, 0,
            "cannot install {name} (is its registry reachable from here?): {command:?}: {}",
            outcome.stderr
        );
    }
    std::fs::write(dir.join("complete"), "").unwrap();
    dir
}

/// The environment that both sides get.
pub const ENVIRONMENT: &[(&str, &str)] =
    &[("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/root")];

/// Runs a program on the host itself, without the randomised addresses that would make two runs differ.
pub fn native(program: &Path, args: &[&str], dir: &Path, input: &[u8]) -> Outcome {
    let mut command = Command::new("setarch");
    command.args(["-R", "--"]).arg(program).args(args);
    natively(command, dir, input)
}

/// The same at randomised addresses, where the top of the address space is empty.
pub fn native_randomised(program: &Path, dir: &Path, input: &[u8]) -> Outcome {
    natively(Command::new(program), dir, input)
}

fn natively(mut command: Command, dir: &Path, input: &[u8]) -> Outcome {
    command.current_dir(dir).env_clear().envs(ENVIRONMENT.iter().copied());
    let outcome = finish(&mut command, input, LIMIT);
    assert!(!outcome.timed_out, "{command:?} hangs on the host itself");
    outcome
}

/// `coppice run OPTIONS -- PROGRAM ARGS`.
pub fn run_command(options: &[&str], program: &Path, args: &[&str]) -> Command {
    let mut command = coppice();
    command.arg("run").args(options).arg("--").arg(program).args(args);
    command.env_clear().envs(ENVIRONMENT.iter().copied());
    command
}

/// Runs a program in a sandbox. The sandbox itself must neither hang, panic nor die.
pub fn guest(options: &[&str], program: &Path, args: &[&str], input: &[u8]) -> Outcome {
    let outcome = finish(&mut run_command(options, program, args), input, LIMIT);
    let first = String::from_utf8_lossy(input.split(|b| *b == b'\n').next().unwrap_or_default()).into_owned();
    survived(&outcome, &format!("{} {args:?} {options:?} {first}", program.display()));
    outcome
}

/// The sandbox ended by itself, and with a status of the program's.
pub fn survived(outcome: &Outcome, what: &str) {
    assert!(!outcome.timed_out, "{what}: hangs; stderr: {}", outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{what}: {}", outcome.stderr);
    assert!(
        !outcome.by_signal,
        "{what}: coppice died of signal {}: {}",
        outcome.status - 128,
        outcome.stderr
    );
    assert_ne!(outcome.status, 125, "{what}: {}", outcome.stderr);
}

/// Runs a program on the host and in a sandbox; status and stdout must be the same.
pub fn same(options: &[&str], program: &Path, args: &[&str]) {
    let dir = fresh_dir("same");
    let expected = native(program, args, dir.path(), b"");
    let workdir = dir.path().to_str().unwrap();
    let mut all = vec!["--workdir", workdir];
    all.extend(options);
    let outcome = guest(&all, program, args, b"");
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if outcome.stdout != expected.stdout {
        let (got, want) = (outcome.text(), expected.text());
        let (mut got, mut want) = (got.lines(), want.lines());
        let mut line = 1;
        let differs = loop {
            match (got.next(), want.next()) {
                (g, w) if g == w => line += 1,
                other => break other,
            }
        };
        panic!(
            "{name} {args:?} {options:?}: (guest, host) line {line} {differs:?}; stderr: {}",
            outcome.stderr
        );
    }
    assert_eq!(outcome.status, expected.status, "{name} {args:?} {options:?}: {}", outcome.stderr);
}

/// The names that a program of several cases prints for `list`, one per line.
pub fn cases(program: &Path) -> Vec<String> {
    let outcome = native(program, &["list"], &scratch(), b"");
    let cases: Vec<String> = outcome.text().lines().map(str::to_owned).collect();
    assert!(!cases.is_empty(), "{} lists no cases", program.display());
    cases
}

/// Collects failures, so that one run shows all of them.
#[derive(Default)]
pub struct Failures(Mutex<Vec<String>>);

impl Failures {
    /// Runs one case; a failed assertion in it is kept for the end.
    pub fn check(&self, case: impl FnOnce() + std::panic::UnwindSafe) {
        if let Err(error) = std::panic::catch_unwind(case) {
            let text = error.downcast_ref::<String>().cloned();
            let text = text.or_else(|| error.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            self.0.lock().unwrap().push(text.unwrap_or_default());
        }
    }

    /// Fails with everything that went wrong.
    pub fn report(self) {
        let failures = self.0.into_inner().unwrap();
        assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n---\n"));
    }
}

/// Calls `f` for every item, two at a time.
pub fn two_at_a_time<T: Send + Sync>(items: &[T], f: impl Fn(&T) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    f(item);
                }
            });
        }
    });
}
