//! epoll(7) sets. An entry is identified by descriptor and file, as on Linux, and dies with the file.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::vfs::{FileKind, OpenFile};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const EPOLLET: u32 = 1 << 31;
const EPOLLONESHOT: u32 = 1 << 30;
const EPOLLWAKEUP: u32 = 1 << 29;
const EPOLLEXCLUSIVE: u32 = 1 << 28;
/// Bits of an entry that are not events.
const PRIVATE: u32 = EPOLLET | EPOLLONESHOT | EPOLLWAKEUP | EPOLLEXCLUSIVE;
/// What an exclusive entry may ask for besides (epoll_ctl(2)).
const WITH_EXCLUSIVE: u32 = 1 | 4 | 8 | 16 | 64 | 256 | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;
/// How deep sets may be nested (epoll_ctl(2), ELOOP).
const MAX_DEPTH: u32 = 5;

/// One watched file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Watch {
    events: u32,
    data: u64,
    /// The objects it is listed under.
    objects: Vec<u64>,
    /// Its readiness may have changed since it was last reported (EPOLLET).
    armed: bool,
}

/// One epoll set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EpollSet {
    /// Its object number for waiters.
    pub object: u64,
    watches: BTreeMap<(i32, u64), Watch>,
    /// The entry after which the next report begins: every ready entry gets its turn.
    last: (i32, u64),
}

impl EpollSet {
    /// Readiness of an entry may have changed in these events.
    pub fn arm(&mut self, fd: i32, file: u64, events: u32) {
        if let Some(w) = self.watches.get_mut(&(fd, file))
            && (events == u32::MAX || w.events & events != 0)
        {
            w.armed = true;
        }
    }

    /// Objects of its entries that can be reported.
    pub fn watched(&self) -> Vec<u64> {
        // An edge-triggered entry that was reported waits for its reader, not for the host: asking the host would spin.
        let live = self
            .watches
            .values()
            .filter(|w| w.events & !PRIVATE != 0 && (w.events & EPOLLET == 0 || w.armed));
        live.flat_map(|w| w.objects.iter().copied()).collect()
    }
}

/// An epoll_ctl(2) operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ctl {
    /// EPOLL_CTL_ADD with events and data.
    Add(u32, u64),
    /// EPOLL_CTL_DEL.
    Del,
    /// EPOLL_CTL_MOD with events and data.
    Mod(u32, u64),
}

impl Kernel {
    /// Makes an epoll file with one reference.
    pub fn epoll_create_file(&mut self) -> u64 {
        let object = self.new_object();
        let id = self.polls.sets.insert(EpollSet { object, watches: BTreeMap::new(), last: (-1, 0) });
        self.files.insert(OpenFile { kind: FileKind::Epoll(id), flags: 2, pos: 0, refs: 1 })
    }

    /// The set behind a file. EINVAL.
    pub fn epoll_of(&self, file: u64) -> Result<u64, Errno> {
        match self.files.get(file).map(|f| &f.kind) {
            Some(FileKind::Epoll(id)) => Ok(*id),
            _ => Err(Errno::EINVAL),
        }
    }

    /// epoll_ctl(2). EPERM, EINVAL, EEXIST, ENOENT, ELOOP.
    pub fn epoll_change(&mut self, set: u64, fd: i32, file: u64, op: Ctl) -> Result<(), Errno> {
        let kind = self.files.get(file).map(|f| f.kind.clone()).ok_or(Errno::EBADF)?;
        if matches!(kind, FileKind::Inode(_) | FileKind::Device(..)) {
            return Err(Errno::EPERM);
        }
        if kind == FileKind::Epoll(set) {
            return Err(Errno::EINVAL);
        }
        let key = (fd, file);
        let old = self.polls.sets.get(set).ok_or(Errno::EINVAL)?.watches.get(&key).map(|w| w.events);
        let there = old.is_some();
        let exclusive = |events: u32| events & EPOLLEXCLUSIVE != 0;
        match op {
            Ctl::Mod(events, _) if exclusive(events) => return Err(Errno::EINVAL),
            Ctl::Add(events, _)
                if exclusive(events)
                    && (events & !WITH_EXCLUSIVE != 0 || matches!(kind, FileKind::Epoll(_))) =>
            {
                return Err(Errno::EINVAL);
            }
            Ctl::Mod(..) if old.is_some_and(exclusive) => return Err(Errno::EINVAL),
            _ => {}
        }
        let (events, data) = match op {
            Ctl::Add(..) if there => return Err(Errno::EEXIST),
            Ctl::Del | Ctl::Mod(..) if !there => return Err(Errno::ENOENT),
            Ctl::Del => {
                self.epoll_drop(set, key);
                return Ok(());
            }
            Ctl::Add(events, data) => {
                if let FileKind::Epoll(inner) = kind {
                    let below = self.depth(inner, set, true, 0, &mut BTreeMap::new())?;
                    let above = self.depth(set, inner, false, 0, &mut BTreeMap::new())?;
                    if below + above >= MAX_DEPTH {
                        return Err(Errno::ELOOP);
                    }
                }
                (events, data)
            }
            Ctl::Mod(events, data) => (events, data),
        };
        self.epoll_drop(set, key);
        let objects = self.file_objects(file, events);
        for object in &objects {
            self.polls.by_object.entry(*object).or_default().insert((set, fd, file));
        }
        self.polls.by_file.entry(file).or_default().insert((set, fd));
        let Some(s) = self.polls.sets.get_mut(set) else { return Err(Errno::EINVAL) };
        // Errors and hang-ups are always reported.
        s.watches.insert(key, Watch { events: events | 0x18, data, objects, armed: true });
        let object = s.object;
        self.wake(crate::wait::WaitKey::Object(object));
        Ok(())
    }

    /// Levels of sets inside (`down`) or around `set`. ELOOP on meeting `forbidden` or beyond the allowed depth, which also bounds the walk.
    fn depth(
        &self,
        set: u64,
        forbidden: u64,
        down: bool,
        level: u32,
        known: &mut BTreeMap<u64, u32>,
    ) -> Result<u32, Errno> {
        // Each set is walked once, however many ways lead to it.
        if let Some(depth) = known.get(&set) {
            return Ok(*depth);
        }
        if set == forbidden || level > MAX_DEPTH {
            return Err(Errno::ELOOP);
        }
        let Some(s) = self.polls.sets.get(set) else { return Ok(0) };
        let mut next: Vec<u64> = if down {
            s.watches.keys().filter_map(|(_, file)| self.epoll_of(*file).ok()).collect()
        } else {
            self.polls.by_object.get(&s.object).into_iter().flatten().map(|(set, _, _)| *set).collect()
        };
        next.sort_unstable();
        next.dedup();
        let mut most = 0;
        for id in next {
            most = most.max(1 + self.depth(id, forbidden, down, level + 1, known)?);
        }
        known.insert(set, most);
        Ok(most)
    }

    fn epoll_drop(&mut self, set: u64, key: (i32, u64)) {
        let Some(w) = self.polls.sets.get_mut(set).and_then(|s| s.watches.remove(&key)) else { return };
        if let Some(list) = self.polls.by_file.get_mut(&key.1) {
            list.remove(&(set, key.0));
            if list.is_empty() {
                self.polls.by_file.remove(&key.1);
            }
        }
        for object in w.objects {
            if let Some(list) = self.polls.by_object.get_mut(&object) {
                list.remove(&(set, key.0, key.1));
                if list.is_empty() {
                    self.polls.by_object.remove(&object);
                }
            }
        }
    }

    /// A file is gone: no set holds it any more.
    pub fn epoll_forget_file(&mut self, file: u64) {
        for (set, fd) in self.polls.by_file.get(&file).cloned().unwrap_or_default() {
            self.epoll_drop(set, (fd, file));
        }
    }

    /// The last reference to a set's file is gone.
    pub fn epoll_destroy(&mut self, set: u64) {
        let keys: Vec<_> =
            self.polls.sets.get(set).map(|s| s.watches.keys().copied().collect()).unwrap_or_default();
        for key in keys {
            self.epoll_drop(set, key);
        }
        self.polls.sets.remove(set);
    }

    fn watch_events(&self, w: &Watch, file: u64, cache: &mut BTreeMap<u64, bool>) -> u32 {
        if w.events & !PRIVATE == 0 || (w.events & EPOLLET != 0 && !w.armed) {
            return 0;
        }
        self.poll_cached(file, cache) & w.events & !PRIVATE
    }

    /// Whether epoll_wait would report something.
    pub(crate) fn epoll_ready(&self, set: u64, cache: &mut BTreeMap<u64, bool>) -> bool {
        if let Some(known) = cache.get(&set) {
            return *known;
        }
        let Some(s) = self.polls.sets.get(set) else { return false };
        let ready = s.watches.iter().any(|((_, file), w)| self.watch_events(w, *file, cache) != 0);
        cache.insert(set, ready);
        ready
    }

    /// Ready entries, at most `max`, beginning after the last one reported. [`Kernel::epoll_reported`] must follow for those that
    /// the caller got.
    pub fn epoll_found(&self, set: u64, max: usize) -> Vec<Found> {
        let mut cache = BTreeMap::new();
        let mut found = Vec::new();
        let Some(s) = self.polls.sets.get(set) else { return found };
        let after = s.watches.iter().filter(|(k, _)| **k > s.last);
        for (key, w) in after.chain(s.watches.iter().filter(|(k, _)| **k <= s.last)) {
            if found.len() >= max {
                break;
            }
            let events = self.watch_events(w, key.1, &mut cache);
            if events != 0 {
                found.push(Found { key: *key, events, data: w.data });
            }
        }
        found
    }

    /// Entries were reported: edges are used up, one-shot entries are off.
    pub fn epoll_reported(&mut self, set: u64, reported: &[Found]) {
        let Some(s) = self.polls.sets.get_mut(set) else { return };
        for found in reported {
            s.last = found.key;
            if let Some(w) = s.watches.get_mut(&found.key) {
                w.armed = false;
                if w.events & EPOLLONESHOT != 0 {
                    w.events &= PRIVATE;
                }
            }
        }
    }

    /// Both at once: (events, data) of what is reported.
    pub fn epoll_collect(&mut self, set: u64, max: usize) -> Vec<(u32, u64)> {
        let found = self.epoll_found(set, max);
        self.epoll_reported(set, &found);
        found.into_iter().map(|f| (f.events, f.data)).collect()
    }
}

/// A ready entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    key: (i32, u64),
    /// EPOLL events.
    pub events: u32,
    /// What epoll_ctl(2) was given with it.
    pub data: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Kernel, Limits};
    use crate::platform::fake::FakePlatform;
    use crate::vfs::OpenFile;
    use std::sync::Arc;

    fn kernel() -> Kernel {
        Kernel::new(Arc::new(FakePlatform::new(64 << 20)), Limits::default()).unwrap()
    }

    fn push(k: &mut Kernel, file: u64, data: &[u8]) {
        let f: OpenFile = k.open_file(file).unwrap();
        k.file_push(&f, 0, data).unwrap();
    }

    #[test]
    fn level_edge_and_oneshot_entries_report_as_on_linux() {
        let mut k = kernel();
        let (r, w) = k.pipe_create(0);
        let ep = k.epoll_create_file();
        let set = k.epoll_of(ep).unwrap();
        assert_eq!(k.epoll_change(set, 3, r, Ctl::Add(1, 7)), Ok(()));
        assert_eq!(k.epoll_change(set, 3, r, Ctl::Add(1, 7)), Err(Errno::EEXIST));
        assert!(k.epoll_collect(set, 8).is_empty());
        push(&mut k, w, b"a");
        assert_eq!(k.epoll_collect(set, 8), [(1, 7)]);
        assert_eq!(k.epoll_collect(set, 8), [(1, 7)]);
        k.epoll_change(set, 3, r, Ctl::Mod(1 | EPOLLET, 8)).unwrap();
        assert_eq!(k.epoll_collect(set, 8), [(1, 8)]);
        assert!(k.epoll_collect(set, 8).is_empty());
        push(&mut k, w, b"b");
        assert_eq!(k.epoll_collect(set, 8), [(1, 8)]);
        k.epoll_change(set, 3, r, Ctl::Mod(1 | EPOLLONESHOT, 9)).unwrap();
        assert_eq!(k.epoll_collect(set, 8), [(1, 9)]);
        push(&mut k, w, b"c");
        assert!(k.epoll_collect(set, 8).is_empty());
        k.epoll_change(set, 3, r, Ctl::Del).unwrap();
        assert_eq!(k.epoll_change(set, 3, r, Ctl::Del), Err(Errno::ENOENT));
    }

    #[test]
    fn a_cycle_of_sets_and_a_chain_too_deep_are_refused() {
        let mut k = kernel();
        let files: Vec<u64> = (0..8).map(|_| k.epoll_create_file()).collect();
        let sets: Vec<u64> = files.iter().map(|f| k.epoll_of(*f).unwrap()).collect();
        let mut refused = 0;
        for i in 1..8 {
            refused +=
                usize::from(k.epoll_change(sets[i], 1, files[i - 1], Ctl::Add(1, 0)) == Err(Errno::ELOOP));
        }
        assert!(refused > 0);
        assert_eq!(k.epoll_change(sets[0], 1, files[1], Ctl::Add(1, 0)), Err(Errno::ELOOP));
        assert_eq!(k.epoll_change(sets[0], 1, files[0], Ctl::Add(1, 0)), Err(Errno::EINVAL));
    }

    #[test]
    fn closing_in_any_order_leaves_no_object() {
        for order in 0..24usize {
            let mut k = kernel();
            let (r, w) = k.pipe_create(0);
            let (e, ep) = (k.eventfd_create(0, false, 0), k.epoll_create_file());
            let set = k.epoll_of(ep).unwrap();
            for (fd, file) in [(0, r), (1, w), (2, e)] {
                k.epoll_change(set, fd, file, Ctl::Add(5, 0)).unwrap();
            }
            let mut left = vec![r, w, e, ep];
            let mut n = order;
            while !left.is_empty() {
                let at = n % left.len();
                n /= left.len();
                k.file_unref(left.remove(at));
            }
            assert!(k.files.is_empty() && k.objects.pipes.is_empty() && k.objects.eventfds.is_empty());
            assert!(k.polls.sets.is_empty() && k.polls.by_object.is_empty() && k.polls.by_file.is_empty());
        }
    }
}
