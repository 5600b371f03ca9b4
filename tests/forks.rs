//! Forks of seeds that are in the middle of things: threads asleep in every kind of call, processes with pipes between them, and forks
//! of forks of them. What a child then does is compared with the same program run on the host.

mod support;

use seedtree::runtime::{Function, Runtime};
use seedtree::tree::Tree;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

use support::tree::{Grown, config, result, write};
use support::{LIMIT, finish};

const BLOCKED: &str = include_str!("programs/blocked.py");

/// Calls that some kernels do not have: "absent" is then their result.
const MAY_LACK: &[&str] =
    &["pidfd", "splice", "open of a FIFO", "inotify", "msgrcv", "semop", "terminal", "mq_receive"];

/// Grows a tree whose function seed was warmed with an event, on so many vCPUs.
fn grow(name: &str, source: &str, warm: &str, cpus: usize) -> Grown {
    let (dir, mut function): (_, Function) = write(name, source);
    function.cpus = cpus;
    let mut tree = Tree::plant(config(dir.path(), true)).unwrap();
    tree.grow_language(Runtime::Python).unwrap();
    if let Err(error) = tree.grow_function(&function, Some(warm.as_bytes())) {
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        panic!("{error:?} {log}");
    }
    Grown { tree, function, dir }
}

/// What the program prints on the host.
fn on_the_host(name: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/programs").join(format!("{name}.py"));
    let outcome = finish(Command::new("/usr/bin/python3").arg(file), b"", LIMIT);
    assert_eq!(outcome.status, 0, "{name}.py on the host: {}", outcome.stderr);
    serde_json::from_slice(&outcome.stdout).unwrap()
}

/// Every sleep of a child ended as on the host.
fn check_blocked(child: &Value, host: &Value, what: &str) {
    assert_eq!(child["stuck"], json!([]), "{what}: these sleep on");
    let (results, expected) = (child["results"].as_object().unwrap(), host["results"].as_object().unwrap());
    assert_eq!(results.len(), expected.len(), "{what}");
    let mut wrong = Vec::new();
    for (name, want) in expected {
        let got = &results[name];
        if got != want && !(got == "absent" && MAY_LACK.contains(&name.as_str())) {
            wrong.push(format!("{name}: {got}, on the host {want}"));
        }
    }
    assert!(wrong.is_empty(), "{what}: {}", wrong.join("; "));
}

fn blocked_threads(cpus: usize) {
    let host = on_the_host("blocked");
    let mut grown = grow("blocked", BLOCKED, r#"{"look": true}"#, cpus);
    let look = grown.ask(r#"{"look": true}"#);
    let asleep = look["asleep"].as_array().unwrap().len();
    println!("{asleep} threads asleep, {} in all, on {cpus} vCPUs", look["threads"]);
    assert!(asleep >= 30, "{look}");
    let events =
        [r#"{"one_by_one": true}"#, r#"{"reverse": true, "one_by_one": true}"#, "{}", r#"{"reverse": true}"#];
    let mut own = std::collections::BTreeSet::new();
    grown.ask_many(
        8,
        4,
        |n| events[n % 4].to_owned(),
        |n, child| {
            check_blocked(&child, &host, &format!("child {n} {}", events[n % 4]));
            own.insert(child["own"].to_string());
        },
    );
    assert_eq!(own.len(), 8, "each child has random numbers of its own");
    // A spare is a child that was made ready before its request.
    grown.tree.fill_spares(2, true).unwrap();
    for _ in 0..2 {
        let pending = grown.tree.start(&grown.function, b"{}", false).unwrap();
        let served = grown.tree.finish(pending).unwrap();
        assert!(served.spare);
        check_blocked(&result(&served), &host, "a spare");
    }
}

#[test]
fn threads_asleep_in_every_kind_of_call_go_on_in_every_child() {
    blocked_threads(1);
}

#[test]
fn threads_asleep_in_every_kind_of_call_go_on_in_children_with_two_vcpus() {
    blocked_threads(2);
}
