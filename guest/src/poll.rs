//! Readiness: poll masks, waiters on objects, epoll sets, and host descriptors that tasks sleep on.

use crate::kernel::Kernel;
use crate::wait::WaitKey;
use serde::{Deserialize, Serialize};

/// Epoll sets and change counters.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Polls {}

impl Kernel {
    /// An object's readiness changed: counted for edge-triggered epoll, and epoll sets that hold it are woken.
    pub fn object_changed(&mut self, _object: u64) {}

    /// Host descriptors that sleeping tasks wait for: (descriptor, wants input, wants output).
    pub fn host_polls(&self) -> Vec<(i32, bool, bool)> {
        Vec::new()
    }

    /// Objects that stand for a host descriptor.
    pub fn host_objects(&self, _fd: i32) -> Vec<u64> {
        Vec::new()
    }

    /// POLL* events that a file has now.
    pub fn file_poll(&mut self, _file: u64) -> u32 {
        0
    }

    /// What to sleep on for a change of a file's readiness.
    pub fn file_wait_keys(&self, _file: u64) -> Vec<WaitKey> {
        Vec::new()
    }
}
