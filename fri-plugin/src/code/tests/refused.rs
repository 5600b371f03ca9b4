//! Zip files that are refused, each for its reason.

use super::*;

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
