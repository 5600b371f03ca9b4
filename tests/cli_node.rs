//! The commands that talk to a daemon: every one, for people and with --json.

mod support;

use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use support::daemon::{Coppiced, Options};
use support::left::eventually;
use support::{LIMIT, Outcome, coppice, finish, fresh_dir};

/// Runs `coppice ARGS` against a daemon.
fn run(daemon: &Coppiced, args: &[&str]) -> Outcome {
    run_with(daemon, args, b"")
}

fn run_with(daemon: &Coppiced, args: &[&str], input: &[u8]) -> Outcome {
    let mut command = coppice();
    command.args(args).env("COPPICE_SOCKET", daemon.grpc());
    let outcome = finish(&mut command, input, LIMIT);
    assert!(!outcome.timed_out && !outcome.by_signal, "{args:?}: {}", outcome.stderr);
    outcome
}

/// The same, which must succeed; its stdout.
fn good(daemon: &Coppiced, args: &[&str]) -> String {
    let outcome = run(daemon, args);
    assert_eq!(outcome.status, 0, "{args:?}: {}", outcome.stderr);
    outcome.text()
}

/// The same with --json, parsed.
fn parsed(daemon: &Coppiced, args: &[&str]) -> Value {
    let text = good(daemon, &[args, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
}

/// The same, which the daemon must refuse, for people and with --json; what it tells people.
fn refused(daemon: &Coppiced, args: &[&str], code: &str) -> String {
    let outcome = run(daemon, args);
    assert_eq!((outcome.status, outcome.text().as_str()), (1, ""), "{args:?}: {}", outcome.stderr);
    assert!(outcome.stderr.contains(&format!("[{code}]")), "{args:?}: {}", outcome.stderr);
    let as_json = run(daemon, &[args, &["--json"]].concat());
    let value: Value = serde_json::from_str(&as_json.text()).unwrap_or_else(|e| panic!("{args:?}: {e}"));
    assert_eq!((as_json.status, &value["ok"]), (1, &json!(false)), "{args:?}: {value}");
    assert_eq!(value["error"]["code"], code, "{args:?}: {value}");
    outcome.stderr
}

fn code(source: &str) -> tempfile::TempDir {
    let dir = fresh_dir("code");
    std::fs::write(dir.path().join("app.py"), source).unwrap();
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const GOOD: &str = "import os, time\n\
    print('imported', flush=True)\n\
    def handler(event, context):\n\
    \x20   print('asked for', event, flush=True)\n\
    \x20   if event == 'fail': raise ValueError('not today')\n\
    \x20   if event == 'sleep': time.sleep(600)\n\
    \x20   if event == 'parts': return parts()\n\
    \x20   return [event, os.environ.get('WORD')]\n\
    def parts():\n\
    \x20   yield 'one, '\n\
    \x20   yield 'two'\n\
    \x20   raise ValueError('not today')\n";

#[test]
fn every_command_tells_people_and_programs() {
    let daemon = Coppiced::start(Options::default());
    let dir = code(GOOD);
    let deploy = [
        "deploy",
        text(dir.path()),
        "--name",
        "hello",
        "--runtime",
        "python3.12",
        "--handler",
        "app.handler",
    ];
    let outcome =
        run(&daemon, &[&deploy[..], &["--env", "WORD=own", "--memory", "256m", "--timeout", "20"]].concat());
    assert_eq!(
        (outcome.status, outcome.text().as_str()),
        (0, "hello version 1 is deployed: ready\n"),
        "{}",
        outcome.stderr
    );
    // No terminal: plain lines, and what the import printed.
    assert!(
        outcome.stderr.contains("uploading ") && outcome.stderr.contains("imported\n"),
        "{}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains('\x1b'), "{}", outcome.stderr);

    let outcome = run(&daemon, &["call", "hello", "--event", r#"{"a":1}"#]);
    assert_eq!((outcome.status, outcome.text().trim()), (0, r#"[{"a": 1}, "own"]"#), "{}", outcome.stderr);
    assert_eq!(outcome.stderr, "asked for {'a': 1}\n");
    let called = parsed(&daemon, &["call", "hello", "--event", "7", "--request-id", "mine"]);
    assert_eq!(
        (&called["ok"], &called["result"], &called["end"]["request_id"]),
        (&json!(true), &json!([7, "own"]), &json!("mine"))
    );
    assert_eq!(run_with(&daemon, &["call", "hello", "--event", "-"], b"8").text().trim(), r#"[8, "own"]"#);
    let failed = run(&daemon, &["call", "hello", "--event", "\"fail\""]);
    assert_eq!((failed.status, failed.text().as_str()), (1, ""));
    assert!(
        failed.stderr.contains("app.py") && failed.stderr.contains("ValueError: not today"),
        "{}",
        failed.stderr
    );
    let failed = run(&daemon, &["call", "hello", "--event", "\"fail\"", "--json"]);
    let value: Value = serde_json::from_str(&failed.text()).unwrap();
    assert_eq!((failed.status, &value["error"]["errorType"]), (1, &json!("ValueError")));

    assert_eq!(good(&daemon, &["call", "hello", "--event", "7", "--stream"]), r#"[7, "own"]"#);
    let failed = run(&daemon, &["call", "hello", "--event", "\"parts\"", "--stream"]);
    assert_eq!((failed.status, failed.text().as_str()), (1, "one, two"));
    assert!(failed.stderr.contains("ValueError: not today"), "{}", failed.stderr);

    let logs = good(&daemon, &["function", "logs", "hello"]);
    assert!(logs.contains(" asked for {'a': 1}\n") && logs.contains("ValueError: not today"), "{logs}");
    let last = good(&daemon, &["logs", "--tail", "1", "--json"]);
    let last: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(last["function"], "hello");
    assert_eq!(run(&daemon, &["function", "logs", "none"]).status, 1);

    let list = good(&daemon, &["function", "ls"]);
    assert!(list.contains("hello") && list.contains("ready"), "{list}");
    let list = parsed(&daemon, &["function", "ls"]);
    assert_eq!((&list[0]["spec"]["name"], &list[0]["version"]), (&json!("hello"), &json!(1)));
    assert!(list[0]["counts"]["requests"].as_u64().unwrap() >= 5);
    let shown = good(&daemon, &["function", "show", "hello"]);
    assert!(shown.contains("WORD=own") && shown.contains("app.handler"), "{shown}");
    assert_eq!(parsed(&daemon, &["function", "show", "hello"])["spec"]["timeout_ms"], 20_000);

    let tree = good(&daemon, &["seed", "tree"]);
    let lines: Vec<&str> = tree.lines().collect();
    assert!(lines[0].starts_with("L0 os") && lines[1].starts_with("└─ L1 python"), "{tree}");
    assert!(lines[2].starts_with("   └─ L2 hello"), "{tree}");
    assert_eq!(parsed(&daemon, &["seed", "tree"]).as_array().unwrap().len(), 3);
    assert!(good(&daemon, &["seed", "ls"]).contains("python"));
    assert_eq!(parsed(&daemon, &["seed", "ls"])[1]["level"], 1);
    assert!(good(&daemon, &["seed", "show", "hello"]).contains("python"));
    assert_eq!(parsed(&daemon, &["seed", "show", "os"])[0]["name"], "os");
    refused(&daemon, &["seed", "show", "none"], "Seed.NotFound");
    let os = refused(&daemon, &["seed", "rm", "os"], "Seed.Needed");
    assert!(os.contains("the OS seed cannot be dropped"), "{os}");
    assert!(good(&daemon, &["seed", "rm", "hello"]).contains("dropped"));
    let again = run(&daemon, &["seed", "rm", "hello"]);
    assert!(again.status == 1 && again.stderr.contains("[Seed.NotFound]"), "{}", again.stderr);
    assert!(good(&daemon, &["seed", "prewarm", "hello"]).contains("ready"));
    assert_eq!(parsed(&daemon, &["seed", "rm", "hello"])["removed"], "hello");
    assert_eq!(parsed(&daemon, &["seed", "prewarm", "hello"])["name"], "hello");

    let status = good(&daemon, &["node", "status"]);
    assert!(status.contains("ready") && status.contains("1 functions"), "{status}");
    let status = parsed(&daemon, &["node", "status"]);
    assert!(status["status"]["memory"]["pss_bytes"].as_u64().unwrap() > 0, "{status}");
    let top = good(&daemon, &["top"]);
    assert!(top.contains("hello") && top.contains("coppiced "), "{top}");
    assert_eq!(good(&daemon, &["top", "--once"]).lines().count(), top.lines().count());
    assert_eq!(parsed(&daemon, &["top"])["functions"][0]["spec"]["name"], "hello");

    let zip = dir.path().join("code.zip");
    std::fs::write(&zip, support::daemon::archive(&[("app.py", "def handler(e, c): return 'two'\n")]))
        .unwrap();
    let deploy = ["deploy", text(&zip), "--name", "hello", "--runtime", "python", "--handler", "app.handler"];
    let function = parsed(&daemon, &deploy);
    assert_eq!((&function["version"], &function["state"]), (&json!(2), &json!("ready")));
    assert_eq!(good(&daemon, &["call", "hello"]).trim(), r#""two""#);
    assert!(good(&daemon, &["function", "rollback", "hello"]).starts_with("hello serves its version"));
    assert_eq!(good(&daemon, &["call", "hello"]).trim(), r#"[{}, "own"]"#);
    let back = parsed(&daemon, &["function", "rollback", "hello", "--to", "2"]);
    assert_eq!(back["spec"]["name"], "hello");
    assert_eq!(good(&daemon, &["call", "hello"]).trim(), r#""two""#);
    let none = run(&daemon, &["function", "rollback", "hello", "--to", "99"]);
    assert!(none.status == 1 && none.stderr.contains("[Function.VersionNotFound]"), "{}", none.stderr);

    assert_eq!(good(&daemon, &["function", "rm", "hello"]), "hello is removed\n");
    let gone = run(&daemon, &["function", "rm", "hello", "--json"]);
    let value: Value = serde_json::from_str(&gone.text()).unwrap();
    assert_eq!((gone.status, &value["error"]["code"]), (1, &json!("Function.NotFound")));
    assert!(good(&daemon, &["node", "drain", "--timeout", "5"]).contains("drained"));
    assert_eq!(parsed(&daemon, &["node", "drain"])["given_up"], 0);
}

#[test]
fn a_deploy_that_fails_shows_the_functions_traceback_and_keeps_the_old_version() {
    let daemon = Coppiced::start(Options::default());
    let (good_code, bad) =
        (code(GOOD), code("import json\ndef load():\n    raise KeyError('wanted')\nload()\n"));
    let args = |dir: &Path| {
        ["deploy", text(dir), "--name", "f", "--runtime", "python", "--handler", "app.handler"]
            .map(str::to_owned)
    };
    let deploy = |dir: &Path, more: &[&str]| {
        let args = args(dir);
        let all: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        run(&daemon, &all)
    };
    assert_eq!(deploy(good_code.path(), &[]).status, 0);
    let failed = deploy(bad.path(), &[]);
    assert_eq!((failed.status, failed.text().as_str()), (1, ""));
    for wanted in ["app.py", "in load", "KeyError", "[Runtime.ImportError]"] {
        assert!(failed.stderr.contains(wanted), "{wanted}: {}", failed.stderr);
    }
    let failed = deploy(bad.path(), &["--json"]);
    let value: Value = serde_json::from_str(&failed.text()).unwrap();
    assert_eq!((failed.status, &value["error"]["code"]), (1, &json!("Runtime.ImportError")));
    assert_eq!(value["error"]["function"]["errorType"], "KeyError");
    assert_eq!(parsed(&daemon, &["function", "show", "f"])["version"], 1);
    assert_eq!(good(&daemon, &["call", "f", "--event", "1"]).trim(), "[1, null]");
    // Wrong in other ways: nothing changes, and each says what.
    let not_a_zip = good_code.path().join("app.py");
    for (dir, more, status, words) in [
        (not_a_zip.as_path(), &[][..], 1, "zip"),
        (Path::new("/nowhere/at/all"), &[], 125, "cannot read /nowhere/at/all"),
        (good_code.path(), &["--handler", "none.handler"], 2, "--handler"),
        (good_code.path(), &["--warm", "{"], 125, "--warm"),
        (good_code.path(), &["--env", "=x"], 125, "--env"),
        (good_code.path(), &["--timeout", "0"], 125, "0 seconds"),
    ] {
        let outcome = deploy(dir, more);
        assert_eq!(outcome.status, status, "{more:?}: {}", outcome.stderr);
        assert!(outcome.stderr.to_lowercase().contains(words), "{more:?}: {}", outcome.stderr);
    }
    assert_eq!(parsed(&daemon, &["function", "show", "f"])["version"], 1);
    let uploads = std::fs::read_dir(daemon.state().join("uploads")).unwrap().count();
    assert_eq!(uploads, 0);
}

#[test]
fn instances_are_listed_and_ended() {
    let daemon = Coppiced::start(Options::default());
    let dir = code(GOOD);
    let deploy = [
        "deploy",
        text(dir.path()),
        "--name",
        "f",
        "--runtime",
        "python",
        "--handler",
        "app.handler",
        "--timeout",
        "60",
    ];
    good(&daemon, &deploy);
    std::thread::scope(|scope| {
        let sleeping = scope.spawn(|| run(&daemon, &["call", "f", "--event", "\"sleep\""]));
        let list = || parsed(&daemon, &["instance", "ls", "f"]);
        assert!(eventually(|| list().as_array().unwrap().iter().any(|i| i["state"] == "working")));
        let all = good(&daemon, &["instance", "ls"]);
        assert!(all.contains("working") && all.contains("L2"), "{all}");
        let id = list()[0]["id"].as_str().unwrap().to_owned();
        assert_eq!(good(&daemon, &["instance", "kill", &id]), format!("{id} is ended\n"));
        let outcome = sleeping.join().unwrap();
        assert!(outcome.status == 1 && outcome.stderr.contains("[Instance.Killed]"), "{}", outcome.stderr);
    });
    assert!(good(&daemon, &["instance", "ls", "f"]).to_lowercase().contains("state"));
    refused(&daemon, &["instance", "ls", "none"], "Function.NotFound");
    let none = run(&daemon, &["instance", "kill", "none", "--json"]);
    let value: Value = serde_json::from_str(&none.text()).unwrap();
    assert_eq!((none.status, &value["error"]["code"]), (1, &json!("Instance.NotFound")));
}

/// One that is not there does not keep the others from what is to be done to them.
#[test]
fn several_are_removed_whatever_becomes_of_one() {
    let daemon = Coppiced::start(Options::default());
    let dir = code("def handler(event, context): return event\n");
    let deploy = |name: &str| {
        let handler = ["--runtime", "python", "--handler", "app.handler"];
        good(&daemon, &[&["deploy", text(dir.path()), "--name", name][..], &handler].concat());
    };
    let left = || parsed(&daemon, &["function", "ls"]).as_array().unwrap().len();
    ["a", "b"].into_iter().for_each(deploy);
    let outcome = run(&daemon, &["function", "rm", "a", "none", "b", "other"]);
    assert_eq!((outcome.status, outcome.text().as_str()), (1, "a is removed\nb is removed\n"));
    assert_eq!(outcome.stderr.matches("[Function.NotFound]").count(), 2, "{}", outcome.stderr);
    assert_eq!(left(), 0);
    ["a", "b"].into_iter().for_each(deploy);
    let outcome = run(&daemon, &["function", "rm", "a", "none", "b", "--json"]);
    let value: Value = serde_json::from_str(&outcome.text()).unwrap();
    assert_eq!((outcome.status, &value["removed"]), (1, &json!(["a", "b"])), "{value}");
    assert_eq!(value["error"]["code"], "Function.NotFound");
    assert_eq!((&value["errors"][0]["name"], value["errors"].as_array().unwrap().len()), (&json!("none"), 1));
    assert_eq!(left(), 0);
}

#[test]
fn directories_go_with_their_modes_links_and_layers() {
    let daemon = Coppiced::start(Options::default());
    let dir = fresh_dir("code");
    let source = "import os, subprocess\nfrom shared import word\ndef handler(event, context):\n    \
        out = subprocess.run(['/var/task/bin/tool'], capture_output=True, text=True).stdout\n    \
        return [out, word, os.readlink('/var/task/link'), open('/var/task/link').read()]\n";
    std::fs::create_dir(dir.path().join("bin")).unwrap();
    std::fs::write(dir.path().join("app.py"), source).unwrap();
    std::fs::write(dir.path().join("bin/tool"), "#!/bin/sh\necho ran\n").unwrap();
    std::fs::set_permissions(
        dir.path().join("bin/tool"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    std::fs::write(dir.path().join("data"), "text").unwrap();
    std::os::unix::fs::symlink("data", dir.path().join("link")).unwrap();
    let layer = fresh_dir("layer");
    std::fs::create_dir(layer.path().join("python")).unwrap();
    std::fs::write(layer.path().join("python/shared.py"), "word = 'from the layer'\n").unwrap();
    let deploy = [
        "deploy",
        text(dir.path()),
        "--name",
        "f",
        "--runtime",
        "python",
        "--handler",
        "app.handler",
        "--layer",
        text(layer.path()),
    ];
    good(&daemon, &deploy);
    let answer: Value = serde_json::from_str(&good(&daemon, &["call", "f"])).unwrap();
    assert_eq!(answer, json!(["ran\n", "from the layer", "data", "text"]));
    // The same tree has the same digest: nothing of it comes from the time or the order of its packing.
    let before = parsed(&daemon, &["function", "show", "f"])["code_sha256"].clone();
    good(&daemon, &deploy);
    assert_eq!(parsed(&daemon, &["function", "show", "f"])["code_sha256"], before);
}

#[test]
fn without_a_daemon_every_command_says_so() {
    let dir = fresh_dir("none");
    let socket = dir.path().join("none.sock");
    for args in [
        &["function", "ls"][..],
        &["seed", "tree"],
        &["instance", "ls"],
        &["node", "status"],
        &["logs"],
        &["top", "--once"],
        &["call", "f"],
        &["deploy", text(dir.path()), "--name", "f", "--runtime", "provided"],
    ] {
        let outcome = finish(coppice().args(args).arg("--socket").arg(&socket), b"", Duration::from_secs(20));
        assert_eq!(outcome.status, 125, "{args:?}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains("is coppiced running?") && outcome.stderr.contains("none.sock"),
            "{args:?}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    for args in [
        &["deploy"][..],
        &["call"],
        &["logs"],
        &["top"],
        &["function", "ls"],
        &["function", "show"],
        &["function", "rm"],
        &["function", "logs"],
        &["function", "rollback"],
        &["seed", "tree"],
        &["seed", "ls"],
        &["seed", "show"],
        &["seed", "rm"],
        &["seed", "prewarm"],
        &["instance", "ls"],
        &["instance", "kill"],
        &["node", "status"],
        &["node", "drain"],
    ] {
        let outcome = finish(coppice().args(args).arg("--help"), b"", LIMIT);
        let text = outcome.text();
        assert_eq!(outcome.status, 0, "{args:?}");
        let call = format!("  coppice {}", args.join(" "));
        assert!(
            text.contains("Example") && text.replace("Example: ", "\n  ").contains(&call),
            "{args:?}: {text}"
        );
        assert!(text.contains("--json") && text.contains("--socket"), "{args:?}: {text}");
    }
}

/// On a terminal a function's output is text: what it would tell the terminal to do is shown.
#[test]
fn a_function_does_not_write_to_the_operators_terminal() {
    const HOSTILE: &str = "print('\\x1b]0;owned\\x07while imported', flush=True)\n\
        def handler(event, context):\n\
        \x20   print('\\x1b[2Jprinted', flush=True)\n\
        \x20   raise ValueError('\\x1b[1Aerror')\n";
    const TERMINAL: &str =
        "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let daemon = Coppiced::start(Options::default());
    let dir = code(HOSTILE);
    let shown = |args: &[&str]| {
        let mut command = std::process::Command::new("python3");
        command.args(["-c", TERMINAL]).arg(coppice().get_program()).args(args);
        command.env("COPPICE_SOCKET", daemon.grpc()).env("TERM", "dumb");
        finish(&mut command, b"", LIMIT).text()
    };
    let deploy =
        ["deploy", text(dir.path()), "--name", "f", "--runtime", "python", "--handler", "app.handler"];
    let deployed = shown(&deploy);
    assert!(deployed.contains("\\u{1b}]0;owned\\u{7}while imported"), "{deployed:?}");
    let called = shown(&["call", "f"]);
    assert!(called.contains("\\u{1b}[2Jprinted") && called.contains("\\u{1b}[1Aerror"), "{called:?}");
    let logs = shown(&["logs", "f"]);
    assert!(logs.contains("\\u{1b}[2Jprinted"), "{logs:?}");
    for text in [called, logs] {
        assert!(!text.contains('\x1b'), "{text:?}");
    }
    // A pipe gets what was printed.
    assert!(good(&daemon, &["logs", "f"]).contains("\x1b[2Jprinted"));
}
