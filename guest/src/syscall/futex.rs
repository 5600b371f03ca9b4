//! System calls: futex.

use super::Entry;

/// This family's calls.
pub const TABLE: &[Entry] = &[];
