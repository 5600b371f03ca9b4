//! Code of functions and layers: unpacked, checked, and kept in directories that are named by the digest of what is in them.
//!
//! `STATE/code/DIGEST` is one upload's code, `STATE/code/layers-DIGEST` several layers laid over one another. Such a directory is whole and
//! never changes; the same code is there once, however often and in whatever form it was uploaded. What is made or removed has another
//! name meanwhile, so that a crash leaves nothing that could be mistaken for code; [`CodeStore::collect`] removes it.
//!
//! All calls block: call them from a blocking thread.

mod copy;
mod digest;
mod error;
mod layers;
mod staging;
#[cfg(test)]
mod tests;
mod tree;
mod unzip;

use crate::config::CodeLimits;
use crate::store::InUse;
use staging::{Staging, host};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use digest::{Digest, DigestError};
pub use error::{CodeError, Refusal};

/// Prefix of the names of directories that are being made.
const NEW: &str = "new-";
/// Prefix of the names of directories that are being removed.
const OLD: &str = "old-";
/// Prefix of the names of merged layers.
const LAYERS: &str = "layers-";

type Pins = Arc<Mutex<BTreeMap<String, usize>>>;

/// Keeps a code directory from being collected as long as it is held: while its function is not in the store yet, and while a version that is
/// no longer in the store has requests at work.
#[derive(Debug)]
pub struct Pin {
    name: String,
    pins: Pins,
}

/// Code that was taken.
#[derive(Debug)]
pub struct Stored {
    /// Its name.
    pub digest: Digest,
    /// Its directory.
    pub path: PathBuf,
    /// Size of its files, bytes.
    pub bytes: u64,
    /// Keeps it until the store refers to it.
    pub pin: Pin,
}

/// Layers laid over one another, or a single one.
#[derive(Debug)]
pub struct Merged {
    /// Their directory.
    pub path: PathBuf,
    /// Keeps it.
    pub pin: Pin,
}

/// The code directory of a state directory.
#[derive(Clone, Debug)]
pub struct CodeStore {
    path: PathBuf,
    limits: CodeLimits,
    pins: Pins,
}

fn lock(pins: &Pins) -> MutexGuard<'_, BTreeMap<String, usize>> {
    pins.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a directory with code, or one that is made or removed, has such a name.
fn is_ours(name: &str) -> bool {
    if let Some(id) = name.strip_prefix(NEW) {
        return uuid::Uuid::try_parse(id).is_ok();
    }
    let name = name.strip_prefix(OLD).unwrap_or(name);
    name.strip_prefix(LAYERS).unwrap_or(name).parse::<Digest>().is_ok()
}

impl CodeStore {
    /// Opens `STATE/code`, or makes it.
    pub fn open(state: &Path, limits: CodeLimits) -> Result<CodeStore, CodeError> {
        let path = state.join("code");
        std::fs::create_dir_all(&path).map_err(|e| host(&path, e))?;
        Ok(CodeStore { path, limits, pins: Pins::default() })
    }

    /// Takes a zip file.
    pub fn add_zip(&self, from: impl Read + Seek) -> Result<Stored, CodeError> {
        let mut staging = self.staging()?;
        unzip::unzip(from, &self.limits, &mut staging)?;
        self.keep(staging)
    }

    /// Takes a copy of a directory.
    pub fn add_directory(&self, from: &Path) -> Result<Stored, CodeError> {
        let mut staging = self.staging()?;
        copy::copy(from, &mut staging)?;
        self.keep(staging)
    }

    fn keep(&self, mut staging: Staging) -> Result<Stored, CodeError> {
        if !staging.tree().iter().any(|(_, kind)| matches!(kind, tree::Kind::File { .. })) {
            return Err(CodeError::Empty);
        }
        let (digest, bytes) = (staging.tree().digest(), staging.tree().bytes());
        let name = digest.to_string();
        let pin = self.pin_name(name.clone());
        if let Some(path) = self.there(&name)? {
            staging.tree().check_links()?;
            return Ok(Stored { digest, path, bytes, pin });
        }
        staging.finish()?;
        let path = staging.publish(&name)?;
        Ok(Stored { digest, path, bytes, pin })
    }

    fn there(&self, name: &str) -> Result<Option<PathBuf>, CodeError> {
        let path = self.path.join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(_) => Ok(Some(path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(host(&path, error)),
        }
    }

    fn staging(&self) -> Result<Staging, CodeError> {
        // A name of a previous life may still be there.
        let name = format!("{NEW}{}", uuid::Uuid::new_v4());
        Staging::new(&self.path, self.pin_name(name), &self.limits)
    }

    fn pin_name(&self, name: String) -> Pin {
        *lock(&self.pins).entry(name.clone()).or_default() += 1;
        Pin { name, pins: self.pins.clone() }
    }

    /// The directory of code that was taken, and what keeps it.
    pub fn get(&self, digest: &Digest) -> Result<Merged, CodeError> {
        let name = digest.to_string();
        let pin = self.pin_name(name.clone());
        let path = self.there(&name)?.ok_or(CodeError::Missing(*digest))?;
        Ok(Merged { path, pin })
    }

    /// Removes what nothing refers to and nobody holds, and what a previous life left half-made; gives the names of what was removed.
    /// What cannot be removed is tried again the next time.
    ///
    /// `in_use` is asked when no pin can come or go: what was put into the store before its pin was dropped is in use in any case.
    pub fn collect(&self, in_use: impl FnOnce() -> InUse) -> Result<Vec<String>, CodeError> {
        let mut removed = Vec::new();
        for name in self.set_aside(in_use)? {
            let path = self.path.join(&name);
            let is_dir = std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir());
            let gone = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match gone {
                Ok(()) => removed.push(name.strip_prefix(OLD).unwrap_or(&name).to_owned()),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "code that nothing refers to cannot be removed");
                }
            }
        }
        Ok(removed)
    }

    /// Gives what is to go another name, so that an upload of the same code does not find it while it is being removed.
    fn set_aside(&self, in_use: impl FnOnce() -> InUse) -> Result<Vec<String>, CodeError> {
        let pins = lock(&self.pins);
        let in_use = in_use();
        let mut keep: BTreeSet<String> = in_use.code.iter().map(Digest::to_string).collect();
        keep.extend(in_use.layers.iter().filter(|l| l.len() > 1).map(|l| layers::name(l)));
        let mut aside = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(|e| host(&self.path, e))? {
            let name = entry.map_err(|e| host(&self.path, e))?.file_name();
            // Of another form than ours, it is somebody else's, such as in a state directory that was an operator's own before.
            let Some(name) = name.to_str().filter(|name| is_ours(name)) else { continue };
            if keep.contains(name) || pins.contains_key(name) {
                continue;
            }
            if name.starts_with(OLD) || name.starts_with(NEW) {
                aside.push(name.to_owned());
                continue;
            }
            let old = format!("{OLD}{name}");
            match std::fs::rename(self.path.join(name), self.path.join(&old)) {
                Ok(()) => aside.push(old),
                Err(error) => {
                    tracing::warn!(name, %error, "code that nothing refers to cannot be removed");
                }
            }
        }
        Ok(aside)
    }
}

impl Pin {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Clone for Pin {
    fn clone(&self) -> Pin {
        *lock(&self.pins).entry(self.name.clone()).or_default() += 1;
        Pin { name: self.name.clone(), pins: self.pins.clone() }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = lock(&self.pins);
        if let Some(count) = pins.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.name);
            }
        }
    }
}
