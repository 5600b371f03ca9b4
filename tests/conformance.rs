//! Conformance: each program of tests/conformance runs on the host and in the sandbox; what it prints must be the same, line by line.
//!
//! One family alone: `cargo test -p coppice --test conformance -- files`. All of them, with the programs' own test suites: `./setup conformance`.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::{coppice, finish};

/// A family may take this long on a busy machine of two cores.
const LIMIT: Duration = Duration::from_secs(120);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance")
}

/// The known differences of a family: assertion's name -> reason.
fn known(family: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder().join("known.txt")).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut known = BTreeMap::new();
    for line in lines {
        let mut parts = line.split('\t');
        let (Some(of), Some(name), Some(reason)) = (parts.next(), parts.next(), parts.next()) else {
            panic!("known.txt: `{line}` is not family, name and reason with tabs between");
        };
        if of == family {
            known.insert(name.to_owned(), reason.to_owned());
        }
    }
    known
}

fn compile(family: &str, into: &Path) -> PathBuf {
    let program = into.join(family);
    let source = folder().join(format!("{family}.c"));
    let done = Command::new("cc")
        .args(["-O1", "-g", "-Wall", "-o"])
        .arg(&program)
        .arg(&source)
        .args(["-pthread", "-lm", "-lutil"])
        .output();
    let done = done.expect("cannot start cc: install gcc and libc6-dev");
    assert!(done.status.success(), "{family}.c does not compile:\n{}", String::from_utf8_lossy(&done.stderr));
    program
}

/// Runs one family on the host and in the sandbox. At least `least` assertions have to be made, or the program has lost some.
fn family(family: &str, least: usize, options: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let program = compile(family, directory.path());
    let native = finish(&mut Command::new(&program), b"", LIMIT);
    assert!(!native.timed_out && native.status == 0, "{family} on the host: {native:?}");
    let mut command = coppice();
    command.arg("run").args(options).arg("--").arg(&program);
    let inside = finish(&mut command, b"", LIMIT);

    let (expected, seen) = (native.text(), inside.text());
    let (expected, seen): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), seen.lines().collect());
    assert!(
        expected.len() >= least,
        "{family}: {} assertions, fewer than the {least} it had",
        expected.len()
    );
    let mut known = known(family);
    let mut report = String::new();
    for (number, line) in expected.iter().enumerate() {
        let got = seen.get(number).copied().unwrap_or("(nothing)");
        let name = line.split(": ").next().unwrap_or(line);
        if *line != got && known.remove(name).is_none() {
            let _ = writeln!(report, "  host     {line}\n  sandbox  {got}");
        }
        if line.contains("FAILED at line") {
            let _ = writeln!(report, "  on the host: {line}");
        }
        if got == "(nothing)" {
            break;
        }
    }
    for line in seen.iter().skip(expected.len()).take(5) {
        let _ = writeln!(report, "  only in the sandbox  {line}");
    }
    for name in known.keys() {
        let _ = writeln!(report, "  known.txt lists `{name}`, but it does not differ: remove the entry");
    }
    println!("{family}: {} assertions, status {}", expected.len(), inside.status);
    assert!(report.is_empty(), "{family} differs:\n{report}{}", inside.stderr);
    assert!(inside.status == 0 && !inside.timed_out, "{family} in the sandbox: {inside:?}");
}

#[test]
fn directories() {
    family("directories", 175, &[]);
}

#[test]
fn files() {
    family("files", 685, &[]);
}

#[test]
fn aio() {
    family("aio", 320, &[]);
}

#[test]
fn notify() {
    family("notify", 810, &[]);
}

#[test]
fn userfaultfd() {
    family("userfaultfd", 170, &[]);
}

#[test]
fn inotify() {
    family("inotify", 190, &[]);
}

#[test]
fn locks() {
    family("locks", 177, &[]);
}

#[test]
fn splice() {
    family("splice", 119, &[]);
}

#[test]
fn xattrs() {
    family("xattrs", 527, &[]);
}

#[test]
fn creds() {
    family("creds", 1761, &[]);
}

#[test]
fn mounts() {
    family("mounts", 109, &[]);
}

#[test]
fn pipes() {
    family("pipes", 500, &[]);
}

#[test]
fn poll() {
    family("poll", 700, &[]);
}

#[test]
fn ptrace() {
    family("ptrace", 523, &[]);
}

#[test]
fn remote() {
    family("remote", 230, &[]);
}

#[test]
fn unix_sockets() {
    family("unix_sockets", 735, &[]);
}

#[test]
fn tcp() {
    family("tcp", 871, &[]);
}

#[test]
fn epoll() {
    family("epoll", 300, &[]);
}

#[test]
fn sysv_ipc() {
    family("sysv_ipc", 355, &[]);
}

#[test]
fn tty() {
    family("tty", 800, &[]);
}

#[test]
fn process() {
    family("process", 390, &[]);
}

#[test]
fn timers() {
    family("timers", 230, &[]);
}

#[test]
fn signals() {
    family("signals", 380, &[]);
}

#[test]
fn handles() {
    family("handles", 61, &[]);
}

#[test]
fn udp() {
    family("udp", 695, &[]);
}

#[test]
fn netlink() {
    family("netlink", 180, &[]);
}

#[test]
fn memory() {
    family("memory", 470, &["--memory", "3g"]);
}

#[test]
fn futex() {
    family("futex", 240, &[]);
}

#[test]
fn threads() {
    family("threads", 88, &[]);
}

#[test]
fn threads_on_as_many_vcpus_as_the_host_has() {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    family("threads", 88, &["--cpus", &cpus]);
}

#[test]
fn floating() {
    family("floating", 87, &["--cpus", "2"]);
}
