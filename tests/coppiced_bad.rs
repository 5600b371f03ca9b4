//! What a careless operator does to the daemon: it says what is wrong and what to do, and leaves nothing; what works goes on.

mod support;

use fri_plugin::proto;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::daemon::{Coppiced, Options, block_on, python};
use support::left::{eventually, marked};
use support::{Outcome, finish, fresh_dir};

const GOOD: &str = "def handler(event, context): return 'good'\n";

/// A directory for a daemon that does not start.
struct Attempt {
    dir: tempfile::TempDir,
    mark: String,
}

impl Attempt {
    fn new(name: &str) -> Attempt {
        Attempt { dir: fresh_dir("d"), mark: format!("attempt-{name}-{}", std::process::id()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a daemon with this configuration beside its own directories; it must end by itself, without success and without a trace.
    fn fails(&self, config: &str) -> Outcome {
        let file = self.path("coppiced.toml");
        let own = format!("state = {:?}\nrun = {:?}\n", self.path("state"), self.path("run"));
        let own = if config.contains("state = ") || config.contains("run = ") { String::new() } else { own };
        let ports = "[gateway]\nlisten = \"off\"\n[metrics]\nlisten = \"off\"\n";
        let ports = if config.contains("[gateway]") || config.contains("[metrics]") { "" } else { ports };
        std::fs::write(&file, format!("{own}{config}\n{ports}")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_coppiced"));
        command.arg("--config").arg(&file).env("COPPICE_TEST_MARK", &self.mark);
        let outcome = finish(&mut command, b"", Duration::from_secs(60));
        assert!(!outcome.timed_out, "{config}: it runs: {}", outcome.stderr);
        assert_eq!(outcome.status, 1, "{config}: {}", outcome.stderr);
        assert!(eventually(|| marked(&self.mark).is_empty()), "{config}: sandboxes are left");
        outcome
    }

    /// The same, and what it says has these words.
    fn says(&self, config: &str, words: &[&str]) {
        let outcome = self.fails(config);
        for word in words {
            assert!(outcome.stderr.contains(word), "{config}: no {word:?} in: {}", outcome.stderr);
        }
    }
}

#[test]
fn a_configuration_that_is_wrong_is_refused_before_anything_is_made() {
    let attempt = Attempt::new("config");
    let cases: &[(&str, &[&str])] = &[
        ("fork_queues = 1", &["fork_queues", "fork_queue"]),
        ("[functions]\nmemory = \"1 PiB\"", &["memory", "size"]),
        ("[functions]\ntimeout_ms = 0", &["functions.timeout_ms", "1 to"]),
        ("[fri]\nmode = 0o666", &["fri.mode", "0o660"]),
        ("runtimes = [\"ruby\"]", &["ruby", "python", "node"]),
        ("this is not TOML", &["line"]),
        ("state = \"relative\"", &["state", "absolute"]),
        ("state = \"/\"", &["state", "directory of the daemon's own"]),
        ("rootfs = \"/nowhere\"", &["rootfs", "/nowhere", "programs of the runtimes"]),
        ("hidden = [\"/nowhere\"]", &["hidden", "/nowhere", "leave it out"]),
        ("hidden = [\"/\"]", &["hidden", "not rootfs"]),
        ("runtimes = [\"python\", \"python\"]", &["runtimes", "python", "once"]),
        ("[fri]\ngroup = \"no-such-group\"", &["fri.group", "no-such-group", "groupadd"]),
    ];
    for (config, words) in cases {
        attempt.says(config, words);
        let names: Vec<_> =
            std::fs::read_dir(attempt.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["coppiced.toml"], "{config}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_coppiced"));
    let outcome = finish(command.args(["--config", "/nowhere/coppiced.toml"]), b"", Duration::from_secs(60));
    assert!(outcome.status == 1 && outcome.stderr.contains("/nowhere/coppiced.toml"), "{}", outcome.stderr);
}

#[test]
fn the_printed_configuration_is_accepted() {
    let dir = fresh_dir("d");
    let mut command = Command::new(env!("CARGO_BIN_EXE_coppiced"));
    let printed = finish(command.args(["config", "default"]), b"", Duration::from_secs(60));
    assert_eq!(printed.status, 0, "{}", printed.stderr);
    let file = dir.path().join("coppiced.toml");
    std::fs::write(&file, &printed.stdout).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_coppiced"));
    command.arg("--config").arg(&file).args(["config", "check"]);
    let checked = finish(&mut command, b"", Duration::from_secs(60));
    assert_eq!(checked.status, 0, "{}", checked.stderr);
}

#[test]
fn what_is_in_the_way_is_named_and_left_alone() {
    let attempt = Attempt::new("way");
    let file = attempt.path("file");
    std::fs::write(&file, "mine").unwrap();
    let shown = format!("{file:?}");
    let name = file.to_str().unwrap();
    let run = format!("run = {:?}", attempt.path("run"));
    attempt.says(&format!("state = {shown}\n{run}"), &[name, "directory"]);
    attempt.says(&format!("state = {:?}\nrun = {shown}", attempt.path("state")), &[name, "directory"]);
    attempt.says(&format!("[fri]\nttrpc = {shown}"), &[name, "not a socket"]);
    attempt.says(&format!("[fri]\ngrpc = {shown}"), &[name, "not a socket"]);
    attempt.says("[fri]\ngroup = \"no-such-group\"", &["no-such-group", "groupadd"]);
    attempt.says("rootfs = \"/nowhere\"", &["/nowhere", "rootfs"]);
    let root = attempt.path("root");
    std::fs::create_dir(&root).unwrap();
    attempt.says(&format!("runtimes = [\"python\"]\nrootfs = {root:?}"), &["python"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    attempt.says(
        &format!("runtimes = []\n[gateway]\nlisten = {address:?}\n[metrics]\nlisten = \"off\""),
        &[&address],
    );
    attempt.says(
        &format!("runtimes = []\n[gateway]\nlisten = \"off\"\n[metrics]\nlisten = {address:?}"),
        &[&address],
    );
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    let run: Vec<_> = std::fs::read_dir(attempt.path("run")).unwrap().collect();
    assert!(run.is_empty(), "{run:?}");
}

#[test]
fn a_damaged_store_stops_the_start_and_stays_as_it_is() {
    let mut daemon = Coppiced::start(Options::default());
    daemon.deploy(python("f"), &[("app.py", GOOD)]).unwrap();
    assert!(daemon.stop().success());
    let store = daemon.state().join("functions.redb");
    let whole = std::fs::read(&store).unwrap();
    let attempt = Attempt::new("store");
    let state = attempt.path("state");
    std::fs::create_dir(&state).unwrap();
    for damaged in [&b"not a store"[..], &whole[..whole.len() / 2], &vec![0; whole.len()]] {
        std::fs::write(state.join("functions.redb"), damaged).unwrap();
        attempt.says("", &["functions.redb", "damaged", "Move it away"]);
        assert_eq!(std::fs::read(state.join("functions.redb")).unwrap(), damaged);
    }
    daemon.start_again();
    assert_eq!(daemon.invoke("f", "{}").unwrap().1, b"\"good\"");
    assert!(daemon.stop().success());
}

#[test]
fn a_second_daemon_is_told_of_the_first() {
    let mut daemon = Coppiced::start(Options::default());
    daemon.deploy(python("f"), &[("app.py", GOOD)]).unwrap();
    let attempt = Attempt::new("second");
    let pid = daemon.pid().to_string();
    let (state, run) = (daemon.state(), daemon.run_directory());
    let config = |state: &Path, run: &Path| format!("state = {state:?}\nrun = {run:?}");
    attempt.says(&config(&state, &attempt.path("run")), &[state.to_str().unwrap(), &pid]);
    attempt.says(&config(&attempt.path("state"), &run), &[run.to_str().unwrap(), &pid]);
    assert_eq!(daemon.invoke("f", "{}").unwrap().1, b"\"good\"");
    assert!(daemon.stop().success());
    let left: Vec<_> = std::fs::read_dir(&run).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn code_that_was_removed_by_hand_concerns_its_function_only() {
    let mut daemon = Coppiced::start(Options::default());
    let other = "def handler(event, context): return 'other'\n";
    let lost = daemon.deploy(python("f"), &[("app.py", GOOD)]).unwrap();
    daemon.deploy(python("g"), &[("app.py", other)]).unwrap();
    assert!(daemon.stop().success());
    std::fs::remove_dir_all(daemon.state().join("code").join(&lost.code_sha256)).unwrap();
    daemon.start_again();
    assert_eq!(daemon.invoke("g", "{}").unwrap().1, b"\"other\"");
    assert!(daemon.invoke("f", "{}").is_err());
    let shown = block_on(async {
        let request = proto::GetFunctionRequest { name: "f".into() };
        daemon.client().await.functions().get(request).await.unwrap().into_inner()
    });
    assert!(shown.state == "failed" && shown.reason.contains(&lost.code_sha256), "{shown:?}");
    daemon.deploy(python("f"), &[("app.py", GOOD)]).unwrap();
    assert_eq!(daemon.invoke("f", "{}").unwrap().1, b"\"good\"");
    assert!(daemon.stop().success());
}

#[test]
fn a_killed_daemon_leaves_nothing_that_the_next_one_stumbles_over() {
    let mut daemon = Coppiced::start(Options::default());
    daemon.deploy(python("f"), &[("app.py", GOOD)]).unwrap();
    daemon.kill();
    assert!(daemon.grpc().exists(), "the socket of a killed daemon");
    let run = daemon.run_directory();
    std::os::unix::net::UnixListener::bind(run.join("old.sock")).unwrap();
    std::fs::write(run.join("notes"), "mine").unwrap();
    daemon.start_again();
    assert_eq!(daemon.invoke("f", "{}").unwrap().1, b"\"good\"");
    assert!(!run.join("old.sock").exists());
    assert!(daemon.stop().success());
    let left: Vec<_> = std::fs::read_dir(&run).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["notes"]);
}

#[test]
fn a_stranger_in_the_environment_of_an_old_life_is_ended_and_others_are_not() {
    let mut daemon = Coppiced::start(Options::default());
    let id = {
        // What its sandboxes carry.
        let sandbox = daemon.sandboxes()[0];
        let environ = std::fs::read(format!("/proc/{sandbox}/environ")).unwrap();
        let value =
            environ.split(|b| *b == 0).find_map(|v| v.strip_prefix(b"COPPICE_NODE=")).map(<[u8]>::to_vec);
        String::from_utf8(value.expect("no COPPICE_NODE")).unwrap()
    };
    daemon.kill();
    let sleeper = |id: &str| {
        Command::new("sleep").arg("1000").env("COPPICE_NODE", id).stdin(Stdio::null()).spawn().unwrap()
    };
    let (mut orphan, mut other) = (sleeper(&id), sleeper("0123456789ab"));
    daemon.start_again();
    assert!(eventually(|| orphan.try_wait().unwrap().is_some()), "{}", daemon.log());
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(daemon.log().contains(&orphan.id().to_string()), "it is not reported: {}", daemon.log());
    assert!(daemon.stop().success());
}

#[test]
fn what_a_function_prints_is_in_its_log_and_only_there() {
    let mut daemon = Coppiced::start(Options::default());
    let says =
        |what: &str| format!("def handler(event, context):\n  print('{what}', event)\n  return 'good'\n");
    daemon.deploy(python("f"), &[("app.py", &says("one"))]).unwrap();
    daemon.deploy(python("g"), &[("app.py", &says("two"))]).unwrap();
    let read = |daemon: &Coppiced, function: &str, tail: u32| -> Vec<String> {
        block_on(async {
            let request = proto::LogsRequest { function: function.into(), tail, follow: false };
            let mut lines = daemon.client().await.functions().logs(request).await.unwrap().into_inner();
            let mut texts = Vec::new();
            while let Some(line) = lines.message().await.unwrap() {
                texts.push(format!("{} {}", line.function, line.text));
            }
            texts
        })
    };
    for n in 0..3 {
        daemon.invoke("f", &n.to_string()).unwrap();
        daemon.invoke("g", &n.to_string()).unwrap();
    }
    assert_eq!(read(&daemon, "f", 2), ["f one 1", "f one 2"]);
    assert_eq!(read(&daemon, "", 3), ["g two 1", "f one 2", "g two 2"]);
    assert!(read(&daemon, "f", 0).is_empty());
    let followed = block_on(async {
        let client = daemon.client().await;
        let request = proto::LogsRequest { function: "f".into(), tail: 1, follow: true };
        let mut lines = client.functions().logs(request).await.unwrap().into_inner();
        let mut texts = vec![lines.message().await.unwrap().unwrap().text];
        support::daemon::invoke(&client, "g", "8").await.unwrap();
        support::daemon::invoke(&client, "f", "9").await.unwrap();
        texts.push(lines.message().await.unwrap().unwrap().text);
        texts
    });
    assert_eq!(followed, ["one 2", "one 9"]);
    assert!(daemon.stop().success());
    daemon.start_again();
    assert_eq!(read(&daemon, "g", 100), ["g two 0", "g two 1", "g two 2", "g two 8"]);
    assert!(daemon.stop().success());
}
