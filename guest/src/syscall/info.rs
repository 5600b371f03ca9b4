//! System calls: info.

use super::Entry;

/// This family's calls.
pub const TABLE: &[Entry] = &[];
