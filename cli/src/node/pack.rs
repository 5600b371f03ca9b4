//! A directory as a zip file, with the permissions and symbolic links that a function's code may need.

use anyhow::{Context, bail};
use std::fs::File;
use std::io::{Seek, Write, copy};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Packs a directory into an unnamed file. The same tree gives the same bytes.
pub fn directory(path: &Path) -> anyhow::Result<File> {
    let mut zip = ZipWriter::new(tempfile::tempfile().context("cannot make a temporary file")?);
    add(&mut zip, path, "")?;
    let mut file = zip.finish().context("cannot write a temporary file")?;
    file.rewind()?;
    Ok(file)
}

fn add(zip: &mut ZipWriter<File>, directory: &Path, prefix: &str) -> anyhow::Result<()> {
    let fail = || format!("cannot read {}", directory.display());
    let mut entries =
        std::fs::read_dir(directory).with_context(fail)?.collect::<Result<Vec<_>, _>>().with_context(fail)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let fail = || format!("cannot pack {}", path.display());
        let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else {
            bail!("{}: its name is not UTF-8, which a zip file needs", path.display());
        };
        let metadata = entry.metadata().with_context(fail)?;
        let kind = metadata.file_type();
        let large = metadata.len() >= u64::from(u32::MAX);
        let mode = metadata.permissions().mode() & 0o7777;
        let options = SimpleFileOptions::default().unix_permissions(mode).large_file(large);
        if kind.is_dir() {
            zip.add_directory(name.as_str(), options).with_context(fail)?;
            add(zip, &path, &format!("{name}/"))?;
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&path).with_context(fail)?;
            let Some(target) = target.to_str() else {
                bail!("{}: its target is not UTF-8, which a zip file needs", path.display());
            };
            zip.add_symlink(name, target, options).with_context(fail)?;
        } else if kind.is_file() {
            zip.start_file(name, options).with_context(fail)?;
            copy(&mut File::open(&path).with_context(fail)?, zip).with_context(fail)?;
        } else {
            bail!("{}: only files, directories and symbolic links can be deployed", path.display());
        }
    }
    zip.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    #[test]
    fn modes_links_and_empty_directories_are_kept_and_the_bytes_are_the_same_each_time() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/empty")).unwrap();
        std::fs::write(dir.path().join("a/bootstrap"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(dir.path().join("a/bootstrap"), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(dir.path().join("plain"), "x").unwrap();
        std::fs::set_permissions(dir.path().join("plain"), PermissionsExt::from_mode(0o640)).unwrap();
        symlink("a/bootstrap", dir.path().join("link")).unwrap();
        let mut zip = zip::ZipArchive::new(directory(dir.path()).unwrap()).unwrap();
        let mut found = Vec::new();
        for n in 0..zip.len() {
            let mut entry = zip.by_index(n).unwrap();
            let (mut text, name) = (String::new(), entry.name().unwrap().into_owned());
            entry.read_to_string(&mut text).unwrap();
            found.push((name, entry.unix_mode().unwrap() & 0o777, entry.is_symlink(), text));
        }
        let names: Vec<&str> = found.iter().map(|f| f.0.as_str()).collect();
        assert_eq!(names, ["a/", "a/bootstrap", "a/empty/", "link", "plain"]);
        assert_eq!((found[1].1, found[1].3.as_str()), (0o755, "#!/bin/sh\n"));
        assert_eq!((found[3].2, found[3].3.as_str()), (true, "a/bootstrap"));
        assert_eq!(found[4].1, 0o640);
        let bytes = || {
            let mut bytes = Vec::new();
            directory(dir.path()).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(directory(dir.path()).is_err());
        assert!(directory(&dir.path().join("none")).is_err());
    }
}
