//! Seeds in the middle of things (threads asleep in forty kinds of call, a Node process with all of its threads, several guest processes): children,
//! children of children, and a state that was written out, dropped and read back onto the same memory, go on rightly. Without the
//! test harness, because a fork needs a process with one thread.
//!
//! Each answer is compared with what the same program says on the host.

use guest::exec::Spawn;
use guest::fork::ForkArgs;
use guest::kernel::{Kernel, Limits};
use guest::vfs::Stdio;
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use vmm::fork::{ForkOptions, Forked};
use vmm::machine::now;
use vmm::sandbox::{Config, RunOptions, Sandbox, Stop};

const PYTHON_LOOP: &str = include_str!("../../guest/runtimes/python/runtime.py");
const SECOND: u64 = 1_000_000_000;

/// An answer, and the host's where that is known already.
type Comparable = fn(Value, Option<&Value>) -> Value;

/// One kind of seed.
struct Kind {
    name: &'static str,
    argv: Vec<Vec<u8>>,
    /// Sent before the seed is taken; what it answers.
    prepare: Option<(Vec<u8>, &'static [u8])>,
    /// Sent to each child.
    request: Vec<u8>,
    /// What a child answers, taken from the host.
    expected: Value,
    /// Takes the part of an answer that must be the same on the host and in every child.
    comparable: Comparable,
    /// Least number of tasks.
    tasks: usize,
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/programs")
        .canonicalize()
        .expect("the folder of programs")
}

fn on_the_host(program: &str, args: &[&str]) -> Value {
    let output = Command::new(program).args(args).output().expect("the program starts on the host");
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the program prints JSON")
}

fn python(name: &'static str, event: &Value, comparable: Comparable, tasks: usize) -> Kind {
    let file = programs().join(format!("{name}.py"));
    let import = json!({"dir": programs(), "module": name, "function": "handler"});
    let invoke = json!({"event": event, "context": {}});
    Kind {
        name,
        argv: [b"/usr/bin/python3", &b"-c"[..], PYTHON_LOOP.as_bytes()].map(<[u8]>::to_vec).to_vec(),
        prepare: Some((format!("I{import}").into_bytes(), b"R")),
        request: format!("V{invoke}").into_bytes(),
        expected: comparable(on_the_host("/usr/bin/python3", &[&file.to_string_lossy()]), None),
        comparable,
        tasks,
    }
}

fn node() -> Kind {
    let file = programs().join("seed.js");
    let comparable: Comparable = |mut v, _| {
        v["uuid"] = json!(v["uuid"].as_str().map_or(0, str::len));
        v
    };
    Kind {
        name: "node",
        argv: [&b"/usr/bin/node"[..], file.to_string_lossy().as_bytes()].map(<[u8]>::to_vec).to_vec(),
        prepare: None,
        request: json!({"n": 7, "shell": true}).to_string().into_bytes(),
        expected: comparable(on_the_host("/usr/bin/node", &[&file.to_string_lossy(), "once"]), None),
        comparable,
        tasks: 11,
    }
}

/// A call that the kernel lacks counts as on the host.
fn blocked(mut v: Value, host: Option<&Value>) -> Value {
    const MAY_LACK: &[&str] =
        &["pidfd", "splice", "open of a FIFO", "inotify", "msgrcv", "semop", "terminal", "mq_receive"];
    for name in MAY_LACK {
        if let (Some(host), true) = (host, v["results"][*name] == "absent") {
            v["results"][*name] = host["results"][*name].clone();
        }
    }
    json!({"results": v["results"], "stuck": v["stuck"]})
}

fn deadline(seconds: u64, stop_when_quiescent: bool) -> RunOptions<'static> {
    RunOptions { deadline: Some(now() + seconds * SECOND), stop_when_quiescent, ..RunOptions::default() }
}

fn root() -> OwnedFd {
    std::fs::File::open("/").expect("a root directory").into()
}

/// A paused seed of this kind.
fn grow(kind: &Kind, cpus: usize) -> Sandbox {
    let config = Config { arena_len: 16 << 30, max_vcpus: cpus };
    let limits = Limits { memory: 2 << 30, cpus, ..Limits::default() };
    let mut sandbox = Sandbox::boot(config, limits).expect("this test needs a working /dev/kvm");
    {
        let copy = || Some(OwnedFd::from(std::fs::File::options().write(true).open("/dev/stderr").ok()?));
        let stdio = Stdio { stdin: None, stdout: copy(), stderr: copy(), work: true };
        let mut kernel = sandbox.kernel();
        kernel.mount_root(root()).expect("the root mounts");
        let spawn = Spawn {
            path: kind.argv[0].clone(),
            argv: kind.argv.clone(),
            envp: vec![b"PATH=/usr/bin:/bin".to_vec(), b"HOME=/tmp".to_vec()],
            cwd: b"/".to_vec(),
        };
        kernel.spawn_init(&spawn, stdio).expect("the program starts");
    }
    assert_eq!(sandbox.run(&deadline(60, true)).expect("a run"), Stop::Quiescent, "{}", kind.name);
    if let Some((command, reply)) = &kind.prepare {
        sandbox.kernel().push_work(command);
        match sandbox.run(&deadline(60, false)).expect("a run") {
            Stop::Answer(bytes) if bytes.starts_with(reply) => {}
            Stop::Answer(bytes) => panic!("{}: {}", kind.name, String::from_utf8_lossy(&bytes)),
            other => panic!("{}: {other:?}", kind.name),
        }
        assert_eq!(sandbox.run(&deadline(60, true)).expect("a run"), Stop::Quiescent);
    }
    sandbox.pause().expect("a pause");
    sandbox
}

/// One request; whether the answer is right.
fn serve(sandbox: &mut Sandbox, kind: &Kind, who: &str) -> bool {
    sandbox.kernel().push_work(&kind.request);
    let answer = match sandbox.run(&deadline(60, false)) {
        Ok(Stop::Answer(bytes)) => bytes,
        other => {
            eprintln!("{}, {who}: {other:?}", kind.name);
            return false;
        }
    };
    let body = answer.strip_prefix(b"K").unwrap_or(&answer);
    match serde_json::from_slice::<Value>(body).map(|v| (kind.comparable)(v, Some(&kind.expected))) {
        Ok(value) if value == kind.expected => true,
        other => {
            eprintln!("{}, {who}: {other:?}\non the host {}", kind.name, kind.expected);
            false
        }
    }
}

/// Forks; the child does its work and ends.
fn child(sandbox: &mut Sandbox, id: &str, paused_at: u64, work: impl FnOnce(&mut Sandbox) -> bool) -> i32 {
    let mut entropy = [0; 32];
    entropy[..8].copy_from_slice(&now().to_le_bytes());
    let args = ForkArgs { sandbox_id: id.into(), entropy, paused_at, now: now(), ..ForkArgs::default() };
    match sandbox.fork(args, ForkOptions::default()).expect("a fork") {
        Forked::Child => {
            let right = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(sandbox)));
            std::process::exit(i32::from(!matches!(right, Ok(true))));
        }
        Forked::Parent { pid, .. } => pid,
    }
}

/// Whether a child ended with status 0.
fn ended_well(pid: i32) -> bool {
    let ended =
        rustix::process::waitpid(rustix::process::Pid::from_raw(pid), rustix::process::WaitOptions::empty());
    ended.is_ok_and(|e| e.is_some_and(|(_, status)| status.exit_status() == Some(0)))
}

/// Writes the state of a paused sandbox out, drops it, and reads it back; its length in bytes.
fn round_trip(sandbox: &mut Sandbox) -> usize {
    let bytes = postcard::to_allocvec(&*sandbox.kernel()).expect("the state is serialisable");
    let stdio = Stdio { work: true, ..Stdio::default() };
    // Drops the live state before the one that was read back is put in its place.
    let elsewhere = Arc::new(guest::platform::fake::FakePlatform::new(1 << 30));
    let empty = Kernel::new(elsewhere, Limits::default());
    drop(sandbox.replace_kernel(empty.expect("an empty kernel")).expect("a paused sandbox"));
    let mut kernel: Kernel = postcard::from_bytes(&bytes).expect("the state reads back");
    kernel.set_root_fd(root());
    kernel.reissue_stdio(stdio);
    drop(sandbox.replace_kernel(kernel).expect("a paused sandbox"));
    let again = postcard::to_allocvec(&*sandbox.kernel()).expect("the state is serialisable");
    assert_eq!(bytes.len(), again.len(), "what was read back is what was written");
    bytes.len()
}

/// Lets a child become a seed: it goes on until it waits for work, and is paused.
fn become_seed(sandbox: &mut Sandbox) -> u64 {
    let stop = sandbox.run(&deadline(60, true)).expect("a run");
    assert_eq!(stop, Stop::Quiescent);
    sandbox.pause().expect("a pause");
    now()
}

fn examine(kind: &Kind, cpus: usize) {
    let mut seed = grow(kind, cpus);
    let paused_at = now();
    let tasks = seed.kernel().tasks.len();
    let processes = seed.kernel().processes.len();
    assert!(tasks >= kind.tasks, "{}: {tasks} tasks", kind.name);
    // Several children at once.
    let several: Vec<i32> = (0..3)
        .map(|n| child(&mut seed, &format!("child-{n}"), paused_at, |s| serve(s, kind, "a child")))
        .collect();
    for pid in several {
        assert!(ended_well(pid), "{}: a child", kind.name);
    }
    // A child of a child of a child, each a seed before.
    let deep = child(&mut seed, "first", paused_at, |s| {
        let paused = become_seed(s);
        let pid = child(s, "second", paused, |s| {
            let paused = become_seed(s);
            ended_well(child(s, "third", paused, |s| serve(s, kind, "a child of a child of a child")))
        });
        ended_well(pid) && serve(s, kind, "a child that was a seed")
    });
    assert!(ended_well(deep), "{}: a child of a child", kind.name);
    // The state, written out and read back; then children of it, and last the seed itself.
    let bytes = round_trip(&mut seed);
    println!("{} on {cpus} vCPUs: {tasks} tasks, {processes} processes, {bytes} bytes of state", kind.name);
    let restored = child(&mut seed, "restored", paused_at, |s| {
        round_trip(s);
        let paused = become_seed(s);
        round_trip(s);
        ended_well(child(s, "of-restored", paused, |s| serve(s, kind, "a child of a restored child")))
    });
    assert!(ended_well(restored), "{}: children of a restored state", kind.name);
    assert!(serve(&mut seed, kind, "the restored seed"), "{}", kind.name);
}

type Make = fn() -> Kind;

fn main() {
    let only = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let kinds: [(&str, Make); 3] = [
        ("blocked", || python("blocked", &json!({"one_by_one": true}), blocked, 30)),
        ("node", node),
        ("processes", || python("processes", &json!({"n": 7}), |v, _| v, 8)),
    ];
    for (name, make) in kinds {
        if only.as_ref().is_some_and(|o| o != name) {
            continue;
        }
        let kind = make();
        for cpus in [1, 2] {
            examine(&kind, cpus);
        }
    }
    println!("ok");
}
