use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const LIMITS: CodeLimits =
    CodeLimits { zip_bytes: 1 << 20, unzipped_bytes: 64 << 10, entries: 20, layers: 3 };

struct Fixture {
    dir: tempfile::TempDir,
    store: CodeStore,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    // What an escape would change.
    std::fs::write(dir.path().join("victim"), "unharmed").unwrap();
    let state = dir.path().join("state");
    let store = CodeStore::open(&state, LIMITS).unwrap();
    Fixture { dir, store }
}

impl Fixture {
    /// Everything below the fixture, as a listing; the code directories by name only.
    fn listing(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.dir.path().join("state/code"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(std::fs::read(self.dir.path().join("victim")).unwrap(), b"unharmed");
        assert_eq!(std::fs::read_dir(self.dir.path()).unwrap().count(), 2, "something escaped");
        assert_eq!(std::fs::read_dir(self.dir.path().join("state")).unwrap().count(), 1);
        names
    }

    fn refusal(&self, zip: &[u8]) -> Refusal {
        match self.error(zip) {
            CodeError::Entry { refusal, .. } => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn error(&self, zip: &[u8]) -> CodeError {
        let before = self.listing();
        let error = self.store.add_zip(Cursor::new(zip)).expect_err("taken");
        assert_eq!(self.listing(), before, "{error}");
        error
    }
}

enum E<'a> {
    File(&'a str, &'a [u8]),
    Mode(&'a str, u32, &'a [u8]),
    Dir(&'a str),
    Link(&'a str, &'a str),
}

fn zipped(entries: &[E<'_>]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    for entry in entries {
        match entry {
            E::File(name, contents) => {
                zip.start_file(*name, options).unwrap();
                zip.write_all(contents).unwrap();
            }
            E::Mode(name, mode, contents) => {
                zip.start_file(*name, options.unix_permissions(*mode)).unwrap();
                zip.write_all(contents).unwrap();
            }
            E::Dir(name) => zip.add_directory(*name, options).unwrap(),
            E::Link(name, target) => zip.add_symlink(*name, *target, options).unwrap(),
        }
    }
    zip.finish().unwrap().into_inner()
}

/// Replaces bytes of the same length, everywhere.
fn patched(zip: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut zip = zip.to_vec();
    let mut found = 0;
    for at in 0..zip.len() - from.len() {
        if &zip[at..at + from.len()] == from {
            zip[at..at + from.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0);
    zip
}

/// Offset of the first header of the list.
fn central(zip: &[u8]) -> usize {
    zip.windows(4).position(|w| w == b"PK\x01\x02").unwrap()
}

fn contents(dir: &Path) -> BTreeMap<String, (u32, String)> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let text = if meta.is_symlink() {
                format!("-> {}", path.read_link().unwrap().display())
            } else if meta.is_dir() {
                left.push(path.clone());
                String::new()
            } else {
                std::fs::read_to_string(&path).unwrap()
            };
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            found.insert(name, (meta.permissions().mode() & 0o7777, text));
        }
    }
    found
}

#[test]
fn a_zip_file_becomes_a_directory_as_on_lambda() {
    let f = fixture();
    let zip = zipped(&[
        E::File("./app.py", b"def handler(e, c): pass"),
        E::Dir("lib/"),
        E::Mode("lib/run", 0o4755, b"#!/bin/sh"),
        E::Mode("lib/secret", 0o600, b"s"),
        E::Link("lib/link", "../app.py"),
        E::File("a/b/c.py", b""),
    ]);
    let stored = f.store.add_zip(Cursor::new(&zip)).unwrap();
    assert_eq!(stored.bytes, 23 + 9 + 1);
    let found = contents(&stored.path);
    let expected = [
        ("a", 0o755, ""),
        ("a/b", 0o755, ""),
        ("a/b/c.py", 0o444, ""),
        ("app.py", 0o444, "def handler(e, c): pass"),
        ("lib", 0o755, ""),
        ("lib/link", 0o777, "-> ../app.py"),
        ("lib/run", 0o555, "#!/bin/sh"),
        ("lib/secret", 0o444, "s"),
    ];
    let expected = expected.map(|(n, m, t)| (n.to_owned(), (m, t.to_owned())));
    assert_eq!(found, expected.into());
    assert_eq!(stored.path.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(f.listing(), [stored.digest.to_string()]);
}

#[test]
fn the_same_code_is_there_once_in_whatever_form_it_comes() {
    let f = fixture();
    let one = f.store.add_zip(Cursor::new(zipped(&[E::File("a", b"1"), E::Dir("d/")]))).unwrap();
    let two = f.store.add_zip(Cursor::new(zipped(&[E::Dir("d"), E::Mode("./a", 0o640, b"1")]))).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::fs::write(dir.path().join("a"), "1").unwrap();
    let three = f.store.add_directory(dir.path()).unwrap();
    assert_eq!((one.digest, two.digest), (two.digest, three.digest));
    assert_eq!(f.listing().len(), 1);
    let mut digests = vec![one.digest];
    for other in [
        zipped(&[E::File("a", b"2"), E::Dir("d/")]),
        zipped(&[E::File("b", b"1"), E::Dir("d/")]),
        zipped(&[E::File("a", b"1")]),
        zipped(&[E::Mode("a", 0o755, b"1"), E::Dir("d/")]),
        zipped(&[E::File("a", b"1"), E::Link("d", "a")]),
    ] {
        digests.push(f.store.add_zip(Cursor::new(other)).unwrap().digest);
    }
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 6);
}

#[test]
fn names_that_lead_out_are_refused() {
    let f = fixture();
    let good = zipped(&[E::File("first", b"1"), E::File("xx/xx/victim", b"changed")]);
    for (name, expected) in [
        (&b"../../victim"[..], Refusal::Parent),
        (b"/x/xx/victim", Refusal::Absolute),
        (b"xx/../victim", Refusal::Parent),
        (b"..\\..\\victim", Refusal::Backslash),
        (b"xx/xx/vict\0m", Refusal::Control),
        (b"xx/xx/vict\xffm", Refusal::NotText),
    ] {
        let padded: Vec<u8> = name.iter().copied().chain(std::iter::repeat(b'_')).take(12).collect();
        assert_eq!(f.refusal(&patched(&good, b"xx/xx/victim", &padded)), expected, "{name:?}");
    }
    let long = zipped(&[E::File(&"x".repeat(256), b"")]);
    assert_eq!(f.refusal(&long), Refusal::Long);
    assert!(f.store.add_zip(Cursor::new(zipped(&[E::File(&"x".repeat(255), b"")]))).is_ok());
}

#[test]
fn links_that_lead_out_are_refused_and_never_written_through() {
    let f = fixture();
    for (target, expected) in [
        ("../../../victim", Refusal::Escape),
        ("/etc/passwd", Refusal::Escape),
        ("a", Refusal::Loop),
        ("x\ny", Refusal::Target),
    ] {
        let zip = zipped(&[E::File("f", b""), E::Link("a", target)]);
        assert_eq!(f.refusal(&zip), expected, "{target}");
    }
    let through = zipped(&[E::Link("up", "../../.."), E::File("up/victim", b"changed")]);
    assert_eq!(f.refusal(&through), Refusal::NotDirectory);
    let through = zipped(&[E::File("up/victim", b"changed"), E::Link("up", "../../..")]);
    assert_eq!(f.refusal(&through), Refusal::Duplicate);
}

#[test]
fn links_that_take_too_long_to_follow_are_refused() {
    let limits = CodeLimits { entries: 20_000, zip_bytes: 16 << 20, unzipped_bytes: 16 << 20, ..LIMITS };
    let dir = tempfile::tempdir().unwrap();
    let store = CodeStore::open(dir.path(), limits).unwrap();
    let names: Vec<String> = (0..10_000).map(|n| format!("l{n}")).collect();
    let far = "./".repeat(400);
    let entries: Vec<E<'_>> = names.iter().map(|name| E::Link(name, &far)).collect();
    let error = store.add_zip(Cursor::new(zipped(&entries))).err();
    assert!(matches!(error, Some(CodeError::Empty)), "{error:?}");
    let mut entries = entries;
    entries.push(E::File("f", b""));
    match store.add_zip(Cursor::new(zipped(&entries))) {
        Err(CodeError::Entry { refusal: Refusal::Links, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read_dir(dir.path().join("code")).unwrap().count(), 0);
}

#[test]
fn bombs_are_refused() {
    let f = fixture();
    let zeros = vec![0; LIMITS.unzipped_bytes as usize + 1];
    let honest = zipped(&[E::File("zeros", &zeros)]);
    assert!(honest.len() < 1000);
    assert!(matches!(f.error(&honest), CodeError::TooLarge { .. }));
    assert!(f.store.add_zip(Cursor::new(zipped(&[E::File("zeros", &zeros[1..])]))).is_ok());
    // Each on its own is small enough.
    let half = &zeros[..zeros.len() / 2 + 1];
    assert!(matches!(
        f.error(&zipped(&[E::File("a", half), E::File("b", half)])),
        CodeError::TooLarge { .. }
    ));
    // The announced size says less.
    let mut lying = honest.clone();
    let at = central(&lying) + 24;
    lying[at..at + 4].copy_from_slice(&10u32.to_le_bytes());
    assert!(matches!(
        f.error(&lying),
        CodeError::Entry { refusal: Refusal::Size, .. } | CodeError::Damaged { .. } | CodeError::NotZip(_)
    ));
    // Too many, some of them never named.
    let names: Vec<String> = (0..21).map(|n| n.to_string()).collect();
    let many: Vec<E<'_>> = names.iter().map(|n| E::File(n, b"")).collect();
    assert!(matches!(f.error(&zipped(&many)), CodeError::TooMany { limit: 20 }));
    assert!(f.store.add_zip(Cursor::new(zipped(&many[1..]))).is_ok());
    let deep = ["a/".repeat(20), "x".into()].concat();
    assert!(matches!(f.error(&zipped(&[E::File(&deep, b"")])), CodeError::TooMany { .. }));
    assert!(matches!(f.error(&vec![0; (1 << 20) + 1]), CodeError::ZipTooLarge { .. }));
}

#[test]
fn entries_that_share_bytes_are_refused() {
    let f = fixture();
    let good = zipped(&[E::File("aaaa", b"12345678"), E::File("bbbb", b"12345678")]);
    let mut zip = good.clone();
    // The second entry of the list is said to begin where the first does.
    let second = central(&zip) + 1 + central(&zip[central(&zip) + 1..]);
    zip[second + 42..second + 46].copy_from_slice(&0u32.to_le_bytes());
    assert!(matches!(f.error(&zip), CodeError::Overlap));
    assert!(f.store.add_zip(Cursor::new(good)).is_ok());
}

#[test]
fn two_of_one_name_are_refused() {
    let f = fixture();
    let zip = zipped(&[E::File("aaaa", b"1"), E::File("bbbb", b"2")]);
    assert!(matches!(f.error(&patched(&zip, b"bbbb", b"aaaa")), CodeError::Duplicates));
    let zip = zipped(&[E::File("./aa", b"1"), E::File("bb", b"2")]);
    assert_eq!(f.refusal(&patched(&zip, b"bb", b"aa")), Refusal::Duplicate);
    let zip = zipped(&[E::File("aa", b"1"), E::File("bb/c", b"2")]);
    assert_eq!(f.refusal(&patched(&zip, b"bb/c", b"aa/c")), Refusal::NotDirectory);
}

#[test]
fn encrypted_special_and_unknown_entries_are_refused() {
    let f = fixture();
    let good = zipped(&[E::File("f", b"12345678")]);
    let patch = |at: usize, bytes: &[u8]| {
        let mut zip = good.clone();
        let at = central(&zip) + at;
        zip[at..at + bytes.len()].copy_from_slice(bytes);
        zip
    };
    assert_eq!(f.refusal(&patch(8, &[1])), Refusal::Encrypted);
    assert_eq!(f.refusal(&patch(10, &[12, 0])), Refusal::Compression);
    for kind in [0o010_000u32, 0o020_000, 0o060_000, 0o140_000] {
        let attributes = (kind | 0o644) << 16;
        assert_eq!(f.refusal(&patch(38, &attributes.to_le_bytes())), Refusal::Special, "{kind:o}");
    }
    let mut damaged = good.clone();
    let at = good.windows(1).position(|w| w == b"f").unwrap() + 2;
    damaged[at] ^= 0x55;
    assert_eq!(f.error(&damaged).code(), "Code.NotZip");
    assert!(matches!(f.error(b"not a zip"), CodeError::NotZip(_)));
    assert!(matches!(f.error(b""), CodeError::NotZip(_)));
    assert!(matches!(f.error(&zipped(&[])), CodeError::Empty));
    assert!(matches!(f.error(&zipped(&[E::Dir("d")])), CodeError::Empty));
}

#[test]
fn a_directory_is_copied_without_following_links() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::create_dir(root.join("d")).unwrap();
    std::fs::write(root.join("d/run"), "x").unwrap();
    std::fs::set_permissions(root.join("d/run"), PermissionsExt::from_mode(0o4711)).unwrap();
    symlink("d/run", root.join("link")).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_500_000_000, 5000);
    std::fs::File::open(root.join("d/run")).unwrap().set_modified(time).unwrap();
    let stored = f.store.add_directory(root).unwrap();
    let found = contents(&stored.path);
    assert_eq!(found["d/run"], (0o555, "x".into()));
    assert_eq!(found["link"].1, "-> d/run");
    assert_eq!(stored.path.join("d/run").metadata().unwrap().modified().unwrap(), time);
    let before = f.listing();
    let refused = |what: &str| match f.store.add_directory(root) {
        Err(CodeError::Entry { refusal, .. }) => {
            assert_eq!(f.listing(), before);
            refusal
        }
        other => panic!("{what}: {other:?}"),
    };
    symlink("/etc/passwd", root.join("out")).unwrap();
    assert_eq!(refused("link"), Refusal::Escape);
    std::fs::remove_file(root.join("out")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    assert_eq!(refused("socket"), Refusal::Special);
    drop(socket);
    std::fs::remove_file(root.join("socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert_eq!(refused("fifo"), Refusal::Special);
    std::fs::remove_file(root.join("fifo")).unwrap();
    // As large as it is said to be, and nothing on the disk.
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    assert!(matches!(f.store.add_directory(root), Err(CodeError::TooLarge { .. })));
    assert!(matches!(f.store.add_directory(Path::new("/nowhere")), Err(CodeError::Read { .. })));
    assert!(matches!(f.store.add_directory(&root.join("d/run")), Err(CodeError::Read { .. })));
    assert_eq!(f.listing(), before);
}

#[test]
fn later_layers_lie_over_earlier_ones() {
    let f = fixture();
    let add = |entries: &[E<'_>]| f.store.add_zip(Cursor::new(zipped(entries))).unwrap();
    let low = add(&[
        E::File("python/a.py", b"low"),
        E::File("python/b.py", b"low"),
        E::File("x/y", b"low"),
        E::Link("l", "x"),
    ]);
    let high =
        add(&[E::File("python/a.py", b"high"), E::File("x", b"file now"), E::File("l/in", b"directory now")]);
    let merged = f.store.merged_layers(&[low.digest, high.digest], 0).unwrap().unwrap();
    let found: BTreeMap<String, String> =
        contents(&merged.path).into_iter().map(|(n, (_, t))| (n, t)).collect();
    let expected = [
        ("l", ""),
        ("l/in", "directory now"),
        ("python", ""),
        ("python/a.py", "high"),
        ("python/b.py", "low"),
        ("x", "file now"),
    ];
    assert_eq!(found, expected.map(|(n, t)| (n.to_owned(), t.to_owned())).into());
    assert_eq!(contents(&low.path)["python/a.py"].1, "low", "the layer itself is as it was");
    let again = f.store.merged_layers(&[low.digest, high.digest], 0).unwrap().unwrap();
    assert_eq!(again.path, merged.path);
    let other = f.store.merged_layers(&[high.digest, low.digest], 0).unwrap().unwrap();
    assert_eq!(contents(&other.path)["l"].1, "-> x");
    assert_ne!(other.path, merged.path);
    assert!(f.store.merged_layers(&[], 0).unwrap().is_none());
    assert_eq!(f.store.merged_layers(&[low.digest], 0).unwrap().unwrap().path, low.path);
    let four = [low.digest; 4];
    assert!(matches!(f.store.merged_layers(&four, 0), Err(CodeError::TooManyLayers { given: 4, limit: 3 })));
    let missing = Digest([7; 32]);
    assert!(
        matches!(f.store.merged_layers(&[low.digest, missing], 0), Err(CodeError::Missing(d)) if d == missing)
    );
    let code = LIMITS.unzipped_bytes - 5;
    assert!(matches!(f.store.merged_layers(&[low.digest], code), Err(CodeError::TooLarge { .. })));
    assert!(f.listing().iter().all(|n| !n.starts_with(NEW)));
}

#[test]
fn layers_whose_links_lead_out_together_are_refused() {
    let f = fixture();
    let add = |entries: &[E<'_>]| f.store.add_zip(Cursor::new(zipped(entries))).unwrap();
    let one = add(&[E::File("a/b/c/f", b""), E::Link("l", "a/b/c/../../../x")]);
    let two = add(&[E::File("f", b""), E::Link("a", "."), E::Dir("b/c")]);
    let before = f.listing();
    let error = f.store.merged_layers(&[one.digest, two.digest], 0).unwrap_err();
    assert!(matches!(error, CodeError::Entry { refusal: Refusal::Escape, .. }), "{error:?}");
    assert_eq!(f.listing(), before);
}

#[test]
fn what_nothing_refers_to_is_collected() {
    let f = fixture();
    let add = |text: &[u8]| f.store.add_zip(Cursor::new(zipped(&[E::File("a", text)]))).unwrap();
    let (kept, held, gone) = (add(b"1"), add(b"2"), add(b"3"));
    let layers = vec![kept.digest, held.digest];
    let merged = f.store.merged_layers(&layers, 0).unwrap().unwrap();
    let code = f.dir.path().join("state/code");
    let half = "new-01234567-89ab-4cde-8f01-23456789abcd";
    for left in [half, &format!("old-{}", Digest([2; 32])), &Digest([1; 32]).to_string()] {
        std::fs::create_dir_all(code.join(left).join("sub")).unwrap();
    }
    // An operator's own, whose directory this was before.
    std::fs::write(code.join("stray"), "").unwrap();
    std::fs::create_dir_all(code.join("old-project/src")).unwrap();
    let in_use = InUse { code: [kept.digest].into(), layers: [layers].into() };
    let (kept_digest, gone_digest) = (kept.digest, gone.digest);
    drop((merged, kept, gone));
    let mut removed = f.store.collect(|| in_use.clone()).unwrap();
    removed.sort();
    let mut expected = vec![
        half.to_owned(),
        Digest([2; 32]).to_string(),
        gone_digest.to_string(),
        Digest([1; 32]).to_string(),
    ];
    expected.sort();
    assert_eq!(removed, expected);
    assert!(f.store.get(&held.digest).is_ok(), "it was held");
    drop(held);
    assert_eq!(f.store.collect(|| in_use).unwrap().len(), 1);
    assert_eq!(f.listing().len(), 4);
    assert_eq!(f.store.collect(InUse::default).unwrap().len(), 2);
    assert!(code.join("stray").exists() && code.join("old-project/src").exists());
    assert!(matches!(f.store.get(&kept_digest), Err(CodeError::Missing(_))));
}

#[test]
fn uploads_of_the_same_code_at_once_do_not_meet() {
    let f = fixture();
    let zip = zipped(&[E::File("a", &[7; 5000]), E::File("b/c", b"x"), E::Link("l", "a")]);
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (f, zip) = (&f, &zip);
            scope.spawn(move || {
                for _ in 0..10 {
                    let stored = f.store.add_zip(Cursor::new(zip)).unwrap();
                    if n % 2 == 0 {
                        f.store.collect(InUse::default).unwrap();
                    }
                    assert_eq!(contents(&stored.path).len(), 4);
                }
            });
        }
    });
    f.store.collect(InUse::default).unwrap();
    assert!(f.listing().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_leave_nothing_behind(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let f = fixture();
        if f.store.add_zip(Cursor::new(&bytes)).is_err() {
            prop_assert!(f.listing().is_empty());
        }
    }

    /// A good zip file with some bytes changed: it is refused without a trace, or unpacked to something that stays inside.
    #[test]
    fn changed_zip_files_stay_inside(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            any::<u8>(), Just(b'/'), Just(b'.'), Just(0), Just(0xff), Just(0xa0)]), 1..12),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let mut zip = zipped(&[
            E::Dir("dd/"), E::Link("dd/ln", "../f"), E::Mode("dd/x", 0o755, b"12345678901234567890"),
            E::File("f", b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ]);
        for (at, byte) in changes {
            let at = at.index(zip.len());
            zip[at] = byte;
        }
        if let Some(cut) = cut {
            zip.truncate(cut.index(zip.len()));
        }
        let f = fixture();
        match f.store.add_zip(Cursor::new(&zip)) {
            Err(_) => prop_assert!(f.listing().is_empty()),
            Ok(stored) => {
                prop_assert_eq!(f.listing(), [stored.digest.to_string()]);
                let root = stored.path.canonicalize().unwrap();
                for (name, mode) in modes(&root) {
                    prop_assert!(mode & 0o7000 == 0);
                    if let Ok(real) = root.join(&name).canonicalize() {
                        prop_assert!(real.starts_with(&root));
                    }
                }
            }
        }
    }
}

/// Paths and modes.
fn modes(dir: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                left.push(path.clone());
            }
            found.push((path.strip_prefix(dir).unwrap().to_owned(), meta.permissions().mode()));
        }
    }
    found
}
