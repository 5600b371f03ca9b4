//! Functions through `coppice invoke`, `coppice demo` and the tree's API: right answers, every way to fail, and nothing left behind.

mod support;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::left::{eventually, leftovers, marked};
use support::{LIMIT, Outcome, coppice, finish, fresh_dir, survived, tree, wait};

/// Runs `coppice invoke` on a handler's source.
fn invoke_with(source: &str, args: &[&str], input: &[u8]) -> Outcome {
    let dir = fresh_dir("invoke");
    let file = dir.path().join("app.py");
    std::fs::write(&file, source).unwrap();
    let mark = format!("invoke-{}-{}", std::process::id(), dir.path().display());
    let mut command = coppice();
    command
        .arg("invoke")
        .arg(format!("{}:handler", file.display()))
        .args(args)
        .env("COPPICE_TEST_MARK", &mark);
    let outcome = finish(&mut command, input, LIMIT);
    assert!(!outcome.timed_out, "hangs: {args:?} {}", outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    assert!(!outcome.by_signal, "coppice died of signal {}", outcome.status - 128);
    assert!(eventually(|| marked(&mark).is_empty()), "{args:?} leaves processes {:?}", marked(&mark));
    outcome
}

fn invoke(source: &str, event: &str) -> Outcome {
    invoke_with(source, &["--event", event], b"")
}

/// The handler runs and fails with this text on stderr; status 1.
fn fails(source: &str, text: &str) {
    let outcome = invoke(source, "{}");
    assert_eq!(outcome.status, 1, "{source}: {}", outcome.stderr);
    assert!(outcome.stderr.contains(text), "{source}: {}", outcome.stderr);
    assert!(outcome.stdout.is_empty(), "{source}: {}", outcome.text());
}

/// Coppice gives up on the function with one line that contains this text; status 1, since it is the function's doing.
fn is_given_up(source: &str, args: &[&str], text: &str) {
    let outcome = invoke_with(source, args, b"");
    assert_eq!(outcome.status, 1, "{source}: {} {}", outcome.text(), outcome.stderr);
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("coppice: ") && last.contains(text), "{source}: {}", outcome.stderr);
}

const ECHO: &str = "def handler(event, context): return event\n";

#[test]
fn a_handler_answers_with_what_it_returned() {
    for event in [
        "{}",
        "null",
        "[1, 2.5, \"x\", {\"a\": null}]",
        "\"\\u00fcn\\u00ef\\u4e16\\ud83d\\ude00\"",
        "1e308",
        "{\"größe\": \"日本\"}",
    ] {
        let outcome = invoke(ECHO, event);
        assert_eq!(outcome.status, 0, "{event}: {}", outcome.stderr);
        let (got, want): (Value, Value) =
            (serde_json::from_slice(&outcome.stdout).unwrap(), serde_json::from_str(event).unwrap());
        assert_eq!(got, want);
    }
}

#[test]
fn the_context_and_the_environment_are_the_functions_own() {
    let source = "import os\ndef handler(e, c):\n return [c.function_name, c.memory_limit_in_mb, len(c.aws_request_id) > 0, \
                  0 < c.get_remaining_time_in_millis() <= 5000, os.environ['COLOUR'], os.getpid() > 0]\n";
    let outcome = invoke_with(source, &["--env", "COLOUR=green", "--timeout", "5", "--memory", "128m"], b"");
    let got: Value = serde_json::from_slice(&outcome.stdout).unwrap_or_else(|_| panic!("{}", outcome.stderr));
    assert_eq!(got, json!(["app", 128, true, true, "green", true]));
}

#[test]
fn json_output_has_the_answer_and_the_phases() {
    let outcome =
        invoke_with(ECHO, &["--json", "--event", "7", "--repeat", "3", "--spares", "1", "--warm", "1"], b"");
    let lines: Vec<Value> = outcome.text().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{}", outcome.stderr);
    for line in lines {
        assert_eq!(
            (&line["ok"], &line["result"], &line["phases"]["level"]),
            (&json!(true), &json!(7), &json!(2))
        );
        assert!(line["phases"]["total_us"].as_u64().unwrap() > 0);
    }
}

#[test]
fn a_handler_file_may_have_the_name_of_any_module() {
    for name in ["json", "random", "os", "a.b", "my-mod"] {
        let dir = fresh_dir("names");
        let file = dir.path().join(format!("{name}.py"));
        std::fs::write(&file, ECHO).unwrap();
        let mut command = coppice();
        command.arg("invoke").arg(format!("{}:handler", file.display())).args(["--event", "[7]"]);
        let outcome = finish(&mut command, b"", LIMIT);
        assert_eq!((outcome.status, outcome.text().as_str()), (0, "[7]\n"), "{name}: {}", outcome.stderr);
    }
}

#[test]
fn a_module_beside_the_handler_may_shadow_the_standard_librarys() {
    let dir = fresh_dir("shadow");
    std::fs::write(dir.path().join("random.py"), "x = 5\n").unwrap();
    std::fs::write(dir.path().join("app.py"), "import random\ndef handler(e, c): return random.x\n").unwrap();
    let mut command = coppice();
    command.arg("invoke").arg(format!("{}:handler", dir.path().join("app.py").display()));
    let outcome = finish(&mut command, b"", LIMIT);
    assert_eq!((outcome.status, outcome.text().as_str()), (0, "5\n"), "{}", outcome.stderr);
}

#[test]
fn an_answer_with_half_a_surrogate_pair_is_json() {
    let outcome = invoke("def handler(e, c): return '\\ud800'\n", "{}");
    assert_eq!(outcome.text(), "\"\\ud800\"\n");
}

#[test]
fn an_operators_mistake_is_one_line_and_status_125() {
    let dir = fresh_dir("mistakes");
    let file = dir.path().join("app.py");
    std::fs::write(&file, ECHO).unwrap();
    let spec = format!("{}:handler", file.display());
    let run = |args: &[&str], full: bool| {
        let mut command = Command::new("sh");
        let redirect = if full { "exec \"$@\" >/dev/full" } else { "exec \"$@\"" };
        command.args(["-c", redirect, "sh"]).arg(coppice().get_program()).args(["invoke", &spec]).args(args);
        let outcome = finish(&mut command, b"", LIMIT);
        assert_eq!(outcome.status, 125, "{args:?}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1, "{args:?}: {}", outcome.stderr);
        outcome.stderr
    };
    assert!(run(&[], true).contains("cannot write to standard output"));
    assert!(run(&["--json"], true).contains("cannot write to standard output"));
    assert!(run(&["--warm", "{"], false).contains("--warm"));
    assert!(run(&["--env", "=x"], false).contains("--env"));
}

#[test]
fn an_import_error_shows_its_traceback() {
    let outcome = invoke("import json\nimport no_such_module_at_all\ndef handler(e, c): pass\n", "{}");
    assert_eq!(outcome.status, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("line 2"), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        "{}",
        outcome.stderr
    );
    fails("def handler(e, c: return 1\n", "SyntaxError");
    fails("x = 1\n", "AttributeError");
    fails("handler = 7\n", "not callable");
    fails("raise SystemExit(4)\n", "exited with status 4");
}

#[test]
fn a_handler_that_raises_shows_its_traceback() {
    fails("def inner(): raise ValueError('näh')\ndef handler(e, c): inner()\n", "ValueError: näh");
    fails("def handler(e, c):\n return 1 / 0\n", "line 2");
    fails("import sys\ndef handler(e, c): sys.exit(5)\n", "status 5");
    fails("def handler(e, c): return handler(e, c)\n", "RecursionError");
    fails("def handler(e, c): raise KeyboardInterrupt\n", "KeyboardInterrupt");
    fails(
        "class E(Exception):\n def __str__(self): raise RuntimeError\ndef handler(e, c): raise E\n",
        "coppice: the function failed",
    );
}

#[test]
fn what_is_not_json_is_an_error_of_the_function() {
    fails("def handler(e, c): return object()\n", "Runtime.MarshalError");
    fails("def handler(e, c): return float('nan')\n", "Runtime.MarshalError");
    fails("def handler(e, c): return {1j: 2}\n", "Runtime.MarshalError");
    fails("def handler(e, c):\n x = []\n x.append(x)\n return x\n", "Runtime.MarshalError");
}

#[test]
fn a_megabyte_of_output_goes_to_stderr_and_not_into_the_answer() {
    let source =
        "import sys\ndef handler(e, c):\n print('x' * (1 << 20))\n sys.stderr.write('end\\n')\n return 1\n";
    let outcome = invoke(source, "{}");
    assert_eq!(
        (outcome.status, outcome.text().trim()),
        (0, "1"),
        "{}",
        &outcome.stderr[..200.min(outcome.stderr.len())]
    );
    assert!(outcome.stderr.len() > 1 << 20 && outcome.stderr.contains("end\n"));
}

#[test]
fn a_handler_that_never_returns_is_ended_by_its_timeout() {
    for body in [
        "while True: pass",
        "import time; time.sleep(1000)",
        "import threading; threading.Event().wait()",
        "import re; re.match(r'(a+)+$', 'a' * 60 + 'b')",
    ] {
        let start = Instant::now();
        let text = if body.contains("Event") { "" } else { "timed out after 700 ms" };
        is_given_up(&format!("def handler(e, c):\n {body}\n"), &["--timeout", "0.7"], text);
        assert!(start.elapsed() < Duration::from_secs(10), "{body}");
    }
    is_given_up("while True: pass\n", &["--timeout", "0.5"], "timed out");
}

#[test]
fn a_handler_that_ends_its_process_is_an_error_with_the_reason() {
    is_given_up("import os\ndef handler(e, c): os._exit(3)\n", &[], "exited with status 3");
    is_given_up("import os\ndef handler(e, c): os.abort()\n", &[], "killed by signal 6");
    is_given_up("import ctypes\ndef handler(e, c): ctypes.string_at(8)\n", &[], "killed by signal 11");
    is_given_up(
        "import os, signal\ndef handler(e, c): os.kill(os.getpid(), signal.SIGKILL)\n",
        &[],
        "killed by signal 9",
    );
    is_given_up("import os\nos._exit(9)\n", &[], "exited with status 9");
    is_given_up("import os\ndef handler(e, c):\n os.close(3)\n", &[], "");
}

#[test]
fn a_handler_that_exceeds_its_memory_is_killed_or_gets_memoryerror() {
    let source = "def handler(e, c):\n x = []\n while True: x.append(bytearray(1 << 20))\n";
    let outcome = invoke_with(source, &["--memory", "64m"], b"");
    let python = outcome.status == 1 && outcome.stderr.contains("MemoryError");
    assert!(
        python || (outcome.status == 1 && outcome.stderr.contains("memory limit of 64 MiB")),
        "{} {}",
        outcome.status,
        outcome.stderr
    );
}

#[test]
fn a_handler_that_forks_a_bomb_of_threads_meets_a_limit() {
    let source = "import threading\ndef handler(e, c):\n threading.stack_size(65536)\n while True: threading.Thread(target=threading.Event().wait).start()\n";
    let outcome = invoke_with(source, &["--timeout", "20"], b"");
    assert!(outcome.status == 1 || outcome.status == 125, "{} {}", outcome.status, outcome.stderr);
    if outcome.status == 1 {
        assert!(outcome.stderr.contains("can't start new thread"), "{}", outcome.stderr);
    }
}

#[test]
fn an_event_that_is_not_json_is_refused_in_one_line() {
    for event in ["", "{", "nope", "{\"a\": 1} x", "'x'", "[1,]", "\u{0}"] {
        let outcome = invoke_with(ECHO, &["--event", "-"], event.as_bytes());
        assert_eq!(outcome.status, 125, "{event:?}");
        assert!(
            outcome.stderr.starts_with("coppice: the event is not JSON"),
            "{event:?}: {}",
            outcome.stderr
        );
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
}

#[test]
fn an_event_of_six_mebibytes_passes_and_one_of_a_hundred_megabytes_is_refused() {
    let dir = fresh_dir("event");
    let file = dir.path().join("event.json");
    let text = format!("\"{}\"", "x".repeat((6 << 20) - 2));
    std::fs::write(&file, &text).unwrap();
    let at = format!("@{}", file.display());
    let outcome = invoke_with(ECHO, &["--event", &at], b"");
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    assert!(outcome.text().trim_end() == text, "the answer differs: {} bytes", outcome.stdout.len());
    let outcome = invoke_with(ECHO, &["--event", "-"], text.as_bytes());
    assert!(outcome.text().trim_end() == text, "{}", outcome.stderr);

    let long = format!("\"{}\"", "x".repeat(100_000_000));
    std::fs::write(&file, &long).unwrap();
    for (event, input) in [(at.as_str(), &b""[..]), ("-", long.as_bytes())] {
        let outcome = invoke_with(ECHO, &["--event", event], input);
        assert_eq!(outcome.status, 125);
        assert!(outcome.stderr.contains("the limit is 6291456"), "{}", outcome.stderr);
    }
    let outcome = invoke("def handler(e, c): return 'x' * (7 << 20)\n", "{}");
    assert_eq!(outcome.status, 125, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("limit"), "{}", outcome.stderr);
}

#[test]
fn bad_arguments_get_one_line_and_status_125_or_2() {
    for args in [
        &["/nowhere/app.py:handler"][..],
        &["/etc/passwd:handler"],
        &["app"],
        &["/etc:handler"],
        &["/bin/true:handler"],
        &["x.py:h", "--memory", "1k"],
        &["x.py:h", "--cpus", "0"],
        &["x.py:h", "--timeout", "0"],
        &["x.py:h", "--event", "@/nowhere"],
        &["x.py:h", "--rootfs", "/nowhere"],
    ] {
        let outcome = finish(coppice().arg("invoke").args(args), b"", LIMIT);
        assert!(
            outcome.status == 125 || outcome.status == 2,
            "{args:?}: {} {}",
            outcome.status,
            outcome.stderr
        );
        assert!(!outcome.stderr.contains("panicked"), "{args:?}: {}", outcome.stderr);
    }
}

#[test]
fn a_dead_seed_is_replaced_by_its_parent() {
    let mut g = tree::grow("fallback", ECHO);
    let ask = |g: &mut tree::Grown| {
        let served = g.tree.invoke(&g.function, b"[1]").unwrap();
        assert_eq!(tree::result(&served), json!([1]));
        served.level
    };
    assert_eq!(ask(&mut g), 2);
    let pids: Vec<i32> = g.tree.seeds().iter().map(|s| s.process.pid).collect();
    let kill = support::left::kill_dead;
    kill(pids[2]);
    assert_eq!(ask(&mut g), 1);
    kill(pids[1]);
    assert_eq!(ask(&mut g), 0);
    kill(pids[0]);
    assert!(g.tree.invoke(&g.function, b"1").is_err());
    drop(g);
    for pid in pids {
        assert!(eventually(|| !std::path::Path::new(&format!("/proc/{pid}")).exists()), "seed {pid} is left");
    }
}

#[test]
fn a_seed_killed_in_the_middle_of_forks_costs_no_request_but_the_one_in_its_hands() {
    for delay in [0, 300, 900, 2500] {
        let mut g = tree::grow("midfork", "def handler(e, c): return e * 2\n");
        let pid = g.seed_pid();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(5000 + delay));
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        });
        let given_up =
            g.ask_while_seeds_die(30, 4, |i| i.to_string(), |i, value| assert_eq!(value, json!(i * 2)));
        assert!(given_up <= 1, "{given_up} requests were given up");
        killer.join().unwrap();
        drop(g);
        assert!(eventually(|| !std::path::Path::new(&format!("/proc/{pid}")).exists()));
    }
}

#[test]
fn an_event_is_checked_before_anything_is_forked() {
    assert!(seedtree::tree::check_event(b"{}").is_ok());
    assert!(seedtree::tree::check_event(b"").is_err());
    assert!(seedtree::tree::check_event(b"{} {}").is_err());
    assert!(seedtree::tree::check_event(&vec![b' '; (6 << 20) + 1]).is_err());
    assert!(seedtree::tree::check_event(&[b"\"", &[0xff, 0xfe][..], b"\""].concat()).is_err(), "not UTF-8");
}

/// Whoever looks at /tmp and whoever makes directories there take turns.
static TMP: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Starts a command, sends it a signal after a while, and looks at what is left.
fn interrupted(mut command: Command, name: &str, signal: Signal, after: Duration) {
    let mark = format!("interrupted-{name}-{}-{}", std::process::id(), after.as_micros());
    let before = leftovers();
    command.env("COPPICE_TEST_MARK", &mark).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(after);
    let _ = kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal);
    let (_, timed_out) = wait(&mut child, LIMIT);
    assert!(!timed_out, "{name} does not end on {signal:?} after {after:?}");
    assert!(
        eventually(|| marked(&mark).is_empty()),
        "{name} {signal:?} after {after:?} leaves {:?}",
        marked(&mark)
    );
    let new: Vec<String> = leftovers().difference(&before).cloned().collect();
    assert!(new.is_empty(), "{name} {signal:?} after {after:?} leaves {new:?}");
}

#[test]
fn a_signal_at_any_moment_leaves_no_process_and_no_directory() {
    let _turn = TMP.lock().unwrap_or_else(|e| e.into_inner());
    let dir = fresh_dir("signals");
    let file = dir.path().join("slow.py");
    std::fs::write(&file, "import time\ndef handler(e, c):\n time.sleep(5)\n").unwrap();
    for (i, ms) in [1, 4, 12, 30, 60, 100, 180, 320, 700, 1500].into_iter().enumerate() {
        let signal = if i % 2 == 0 { Signal::INT } else { Signal::TERM };
        let mut demo = coppice();
        demo.args(["demo", "--runs", "100", "--no-peers", "--json"]);
        interrupted(demo, "demo", signal, Duration::from_millis(ms));
        let mut invoke = coppice();
        invoke.arg("invoke").arg(format!("{}:handler", file.display()));
        interrupted(invoke, "invoke", signal, Duration::from_millis(ms));
    }
    let mut killed = coppice();
    killed.arg("invoke").arg(format!("{}:handler", file.display()));
    interrupted(killed, "invoke", Signal::KILL, Duration::from_millis(400));
}

#[test]
fn the_demo_answers_right_every_time() {
    let _turn = TMP.lock().unwrap_or_else(|e| e.into_inner());
    let outcome = finish(coppice().args(["demo", "--runs", "20", "--no-peers", "--json"]), b"", LIMIT);
    survived(&outcome, "demo");
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let last: Value = serde_json::from_str(outcome.text().lines().last().unwrap_or_default()).unwrap();
    assert_eq!((&last["runs"], &last["ok"]), (&json!(20), &json!(20)));
    assert_eq!(last["seeds"].as_array().unwrap().len(), 3);
    for key in ["total_us", "spare_total_us", "exits", "faults", "private_kib"] {
        assert!(last[key]["p50"].as_u64().unwrap() > 0, "{key}: {last}");
    }
    assert!(outcome.text().lines().count() == 1, "only the JSON line is on stdout");
}
