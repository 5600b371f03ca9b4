//! Tables of kernel objects by number. Numbers rather than pointers keep the state plain and serialisable.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Objects of one type by id. Ids are never reused within a sandbox's life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Store<T> {
    next: u64,
    items: BTreeMap<u64, T>,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Store { next: 1, items: BTreeMap::new() }
    }
}

impl<T> Store<T> {
    /// Adds an object and returns its id.
    pub fn insert(&mut self, item: T) -> u64 {
        let id = self.next;
        self.next += 1;
        self.items.insert(id, item);
        id
    }

    /// The object, if it exists.
    pub fn get(&self, id: u64) -> Option<&T> {
        self.items.get(&id)
    }

    /// The object, if it exists.
    pub fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        self.items.get_mut(&id)
    }

    /// Takes the object out.
    pub fn remove(&mut self, id: u64) -> Option<T> {
        self.items.remove(&id)
    }

    /// All objects in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.items.iter().map(|(k, v)| (*k, v))
    }

    /// All objects in the order of their ids.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.items.iter_mut().map(|(k, v)| (*k, v))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}
