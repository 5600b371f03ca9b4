//! The limit of open files: a sandbox keeps descriptors of the host files that its guest has open.

use anyhow::bail;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Fewest descriptors that a sandbox gets along with: a few dozen of its own and of its channels, and those of the files that the
/// guest has open or mapped at once (idle ones are closed when there are too many).
const LEAST: u64 = 256;

/// Raises this process's limit to what it is allowed to have; an error where that is too little.
pub fn open_files() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    if allowed < LEAST {
        bail!(
            "this process may have {allowed} files open; raise the limit of open files to at least {LEAST} (ulimit -n {LEAST})"
        );
    }
    if limit.current.is_some_and(|now| now < allowed) {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let (Err(error), true) = (setrlimit(Resource::Nofile, raised), limit.current < Some(LEAST)) {
            bail!("cannot raise the limit of open files to {LEAST}: {error}");
        }
    }
    Ok(())
}
