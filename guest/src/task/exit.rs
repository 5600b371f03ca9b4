//! Death of tasks and processes, wait(2).

use crate::kernel::Kernel;
use crate::task::{ExitStatus, Tid};

impl Kernel {
    /// Ends one thread: robust futexes, clear_child_tid, references; ends the process when it was the last.
    pub fn exit_task(&mut self, _tid: Tid, _status: ExitStatus) {}

    /// Ends a whole process (exit_group, a fatal signal).
    pub fn exit_process(&mut self, _pid: u32, _status: ExitStatus) {}
}
