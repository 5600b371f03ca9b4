//! Other ways to start the same handler, timed in the same run: the interpreter natively, runsc, runc.

use seedtree::runtime::Runtime;
use seedtree::sandbox::now;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// Cold starts of each peer, µs (medians); `None` for one that is not there or does not work here.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// Name of the runtime that was started.
    pub runtime: &'static str,
    /// `python3 handler.py EVENT`, or the like.
    pub native_us: Option<u64>,
    /// The same under `runsc --network=none -platform systrap do`.
    pub runsc_us: Option<u64>,
    /// The same under `runc run` on a read-only bind mount of the root.
    pub runc_us: Option<u64>,
}

impl Peers {
    /// As the JSON of `coppice demo --json` has it.
    pub fn json(&self) -> Value {
        let native = format!("native_{}_us", self.runtime);
        json!({native: self.native_us, "runsc_us": self.runsc_us, "runc_us": self.runc_us})
    }
}

/// Where a program is in PATH or in the administrator's directories.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

/// Times each peer `runs` times on `INTERPRETER file EVENT`, which must print `expected`. `dir` is for their bundles; the peer that runs now is
/// recorded in `running` (a process group).
pub fn measure(
    dir: &Path,
    (runtime, file): (Runtime, &Path),
    event: &str,
    expected: &Value,
    runs: usize,
    running: &Arc<AtomicI32>,
    mut step: impl FnMut(&str),
) -> Peers {
    let program = runtime.interpreter(Path::new("/"));
    let file = file.to_string_lossy().into_owned();
    let mut time = |name: &str, make: &mut dyn FnMut() -> Option<Command>| -> Option<u64> {
        step(name);
        let mut samples = Vec::new();
        for _ in 0..runs {
            samples.push(once(make()?, expected, running)?);
        }
        Some(crate::report::percentile(&samples, 50) / 1000)
    };
    let native_us = time("the interpreter, natively", &mut || {
        let mut c = Command::new(program);
        c.args([&file, event]);
        Some(c)
    });
    let runsc_us = time("runsc", &mut || {
        let mut c = Command::new(find("runsc")?);
        c.args(["--network=none", "-platform", "systrap", "do", program, &file, event]);
        Some(c)
    });
    let mut count = 0;
    let runc_us = time("runc", &mut || {
        count += 1;
        runc(dir, &[program, &file, event], count)
    });
    Peers { runtime: runtime.name(), native_us, runsc_us, runc_us }
}

/// Runs a command to its end; its time in ns if it printed what is expected.
fn once(mut command: Command, expected: &Value, running: &Arc<AtomicI32>) -> Option<u64> {
    use std::os::unix::process::CommandExt;
    let start = now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .ok()?;
    running.store(i32::try_from(child.id()).unwrap_or(0), Ordering::SeqCst);
    let output = child.wait_with_output();
    let time = now() - start;
    running.store(0, Ordering::SeqCst);
    let value: Value = serde_json::from_slice(&output.ok()?.stdout).ok()?;
    (value == *expected).then_some(time)
}

/// A bundle whose root is a bind mount of `/`, made in a mount namespace of its own, so that nothing is left behind.
fn runc(dir: &Path, argv: &[&str], count: usize) -> Option<Command> {
    let (runc, unshare) = (find("runc")?, find("unshare")?);
    let rootfs = dir.join("rootfs");
    std::fs::create_dir_all(&rootfs).ok()?;
    let mount =
        |destination: &str, kind: &str| json!({"destination": destination, "type": kind, "source": kind});
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": {"uid": 0, "gid": 0}, "args": argv, "cwd": "/",
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "noNewPrivileges": true,
        },
        "root": {"path": rootfs, "readonly": true},
        "hostname": "runc",
        "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs")],
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
        ]},
    });
    std::fs::write(dir.join("config.json"), config.to_string()).ok()?;
    let mut c = Command::new(unshare);
    let script = r#"mount --bind / "$1" && exec "$2" run --bundle "$3" "$4""#;
    c.args(["-m", "sh", "-c", script, "sh"]).arg(&rootfs).arg(runc).arg(dir);
    c.arg(format!("coppice-demo-{}-{count}", std::process::id()));
    Some(c)
}
