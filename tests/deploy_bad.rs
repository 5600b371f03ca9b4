//! Deploys that must not succeed, through a real daemon: by a careless operator, by a hostile uploader, by clients that race, by a daemon
//! that is killed midway. Each is refused with its code, changes nothing, and leaves nothing.

mod support;

use fri_plugin::fri::client::ClientError;
use fri_plugin::proto;
use std::collections::BTreeSet;
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use support::daemon::{Coppiced, Options, archive, block_on, deploy, python};
use support::left::eventually;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const GOOD: &str = "def handler(event, context): return 'good'\n";

/// The function of these tests.
fn spec() -> proto::FunctionSpec {
    python("f")
}

fn upload(
    daemon: &Coppiced,
    spec: proto::FunctionSpec,
    code: Vec<u8>,
) -> Result<proto::Function, ClientError> {
    block_on(async { deploy(&daemon.client().await, spec, code).await })
}

/// The error of a call that must fail.
fn refused<T: std::fmt::Debug>(what: &str, result: Result<T, ClientError>) -> proto::Error {
    match result {
        Err(ClientError::Refused(error)) => error,
        other => panic!("{what}: {other:?}"),
    }
}

/// Everything below a directory, by relative path.
fn files(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                left.push(path.clone());
            }
            found.insert(path.strip_prefix(root).unwrap().display().to_string());
        }
    }
    found.retain(|f| !f.starts_with("logs"));
    found
}

/// What a refused deploy must not change.
#[derive(Debug, PartialEq)]
struct Snapshot {
    functions: Vec<(String, u64, String)>,
    files: BTreeSet<String>,
    sandboxes: usize,
}

fn snapshot(daemon: &Coppiced) -> Snapshot {
    let list = block_on(async {
        let client = daemon.client().await;
        client.functions().list(proto::ListFunctionsRequest::default()).await.unwrap().into_inner().functions
    });
    let functions =
        list.into_iter().map(|f| (f.spec.unwrap_or_default().name, f.version, f.code_sha256)).collect();
    Snapshot { functions, files: files(&daemon.state()), sandboxes: daemon.sandboxes().len() }
}

/// Waits until everything is as it was, and the function answers as it did.
fn is_as_before(what: &str, daemon: &Coppiced, before: &Snapshot) {
    let same = eventually(|| snapshot(daemon) == *before);
    assert!(same, "{what}: {:?} was {before:?}", snapshot(daemon));
    assert_eq!(daemon.invoke("f", "{}").unwrap().1, b"\"good\"", "{what}");
}

/// A daemon with a function that works.
fn with_function(options: Options) -> (Coppiced, Snapshot) {
    let daemon = Coppiced::start(options);
    daemon.deploy(spec(), &[("app.py", GOOD)]).unwrap();
    daemon.invoke("f", "{}").unwrap();
    let mut before = snapshot(&daemon);
    // Until what the deploy and the request leave to be done is done.
    assert!(eventually(|| {
        std::thread::sleep(Duration::from_millis(200));
        let now = snapshot(&daemon);
        std::mem::replace(&mut before, now) == snapshot(&daemon)
    }));
    (daemon, before)
}

/// A zip file with its bytes at `from` replaced.
fn patched(mut zip: Vec<u8>, from: &str, to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut found = 0;
    for at in 0..zip.len() - from.len() {
        if zip[at..].starts_with(from.as_bytes()) {
            zip[at..at + from.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0, "{from}");
    zip
}

/// A zip file of a good function and a symbolic link.
fn link(name: &str, target: &str) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("app.py", SimpleFileOptions::default()).unwrap();
    zip.write_all(GOOD.as_bytes()).unwrap();
    zip.add_symlink(name, target, SimpleFileOptions::default()).unwrap();
    zip.finish().unwrap().into_inner()
}

/// Unpacks to that many zeros.
fn bomb(bytes: usize) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("app.py", SimpleFileOptions::default()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        zip.write_all(&zeros).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn uploads_that_are_no_code_are_refused() {
    let more = "[code]\nzip_bytes = \"2 MiB\"\nunzipped_bytes = \"8 MiB\"\nentries = 100\n";
    let (mut daemon, before) = with_function(Options { more: more.into(), ..Options::default() });
    let two = || archive(&[("app.py", GOOD), ("xx/victim.py", GOOD)]);
    let many: Vec<String> = (0..101).map(|n| format!("m{n}.py")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|n| (n.as_str(), "")).collect();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", Vec::new(), "Code.NotZip"),
        ("text", b"def handler(e, c): pass".to_vec(), "Code.NotZip"),
        ("cut", two()[..60].to_vec(), "Code.NotZip"),
        ("no files", archive(&[]), "Code.Empty"),
        ("parent", patched(two(), "xx/victim.py", b"../victim.py"), "Code.Entry"),
        ("absolute", patched(two(), "xx/victim.py", b"/x/victim.py"), "Code.Entry"),
        ("not text", patched(two(), "xx/victim.py", b"xx/victi\xff.py"), "Code.Entry"),
        ("twice", patched(two(), "xx/victim.py", b"./app.py/.//"), "Code.Entry"),
        ("escaping link", link("out", "../../../functions.redb"), "Code.Entry"),
        ("absolute link", link("out", "/etc/passwd"), "Code.Entry"),
        ("bomb", bomb(64 << 20), "Code.TooLarge"),
        ("many", archive(&many), "Code.TooManyEntries"),
        ("large", vec![0; (2 << 20) + 1], "Request.TooLarge"),
    ];
    for (what, code, expected) in cases {
        let error = refused(what, upload(&daemon, spec(), code.clone()));
        assert_eq!(error.code, expected, "{what}: {}", error.message);
        is_as_before(what, &daemon, &before);
        // The same as a function that is not there yet.
        let error = refused(what, upload(&daemon, python("new"), code));
        assert_eq!(error.code, expected, "{what}");
        is_as_before(what, &daemon, &before);
    }
    assert!(daemon.stop().success());
}

#[test]
fn descriptions_that_are_out_of_bounds_are_refused() {
    let (mut daemon, before) =
        with_function(Options { more: "[functions]\ncount = 1\n".into(), ..Options::default() });
    let change = |change: fn(&mut proto::FunctionSpec)| {
        let mut spec = spec();
        change(&mut spec);
        spec
    };
    let cases: Vec<(&str, proto::FunctionSpec, &str)> = vec![
        ("no name", change(|s| s.name.clear()), "Function.Spec"),
        ("path", change(|s| s.name = "../f".into()), "Function.Spec"),
        ("slash", change(|s| s.name = "a/b".into()), "Function.Spec"),
        ("NUL", change(|s| s.name = "f\0".into()), "Function.Spec"),
        ("long", change(|s| s.name = "f".repeat(65)), "Function.Spec"),
        ("runtime", change(|s| s.runtime = "ruby3.3".into()), "Function.Spec"),
        ("memory", change(|s| s.memory_bytes = 1), "Function.Spec"),
        ("much memory", change(|s| s.memory_bytes = u64::MAX), "Function.Spec"),
        ("cpus", change(|s| s.cpus = 1000), "Function.Spec"),
        ("timeout", change(|s| s.timeout_ms = u64::MAX), "Function.Spec"),
        ("spares", change(|s| s.spares = Some(u32::MAX)), "Function.Spec"),
        ("environment", change(|s| _ = s.env.insert("A=B".into(), "x".into())), "Function.Spec"),
        ("large environment", change(|s| _ = s.env.insert("A".into(), "x".repeat(5000))), "Function.Spec"),
        ("warm", change(|s| s.warm_event = b"{".to_vec().into()), "Function.Spec"),
        ("handler", change(|s| s.handler = "handler".into()), "Function.Handler"),
        ("handler elsewhere", change(|s| s.handler = "../../etc/app.handler".into()), "Function.Handler"),
        ("absolute handler", change(|s| s.handler = "/etc/app.handler".into()), "Function.Handler"),
        ("no file", change(|s| s.handler = "nofile.handler".into()), "Function.Handler"),
        ("one too many", change(|s| s.name = "g".into()), "Node.TooManyFunctions"),
    ];
    for (what, spec, expected) in cases {
        let error = refused(what, upload(&daemon, spec, archive(&[("app.py", GOOD)])));
        assert_eq!(error.code, expected, "{what}: {}", error.message);
        is_as_before(what, &daemon, &before);
    }
    assert!(daemon.stop().success());
}

#[test]
fn code_that_does_not_become_a_seed_leaves_the_old_version_serving() {
    let (mut daemon, before) =
        with_function(Options { keys: "grow_timeout_ms = 4000\n".into(), ..Options::default() });
    let cases = [
        ("import", "import nosuchmodule\n", "Runtime.ImportError"),
        ("syntax", "def handler(\n", "Runtime.ImportError"),
        ("no handler", "x = 1\n", "Runtime.ImportError"),
        ("exit", "import os\nos._exit(3)\n", "Runtime.ExitError"),
        ("crash", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "Runtime.ExitError"),
        ("hang", "while True: pass\n", "Sandbox.Timedout"),
        ("sleep", "import time\ntime.sleep(1000)\n", "Sandbox.Timedout"),
        ("print", "while True: print('x' * 4096)\n", "Sandbox.Timedout"),
        (
            "memory",
            "x = bytearray(1 << 30)\nfor i in range(0, len(x), 4096): x[i] = 1\n",
            "Runtime.ImportError",
        ),
    ];
    for (what, code, expected) in cases {
        let error = refused(what, daemon.deploy(spec(), &[("app.py", code)]));
        assert_eq!(error.code, expected, "{what}: {}", error.message);
        if expected == "Runtime.ImportError" {
            let function: serde_json::Value = serde_json::from_slice(&error.function).unwrap();
            assert!(function["errorMessage"].is_string() && function["stackTrace"].is_array(), "{function}");
        }
        is_as_before(what, &daemon, &before);
    }
    assert!(daemon.stop().success());
}

#[test]
fn of_racing_deploys_one_serves_and_the_others_are_told_so() {
    let (mut daemon, _) = with_function(Options::default());
    let (done, told) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let serving = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|n| {
                let (daemon, done, told) = (&daemon, &done, &told);
                scope.spawn(move || {
                    for round in 0..4 {
                        let code = format!("def handler(event, context): return 'good' # {n} {round}\n");
                        let result = match (n, round) {
                            // One of the clients removes instead.
                            (5, _) => {
                                let name = "g".to_owned();
                                block_on(async {
                                    let request = proto::RemoveFunctionRequest { name };
                                    let client = daemon.client().await;
                                    client
                                        .functions()
                                        .remove(request)
                                        .await
                                        .map(|_| ())
                                        .map_err(ClientError::from)
                                })
                            }
                            (4, _) => daemon.deploy(python("g"), &[("app.py", &code)]).map(|_| ()),
                            _ => daemon.deploy(spec(), &[("app.py", &code)]).map(|_| ()),
                        };
                        match result {
                            Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
                            Err(ClientError::Refused(error)) => {
                                let known = ["Function.Changing", "Function.NotFound", "Function.Removed"];
                                assert!(known.contains(&error.code.as_str()), "{error:?}");
                                told.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                })
            })
            .collect();
        let (daemon, serving) = (&daemon, &serving);
        let invoker = scope.spawn(move || {
            while serving.load(Ordering::Relaxed) {
                assert_eq!(daemon.invoke("f", "{}").unwrap().1, b"\"good\"");
            }
        });
        clients.into_iter().for_each(|c| c.join().unwrap());
        serving.store(false, Ordering::Relaxed);
        invoker.join().unwrap();
    });
    assert!(done.load(Ordering::Relaxed) >= 4 && told.load(Ordering::Relaxed) > 0, "{done:?} {told:?}");
    // The code of what is not kept any more goes; what is kept can be gone back to.
    let kept = |daemon: &Coppiced| {
        let list = block_on(async {
            let request = proto::ListFunctionsRequest::default();
            daemon.client().await.functions().list(request).await.unwrap().into_inner().functions
        });
        list.iter().map(|f| f.versions.len()).sum::<usize>()
    };
    let code = daemon.state().join("code");
    let settled = eventually(|| std::fs::read_dir(&code).unwrap().count() == kept(&daemon));
    assert!(settled, "{:?}, {} versions", files(&code), kept(&daemon));
    assert_eq!(files(&daemon.state().join("uploads")), BTreeSet::new());
    assert!(daemon.stop().success());
}

#[test]
fn a_daemon_that_is_killed_in_a_deploy_has_the_old_version_or_the_new_one() {
    let (mut daemon, _) = with_function(Options::default());
    let mut number = 1;
    for round in 0..5u64 {
        let code = format!("def handler(event, context): return 'good' # {round}\n");
        std::thread::scope(|scope| {
            let client = daemon.grpc();
            scope.spawn(move || {
                let code = archive(&[("app.py", &code)]);
                let result = block_on(async {
                    let client = fri_plugin::fri::client::Client::connect(&client).await?;
                    deploy(&client, spec(), code).await
                });
                // Whatever it is, it is not another function's answer.
                if let Ok(function) = result {
                    assert_eq!(function.spec.unwrap().name, "f");
                }
            });
            std::thread::sleep(Duration::from_millis(round * 60));
            daemon.kill();
        });
        daemon.start_again();
        let now = snapshot(&daemon);
        let [(name, version, digest)] = now.functions.as_slice() else { panic!("{now:?}") };
        // A number that was given to a deploy that did not come to its end is not given again.
        assert!(name == "f" && *version >= number, "{now:?}, {number} before");
        number = *version;
        assert_eq!(daemon.invoke("f", "{}").unwrap().1, b"\"good\"");
        assert!(now.files.contains(&format!("code/{digest}")), "{now:?}");
        let left: Vec<_> = now
            .files
            .iter()
            .filter(|f| f.contains("new") || f.contains("old-") || f.contains("upload-"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    assert!(daemon.stop().success());
}
