//! What binds a daemon to its host: its directories and their locks, its sockets, the service manager, and what a previous life left.
//!
//! A daemon's identity is its state directory. Its sandbox processes carry it in their environment, and what it makes on the host has
//! it in its name, so that after a crash all of it is found again and nothing else is touched.

mod error;
pub mod host;
mod lock;
pub mod processes;
mod reconcile;
pub mod socket;
pub mod systemd;

use host::Names;
use lock::Lock;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

pub use error::LifeError;
pub use lock::Holder;
pub use reconcile::{Found, What};

/// The variable in the environment of a daemon's processes.
pub const MARK: &str = "COPPICE_NODE";
/// Bytes of the digest that an identity is made of.
const ID_BYTES: usize = 6;

/// A daemon's hold on its directories.
#[derive(Debug)]
pub struct Life {
    id: String,
    state: PathBuf,
    run: PathBuf,
    _locks: Vec<Lock>,
}

impl Life {
    /// Makes the directories where they are not there, and takes them: nobody else gets them until this is dropped.
    pub fn begin(state: &Path, run: &Path) -> Result<Life, LifeError> {
        // Code and environments of functions, with the secrets in them, are nobody else's to read.
        make_directory(state, 0o700)?;
        make_directory(run, 0o755)?;
        let failed = |source| LifeError::Directory { path: state.to_owned(), source };
        let state = std::fs::canonicalize(state).map_err(failed)?;
        let failed = |source| LifeError::Directory { path: run.to_owned(), source };
        let run = std::fs::canonicalize(run).map_err(failed)?;
        let mut locks = vec![Lock::take(&state)?];
        if run != state {
            locks.push(Lock::take(&run)?);
        }
        let meta = std::fs::metadata(&state)
            .map_err(|source| LifeError::Directory { path: state.clone(), source })?;
        Ok(Life { id: identity(&state, meta.dev(), meta.ino()), state, run, _locks: locks })
    }

    /// The daemon's identity: 12 hexadecimal digits, the same as long as its state directory is.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The state directory, without symbolic links.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The runtime directory, without symbolic links.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The environment of this daemon's processes: for [`seedtree::node::NodeConfig::mark`].
    pub fn mark(&self) -> Vec<(String, String)> {
        vec![(MARK.to_owned(), self.id.clone())]
    }

    /// Names of what it makes on the host.
    pub fn names(&self) -> Names {
        Names::of(&self.id)
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<(), LifeError> {
    let failed = |source| LifeError::Directory { path: path.to_owned(), source };
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above).map_err(failed)?;
    }
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other.map_err(failed),
    }
}

/// Of a path alone two containers would have the same.
fn identity(state: &Path, device: u64, inode: u64) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut bytes = state.as_os_str().as_bytes().to_vec();
    bytes.push(0);
    bytes.extend(device.to_le_bytes());
    bytes.extend(inode.to_le_bytes());
    crate::code::Digest::of(&bytes).to_string().chars().take(2 * ID_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_state_directory_has_one_daemon_and_one_identity() {
        let dir = tempfile::tempdir().unwrap();
        let (state, run) = (dir.path().join("a/state"), dir.path().join("run"));
        let life = Life::begin(&state, &run).unwrap();
        let id = life.id().to_owned();
        assert!(id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(state.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&state, &link).unwrap();
        let other = dir.path().join("other");
        assert!(matches!(Life::begin(&link, &other), Err(LifeError::InUse { .. })));
        assert!(matches!(Life::begin(&other, &run), Err(LifeError::InUse { .. })));
        drop(life);
        assert_eq!(Life::begin(&link, &other).unwrap().id(), id);
        assert_ne!(Life::begin(&other, &run).unwrap().id(), id);
        assert_eq!(std::fs::read_dir(&state).unwrap().count(), 0);
    }

    #[test]
    fn a_file_is_no_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for state in [file.clone(), file.join("below")] {
            assert!(matches!(Life::begin(&state, &dir.path().join("run")), Err(LifeError::Directory { .. })));
        }
    }
}
