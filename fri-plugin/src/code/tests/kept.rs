//! What is in the store: layers made of others, what is collected, and many who store at once.

use super::*;

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
