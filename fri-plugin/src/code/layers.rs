//! Layers over one another: one directory for /opt, in which what comes later replaces what was before, as on AWS Lambda.

use super::error::CodeError;
use super::staging::{Staging, host};
use super::tree::{self, Kind};
use super::{CodeStore, Digest, LAYERS, Merged};
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Name of the directory of several layers.
pub fn name(layers: &[Digest]) -> String {
    let all: Vec<u8> = layers.iter().flat_map(|d| d.0).collect();
    format!("{LAYERS}{}", Digest::of(&all))
}

impl CodeStore {
    /// One directory of several layers, the lowest first; `None` for none. It is made once and then found again. Together with `code_bytes`,
    /// the size of the function's own code, they must fit the limit for unpacked code.
    pub fn merged_layers(&self, layers: &[Digest], code_bytes: u64) -> Result<Option<Merged>, CodeError> {
        let (last, first) = match layers {
            [] => return Ok(None),
            [one] => {
                let merged = self.get(one)?;
                let bytes = list(&merged.path)?.iter().map(|(_, _, bytes)| bytes).sum::<u64>();
                self.check_total(bytes.saturating_add(code_bytes))?;
                return Ok(Some(merged));
            }
            [first @ .., last] => (last, first),
        };
        if layers.len() > self.limits.layers {
            return Err(CodeError::TooManyLayers { given: layers.len(), limit: self.limits.layers });
        }
        let name = name(layers);
        let pin = self.pin_name(name.clone());
        if let Some(path) = self.there(&name)? {
            return Ok(Some(Merged { path, pin }));
        }
        let mut total = code_bytes;
        let mut staging = self.staging()?;
        for digest in first.iter().chain([last]) {
            let layer = self.get(digest)?;
            let entries = list(&layer.path)?;
            total = entries.iter().fold(total, |sum, (_, _, bytes)| sum.saturating_add(*bytes));
            self.check_total(total)?;
            lay_over(&layer.path, entries, &mut staging)?;
        }
        // Laid over one another, links may lead elsewhere than each on its own.
        staging.finish()?;
        Ok(Some(Merged { path: staging.publish(&name)?, pin }))
    }

    fn check_total(&self, bytes: u64) -> Result<(), CodeError> {
        let limit = self.limits.unzipped_bytes;
        if bytes > limit { Err(CodeError::TooLarge { limit }) } else { Ok(()) }
    }
}

fn lay_over(
    layer: &Path,
    entries: Vec<(tree::Path, Kind, u64)>,
    into: &mut Staging,
) -> Result<(), CodeError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from: OwnedFd = rustix::fs::open(layer, flags, Mode::empty()).map_err(|e| host(layer, e))?;
    for (path, kind, _) in entries {
        let there = into.tree().get(&path).cloned();
        match (&kind, there) {
            (Kind::Directory, Some(Kind::Directory)) => continue,
            (_, Some(below)) => into.remove(&path, below == Kind::Directory)?,
            (_, None) => {}
        }
        match kind {
            Kind::Directory => into.directory(path)?,
            Kind::Link(target) => into.link(path, target.as_bytes())?,
            kind => into.share(path, kind, &from)?,
        }
    }
    Ok(())
}

/// What is in a code directory, a directory before what is in it; and the size of each file.
fn list(root: &Path) -> Result<Vec<(tree::Path, Kind, u64)>, CodeError> {
    let mut found = Vec::new();
    let mut left = vec![String::new()];
    while let Some(at) = left.pop() {
        let here = root.join(&at);
        for entry in std::fs::read_dir(&here).map_err(|e| host(&here, e))? {
            let entry = entry.map_err(|e| host(&here, e))?;
            let name = entry.file_name();
            let path = tree::path(Path::new(&at).join(&name).as_os_str().as_bytes())?;
            let meta = entry.metadata().map_err(|e| host(&here, e))?;
            let (kind, bytes) = if meta.is_dir() {
                left.push(path.clone());
                (Kind::Directory, 0)
            } else if meta.is_symlink() {
                let target = std::fs::read_link(entry.path()).map_err(|e| host(&here, e))?;
                (Kind::Link(tree::target(&path, target.as_os_str().as_bytes())?), 0)
            } else {
                let executable = meta.permissions().mode() & 0o111 != 0;
                // The contents have been read once; a merged directory is named by its layers.
                (Kind::File { executable, digest: Digest([0; 32]), bytes: meta.len() }, meta.len())
            };
            found.push((path, kind, bytes));
        }
    }
    found.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    Ok(found)
}
