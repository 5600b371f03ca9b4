//! Places of open connections: as many as the configuration has, and where all are taken, one that has been idle for long makes room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The places of one socket.
#[derive(Debug)]
pub struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    patience: Duration,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    by: BTreeMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    calls: usize,
    /// When its last call ended, or it came.
    since: Instant,
    close: Arc<Notify>,
}

impl Places {
    /// So many. A connection that has had no call for `patience` may have to go.
    pub fn new(most: usize, patience: Duration) -> Places {
        Places(Arc::new(Shared { most: most.max(1), patience, taken: Mutex::default() }))
    }

    /// A place: a free one, or that of the connection that has been idle for longest, and for long enough.
    pub fn take(&self) -> Option<Place> {
        let mut taken = self.0.lock();
        if taken.by.len() >= self.0.most {
            let idle = taken.by.iter().filter(|(_, h)| h.calls == 0).min_by_key(|(_, h)| h.since);
            let (&id, _) = idle.filter(|(_, h)| h.since.elapsed() >= self.0.patience)?;
            // Its place is given away at once; it closes as soon as it runs.
            taken.by.remove(&id)?.close.notify_one();
        }
        let id = taken.next;
        taken.next += 1;
        let close = Arc::new(Notify::new());
        taken.by.insert(id, Holder { calls: 0, since: Instant::now(), close: close.clone() });
        Some(Place(Arc::new(Own { shared: self.0.clone(), id, close })))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        crate::daemon::lock(&self.taken)
    }
}

/// The place of a connection, given back with the last copy of it.
#[derive(Clone, Debug)]
pub struct Place(Arc<Own>);

#[derive(Debug)]
struct Own {
    shared: Arc<Shared>,
    id: u64,
    close: Arc<Notify>,
}

impl Place {
    /// A call has begun. It is under way until this is dropped.
    pub fn call(&self) -> Call {
        self.count(|calls| calls.saturating_add(1));
        Call(self.clone())
    }

    /// Resolves, once, when the connection has to go.
    pub async fn given_away(&self) {
        self.0.close.notified().await;
    }

    fn count(&self, change: impl FnOnce(usize) -> usize) {
        if let Some(holder) = self.0.shared.lock().by.get_mut(&self.0.id) {
            holder.calls = change(holder.calls);
            holder.since = Instant::now();
        }
    }
}

/// A call under way.
#[derive(Debug)]
pub struct Call(Place);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.count(|calls| calls.saturating_sub(1));
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.shared.lock().by.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn is_given_away(place: &Place) -> bool {
        place.given_away().now_or_never().is_some()
    }

    #[test]
    fn the_one_that_is_idle_for_longest_makes_room() {
        let places = Places::new(3, Duration::ZERO);
        let [one, two, three] = [(); 3].map(|()| places.take().unwrap());
        let call = two.call();
        drop(one.call());
        // Two has a call; one had one after three came.
        let four = places.take().unwrap();
        assert_eq!([&one, &two, &three].map(is_given_away), [false, false, true]);
        let _calls = [one.call(), four.call()];
        assert!(places.take().is_none(), "none is idle");
        drop(call);
        let _five = places.take().unwrap();
        assert!(is_given_away(&two));
        // One that was given away gives nothing back.
        drop((two, three));
        assert!(places.take().is_some_and(|_| is_given_away(&_five)));
    }

    #[test]
    fn one_that_has_just_come_stays() {
        let places = Places::new(1, Duration::from_secs(3600));
        let one = places.take().unwrap();
        assert!(places.take().is_none());
        drop(one.clone());
        assert!(places.take().is_none() && !is_given_away(&one));
        drop(one);
        assert!(places.take().is_some());
    }
}
