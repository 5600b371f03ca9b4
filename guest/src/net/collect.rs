//! Descriptors that are under way between sockets that nobody can reach any more.
//!
//! A file in a message holds a reference, and a message lies in the queue of a socket: sockets that are only referred to by messages
//! in each other's queues would live for ever. A socket is reachable when somebody else refers to its file, or when it is in a queue
//! of a socket that is. Looked at are only files in flight, so that a search is bounded by [`MAX_IN_FLIGHT`](super::MAX_IN_FLIGHT);
//! how often it is made grows with what it looks at.

use super::Net;
use crate::kernel::Kernel;
use crate::store::Store;
use crate::vfs::{FileKind, OpenFile};
use std::collections::{BTreeMap, BTreeSet};

/// In flight before the first search.
const FEW: usize = 256;
/// A search is worth one closed file for so many in flight.
const SHARE: usize = 32;

impl Net {
    /// The sockets with files in their queues that nobody can reach.
    fn unreachable(&self, files: &Store<OpenFile>) -> Vec<u64> {
        // Sockets that are in flight themselves, and whether somebody else has them too.
        let mut aboard: BTreeMap<u64, bool> = BTreeMap::new();
        // Which of those are in whose queue.
        let mut holds: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut holders: BTreeSet<u64> = BTreeSet::new();
        for (file, by) in &self.flying {
            holders.extend(by.keys());
            let Some(OpenFile { kind: FileKind::Socket(id), refs, .. }) = files.get(*file) else { continue };
            let count: usize = by.values().sum();
            aboard.insert(*id, usize::try_from(*refs).is_ok_and(|refs| refs > count));
            for holder in by.keys() {
                holds.entry(*holder).or_default().push(*id);
            }
        }
        // A connection that was not accepted yet is its listener's.
        let master = |id: u64| self.sockets.get(id).and_then(|s| s.listener).unwrap_or(id);
        let mut wards: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for holder in &holders {
            if master(*holder) != *holder {
                wards.entry(master(*holder)).or_default().push(*holder);
            }
        }
        let reached = |id: &u64| aboard.get(&master(*id)).copied().unwrap_or(true);
        let mut todo: Vec<u64> = holders.iter().copied().filter(reached).collect();
        todo.extend(aboard.iter().filter(|(_, other)| **other).map(|(id, _)| *id));
        let mut seen: BTreeSet<u64> = todo.iter().copied().collect();
        while let Some(id) = todo.pop() {
            for next in [holds.get(&id), wards.get(&id)].into_iter().flatten().flatten() {
                if seen.insert(*next) {
                    todo.push(*next);
                }
            }
        }
        holders.into_iter().filter(|id| !seen.contains(id)).collect()
    }

    /// Takes the files out of queues that nobody can reach, if it is time to look for them; they are to be released.
    pub(super) fn doom_unreachable(&mut self, files: &Store<OpenFile>) {
        if self.closed_in_flight.saturating_mul(SHARE) < self.in_flight || self.closed_in_flight == 0 {
            return;
        }
        self.closed_in_flight = 0;
        for id in self.unreachable(files) {
            let mut gone = Vec::new();
            if let Some(s) = self.sockets.get_mut(id) {
                for m in &mut s.queue {
                    gone.append(&mut m.files);
                }
            }
            self.landed(id, &gone);
            self.doomed.extend(gone);
        }
        self.collect_at = self.in_flight.saturating_mul(2).max(FEW);
    }

    /// Whether only messages refer to this file by now.
    pub(crate) fn is_adrift(&self, file: u64, refs: u32) -> bool {
        let Some(by) = self.flying.get(&file) else { return false };
        let count: usize = by.values().sum();
        usize::try_from(refs).is_ok_and(|refs| refs <= count)
    }
}

impl Kernel {
    /// A socket's file has lost a reference, and only messages refer to it now.
    pub(crate) fn socket_adrift(&mut self) {
        let net = &mut self.objects.net;
        net.closed_in_flight = net.closed_in_flight.saturating_add(1);
        if !net.draining {
            net.doom_unreachable(&self.files);
            self.socket_release_doomed();
        }
    }

    /// So many files are about to be sent: looks for those that nobody can receive, where there are many in flight.
    pub(super) fn socket_make_way(&mut self, more: usize) {
        let net = &mut self.objects.net;
        if more == 0 || net.in_flight.saturating_add(more) <= net.collect_at.max(FEW) || net.draining {
            return;
        }
        net.closed_in_flight = net.in_flight;
        net.doom_unreachable(&self.files);
        self.socket_release_doomed();
    }
}

#[cfg(test)]
mod tests {
    use crate::kernel::{Kernel, Limits};
    use crate::net::addr::{Address, Family};
    use crate::net::{Message, Style};
    use crate::platform::fake::FakePlatform;

    fn kernel() -> Kernel {
        Kernel::new(std::sync::Arc::new(FakePlatform::new(64 << 20)), Limits::default()).unwrap()
    }

    /// Two joined sockets and their files.
    fn pair(k: &mut Kernel) -> [(u64, u64); 2] {
        let (a, b) = k.socket_pair(0, Style::Stream).unwrap();
        [a, b].map(|id| (id, k.socket_file(id, 0)))
    }

    /// Puts files into a socket's queue.
    fn send(k: &mut Kernel, to: u64, files: &[u64]) {
        k.socket_make_way(files.len());
        for file in files {
            k.file_ref(*file);
        }
        let (from, cred) = (Address::Unnamed, crate::net::Cred::NOBODY);
        let files = files.to_vec();
        let message =
            Message { data: vec![0], start: 0, from, sender: None, cred, files, stamp: 0, packet: None };
        k.objects.net.enqueue(to, message, false);
    }

    #[test]
    fn sockets_that_are_in_each_others_queues_only_are_freed() {
        let mut k = kernel();
        let (r, w) = k.pipe_create(0);
        let [(a, fa), (b, fb)] = pair(&mut k);
        send(&mut k, a, &[fa, fb, r]);
        send(&mut k, b, &[fb]);
        k.file_unref(r);
        k.file_unref(fa);
        // Nobody can receive from the first any more; the second is still there.
        assert_eq!(k.objects.net.sockets.len(), 1);
        k.file_unref(fb);
        assert!(k.objects.net.sockets.is_empty() && k.objects.net.is_consistent());
        assert_eq!(k.objects.net.in_flight, 0);
        k.file_unref(w);
        assert!(k.files.is_empty());
    }

    #[test]
    fn what_somebody_reaches_through_others_stays() {
        let mut k = kernel();
        let [(_, f0), (b0, g0)] = pair(&mut k);
        let mut pairs = vec![];
        let mut to = b0;
        for _ in 0..100 {
            let p = pair(&mut k);
            send(&mut k, to, &[p[0].1, p[1].1]);
            to = p[0].0;
            pairs.push(p);
        }
        // The last holds the first: a ring with a way in.
        send(&mut k, to, &[g0]);
        for [(_, f), (_, g)] in pairs {
            k.file_unref(f);
            k.file_unref(g);
        }
        k.file_unref(f0);
        assert_eq!(k.objects.net.sockets.len(), 201);
        assert!(k.objects.net.is_consistent());
        for _ in 0..20 {
            k.file_ref(g0);
            k.file_unref(g0);
        }
        assert_eq!(k.objects.net.sockets.len(), 201);
        for _ in 0..20 {
            k.file_unref(g0);
            k.file_ref(g0);
        }
        assert!(k.objects.net.sockets.is_empty() && k.files.is_empty());
    }

    #[test]
    fn leaks_never_use_up_what_may_be_in_flight() {
        let mut k = kernel();
        for _ in 0..3 * super::super::MAX_IN_FLIGHT {
            let [(a, fa), (b, fb)] = pair(&mut k);
            send(&mut k, a, &[fb]);
            send(&mut k, b, &[fa]);
            k.file_unref(fa);
            k.file_unref(fb);
        }
        assert!(k.objects.net.in_flight < 64 && k.objects.net.is_consistent());
    }

    #[test]
    fn connections_that_wait_for_accept_belong_to_their_listener() {
        let mut k = kernel();
        let listener = k.socket_create(0, Family::Unix, Style::Stream).unwrap();
        let [(a, fa), (b, fb)] = pair(&mut k);
        let fl = k.socket_file(listener, 0);
        k.objects.net.get_mut(listener).unwrap().state = crate::net::State::Listening(5);
        k.objects.net.get_mut(listener).unwrap().ready.push_back(b);
        k.objects.net.get_mut(b).unwrap().listener = Some(listener);
        k.files.remove(fb);
        send(&mut k, b, &[fl]);
        assert_eq!(a, k.socket_of(fa).unwrap());
        k.file_unref(fl);
        // The listener is in the queue of its own connection.
        assert_eq!(k.objects.net.sockets.len(), 1);
        k.file_unref(fa);
        assert!(k.objects.net.sockets.is_empty() && k.objects.net.is_consistent());
    }
}
