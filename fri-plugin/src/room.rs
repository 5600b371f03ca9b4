//! A bound on the bytes that are held at once, shared by everybody who holds some.
//!
//! Nobody waits for room: half of what has come may be waiting for the other half, and would wait for ever.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bound. A handle: copies are of the same one.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

/// There is no room for so many bytes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What one holder has of a bound. Given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    room: Room,
    held: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Room for so many bytes.
    pub fn new(bytes: u64) -> Room {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Room(Arc::new(Semaphore::new(bytes)))
    }

    /// A share without anything yet.
    pub fn share(&self) -> Share {
        Share { room: self.clone(), held: None }
    }

    /// Bytes that are free.
    pub fn free(&self) -> usize {
        self.0.available_permits()
    }
}

impl Share {
    /// Takes more, at once or not at all; what it has it keeps.
    pub fn add(&mut self, bytes: usize) -> Result<(), Full> {
        let count = u32::try_from(bytes).map_err(|_| Full)?;
        let more = self.room.0.clone().try_acquire_many_owned(count).map_err(|_| Full)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Gives back all that it has.
    pub fn clear(&mut self) {
        self.held = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_taken_at_once_or_not_and_given_back() {
        let room = Room::new(10);
        let (mut one, mut two) = (room.share(), room.share());
        assert_eq!((one.add(4), one.add(3), two.add(4)), (Ok(()), Ok(()), Err(Full)));
        assert_eq!((two.add(3), two.add(0), room.free()), (Ok(()), Ok(()), 0));
        one.clear();
        assert_eq!((room.free(), two.add(7)), (7, Ok(())));
        drop(two);
        assert_eq!(room.free(), 10);
        assert_eq!(room.share().add(usize::MAX), Err(Full));
    }
}
