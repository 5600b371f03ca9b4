//! What the guests of a node must not see of their root directory: the paths and the numbers by which they would meet it.

use guest::vfs::Shown;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::canonicalize;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Adds to `shown` that `path`, a path of the host, is hidden below `root`, which is open at `rootfs`: as it is written, where the host's
/// links lead, and where they lead below the root directory. Returns what is to be held as long as the numbers in `shown` are used.
/// InvalidInput for what the root directory is or lies in; the host's errors.
pub(super) fn hide(
    path: &Path,
    root: &OwnedFd,
    rootfs: &Path,
    shown: &mut Shown,
) -> io::Result<Vec<OwnedFd>> {
    let above = || io::Error::new(io::ErrorKind::InvalidInput, "the root directory is it or lies in it");
    let mut held = vec![rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?];
    let (top, real) = (canonicalize(rootfs)?, canonicalize(path)?);
    if top.starts_with(&real) {
        return Err(above());
    }
    let mut names = vec![path.to_path_buf(), real];
    // The last name may be a link's own.
    if let (Some(parent), Some(last)) = (path.parent(), path.file_name()) {
        names.push(canonicalize(parent)?.join(last));
    }
    let below = |name: &PathBuf| {
        let name = name.strip_prefix(rootfs).or_else(|_| name.strip_prefix(&top)).ok()?;
        name.components().all(|c| matches!(c, Component::Normal(_))).then(|| name.to_path_buf())
    };
    let mut names: Vec<PathBuf> = names.iter().filter_map(below).collect();
    for name in names.clone() {
        if let Some((object, at)) = find(root, &top, &name)? {
            held.push(object);
            names.extend(at);
        }
        if let (Some(parent), Some(last)) = (name.parent(), name.file_name())
            && let Some((_, Some(at))) = find(root, &top, parent)?
        {
            names.push(at.join(last));
        }
    }
    for name in names {
        let name: Vec<u8> = name.components().as_path().as_os_str().as_bytes().to_vec();
        if name.is_empty() {
            return Err(above());
        }
        if !shown.paths.contains(&name) {
            shown.paths.push(name);
        }
    }
    for object in &held {
        let stat = rustix::fs::fstat(object)?;
        shown.hidden.push((stat.st_dev, stat.st_ino));
    }
    Ok(held)
}

/// What is at a path below the root directory, as a guest would find it, and its path without links. None where nothing is.
fn find(root: &OwnedFd, top: &Path, name: &Path) -> io::Result<Option<(OwnedFd, Option<PathBuf>)>> {
    let name = if name.as_os_str().is_empty() { Path::new(".") } else { name };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = || rustix::fs::openat2(root, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
    // EAGAIN: a rename somewhere on the host raced with the walk.
    let object = match (0..8).map(|_| open()).find(|r| !matches!(r, Err(Errno::AGAIN))) {
        Some(Ok(object)) => object,
        Some(Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => return Ok(None),
        Some(Err(e)) => return Err(e.into()),
        None => return Err(Errno::AGAIN.into()),
    };
    let at = std::fs::read_link(format!("/proc/self/fd/{}", object.as_raw_fd()))?;
    Ok(Some((object, at.strip_prefix(top).ok().map(Path::to_path_buf))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn shown(path: &Path, rootfs: &Path) -> io::Result<(Shown, Vec<OwnedFd>)> {
        let mut shown = Shown::default();
        let root = fs::File::open(rootfs)?.into();
        let held = hide(path, &root, rootfs, &mut shown)?;
        Ok((shown, held))
    }

    fn paths(shown: &Shown) -> Vec<&str> {
        let mut paths: Vec<_> = shown.paths.iter().map(|p| std::str::from_utf8(p).unwrap()).collect();
        paths.sort_unstable();
        paths
    }

    /// host/root, with files in it and beside it, and links.
    fn tree() -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        let at = |path: &str| top.path().join(path);
        fs::create_dir_all(at("root/real/dir")).unwrap();
        fs::create_dir_all(at("beside")).unwrap();
        fs::write(at("root/real/key"), "").unwrap();
        for (to, link) in [
            ("real", "root/alias"),
            ("key", "root/real/link"),
            ("/real/key", "root/absolute"),
            ("/", "root/all"),
            ("root", "way"),
        ] {
            symlink(to, at(link)).unwrap();
        }
        top
    }

    #[test]
    fn a_path_is_hidden_as_it_is_written_and_where_its_links_lead() {
        let top = tree();
        let at = |path: &str| top.path().join(path);
        let of = |path: &str, rootfs: &str| shown(&at(path), &at(rootfs)).unwrap().0;
        assert_eq!(paths(&of("root/real/key", "root")), ["real/key"]);
        assert_eq!(paths(&of("root/real/dir/", "root/")), ["real/dir"]);
        assert_eq!(paths(&of("root/real/../real/key", "root")), ["real/key"]);
        assert_eq!(paths(&of("root/alias/link", "root")), ["alias/link", "real/key", "real/link"]);
        assert_eq!(paths(&of("way/real/key", "root")), ["real/key"]);
        assert_eq!(paths(&of("root/real/key", "way")), ["real/key"]);
        // What is not below the root directory may be met there by its number.
        let beside = of("beside", "root");
        let meta = fs::metadata(at("beside")).unwrap();
        assert_eq!((paths(&beside), &beside.hidden[..]), (vec![], &[(meta.dev(), meta.ino())][..]));
    }

    #[test]
    fn links_lead_below_the_root_directory() {
        let top = tree();
        let key = top.path().join("root/real/key");
        // For the host, an absolute link leads out of the root directory: here, to a file with the same path.
        let out = Path::new("/").join("etc/passwd");
        fs::create_dir(top.path().join("root/etc")).unwrap();
        fs::copy(&key, top.path().join("root/etc/passwd")).unwrap();
        let link = top.path().join("root/users");
        symlink(&out, &link).unwrap();
        let (shown, held) = shown(&link, &top.path().join("root")).unwrap();
        assert_eq!(paths(&shown), ["etc/passwd", "users"]);
        for file in [out, top.path().join("root/etc/passwd")] {
            let meta = fs::metadata(&file).unwrap();
            assert!(shown.hidden.contains(&(meta.dev(), meta.ino())), "{}", file.display());
        }
        assert_eq!(held.len(), shown.hidden.len());
    }

    #[test]
    fn the_root_directory_is_not_hidden() {
        let top = tree();
        let root = top.path().join("root");
        symlink("..", root.join("up")).unwrap();
        for path in ["/", "root", "root/.", "way", "", "root/real/../..", "root/up"] {
            let error = shown(&top.path().join(path), &root).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
        }
        let error = shown(&root.join("all"), &root).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(shown(&root.join("gone"), &root).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_number_of_what_is_hidden_is_not_given_away() {
        let top = tree();
        let key = top.path().join("root/real/key");
        let (shown, held) = shown(&key, &top.path().join("root")).unwrap();
        fs::remove_file(&key).unwrap();
        for object in &held {
            let stat = rustix::fs::fstat(object).unwrap();
            assert_eq!(stat.st_nlink, 0);
            assert!(shown.hidden.contains(&(stat.st_dev, stat.st_ino)));
        }
        for n in 0..64 {
            let new = top.path().join(format!("root/{n}"));
            fs::write(&new, "").unwrap();
            let meta = fs::metadata(&new).unwrap();
            assert!(!shown.hidden.contains(&(meta.dev(), meta.ino())), "{n}");
        }
    }
}
