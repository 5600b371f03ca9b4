//! The shape of a code directory, in memory: what may be in it, and its digest. Nothing here touches a disk.

use super::digest::Digest;
use super::error::{CodeError, Refusal};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Longest name, bytes: NAME_MAX (limits.h).
const NAME: usize = 255;
/// Longest path below the code directory, bytes. The guest's limit is 4096 (PATH_MAX) with what is before it.
pub(super) const PATH: usize = 1024;
/// Most directories of a path.
const DEPTH: usize = 100;
/// Links that are followed for one: as Linux (path_resolution(7)).
const LINKS: usize = 40;
/// Names that are walked for all links together. Real code has a few for each link; hostile code could have 40 times 500.
const STEPS: usize = 1_000_000;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Whether it may be executed.
        executable: bool,
        /// Of its contents.
        digest: Digest,
        /// Size, bytes.
        bytes: u64,
    },
    /// A symbolic link, and where it leads.
    Link(String),
}

/// A path below the code directory: names with `/` between them.
pub type Path = String;

/// Entries by path.
#[derive(Debug, Default)]
pub struct Tree {
    entries: BTreeMap<Path, Entry>,
    limit: usize,
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    /// Whether it was named itself, and not only something below it.
    named: bool,
}

/// Checks a path as it was given, of which `.` and empty names are left out. An empty result is the code directory itself.
pub fn path(given: &[u8]) -> Result<Path, CodeError> {
    let refuse = |refusal| Err(CodeError::entry(given, refusal));
    let Ok(text) = std::str::from_utf8(given) else { return refuse(Refusal::NotText) };
    if text.is_empty() {
        return refuse(Refusal::NoName);
    }
    if text.chars().any(char::is_control) {
        return refuse(Refusal::Control);
    }
    if text.contains('\\') {
        return refuse(Refusal::Backslash);
    }
    if text.starts_with('/') {
        return refuse(Refusal::Absolute);
    }
    let names: Vec<&str> = text.split('/').filter(|n| !n.is_empty() && *n != ".").collect();
    if names.contains(&"..") {
        return refuse(Refusal::Parent);
    }
    let path = names.join("/");
    if path.len() > PATH || names.len() > DEPTH || names.iter().any(|n| n.len() > NAME) {
        return refuse(Refusal::Long);
    }
    Ok(path)
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

impl Tree {
    /// An empty directory that takes that many entries.
    pub fn new(limit: usize) -> Tree {
        Tree { entries: BTreeMap::new(), limit }
    }

    /// Whether an entry may be added, and which directories have to be made before, the outermost first. They are added; the entry is not yet.
    pub fn make_room(&mut self, path: &str) -> Result<Vec<Path>, CodeError> {
        if self.entries.contains_key(path) {
            return Err(CodeError::entry(path.as_bytes(), Refusal::Duplicate));
        }
        let mut missing = Vec::new();
        let mut above = parent(path);
        while let Some(dir) = above {
            match self.entries.get(dir).map(|e| &e.kind) {
                Some(Kind::Directory) => break,
                Some(_) => return Err(CodeError::entry(path.as_bytes(), Refusal::NotDirectory)),
                None => missing.push(dir.to_owned()),
            }
            above = parent(dir);
        }
        if self.entries.len() + missing.len() >= self.limit {
            return Err(CodeError::TooMany { limit: self.limit });
        }
        missing.reverse();
        for dir in &missing {
            self.entries.insert(dir.clone(), Entry { kind: Kind::Directory, named: false });
        }
        Ok(missing)
    }

    /// Adds an entry for which there is room.
    pub fn add(&mut self, path: Path, kind: Kind) {
        self.entries.insert(path, Entry { kind, named: true });
    }

    /// Adds a directory; whether it is there already, because of what is below it.
    pub fn names_directory(&mut self, path: &str) -> bool {
        match self.entries.get_mut(path) {
            Some(entry) if !entry.named && entry.kind == Kind::Directory => {
                entry.named = true;
                true
            }
            _ => false,
        }
    }

    /// What is at a path.
    pub fn get(&self, path: &str) -> Option<&Kind> {
        self.entries.get(path).map(|e| &e.kind)
    }

    /// All entries; a directory comes before what is in it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Kind)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), &entry.kind))
    }

    /// Takes away an entry with all that is below it.
    pub fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        let range = (Bound::Included(below.clone()), Bound::Unbounded);
        let gone: Vec<Path> = self
            .entries
            .range(range)
            .map(|(p, _)| p)
            .take_while(|p| p.starts_with(&below))
            .cloned()
            .collect();
        for path in gone {
            self.entries.remove(&path);
        }
        self.entries.remove(path);
    }

    /// Bytes of the files.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|(_, kind)| if let Kind::File { bytes, .. } = kind { *bytes } else { 0 }).sum()
    }

    /// Whether each link, followed as Linux follows it, stays inside. One whose target is not there does no harm.
    pub fn check_links(&self) -> Result<(), CodeError> {
        let mut steps = STEPS;
        for (path, kind) in self.iter() {
            if matches!(kind, Kind::Link(_)) {
                self.follow(path, &mut steps)
                    .map_err(|refusal| CodeError::entry(path.as_bytes(), refusal))?;
            }
        }
        Ok(())
    }

    fn follow(&self, link: &str, steps: &mut usize) -> Result<(), Refusal> {
        // Names that are still to be walked, the next one last.
        let mut left: Vec<&str> = link.split('/').rev().collect();
        let mut at: Vec<&str> = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            *steps = steps.checked_sub(1).filter(|_| at.len() <= 2 * DEPTH).ok_or(Refusal::Links)?;
            match name {
                "" | "." => {}
                ".." => {
                    at.pop().ok_or(Refusal::Escape)?;
                }
                name => {
                    at.push(name);
                    let Some(Entry { kind: Kind::Link(target), .. }) = self.entries.get(&at.join("/")) else {
                        continue;
                    };
                    links += 1;
                    if links > LINKS {
                        return Err(Refusal::Loop);
                    }
                    if target.starts_with('/') {
                        return Err(Refusal::Escape);
                    }
                    at.pop();
                    left.extend(target.split('/').rev());
                }
            }
        }
        Ok(())
    }

    /// The digest of everything that a function can see of it: paths, kinds, contents. Times are not part of it.
    pub fn digest(&self) -> Digest {
        use sha2::Digest as _;
        let mut hash = sha2::Sha256::new();
        hash.update(b"coppice code 1\n");
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for (path, kind) in self.iter() {
            part(path.as_bytes());
            match kind {
                Kind::Directory => part(b"d"),
                Kind::File { executable, digest, .. } => {
                    part(if *executable { b"x" } else { b"f" });
                    part(&digest.0);
                }
                Kind::Link(target) => {
                    part(b"l");
                    part(target.as_bytes());
                }
            }
        }
        Digest(hash.finalize().into())
    }
}

/// Whether a link's target is one that can be followed at all.
pub fn target(link: &str, bytes: &[u8]) -> Result<String, CodeError> {
    let text = std::str::from_utf8(bytes).ok().filter(|t| !t.is_empty() && t.len() <= PATH);
    let text = text.filter(|t| !t.chars().any(char::is_control));
    text.map(str::to_owned).ok_or_else(|| CodeError::entry(link.as_bytes(), Refusal::Target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal<T: std::fmt::Debug>(result: Result<T, CodeError>) -> Refusal {
        match result {
            Err(CodeError::Entry { refusal, .. }) => refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_stay_below_the_code_directory() {
        assert_eq!(path(b"a/./b//c/").unwrap(), "a/b/c");
        assert_eq!(path(b"./").unwrap(), "");
        let long = "a/".repeat(101);
        let cases: [(&[u8], Refusal); 10] = [
            (b"", Refusal::NoName),
            (b"/etc/passwd", Refusal::Absolute),
            (b"//x", Refusal::Absolute),
            (b"../x", Refusal::Parent),
            (b"a/../../x", Refusal::Parent),
            (b"a/..", Refusal::Parent),
            (b"a\\b", Refusal::Backslash),
            (b"a\0b", Refusal::Control),
            (b"\xff", Refusal::NotText),
            (long.as_bytes(), Refusal::Long),
        ];
        for (given, expected) in cases {
            assert_eq!(refusal(path(given)), expected, "{given:?}");
        }
        assert!(path("é".repeat(127).as_bytes()).is_ok());
        assert_eq!(refusal(path("é".repeat(128).as_bytes())), Refusal::Long);
    }

    fn tree(links: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new(100);
        for (path, target) in links {
            tree.make_room(path).unwrap();
            tree.add((*path).into(), Kind::Link((*target).into()));
        }
        tree
    }

    #[test]
    fn links_are_followed_through_other_links() {
        for good in [
            &[("a", "b")][..],
            &[("bin/x", "../lib/x")],
            &[("a/b/c", "../../d"), ("d", "./e/..")],
            &[("self", ".")],
        ] {
            tree(good).check_links().unwrap();
        }
        for bad in [
            &[("a", "/etc/passwd")][..],
            &[("a", "..")],
            &[("a", "b/../../x")],
            &[("p/q/x", "../../d/e"), ("d", "..")],
            // Each stays inside when it is only read.
            &[("d/e/x", "../.."), ("p/q/y", "../../d/e/x/../z")],
        ] {
            assert_eq!(refusal(tree(bad).check_links()), Refusal::Escape, "{bad:?}");
        }
        assert_eq!(refusal(tree(&[("a", "b"), ("b", "a")]).check_links()), Refusal::Loop);
    }

    #[test]
    fn nothing_is_there_twice_or_below_a_file() {
        let mut tree = tree(&[("a/b", "c")]);
        assert_eq!(refusal(tree.make_room("a/b")), Refusal::Duplicate);
        assert_eq!(refusal(tree.make_room("a/b/c")), Refusal::NotDirectory);
        assert!(tree.names_directory("a"));
        assert!(!tree.names_directory("a"), "named twice");
        assert_eq!(tree.make_room("x/y/z").unwrap(), ["x", "x/y"]);
    }

    #[test]
    fn directories_that_nobody_named_count() {
        let mut tree = Tree::new(3);
        assert_eq!(tree.make_room("a/b").unwrap(), ["a"]);
        tree.add("a/b".into(), Kind::Directory);
        assert!(matches!(tree.make_room("c/d"), Err(CodeError::TooMany { limit: 3 })));
        assert!(tree.make_room("c").is_ok());
    }

    proptest! {
        #[test]
        fn a_path_that_is_taken_has_only_names(given: Vec<u8>) {
            if let Ok(path) = path(&given) {
                prop_assert!(std::path::Path::new(&path).components().all(|c| matches!(c, std::path::Component::Normal(_))));
            }
        }

        /// Against the host's own path resolution, in a directory that has another one above it.
        #[test]
        fn links_that_are_taken_do_not_leave_on_the_host_either(
            targets in prop::collection::vec("((\\.\\.|a|b|d|d/e|l[0-3]|d/l[0-3]|\\.)/?){1,5}", 1..5),
        ) {
            let outside = tempfile::tempdir().unwrap();
            let root = outside.path().join("inside");
            std::fs::create_dir_all(root.join("d/e")).unwrap();
            let mut tree = Tree::new(100);
            for path in ["d", "d/e"] {
                tree.make_room(path).unwrap();
                tree.add(path.into(), Kind::Directory);
            }
            for (n, to) in targets.iter().enumerate() {
                let path = format!("{}l{n}", if n % 2 == 0 { "" } else { "d/" });
                let Ok(to) = target(&path, to.as_bytes()) else { continue };
                std::os::unix::fs::symlink(&to, root.join(&path)).unwrap();
                tree.make_room(&path).unwrap();
                tree.add(path, Kind::Link(to));
            }
            if tree.check_links().is_ok() {
                let root = root.canonicalize().unwrap();
                for (path, _) in tree.iter() {
                    if let Ok(real) = root.join(path).canonicalize() {
                        prop_assert!(real.starts_with(&root), "{path} is {}", real.display());
                    }
                }
            }
        }
    }
}
