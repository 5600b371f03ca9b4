//! The workloads of tests/workloads/list.tsv: ordinary programs that print and return the same inside as on the host.
//!
//! One alone: `cargo test -p coppice --test workloads -- git`.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::listed::{Workload, list};
use support::{ENVIRONMENT, Outcome, finish, fresh_dir, run_command, scratch, survived};

/// For one run of one workload; pip takes ten seconds on an idle host of two cores.
const LIMIT: Duration = Duration::from_secs(300);

fn all() -> Vec<Workload> {
    list(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests"), &scratch()).unwrap()
}

/// Both run in the same directory, which is as it was for the second one: paths may be printed.
fn run(name: &str) {
    let all = all();
    let workload = all.iter().find(|w| w.name == name).unwrap_or_else(|| panic!("list.tsv has no `{name}`"));
    workload.install(&scratch()).unwrap();
    let words: Vec<&str> = workload.command.iter().map(String::as_str).collect();
    let (program, args) = words.split_first().unwrap();
    let outer = fresh_dir(name);
    let dir = outer.path().join("dir");

    workload.prepare(&dir).unwrap();
    let mut native = Command::new(dir.join(program));
    native.args(args).current_dir(&dir).env_clear().envs(ENVIRONMENT.iter().copied());
    let expected = finish(&mut native, b"", LIMIT);
    assert!(!expected.timed_out && !expected.stdout.is_empty(), "{name} on the host: {expected:?}");

    workload.prepare(&dir).unwrap();
    let mut inside = run_command(&["--cpus", "2", "--json"], program.as_ref(), args);
    let outcome = finish(inside.current_dir(&dir), b"", LIMIT);
    survived(&outcome, name);
    compare(name, &expected, &outcome);
    let stats = outcome.stats();
    println!("{name}: {} exits, {} faults, refused {}", stats["exits"], stats["faults"], stats["refused"]);
    assert!(stats["exits"].as_u64() > Some(0), "{name}: {stats}");
}

fn compare(name: &str, expected: &Outcome, outcome: &Outcome) {
    let (want, got) = (expected.text(), outcome.text());
    let differs = want.lines().map(Some).chain([None]).zip(got.lines().map(Some).chain([None]));
    let differs = differs.enumerate().find(|(_, (want, got))| want != got);
    if let Some((number, (want, got))) = differs {
        panic!("{name} line {}: host {want:?}, sandbox {got:?}; stderr: {}", number + 1, outcome.stderr);
    }
    assert_eq!(outcome.stdout, expected.stdout, "{name}");
    assert_eq!(outcome.status, expected.status, "{name}: {}", outcome.stderr);
}

macro_rules! workloads {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn every_workload_of_the_list_has_its_test() {
            let listed: Vec<String> = all().into_iter().map(|w| w.name).collect();
            assert_eq!(listed, [$(stringify!($name)),*]);
        }
    };
}

workloads! {
    py_hello_venv py_handler_venv pydeb_hello py_imports py_http py_asyncio py_multiprocessing py_subprocess py_sqlite py_ssl
    py_stdlib py_numpy py_pillow py_requests venv_pip
    node_hello node_handler node_http node_lib node_workers node_child node_zlib_crypto node_express node_nunjucks npm
    sh_dash sh_busybox bash coreutils git gcc perl sqlite3 java_hello java_version java_work javac
}
