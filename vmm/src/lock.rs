//! The order of locks. Whoever holds a lock takes only locks that come later in [`Rank`]; two of one rank are never held together.
//!
//! | lock | owner | held |
//! | --- | --- | --- |
//! | [`Rank::Kernel`] | `threads::Shared` | while an exit is handled, and by whoever looks at the guest's state between runs |
//! | [`Rank::Tables`] | `pagetable::PageTables` | during one change of guest page tables |
//! | [`Rank::Slots`] | `memslots::Memslots` | while memory slots are registered or the machine is looked up |
//! | [`Rank::Error`] | `threads::Shared` | for one store or load |
//!
//! The guest kernel has no lock of its own: it is what [`Rank::Kernel`] protects. A lock is never held while guest code runs or the sandbox
//! sleeps. In debug builds each thread remembers what it holds, and a lock out of order panics with both names.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Places in the order, first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The guest kernel.
    Kernel,
    /// Guest page tables.
    Tables,
    /// Memory slots.
    Slots,
    /// The error of a vCPU thread.
    Error,
}

#[cfg(debug_assertions)]
mod held {
    use super::Rank;
    use std::cell::RefCell;

    thread_local! {
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    pub fn take(rank: Rank) {
        HELD.with_borrow_mut(|held| {
            if let Some(other) = held.iter().find(|h| **h >= rank) {
                panic!("lock order: {rank:?} is taken while {other:?} is held; see vmm/src/lock.rs");
            }
            held.push(rank);
        });
    }

    pub fn release(rank: Rank) {
        HELD.with_borrow_mut(|held| {
            if let Some(at) = held.iter().rposition(|h| *h == rank) {
                held.remove(at);
            }
        });
    }
}

#[cfg(not(debug_assertions))]
mod held {
    pub fn take(_: super::Rank) {}
    pub fn release(_: super::Rank) {}
}

/// A mutex with a place in the order. A panic of another thread while it held the lock leaves the value as it was then.
#[derive(Debug)]
pub struct Ordered<T> {
    rank: Rank,
    inner: Mutex<T>,
}

impl<T> Ordered<T> {
    /// Around a value.
    pub fn new(rank: Rank, value: T) -> Self {
        Ordered { rank, inner: Mutex::new(value) }
    }

    /// Takes the lock. Panics in debug builds when the thread holds one that comes later, or this one.
    pub fn lock(&self) -> Guard<'_, T> {
        held::take(self.rank);
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Guard { inner: Some(inner), rank: self.rank }
    }
}

/// A lock that is held.
#[derive(Debug)]
pub struct Guard<'a, T> {
    /// `None` only while it is being waited with.
    inner: Option<MutexGuard<'a, T>>,
    rank: Rank,
}

impl<T> Guard<'_, T> {
    /// Lets go of the lock until `condition` is notified.
    pub fn wait(&mut self, condition: &Condvar) {
        if let Some(inner) = self.inner.take() {
            self.inner = Some(condition.wait(inner).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The same, for a time at most.
    pub fn wait_timeout(&mut self, condition: &Condvar, time: Duration) {
        if let Some(inner) = self.inner.take() {
            let (inner, _) = condition.wait_timeout(inner, time).unwrap_or_else(PoisonError::into_inner);
            self.inner = Some(inner);
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // Nobody sees a guard that waits: waiting borrows it.
        self.inner.as_ref().expect("a lock that is held")
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("a lock that is held")
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        held::release(self.rank);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_in_order_are_taken_and_released_in_any_order() {
        let (kernel, tables) = (Ordered::new(Rank::Kernel, 1), Ordered::new(Rank::Tables, 2));
        for _ in 0..2 {
            let mut a = kernel.lock();
            let b = tables.lock();
            *a += *b;
            drop(a);
            drop(b);
            assert_eq!(*tables.lock(), 2);
        }
        assert_eq!(*kernel.lock(), 5);
    }

    #[test]
    fn a_lock_out_of_order_or_taken_twice_panics_with_both_names() {
        if !cfg!(debug_assertions) {
            return;
        }
        for (first, second) in
            [(Rank::Tables, Rank::Kernel), (Rank::Slots, Rank::Tables), (Rank::Kernel, Rank::Kernel)]
        {
            let (a, b) = (Ordered::new(first, ()), Ordered::new(second, ()));
            let panic = std::thread::spawn(move || {
                let _held = a.lock();
                drop(b.lock());
            })
            .join()
            .unwrap_err();
            let text = panic.downcast_ref::<String>().unwrap();
            assert!(text.contains(&format!("{second:?} is taken while {first:?} is held")), "{text}");
        }
    }
}
