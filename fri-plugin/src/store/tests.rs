use super::*;
use proptest::prelude::*;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

const KEEP: usize = 3;

fn new(n: u8) -> New {
    let spec = Spec {
        runtime: seedtree::runtime::Runtime::Python,
        handler: "app.handler".into(),
        memory: 128 << 20,
        cpus: 1,
        timeout_ms: 3000,
        env: BTreeMap::from([("N".into(), n.to_string())]),
        spares: 1,
        concurrency: 10,
        queue: 10,
        keep_alive: 0,
        warm: Some("{}".into()),
        description: String::new(),
    };
    New { spec, code: Digest([n; 32]), code_bytes: n.into(), layers: vec![Digest([n ^ 0x80; 32])] }
}

fn open(dir: &Path) -> Store {
    Store::open(dir, 4, KEEP).unwrap()
}

fn deploy(store: &Store, name: &str, n: u8) -> Version {
    let version = store.put_version(name, new(n)).unwrap();
    store.switch(&version).unwrap();
    version
}

fn numbers(function: &Function) -> Vec<u64> {
    function.versions.iter().map(|v| v.number).collect()
}

#[test]
fn what_was_switched_to_serves_after_a_restart_and_what_was_not_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mode = std::os::unix::fs::PermissionsExt::mode(&store.path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "environments are nobody else's to read");
    deploy(&store, "f", 1);
    let pending = store.put_version("f", new(2)).unwrap();
    store.put_version("g", new(3)).unwrap();
    assert_eq!(store.get("f").unwrap().current.number, 1);
    assert!(store.in_use().code.contains(&Digest([2; 32])), "code of a deploy under way is in use");
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.list().len(), 1);
    assert_eq!(store.get("f").unwrap().current.new, new(1));
    assert!(!store.in_use().code.contains(&Digest([2; 32])));
    assert!(matches!(store.switch(&pending), Err(StoreError::Gone { .. })));
    assert_eq!(deploy(&store, "f", 4).number, 3, "a number is not used again");
}

#[test]
fn a_rollback_goes_back_the_way_that_was_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(matches!(store.rollback("f", None), Err(StoreError::NoSuchFunction(_))));
    deploy(&store, "f", 1);
    assert!(matches!(store.rollback("f", None), Err(StoreError::NoPrevious { .. })));
    deploy(&store, "f", 2);
    deploy(&store, "f", 3);
    assert_eq!(store.rollback("f", None).unwrap().number, 2);
    assert_eq!(store.rollback("f", None).unwrap().number, 1);
    assert_eq!(deploy(&store, "f", 4).number, 4);
    // Version 3 was rolled away: what served before 4 was 1.
    assert_eq!(store.before("f", None).unwrap().number, 1);
    assert_eq!(store.rollback("f", Some(3)).unwrap().number, 3);
    match store.rollback("f", Some(9)) {
        Err(StoreError::NoSuchVersion { there, .. }) => assert_eq!(there, numbers(&store.get("f").unwrap())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_last_versions_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 1..=6 {
        deploy(&store, "f", n);
    }
    assert_eq!(numbers(&store.get("f").unwrap()), [4, 5, 6]);
    assert_eq!(
        store.in_use().code,
        (4..=6).flat_map(|n| [Digest([n; 32]), Digest([n ^ 0x80; 32])]).collect()
    );
    store.rollback("f", Some(4)).unwrap();
    deploy(&store, "f", 7);
    assert_eq!(numbers(&store.get("f").unwrap()), [4, 6, 7], "5 was rolled away");
}

#[test]
fn of_racing_deploys_the_later_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = store.put_version("f", new(1)).unwrap();
    let second = store.put_version("f", new(2)).unwrap();
    store.switch(&second).unwrap();
    assert!(matches!(store.switch(&first), Err(StoreError::Superseded { by: 2, .. })));
    store.discard(&first).unwrap();
    store.discard(&second).unwrap();
    assert_eq!(numbers(&store.get("f").unwrap()), [2], "only what never served is discarded");
}

#[test]
fn a_function_removed_during_a_deploy_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    deploy(&store, "f", 1);
    let pending = store.put_version("f", new(2)).unwrap();
    store.remove("f").unwrap();
    assert!(matches!(store.remove("f"), Err(StoreError::NoSuchFunction(_))));
    deploy(&store, "f", 3);
    deploy(&store, "f", 4);
    assert!(matches!(store.switch(&pending), Err(StoreError::Gone { .. })), "same name and number");
    assert_eq!(store.get("f").unwrap().current.new, new(4));
}

#[test]
fn there_are_no_more_functions_than_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for name in ["a", "b", "c", "d"] {
        deploy(&store, name, 1);
    }
    assert!(matches!(store.put_version("e", new(1)), Err(StoreError::TooMany(4))));
    deploy(&store, "a", 2);
    store.remove("b").unwrap();
    deploy(&store, "e", 1);
}

#[test]
fn a_store_is_open_in_one_place() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path());
    assert!(matches!(Store::open(dir.path(), 4, KEEP), Err(StoreError::Locked { .. })));
}

#[test]
fn a_full_disk_changes_nothing_and_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let left = faults::limit();
    let store = open(dir.path());
    deploy(&store, "f", 1);
    let before = store.list();
    for space in 0..12 {
        left.store(space, Ordering::SeqCst);
        match store.put_version("g", new(2)) {
            Err(StoreError::Full { .. }) => {}
            Ok(version) => store
                .discard(&version)
                .or_else(|_| {
                    left.store(i64::MAX, Ordering::SeqCst);
                    store.discard(&version)
                })
                .unwrap(),
            Err(error) => panic!("{space}: {error:?}"),
        }
        assert_eq!(store.list(), before, "{space}");
        assert!(store.get("f").is_ok());
        // What another daemon finds after a crash at this moment: the old state or the new one.
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join(FILE), copy.path().join(FILE)).unwrap();
        left.store(i64::MAX, Ordering::SeqCst);
        assert_eq!(open(copy.path()).list(), before, "{space}");
    }
    deploy(&store, "g", 3);
    let after = store.list();
    drop(store);
    assert_eq!(open(dir.path()).list(), after);
}

#[test]
fn a_damaged_file_is_said_to_be_damaged() {
    let dir = tempfile::tempdir().unwrap();
    deploy(&open(dir.path()), "f", 1);
    let file = dir.path().join(FILE);
    let whole = std::fs::read(&file).unwrap();
    let list = open(dir.path()).list();
    let mut found = 0;
    let mut check = |what: &str, bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        match Store::open(dir.path(), 4, KEEP) {
            Err(StoreError::Corrupt { .. }) => found += 1,
            Ok(store) => assert_eq!(store.list(), list, "{what}"),
            Err(error) => panic!("{what}: {error:?}"),
        }
    };
    check("text", b"[functions]\n");
    check("nothing but zeros", &[0; 8192]);
    check("half", &whole[..whole.len() / 2]);
    check("a third", &whole[..whole.len() / 3 + 1]);
    for at in (0..whole.len()).step_by(whole.len() / 120) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        check(&format!("a bit at {at}"), &bytes);
    }
    for at in (0..whole.len().min(512)).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x04;
        check(&format!("a bit at {at}"), &bytes);
    }
    assert!(found > 4, "{found}");
}

#[test]
fn an_unfinished_new_store_does_not_stop_a_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE).with_extension("new"), b"half").unwrap();
    assert!(open(dir.path()).list().is_empty());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

const WRITER: &str = "COPPICE_TEST_STORE_WRITER";

/// The process of the next test: deploys for ever, and says what it has done.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(WRITER) else { return };
    let store = open(Path::new(&dir));
    for n in 0.. {
        for name in ["a", "b"] {
            let version = deploy(&store, name, u8::try_from(n % 256).unwrap());
            println!("did {name} {}", version.number);
        }
        if n % 7 == 3 {
            store.remove("b").unwrap();
            println!("did b 0");
        }
    }
}

#[test]
fn what_a_killed_writer_had_done_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut rounds_with_work = 0;
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::writer", "--nocapture"])
            .env(WRITER, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut done = BTreeMap::new();
        let mut note = |line: std::io::Result<String>| {
            let line = line.unwrap();
            let mut words = line.split_once("did ").map_or("", |(_, did)| did).split(' ');
            if let (Some(name @ ("a" | "b")), Some(number)) = (words.next(), words.next()) {
                done.insert(name.to_owned(), number.parse::<u64>().unwrap());
            }
        };
        for line in lines.by_ref().take(8 + usize::try_from(round).unwrap() * 3) {
            note(line);
        }
        std::thread::sleep(std::time::Duration::from_micros(round * 700));
        child.kill().unwrap();
        child.wait().unwrap();
        lines.for_each(note);
        rounds_with_work += usize::from(!done.is_empty());
        let store = open(dir.path());
        for (name, number) in done {
            // The next step may have been done and not said.
            let there = store.get(&name).map_or(0, |f| f.current.number);
            let next = if number == 0 {
                there <= 1
            } else {
                there == number || there == number + 1 || (name == "b" && there == 0)
            };
            assert!(next, "{name}: {number} was done, {there} is there");
        }
    }
    assert!(rounds_with_work > 6, "{rounds_with_work}");
}

/// A function, as simply as it can be said.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    last: u64,
    pending: BTreeMap<u64, u8>,
    served: BTreeMap<u64, u8>,
    way: Vec<u64>,
}

#[derive(Clone, Debug)]
enum Op {
    Put(usize, u8),
    Switch(usize),
    Discard(usize),
    Rollback(usize, Option<u64>),
    Remove(usize),
    Reopen,
    Fail(i64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0usize..3, any::<u8>()).prop_map(|(f, n)| Op::Put(f, n)),
        4 => (0usize..8).prop_map(Op::Switch),
        1 => (0usize..8).prop_map(Op::Discard),
        2 => (0usize..3, prop::option::of(0u64..6)).prop_map(|(f, n)| Op::Rollback(f, n)),
        1 => (0usize..3).prop_map(Op::Remove),
        1 => Just(Op::Reopen),
        1 => (0i64..10).prop_map(Op::Fail),
    ]
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn model_switch(model: &mut Model, number: u64) -> bool {
    if let Some(n) = model.pending.get(&number).copied() {
        if model.served.keys().any(|n| *n > number) {
            return false;
        }
        model.pending.remove(&number);
        model.served.insert(number, n);
    } else if !model.served.contains_key(&number) {
        return false;
    }
    if let Some(at) = model.way.iter().position(|n| *n == number) {
        model.way.truncate(at);
    }
    model.way.push(number);
    while model.served.len() > KEEP {
        let away = model.served.keys().find(|n| !model.way.contains(n));
        let oldest = *away.unwrap_or(&model.way[0]);
        model.served.remove(&oldest);
        model.way.retain(|n| *n != oldest);
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_store_does_what_its_model_does(ops in prop::collection::vec(op(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let left = faults::limit();
        let mut store = open(dir.path());
        let mut model: BTreeMap<&str, Model> = BTreeMap::new();
        // Numbers of the first function that failed puts may have used up: each may be on the disk nevertheless.
        let mut unsure = 0;
        // What deployers hold.
        let mut held: Vec<(Version, bool)> = Vec::new();
        for op in ops {
            let old = model.clone();
            left.store(i64::MAX, Ordering::SeqCst);
            let outcome = match op {
                Op::Put(f, n) => {
                    let put = store.put_version(NAMES[f], new(n));
                    let m = model.entry(NAMES[f]).or_default();
                    m.last += 1;
                    m.pending.insert(m.last, n);
                    put.map(|v| {
                        let most = m.last + if f == 0 { std::mem::take(&mut unsure) } else { 0 };
                        assert!((m.last..=most).contains(&v.number), "{} of {m:?}", v.number);
                        m.pending.remove(&m.last);
                        m.last = v.number;
                        m.pending.insert(m.last, n);
                        held.push((v, true));
                    })
                    .is_ok()
                }
                Op::Switch(i) => {
                    let Some((version, alive)) = held.get(i).cloned() else { continue };
                    let m = model.entry(NAMES.into_iter().find(|n| *n == version.name).unwrap()).or_default();
                    store.switch(&version).is_ok() == (alive && model_switch(m, version.number))
                }
                Op::Discard(i) => {
                    let Some((version, alive)) = held.get(i).cloned() else { continue };
                    if let Some(m) = model.get_mut(version.name.as_str()).filter(|_| alive) {
                        m.pending.remove(&version.number);
                    }
                    store.discard(&version).is_ok()
                }
                Op::Rollback(f, number) => {
                    let m = model.entry(NAMES[f]).or_default();
                    let before = m.way.iter().rev().nth(1).copied();
                    let to = number.or(before).filter(|n| m.served.contains_key(n));
                    store.rollback(NAMES[f], number).map(|v| v.number).ok() == to.filter(|n| model_switch(m, *n))
                }
                Op::Remove(f) => {
                    let there = model.get(NAMES[f]).is_some_and(|m| !m.way.is_empty());
                    if there {
                        model.remove(NAMES[f]);
                    }
                    store.remove(NAMES[f]).is_ok() == there
                }
                Op::Reopen => {
                    drop(store);
                    store = open(dir.path());
                    model.values_mut().for_each(|m| m.pending.clear());
                    held.clear();
                    true
                }
                Op::Fail(space) => {
                    left.store(space, Ordering::SeqCst);
                    match store.put_version("a", new(0)) {
                        Ok(version) => {
                            left.store(i64::MAX, Ordering::SeqCst);
                            store.discard(&version).unwrap();
                            model.entry("a").or_default().last += 1;
                        }
                        Err(error) => {
                            prop_assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
                            unsure += 1;
                        }
                    }
                    true
                }
            };
            prop_assert!(outcome, "{op:?}\n{old:?}");
            // A function without versions is not there, and its numbers begin anew.
            model.retain(|_, m| !m.pending.is_empty() || !m.served.is_empty());
            held.iter_mut().filter(|(v, _)| !model.contains_key(v.name.as_str())).for_each(|(_, alive)| *alive = false);
            let served: BTreeMap<String, (u64, Vec<u64>)> = store.list().into_iter()
                .map(|f| (f.current.name.clone(), (f.current.number, numbers(&f)))).collect();
            let expected: BTreeMap<String, (u64, Vec<u64>)> = model.iter().filter(|(_, m)| !m.way.is_empty())
                .map(|(n, m)| ((*n).to_owned(), (*m.way.last().unwrap(), m.served.keys().copied().collect()))).collect();
            prop_assert_eq!(served, expected, "{:?}\n{:?}", op, old);
            let mut code = BTreeSet::new();
            for n in model.values().flat_map(|m| m.served.values().chain(m.pending.values())) {
                code.extend([Digest([*n; 32]), Digest([n ^ 0x80; 32])]);
            }
            prop_assert_eq!(store.in_use().code, code);
        }
    }
}
