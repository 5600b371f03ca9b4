//! The workloads of tests/workloads/list.tsv: ordinary programs that print and return the same inside as on the host.
//!
//! One alone: `cargo test -p coppice --test workloads -- git`.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;
use support::{ENVIRONMENT, Outcome, finish, fresh_dir, run_command, scratch, survived};

/// For one run of one workload; pip takes ten seconds on an idle host of two cores.
const LIMIT: Duration = Duration::from_secs(300);

/// From npm's registry; pinned, so that the same code runs everywhere.
const NPM_PACKAGES: [&str; 2] = ["express@4.21.2", "nunjucks@3.2.4"];

fn folder() -> PathBuf {
    std::fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/workloads")).unwrap()
}

/// One line of the list, with its places not yet filled in.
struct Workload {
    name: String,
    prepare: Option<String>,
    command: String,
}

fn list() -> Vec<Workload> {
    let text = std::fs::read_to_string(folder().join("list.tsv")).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut parts = line.split('\t').map(str::to_owned);
            let (Some(name), Some(prepare), Some(command), None) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                panic!("list.tsv: `{line}` is not name, preparation and command with tabs between");
            };
            Workload { name, prepare: (prepare != "-").then_some(prepare), command }
        })
        .collect()
}

/// The packages of npm's registry, installed once below the build directory.
fn npm_packages() -> String {
    static LOCK: Mutex<()> = Mutex::new(());
    let _held = LOCK.lock().unwrap_or_else(|e| e.into_inner());
    let dir = scratch().join("npm-packages");
    let complete = dir.join("complete");
    let wanted = NPM_PACKAGES.join(" ");
    if std::fs::read_to_string(&complete).is_ok_and(|text| text == wanted) {
        return dir.to_str().unwrap().to_owned();
    }
    std::fs::create_dir_all(&dir).unwrap();
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(&dir);
    npm.args(NPM_PACKAGES);
    let done = finish(&mut npm, b"", LIMIT);
    assert_eq!(
        done.status,
        0,
        "npm cannot install {wanted}: this test needs npm and its registry (npm config get registry):\n{}{}",
        done.text(),
        done.stderr
    );
    std::fs::write(complete, wanted).unwrap();
    dir.to_str().unwrap().to_owned()
}

/// An empty `dir` with what the workload needs in it.
fn prepare(workload: &Workload, dir: &Path) {
    if dir.exists() {
        std::fs::remove_dir_all(dir).unwrap();
    }
    std::fs::create_dir(dir).unwrap();
    let Some(line) = &workload.prepare else { return };
    let line = line.replace("{w}", folder().to_str().unwrap());
    let mut command = Command::new("sh");
    command.args(["-ec", &line]).current_dir(dir);
    let done = finish(&mut command, b"", LIMIT);
    assert_eq!(
        done.status,
        0,
        "{}: `{line}` fails on the host: {}{}",
        workload.name,
        done.text(),
        done.stderr
    );
}

/// Both run in the same directory, which is as it was for the second one: paths may be printed.
fn run(name: &str) {
    let all = list();
    let workload = all.iter().find(|w| w.name == name).unwrap_or_else(|| panic!("list.tsv has no `{name}`"));
    let mut line = workload.command.replace("{w}", folder().to_str().unwrap());
    if line.contains("{n}") {
        line = line.replace("{n}", &npm_packages());
    }
    let words: Vec<&str> = line.split(' ').collect();
    let (program, args) = words.split_first().unwrap();
    let outer = fresh_dir(name);
    let dir = outer.path().join("dir");

    prepare(workload, &dir);
    let mut native = Command::new(dir.join(program));
    native.args(args).current_dir(&dir).env_clear().envs(ENVIRONMENT.iter().copied());
    let expected = finish(&mut native, b"", LIMIT);
    assert!(!expected.timed_out && !expected.stdout.is_empty(), "{name} on the host: {expected:?}");

    prepare(workload, &dir);
    let mut inside = run_command(&["--cpus", "2", "--json"], program.as_ref(), args);
    let outcome = finish(inside.current_dir(&dir), b"", LIMIT);
    survived(&outcome, name);
    compare(name, &expected, &outcome);
    let stats = outcome.stats();
    let unknown = &stats["unknown_syscalls"];
    println!("{name}: {} exits, {} faults, unknown calls {unknown}", stats["exits"], stats["faults"]);
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
            let listed: Vec<String> = list().into_iter().map(|w| w.name).collect();
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
