//! Starting programs: ELF images, scripts, the initial stack and auxiliary vector.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::platform::Vcpu;
use crate::task::Tid;

/// What to start as the first process of a sandbox.
#[derive(Clone, Debug, Default)]
pub struct Spawn {
    /// Path inside the guest (already resolved against PATH).
    pub path: Vec<u8>,
    /// Arguments, the program's name first.
    pub argv: Vec<Vec<u8>>,
    /// Environment as NAME=value.
    pub envp: Vec<Vec<u8>>,
    /// Working directory.
    pub cwd: Vec<u8>,
}

impl Kernel {
    /// Makes process 1 with stdin, stdout and stderr on host descriptors (and optionally descriptor 3 on the work channel), and loads its
    /// program. It is runnable on return.
    pub fn spawn_init(&mut self, _spawn: &Spawn, _stdio: crate::vfs::Stdio) -> Result<Tid, Errno> {
        Err(Errno::ENOSYS)
    }

    /// execve(2) for a task: on success its memory, signals and registers are the new program's; on failure nothing has changed.
    pub fn exec(
        &mut self,
        _vcpu: Option<&mut dyn Vcpu>,
        _tid: Tid,
        _path: &[u8],
        _argv: &[Vec<u8>],
        _envp: &[Vec<u8>],
    ) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
}
