//! What happens to a node under load: instances, seeds and the daemon are killed, the disk, /dev/shm and the processes run out. Every request
//! gets its own answer or an error with a type, and afterwards everything is as it was deployed.
//!
//! 20 s by default; `COPPICE_CHAOS_SECONDS` says how long, `COPPICE_CHAOS_SEED` repeats the order of events.

mod support;

use fri_plugin::fri::client::ClientError;
use fri_plugin::proto;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use support::daemon::{Coppiced, Options, block_on};
use support::http::Client;
use support::left::{children, eventually};
use support::limits::{Full, Pids};
use support::load::{self, Load};

/// Least time between two ends of the daemon.
const DAEMON_LIVES: Duration = Duration::from_secs(6);

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok().map(|v| v.parse().unwrap_or_else(|e| panic!("{name}={v}: {e}")));
    given.unwrap_or(default)
}

fn spec(name: &str, runtime: &str, spares: u32) -> proto::FunctionSpec {
    proto::FunctionSpec {
        name: name.into(),
        runtime: runtime.into(),
        handler: "app.handler".into(),
        memory_bytes: 256 << 20,
        timeout_ms: 20_000,
        spares: Some(spares),
        ..Default::default()
    }
}

/// The load's function with a tag, by which a version is known.
fn source(runtime: &str, tag: u64) -> (&'static str, String) {
    match runtime {
        "python" => ("app.py", load::PYTHON.replace("'uses'", &format!("'tag': {tag}, 'uses'"))),
        _ => ("app.mjs", load::NODE.replace("uses: ++uses", &format!("tag: {tag}, uses: ++uses"))),
    }
}

fn deploy(daemon: &Coppiced, spec: &proto::FunctionSpec, tag: u64) -> Result<proto::Function, ClientError> {
    let (file, text) = source(&spec.runtime, tag);
    daemon.deploy(spec.clone(), &[(file, &text)])
}

fn code_of(error: &ClientError) -> String {
    match error {
        ClientError::Refused(error) => error.code.clone(),
        error => panic!("an error without a type: {error:?}"),
    }
}

#[derive(Debug, Default)]
struct Events(BTreeMap<&'static str, u64>);

impl Events {
    fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

#[test]
fn every_request_gets_its_own_answer_or_a_typed_error() {
    let (seconds, seed) = (number("COPPICE_CHAOS_SECONDS", 20), number("COPPICE_CHAOS_SEED", 4711));
    let mut random = fastrand::Rng::with_seed(seed);
    let options = Options { runtimes: vec!["python", "node"], own_mounts: true, ..Options::default() };
    let mut daemon = Coppiced::start(options);
    let specs = [spec("fork", "python", 0), spec("spare", "python", 4), spec("js", "node", 1)];
    // What is deployed: the tag by name.
    let mut deployed: BTreeMap<String, u64> = BTreeMap::new();
    for (tag, spec) in (0..).zip(&specs) {
        deploy(&daemon, spec, tag).unwrap_or_else(|e| panic!("{e}: {}", daemon.log()));
        deployed.insert(spec.name.clone(), tag);
    }
    let names: Vec<String> = specs.iter().map(|s| s.name.clone()).collect();
    let load = Load::start(daemon.gateway(), &names, 12, false);
    let mut events = Events::default();
    let mut outages: Vec<(Instant, Instant)> = Vec::new();
    let mut pids = Pids::around(&daemon);
    let (start, mut tag, mut alive_since) = (Instant::now(), 100, Instant::now());
    while start.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(random.u64(20..300)));
        match random.u32(0..100) {
            0..=64 => {
                let sandboxes = children(daemon.pid());
                if let Some((pid, _)) = random.choice(sandboxes) {
                    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
                    events.count("sandbox killed");
                }
            }
            65..=76 => {
                let spec = random.choice(&specs).unwrap();
                tag += 1;
                match deploy(&daemon, spec, tag) {
                    Ok(_) => {
                        deployed.insert(spec.name.clone(), tag);
                        events.count("deployed");
                    }
                    Err(error) => {
                        code_of(&error);
                        events.count("deploy failed");
                    }
                }
            }
            77..=84 => {
                let full = Full::of(&daemon.reach(&daemon.state()));
                let error = deploy(&daemon, random.choice(&specs).unwrap(), 1).expect_err("the disk is full");
                let code = code_of(&error);
                let known = ["Store.Full", "Node.DiskFull"].contains(&code.as_str());
                assert!(known || code.starts_with("Sandbox."), "{code}: {error:?}");
                drop(full);
                events.count("disk full");
            }
            85..=88 => {
                let full = Full::of(&daemon.reach(Path::new("/dev/shm")));
                std::thread::sleep(Duration::from_millis(300));
                drop(full);
                events.count("/dev/shm full");
            }
            89..=92 => {
                if let Some(pids) = &pids {
                    pids.exhaust();
                    std::thread::sleep(Duration::from_millis(300));
                    pids.release();
                    events.count("no more processes");
                }
            }
            _ if alive_since.elapsed() > DAEMON_LIVES => {
                let down = Instant::now();
                daemon.kill();
                daemon.start_again();
                load.moved(daemon.gateway());
                drop(std::mem::replace(&mut pids, Pids::around(&daemon)));
                // A client may have connected just before it was told where the gateway is now.
                outages.push((down, Instant::now() + Duration::from_millis(100)));
                alive_since = Instant::now();
                events.count("daemon killed");
            }
            _ => {}
        }
    }
    let tally = load.stop();
    eprintln!("{seconds} s, seed {seed}: {events:?}; {}", tally.summary());
    for (reason, n) in &tally.reasons {
        eprintln!("refused {n} times: {reason}");
    }
    assert_eq!(tally.wrong, Vec::<String>::new());
    // What happens to its host is no error of the function.
    let blamed: Vec<_> = tally.reasons.keys().filter(|r| r.contains("Runtime exited")).collect();
    assert!(blamed.is_empty(), "functions are blamed: {blamed:?}");
    let within =
        |lost: &load::Lost| outages.iter().any(|(from, to)| lost.ended >= *from && lost.began <= *to);
    let unexplained: Vec<_> = tally.lost.iter().filter(|l| !within(l)).collect();
    assert!(unexplained.is_empty(), "requests were lost while the daemon lived: {unexplained:?}");
    assert!(tally.answered > seconds, "hardly anything was answered: {}", tally.summary());
    // Afterwards: what serves is what was deployed last, and it serves from its own seed again.
    let listed: Vec<proto::Function> = block_on(async {
        let client = daemon.client().await;
        client.functions().list(proto::ListFunctionsRequest {}).await.unwrap().into_inner().functions
    });
    let listed: Vec<String> = listed.into_iter().map(|f| f.spec.unwrap_or_default().name).collect();
    assert_eq!(listed, deployed.keys().cloned().collect::<Vec<_>>());
    let mut client = Client::new(daemon.gateway(), Duration::from_secs(30));
    for (name, tag) in &deployed {
        let response = client.invoke(name, b"{}").unwrap();
        assert_eq!(response.json()["tag"], *tag, "{name}: {response:?}");
    }
    drop(client);
    assert!(daemon.stop().success(), "{}", daemon.log());
    let left = |dir: &str| {
        let dir = daemon.reach(&daemon.state()).join(dir);
        std::fs::read_dir(dir).map_or(Vec::new(), |d| d.flatten().map(|e| e.file_name()).collect())
    };
    assert_eq!(left("uploads"), Vec::<std::ffi::OsString>::new());
    assert!(left("code").iter().all(|n| n.len() == 64), "half-made code is left: {:?}", left("code"));
    drop(pids);
    assert!(eventually(|| daemon.sandboxes().is_empty()));
}
