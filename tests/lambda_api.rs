//! Programs that speak the AWS Lambda Runtime API: a small one of ours, and AWS's own clients for Python and Node.js.
//!
//! The clients come from PyPI and npm, once, into the build directory. Where the registries cannot be reached those tests fail and say so.

mod support;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use support::{LIMIT, Outcome, coppice, finish, fresh_dir, installed, scratch};

fn invoke(path: &Path, args: &[&str]) -> Outcome {
    let mut command = coppice();
    command.args(["invoke", "--runtime", "provided"]).arg(path).args(args);
    let outcome = finish(&mut command, b"", LIMIT);
    assert!(!outcome.timed_out, "hangs: {args:?} {}", outcome.stderr);
    assert!(!outcome.by_signal && !outcome.stderr.contains("panicked at guest"), "{}", outcome.stderr);
    outcome
}

fn lines(outcome: &Outcome) -> Vec<Value> {
    assert_eq!(outcome.status, 0, "{} {}", outcome.text(), outcome.stderr);
    outcome.text().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// One test at a time builds.
static BUILDING: Mutex<()> = Mutex::new(());

/// Compiles tests/programs/lambda_api.rs as `bootstrap` in a directory of its own, which is the result.
fn program() -> PathBuf {
    let _guard = BUILDING.lock().unwrap_or_else(|e| e.into_inner());
    let dir = scratch().join(format!("lambda-api-{}", std::process::id())).join("little");
    if !dir.join("bootstrap").exists() {
        std::fs::create_dir_all(&dir).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/programs/lambda_api.rs");
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2021", "-O", "-o"]).arg(dir.join("new")).arg(source);
        let outcome = finish(&mut rustc, b"", LIMIT);
        assert_eq!(outcome.status, 0, "rustc: {}", outcome.stderr);
        std::fs::rename(dir.join("new"), dir.join("bootstrap")).unwrap();
    }
    dir
}

#[test]
fn a_small_program_serves_from_a_seed_taken_at_its_first_question() {
    let dir = program();
    let outcome = invoke(
        &dir,
        &[
            "--handler",
            "echo",
            "--event",
            r#"{"ü": [1]}"#,
            "--repeat",
            "5",
            "--spares",
            "1",
            "--timeout",
            "9",
        ],
    );
    let answers = lines(&outcome);
    let mut random = std::collections::HashSet::new();
    for answer in &answers {
        assert_eq!(
            (&answer["event"], &answer["count"], &answer["thread"]),
            (&json!({"ü": [1]}), &json!(1), &json!(2))
        );
        assert!((1..=9000).contains(&answer["left"].as_u64().unwrap()));
        assert!(answer["arn"].as_str().unwrap().ends_with(":function:little"), "{answer}");
        assert!(random.insert(answer["random"].clone()) && random.insert(answer["trace"].clone()));
    }
    assert_eq!(answers.len(), 5);
    assert_eq!(outcome.stderr.matches("starting echo").count(), 1, "{}", outcome.stderr);
}

#[test]
fn a_warmed_seed_goes_on_from_its_second_question_and_a_dead_one_is_done_without() {
    let dir = program();
    let outcome = invoke(&dir, &["--handler", "echo", "--warm", "0", "--event", "1"]);
    assert_eq!((&lines(&outcome)[0]["count"], &lines(&outcome)[0]["event"]), (&json!(2), &json!(1)));
    let function = seedtree::runtime::Function::provided(&dir.join("bootstrap"), "echo").unwrap();
    let logs = fresh_dir("lambda-levels");
    let mut tree = seedtree::tree::Tree::plant(support::tree::config(logs.path(), false)).unwrap();
    tree.grow_language(function.runtime).unwrap();
    tree.grow_function(&function, None).unwrap();
    let served = tree.invoke(&function, b"3").unwrap();
    assert_eq!((served.level, &support::tree::result(&served)["event"]), (2, &json!(3)));
    support::left::kill_dead(tree.seeds().last().unwrap().process.pid);
    let served = tree.invoke(&function, b"4").unwrap();
    assert_eq!((served.level, &support::tree::result(&served)["event"]), (0, &json!(4)));
}

#[test]
fn every_way_to_fail_is_told() {
    let dir = program();
    for (handler, text) in [
        ("init", "coppice: the function failed: Init.Bad: cannot start"),
        ("error", "one\ntwo\ncoppice: the function failed: Own.Kind: failed"),
        ("exit", "exited with status 7"),
        ("silent", "timed out after 1000 ms"),
        ("none", "exited with status 101"),
    ] {
        let outcome = invoke(&dir, &["--handler", handler, "--timeout", "1"]);
        assert_eq!(outcome.status, 1, "{handler}: {} {}", outcome.text(), outcome.stderr);
        assert!(outcome.stderr.contains(text), "{handler}: {}", outcome.stderr);
    }
    assert!(invoke(Path::new("/nowhere/at/all"), &[]).stderr.contains("cannot read the handler file"));
    // A program that speaks nothing is not ready, and then gone.
    let outcome = invoke(Path::new("/bin/true"), &[]);
    assert!(outcome.stderr.contains("exited with status 0 before it answered"), "{}", outcome.stderr);
}

#[test]
fn responses_may_be_streamed_and_as_long_as_the_limit_but_no_longer() {
    let dir = program();
    assert_eq!(lines(&invoke(&dir, &["--handler", "stream"])), [json!([1, 2])]);
    let limit = 6 << 20;
    let outcome = invoke(&dir, &["--handler", "size", "--event", &limit.to_string()]);
    assert_eq!(outcome.stdout.len(), limit + 1, "{}", outcome.stderr);
    let outcome = invoke(&dir, &["--handler", "size", "--event", &(limit + 1).to_string()]);
    assert!(outcome.stderr.contains("the function failed: TooLarge: 413"), "{}", outcome.stderr);
}

fn executable(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn awslambdaric_for_python_serves_and_runs_its_snapshot_hooks() {
    let packages = installed("awslambdaric-4.2.2", |dir| {
        let mut venv = Command::new("/usr/bin/python3");
        venv.args(["-m", "venv"]).arg(dir.join("venv"));
        let mut pip = Command::new(dir.join("venv/bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "awslambdaric==4.2.2"]);
        vec![venv, pip]
    });
    let dir = fresh_dir("ric-python");
    let python = packages.join("venv/bin/python3");
    executable(
        &dir.path().join("bootstrap"),
        &format!("#!/bin/sh\nexec {} -m awslambdaric \"$_HANDLER\"\n", python.display()),
    );
    let source = r#"
import os, random
from snapshot_restore_py import register_after_restore, register_before_snapshot
log = []
register_before_snapshot(lambda: log.append("before"))
register_after_restore(lambda: (log.append("after"), random.seed()))
count = 0

def handler(event, context):
    global count
    count += 1
    print("in the handler")
    if event == "fail":
        raise ValueError("no good")
    return [event, context.aws_request_id != "", context.function_name != "", 0 < context.get_remaining_time_in_millis() <= 30000,
        context.memory_limit_in_mb, os.getcwd() == os.environ["LAMBDA_TASK_ROOT"], log, count, random.random(), os.urandom(8).hex()]
"#;
    std::fs::write(dir.path().join("app.py"), source).unwrap();
    let outcome =
        invoke(dir.path(), &["--handler", "app.handler", "--event", "{\"a\": \"ü\"}", "--repeat", "4"]);
    let mut seen = std::collections::HashSet::new();
    for answer in lines(&outcome) {
        let answer = answer.as_array().unwrap();
        let start = json!([{"a": "ü"}, true, true, true, "512", true, ["before", "after"], 1]);
        assert_eq!(&answer[..8], start.as_array().unwrap().as_slice());
        assert!(seen.insert(answer[8].to_string()) && seen.insert(answer[9].to_string()), "{answer:?}");
    }
    assert_eq!(seen.len(), 8);
    // One more than was asked for records the working set.
    assert_eq!(outcome.stderr.matches("in the handler").count(), 5, "{}", outcome.stderr);
    for (handler, event, text) in [
        ("app.handler", "\"fail\"", "the function failed: ValueError: no good"),
        ("app.nothing", "1", "the function failed: Runtime.HandlerNotFound"),
        ("missing.handler", "1", "the function failed: Runtime.ImportModuleError"),
    ] {
        let outcome = invoke(dir.path(), &["--handler", handler, "--event", event]);
        assert!(outcome.status == 1 && outcome.stderr.contains(text), "{handler}: {}", outcome.stderr);
    }
}

/// Where this Node.js is installed, if its headers are there too.
fn node_prefix() -> Option<PathBuf> {
    let node =
        std::env::split_paths(&std::env::var_os("PATH")?).map(|d| d.join("node")).find(|n| n.is_file())?;
    let node = std::fs::canonicalize(node).ok()?;
    let prefix = node.parent()?.parent()?;
    prefix.join("include/node/node.h").is_file().then(|| prefix.to_owned())
}

#[test]
fn aws_lambda_ric_for_node_serves_and_no_fork_of_it_repeats_a_random_value() {
    let packages = installed("aws-lambda-ric-3.3.0", |dir| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "aws-lambda-ric@3.3.0"]).current_dir(dir);
        // Its native part is built with the headers that came with this Node.js, not with some from the network.
        if let Some(prefix) = node_prefix() {
            npm.env("npm_config_nodedir", prefix);
        }
        vec![npm]
    });
    let dir = fresh_dir("ric-node");
    std::os::unix::fs::symlink(packages.join("node_modules"), dir.path().join("node_modules")).unwrap();
    let start = "#!/bin/sh\nexec node node_modules/aws-lambda-ric/bin/index.mjs \"$_HANDLER\"\n";
    executable(&dir.path().join("bootstrap"), start);
    let source = r#"
const crypto = require('crypto');
const used = [Math.random(), crypto.randomUUID(), crypto.randomInt(9), crypto.randomBytes(4)];
let count = 0;
exports.handler = async (event, context) => {
  console.log('in the handler');
  if (event === 'fail') throw new TypeError('no good');
  const random = [Math.random(), crypto.randomUUID(), crypto.randomInt(2 ** 48 - 1), crypto.randomBytes(8).toString('hex')];
  return { event, id: context.awsRequestId.length > 0, left: context.getRemainingTimeInMillis() > 0, memory: context.memoryLimitInMB, count: ++count, random };
};
"#;
    std::fs::write(dir.path().join("app.js"), source).unwrap();
    let outcome =
        invoke(dir.path(), &["--handler", "app.handler", "--event", "{\"a\": \"ü\"}", "--repeat", "4"]);
    let mut seen = std::collections::HashSet::new();
    for mut answer in lines(&outcome) {
        for random in answer["random"].take().as_array().unwrap() {
            assert!(seen.insert(random.to_string()), "{random} is repeated");
        }
        let same = json!({"event": {"a": "ü"}, "id": true, "left": true, "memory": "512", "count": 1, "random": null});
        assert_eq!(answer, same);
    }
    assert_eq!(seen.len(), 16);
    let outcome = invoke(dir.path(), &["--handler", "app.handler", "--event", "\"fail\""]);
    assert!(outcome.stderr.contains("the function failed: TypeError: no good"), "{}", outcome.stderr);
}

#[test]
fn a_program_that_may_not_be_executed_is_said_to_be_so() {
    let dir = fresh_dir("bootstrap");
    std::fs::write(dir.path().join("bootstrap"), "#!/bin/sh\n").unwrap();
    let outcome = invoke(dir.path(), &[]);
    assert_eq!(outcome.status, 125, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("bootstrap") && outcome.stderr.contains("chmod +x"),
        "{}",
        outcome.stderr
    );
}
