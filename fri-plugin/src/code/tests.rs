//! The store of code, and zip files that were made to harm.

mod kept;
mod refused;

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
