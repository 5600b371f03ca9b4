//! Spares: instances forked ahead of need. Each has its VM built and its working set mapped, and waits for one request.

use crate::handle::{Child, Fork};
use std::collections::VecDeque;

/// A spare that is ready.
#[derive(Debug)]
pub struct Spare {
    /// Its process.
    pub process: Child,
    /// Its channel.
    pub fork: Fork,
}

/// The spares of one seed.
#[derive(Debug, Default)]
pub struct Spares {
    ready: VecDeque<Spare>,
}

impl Spares {
    /// Adds one.
    pub fn put(&mut self, spare: Spare) {
        self.ready.push_back(spare);
    }

    /// Takes the oldest.
    pub fn take(&mut self) -> Option<Spare> {
        self.ready.pop_front()
    }

    /// How many are ready.
    pub fn len(&self) -> usize {
        self.ready.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }
}
