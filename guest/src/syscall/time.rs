//! System calls: time.

use super::Entry;

/// This family's calls.
pub const TABLE: &[Entry] = &[];

use crate::kernel::Kernel;
use crate::task::{Call, Tid};
use crate::wait::Block;

/// TODO
pub fn write_remaining_sleep(_k: &mut Kernel, _tid: Tid, _call: &Call, _block: &Block) {}
