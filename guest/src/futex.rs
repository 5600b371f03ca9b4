//! Futexes: keys, queues, requeue, priority-free robust lists.

use crate::platform::{Gpa, Va};
use serde::{Deserialize, Serialize};

/// What a futex is identified by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FutexKey {
    /// A private futex: address space and address.
    Private(u64, Va),
    /// A shared one: its guest-physical address.
    Shared(Gpa),
}

/// All futex queues.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Futexes {}
