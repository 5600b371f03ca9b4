//! System calls: poll.

use super::Entry;

/// This family's calls.
pub const TABLE: &[Entry] = &[];
