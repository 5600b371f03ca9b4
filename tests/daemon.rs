//! The daemon's life: what is deployed stays deployed over ends of all kinds, and nothing of it stays behind.

mod support;

use fri_plugin::fri::client::ClientError;
use fri_plugin::proto;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;
use support::daemon::{Coppiced, Options, block_on, python};
use support::left::{descriptors, eventually};
use support::{LIMIT, finish, open_dir};

fn answer(daemon: &Coppiced, function: &str, event: &str) -> Value {
    let (end, bytes) = daemon.invoke(function, event).unwrap_or_else(|e| panic!("{e}: {}", daemon.log()));
    assert_eq!(end.function_error, "", "{}", String::from_utf8_lossy(&bytes));
    serde_json::from_slice(&bytes).unwrap()
}

fn says(word: &str) -> String {
    format!("def handler(event, context):\n    return ['{word}', event]\n")
}

fn code_of(error: &ClientError) -> String {
    match error {
        ClientError::Refused(error) => error.code.clone(),
        error => panic!("an error without a code: {error:?}"),
    }
}

fn function(daemon: &Coppiced, name: &str) -> proto::Function {
    block_on(async {
        let client = daemon.client().await;
        client.functions().get(proto::GetFunctionRequest { name: name.into() }).await.unwrap().into_inner()
    })
}

#[test]
fn what_is_deployed_survives_restarts_and_kills() {
    let mut daemon = Coppiced::start(Options::default());
    daemon.deploy(python("one"), &[("app.py", &says("first"))]).unwrap();
    daemon.deploy(python("two"), &[("app.py", &says("two"))]).unwrap();
    let second = daemon.deploy(python("one"), &[("app.py", &says("second"))]).unwrap();
    assert_eq!((second.version, second.versions.as_slice()), (2, &[1, 2][..]));
    assert!(daemon.stop().success(), "{}", daemon.log());
    assert!(!daemon.grpc().exists() && !daemon.ttrpc().exists(), "sockets are left");
    for _ in 0..2 {
        daemon.start_again();
        assert_eq!(answer(&daemon, "one", "1"), json!(["second", 1]));
        assert_eq!(answer(&daemon, "two", "2"), json!(["two", 2]));
        // The seeds are grown again without a request, too.
        assert!(eventually(|| function(&daemon, "two").state == "ready"), "{}", daemon.log());
        daemon.kill();
    }
    daemon.start_again();
    block_on(async {
        let client = daemon.client().await;
        let request = proto::RemoveFunctionRequest { name: "two".into() };
        client.functions().remove(request).await.unwrap();
        let request = proto::RollbackRequest { name: "one".into(), version: 0 };
        let mut events = client.functions().rollback(request).await.unwrap().into_inner();
        while events.message().await.unwrap().is_some() {}
    });
    assert_eq!(answer(&daemon, "one", "3"), json!(["first", 3]));
    daemon.kill();
    daemon.start_again();
    assert_eq!(answer(&daemon, "one", "4"), json!(["first", 4]));
    assert_eq!(code_of(&daemon.invoke("two", "0").unwrap_err()), "Function.NotFound");
    // Code that nothing refers to is gone: two versions of one are there.
    let code = std::fs::read_dir(daemon.state().join("code")).unwrap().count();
    assert_eq!(code, 2);
    assert!(daemon.stop().success());
}

#[test]
fn a_failed_deploy_leaves_the_version_before_it_serving() {
    let mut daemon = Coppiced::start(Options::default());
    daemon.deploy(python("f"), &[("app.py", &says("good"))]).unwrap();
    let code = || std::fs::read_dir(daemon.state().join("code")).unwrap().count();
    let before = code();
    for (source, expected) in [
        ("import nothing_of_this_name\n", "Runtime.ImportError"),
        ("import os\nos._exit(3)\n", "Runtime.ExitError"),
        ("x = 1\n", "Runtime.ImportError"),
    ] {
        let error = daemon.deploy(python("f"), &[("app.py", source)]).unwrap_err();
        assert_eq!(code_of(&error), expected, "{source}: {error}");
        assert_eq!(answer(&daemon, "f", "1"), json!(["good", 1]));
    }
    // An event for warming up is told from the import before it.
    let warmed = || proto::FunctionSpec { warm_event: "0".into(), ..python("f") };
    for (source, expected, says) in [
        ("def handler(event, context): return 1 / event\n", "Function.WarmUp", "warming up"),
        ("1 / 0\n", "Runtime.ImportError", "does not import"),
    ] {
        match daemon.deploy(warmed(), &[("app.py", source)]).unwrap_err() {
            ClientError::Refused(error) => {
                assert_eq!(error.code, expected, "{}", error.message);
                assert!(error.message.contains(says), "{}", error.message);
                let function: Value = serde_json::from_slice(&error.function).unwrap();
                assert_eq!(function["errorType"], "ZeroDivisionError");
            }
            error => panic!("{error:?}"),
        }
        assert_eq!(answer(&daemon, "f", "1"), json!(["good", 1]));
    }
    let error = daemon.deploy(python("f"), &[("other.py", "")]).unwrap_err();
    assert_eq!(code_of(&error), "Function.Handler");
    assert!(eventually(|| code() == before), "code of failed deploys is left");
    assert_eq!(function(&daemon, "f").version, 1);
    assert!(daemon.stop().success());
}

#[test]
fn an_owned_instance_keeps_the_code_of_its_version() {
    let reads = "def handler(event, context):\n    return open('/var/task/word').read()\n";
    let more = "[functions]\nversions = 1\n".to_owned();
    let mut daemon = Coppiced::start(Options { more, ..Options::default() });
    let code = || std::fs::read_dir(daemon.state().join("code")).unwrap().count();
    daemon.deploy(python("f"), &[("app.py", reads), ("word", "old")]).unwrap();
    let fork = proto::ForkRequest { function: "f".into() };
    let own = block_on(async { daemon.client().await.instances().fork(fork).await.unwrap().into_inner() });
    for word in ["new", "newer"] {
        daemon.deploy(python("f"), &[("app.py", reads), ("word", word)]).unwrap();
        assert_eq!(answer(&daemon, "f", "1"), json!(word));
    }
    assert!(eventually(|| code() == 2), "{} versions' code", code());
    let activated = block_on(async {
        use proto::activate_request::Part;
        let head = proto::ActivateHead { id: own.id.clone(), payload: "1".into(), ..Default::default() };
        let message = proto::ActivateRequest { part: Some(Part::Head(head)) };
        let client = daemon.client().await;
        let mut answers =
            client.instances().activate(futures::stream::iter([message])).await.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            if let Some(proto::invoke_response::Part::Chunk(chunk)) = answer.part {
                bytes.extend_from_slice(&chunk);
            }
        }
        let destroy = proto::DestroyRequest { id: own.id.clone() };
        client.instances().destroy(destroy).await.unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    });
    assert_eq!(activated, json!("old"));
    assert!(eventually(|| code() == 1), "code that nobody needs is left");
    assert!(daemon.stop().success());
}

#[test]
fn deploys_of_one_function_do_not_race() {
    let mut daemon = Coppiced::start(Options::default());
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let deploys: Vec<_> = (0..6)
            .map(|n| {
                let daemon = &daemon;
                scope.spawn(move || (n, daemon.deploy(python("f"), &[("app.py", &says(&format!("v{n}")))])))
            })
            .collect();
        deploys.into_iter().map(|d| d.join().unwrap()).collect()
    });
    let mut last = (0, 0);
    for (n, outcome) in &outcomes {
        match outcome {
            Ok(function) => last = last.max((function.version, *n)),
            Err(error) => assert_eq!(code_of(error), "Function.Changing"),
        }
    }
    assert!(last.0 > 0, "{outcomes:?}");
    assert_eq!(answer(&daemon, "f", "0"), json!([format!("v{}", last.1), 0]));
    assert_eq!(function(&daemon, "f").version, last.0);
    assert!(daemon.stop().success());
}

#[test]
fn a_state_directory_has_one_daemon() {
    let mut daemon = Coppiced::start(Options { runtimes: vec![], ..Options::default() });
    let mut second = Command::new(env!("CARGO_BIN_EXE_coppiced"));
    second.arg("--config").arg(daemon.state().join("../coppiced.toml"));
    let outcome = finish(&mut second, b"", LIMIT);
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(
        outcome.stderr.contains(&daemon.pid().to_string()),
        "the holder is not named: {}",
        outcome.stderr
    );
    assert!(daemon.stop().success());
}

#[test]
fn a_drain_finishes_what_is_at_work() {
    let mut daemon = Coppiced::start(Options::default());
    let slow = "import time\ndef handler(event, context):\n    time.sleep(1.5)\n    return event\n";
    daemon.deploy(python("slow"), &[("app.py", slow)]).unwrap();
    std::thread::scope(|scope| {
        let request = scope.spawn(|| daemon.invoke("slow", "7").map(|(_, bytes)| bytes));
        let at_work = || {
            block_on(async {
                let list = proto::ListInstancesRequest::default();
                daemon.client().await.instances().list(list).await.unwrap().into_inner().instances.len()
            })
        };
        assert!(eventually(|| at_work() == 1));
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(daemon.pid()).unwrap(),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        assert_eq!(request.join().unwrap().unwrap(), b"7");
    });
    assert!(daemon.wait().success(), "{}", daemon.log());
}

#[test]
fn configurations_are_printed_and_checked() {
    let coppiced =
        |args: &[&str]| finish(Command::new(env!("CARGO_BIN_EXE_coppiced")).args(args), b"", LIMIT);
    let default = coppiced(&["config", "default"]);
    assert_eq!(default.status, 0);
    let dir = support::fresh_dir("config");
    let file = dir.path().join("c.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, &default.stdout).unwrap();
    assert_eq!(coppiced(&["--config", path, "config", "check"]).status, 0);
    std::fs::write(&file, "fork_quue = 1\n").unwrap();
    for args in [&["--config", path, "config", "check"][..], &["--config", path]] {
        let outcome = coppiced(args);
        assert_eq!(outcome.status, 1);
        assert!(outcome.stderr.contains("fork_quue"), "{}", outcome.stderr);
    }
}

#[test]
fn many_deploys_leave_no_descriptor_and_no_process() {
    let mut daemon = Coppiced::start(Options::default());
    let round = |n: usize| {
        daemon.deploy(python("f"), &[("app.py", &says(&n.to_string()))]).unwrap();
        assert_eq!(answer(&daemon, "f", "0"), json!([n.to_string(), 0]));
        let failing = [("app.py", "raise SystemError('no')\n")];
        daemon.deploy(python("f"), &failing).unwrap_err();
    };
    let settled = || (descriptors(daemon.pid()), daemon.sandboxes().len());
    for n in 0..3 {
        round(n);
    }
    // Old versions end when their last request has.
    std::thread::sleep(Duration::from_millis(500));
    let before = settled();
    for n in 3..12 {
        round(n);
    }
    assert!(eventually(|| settled() <= before), "{before:?} became {:?}", settled());
    assert!(daemon.stop().success());
}

#[test]
fn a_function_does_not_see_what_else_is_deployed() {
    let mut daemon = Coppiced::start(Options { in_the_open: true, ..Options::default() });
    let secret = proto::FunctionSpec {
        env: [("TOKEN".to_owned(), "nobody else's business".to_owned())].into(),
        ..python("secret")
    };
    daemon.deploy(secret, &[("app.py", &says("secret"))]).unwrap();
    let look = "import os\ndef handler(event, context):\n    found = []\n    for top, dirs, files in os.walk(event):\n        \
                found += [os.path.join(top, n) for n in dirs + files]\n    return [os.path.isdir(event), found]\n";
    daemon.deploy(python("look"), &[("app.py", look)]).unwrap();
    let state = daemon.state();
    // For everybody to read, so that it is not for its mode that it is not seen.
    for shown in [&state, state.parent().unwrap()] {
        std::fs::set_permissions(shown, PermissionsExt::from_mode(0o755)).unwrap();
    }
    for path in [&state, &state.join("code"), &state.join("../state")] {
        let there = *path != state.join("code");
        assert_eq!(
            answer(&daemon, "look", &json!(path).to_string()),
            json!([there, []]),
            "{}",
            path.display()
        );
    }
    // Beside it, what is there is seen: the look itself works.
    let beside = answer(&daemon, "look", &json!(state.parent().unwrap()).to_string());
    assert!(beside[1].as_array().unwrap().len() > 1, "{beside}");
    assert!(daemon.stop().success());
}

#[test]
fn an_end_waits_for_nobody_beyond_the_time_for_it() {
    let keys = "drain_timeout_ms = 500\n".into();
    let mut daemon = Coppiced::start(Options { keys, ..Options::default() });
    let code = "import time\ndef handler(event, context): time.sleep(600)\n";
    let spec = proto::FunctionSpec { timeout_ms: 700_000, concurrency: 1, ..python("f") };
    daemon.deploy(spec, &[("app.py", code)]).unwrap();
    std::thread::scope(|scope| {
        // One at work, and one that waits for its turn.
        let calls = [(); 2].map(|()| scope.spawn(|| daemon.invoke("f", "1")));
        let counts = || function(&daemon, "f").counts.unwrap();
        assert!(eventually(|| counts().running == 1 && counts().waiting == 1), "{}", daemon.log());
        // A deploy whose client never comes to its end.
        let upload = scope.spawn(|| {
            block_on(async {
                let spec = proto::deploy_request::Part::Spec(python("g"));
                let first = futures::stream::iter([proto::DeployRequest { part: Some(spec) }]);
                let messages = futures::StreamExt::chain(first, futures::stream::pending());
                let mut events =
                    daemon.client().await.functions().deploy(messages).await.unwrap().into_inner();
                while let Ok(Some(_)) = events.message().await {}
            });
        });
        std::thread::sleep(Duration::from_millis(200));
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(daemon.pid()).unwrap(),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        for call in calls {
            assert_eq!(code_of(&call.join().unwrap().unwrap_err()), "Instance.Killed");
        }
        upload.join().unwrap();
    });
    assert!(daemon.wait().success(), "{}", daemon.log());
}

#[test]
fn what_a_function_failed_is_counted_where_it_is_listed() {
    let mut daemon = Coppiced::start(Options::default());
    let code = "def handler(event, context): return 1 / event\n";
    daemon.deploy(python("f"), &[("app.py", code)]).unwrap();
    assert_eq!(answer(&daemon, "f", "1"), json!(1.0));
    assert_eq!(daemon.invoke("f", "0").unwrap().0.function_error, "Unhandled");
    daemon.invoke("f", "no JSON").unwrap_err();
    let counts = function(&daemon, "f").counts.unwrap();
    assert_eq!((counts.requests, counts.errors, counts.refused), (2, 1, 1));
    // They are of all of its versions.
    daemon.deploy(python("f"), &[("app.py", &says("two"))]).unwrap();
    assert_eq!(answer(&daemon, "f", "1"), json!(["two", 1]));
    let counts = function(&daemon, "f").counts.unwrap();
    assert_eq!((counts.requests, counts.errors, counts.refused), (3, 1, 1));
    assert!(eventually(|| function(&daemon, "f").counts.unwrap().pss_bytes > 0));
    block_on(async {
        let request = proto::DeleteSeedRequest { name: "f".into() };
        daemon.client().await.seeds().delete(request).await.unwrap();
    });
    assert_eq!(function(&daemon, "f").state, "shrunk");
    assert!(daemon.stop().success());
}

#[test]
fn what_the_node_failed_is_in_the_functions_log_and_in_the_daemons() {
    let mut daemon = Coppiced::start(Options::default());
    let code = "import time\ndef handler(event, context): time.sleep(600)\n";
    daemon.deploy(proto::FunctionSpec { timeout_ms: 60_000, ..python("f") }, &[("app.py", code)]).unwrap();
    let working = || {
        let request = proto::ListInstancesRequest { function: "f".into() };
        let list = async { daemon.client().await.instances().list(request).await.unwrap().into_inner() };
        block_on(list).instances.into_iter().find(|i| i.state == "working")
    };
    std::thread::scope(|scope| {
        for (end, expected) in [("operator", "Instance.Killed"), ("signal", "Sandbox.Failure")] {
            let call = scope.spawn(|| daemon.invoke("f", "1"));
            assert!(eventually(|| working().is_some()), "{}", daemon.log());
            let instance = working().unwrap();
            if end == "operator" {
                let request = proto::DestroyRequest { id: instance.id };
                block_on(async { daemon.client().await.instances().destroy(request).await.unwrap() });
            } else {
                let killed = Command::new("kill").args(["-9", &instance.pid.to_string()]).status().unwrap();
                assert!(killed.success());
            }
            assert_eq!(code_of(&call.join().unwrap().unwrap_err()), expected, "{}", daemon.log());
        }
    });
    // The client's own doing is not told.
    assert_eq!(code_of(&daemon.invoke("f", "no JSON").unwrap_err()), "Request.NotJson");
    let lines = block_on(async {
        let request = proto::LogsRequest { function: "f".into(), tail: 100, follow: false };
        let mut lines = daemon.client().await.functions().logs(request).await.unwrap().into_inner();
        let mut told = Vec::new();
        while let Some(line) = lines.message().await.unwrap() {
            if line.text.starts_with("[ERROR] ") {
                assert!(!line.instance.is_empty() && !line.request_id.is_empty(), "{line:?}");
                told.push(line.text);
            }
        }
        told
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("[ERROR] Instance.Killed: the instance was ended"), "{lines:?}");
    assert!(lines[1].starts_with("[ERROR] Sandbox.Failure: "), "{lines:?}");
    let log = daemon.log();
    let warned = |line: &&str| line.contains("WARN") && line.contains("Instance.Killed");
    assert_eq!(log.lines().filter(warned).count(), 1, "{log}");
    assert!(!log.contains("Request.NotJson"), "{log}");
    assert!(daemon.stop().success());
}

/// Tries to read files and to list directories: what it got of each, or its errno.
const READS: &str = "import os\ndef handler(event, context):\n    found = {}\n    for path in event:\n        try:\n            \
                     found[path] = sorted(os.listdir(path)) if os.path.isdir(path) else open(path, 'rb').read(4).decode('latin1')\n        \
                     except OSError as e: found[path] = e.errno\n    return found\n";

#[test]
fn a_function_does_not_read_the_hosts_secrets() {
    const EACCES: i32 = 13;
    const ENOENT: i32 = 2;
    let host = open_dir("host");
    let path = |name: &str| host.path().join(name).into_os_string().into_string().unwrap();
    let make = |name: &str, mode: u32| {
        if name.contains("dir") {
            std::fs::create_dir(path(name)).unwrap();
            std::fs::write(path(&format!("{name}/key")), "secret").unwrap();
        } else {
            std::fs::write(path(name), "text").unwrap();
        }
        std::fs::set_permissions(path(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    for (name, mode) in [
        ("for-all", 0o644),
        ("own", 0o600),
        ("dir-for-all", 0o755),
        ("dir-own", 0o700),
        ("hidden", 0o644),
        ("hidden-dir", 0o755),
    ] {
        make(name, mode);
    }
    let hidden = [path("hidden"), path("hidden-dir")];
    let mut daemon =
        Coppiced::start(Options { keys: format!("hidden = {hidden:?}\n"), ..Options::default() });
    daemon.deploy(python("reads"), &[("app.py", READS)]).unwrap();
    let names =
        ["for-all", "own", "dir-for-all", "dir-own", "dir-own/key", "hidden", "hidden-dir", "hidden-dir/key"];
    let mut asked: Vec<String> = names.iter().map(|n| path(n)).collect();
    asked.extend(["/etc/shadow", "/root", "/etc/passwd"].map(str::to_owned));
    let got = answer(&daemon, "reads", &json!(asked).to_string());
    assert_eq!(got[path("for-all")], "text");
    assert_eq!(got[path("own")], EACCES);
    assert_eq!(got[path("dir-for-all")], json!(["key"]));
    assert_eq!((&got[path("dir-own")], &got[path("dir-own/key")]), (&json!([]), &json!(ENOENT)));
    assert_eq!(got[path("hidden")], EACCES);
    assert_eq!((&got[path("hidden-dir")], &got[path("hidden-dir/key")]), (&json!([]), &json!(ENOENT)));
    assert_eq!(got["/etc/passwd"].as_str().map(str::len), Some(4), "{got}");
    // As editors and certbot do: another file comes to the name; and another directory, and something that was not there.
    std::fs::write(path("new"), "text").unwrap();
    std::fs::rename(path("new"), path("hidden")).unwrap();
    std::fs::rename(path("hidden-dir"), path("moved")).unwrap();
    make("hidden-dir", 0o755);
    make("hidden-dir/subdir", 0o755);
    // One that has looked before, and one that has not.
    daemon.deploy(python("young"), &[("app.py", READS)]).unwrap();
    let asked = ["hidden", "hidden-dir", "hidden-dir/key", "hidden-dir/subdir/key", "moved", "dir-for-all"];
    for name in ["reads", "young"] {
        let got = answer(&daemon, name, &json!(asked.map(path)).to_string());
        let of = asked.map(|n| got[path(n)].clone());
        let expected = json!([EACCES, [], ENOENT, ENOENT, [], ["key"]]);
        assert_eq!(json!(of), expected, "{name}: {got}");
    }
    if std::fs::metadata("/etc/shadow").is_ok_and(|m| m.permissions().mode() & 0o4 == 0) {
        assert_eq!(got["/etc/shadow"], EACCES);
    }
    if std::fs::metadata("/root").is_ok_and(|m| m.permissions().mode() & 0o5 == 0) {
        assert_eq!(got["/root"], json!([]));
    }
    assert!(daemon.log().contains("the host's files"), "{}", daemon.log());
    assert!(daemon.stop().success());
    // The operator may say otherwise.
    let mut daemon = Coppiced::start(Options { keys: "public_only = false\n".into(), ..Options::default() });
    daemon.deploy(python("reads"), &[("app.py", READS)]).unwrap();
    assert_eq!(answer(&daemon, "reads", &json!([path("own")]).to_string())[path("own")], "text");
    assert!(daemon.stop().success());
}

#[test]
fn sandboxes_are_known_by_what_they_are() {
    let mut daemon = Coppiced::start(Options::default());
    let long = "x".repeat(64);
    daemon.deploy(python(&long), &[("app.py", &says("long"))]).unwrap();
    let keeps = proto::FunctionSpec { keep_alive: 1, ..python("keeps") };
    daemon.deploy(keeps, &[("app.py", &says("kept"))]).unwrap();
    assert_eq!(answer(&daemon, "keeps", "1"), json!(["kept", 1]));
    let titles = || {
        let title = |pid: i32| {
            let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let text =
                |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches(['\0', '\n']).to_owned();
            (text(&read("cmdline")), text(&read("comm")))
        };
        daemon.sandboxes().into_iter().map(title).collect::<std::collections::BTreeSet<_>>()
    };
    let pair = |command: &str, name: &str| (format!("coppice-sandbox: {command}"), name.to_owned());
    let expected = [
        pair("seed L0 os", "L0 os"),
        pair("seed L1 python", "L1 python"),
        pair("seed L2 keeps", "L2 keeps"),
        pair(&format!("seed L2 {long}"), &format!("L2 {}", "x".repeat(12))),
        pair("instance keeps", "keeps"),
    ];
    assert!(eventually(|| titles() == expected.clone().into()), "{:?}", titles());
    assert!(daemon.stop().success());
}
