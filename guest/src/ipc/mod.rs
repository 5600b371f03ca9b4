//! System V inter-process communication (sysvipc(7)): identifiers, permissions, and the three kinds of objects in `shm`, `sem`, `msg`.
//! POSIX message queues, which share nothing with them but the purpose, are in `mqueue`.
//!
//! The sandbox is one name space. Handlers in `syscall::ipc` parse arguments and structures; rules live here.

use crate::errno::Errno;
use crate::task::Creds;
use crate::task::creds::cap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub mod mqueue;
pub mod msg;
pub mod sem;
pub mod shm;

/// IPC_PRIVATE: a key that no two objects share.
pub const IPC_PRIVATE: i32 = 0;
/// IPC_CREAT.
pub const IPC_CREAT: u32 = 0o1000;
/// IPC_EXCL.
pub const IPC_EXCL: u32 = 0o2000;
/// IPC_NOWAIT.
pub const IPC_NOWAIT: u32 = 0o4000;
/// Identifiers are an index below this and a sequence number above it.
const INDEXES: u32 = 32_768;
/// Indexes are used in turn, and this many at least, so that a stale identifier is noticed.
const CYCLE: u32 = 64;

/// Owner and mode of an object (`struct ipc_perm`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // sysvipc(7)
pub struct Perm {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    pub seq: u16,
}

impl Perm {
    fn new(key: i32, flags: u32, who: &Creds) -> Self {
        let (uid, gid) = (who.euid, who.egid);
        Perm { key, uid, gid, cuid: uid, cgid: gid, mode: flags & 0o777, seq: 0 }
    }

    /// EACCES unless `who` has every right that is set in one of the three digits of `flags`.
    pub fn check(&self, who: &Creds, flags: u32) -> Result<(), Errno> {
        let wanted = flags >> 6 | flags >> 3 | flags;
        let granted = if who.euid == self.uid || who.euid == self.cuid {
            self.mode >> 6
        } else if [self.gid, self.cgid].iter().any(|g| *g == who.egid || who.groups.contains(g)) {
            self.mode >> 3
        } else {
            self.mode
        };
        if wanted & !granted & 7 != 0 && !who.can(cap::IPC_OWNER) { Err(Errno::EACCES) } else { Ok(()) }
    }

    /// EPERM unless `who` owns or made the object.
    pub fn check_owner(&self, who: &Creds) -> Result<(), Errno> {
        let own = who.can(cap::SYS_ADMIN) || who.euid == self.uid || who.euid == self.cuid;
        if own { Ok(()) } else { Err(Errno::EPERM) }
    }
}

/// What every kind of object has.
pub trait Object {
    /// Its owner and mode.
    fn perm(&self) -> &Perm;
    /// Its owner and mode.
    fn perm_mut(&mut self) -> &mut Perm;
}

/// Objects of one kind by index.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table<T> {
    objects: BTreeMap<u32, T>,
    keys: BTreeMap<i32, u32>,
    next: u32,
    seq: u16,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { objects: BTreeMap::new(), keys: BTreeMap::new(), next: 0, seq: 0 }
    }
}

/// The identifier of an index and a sequence number.
fn id_of(index: u32, seq: u16) -> u32 {
    u32::from(seq) * INDEXES + index
}

impl<T: Object> Table<T> {
    /// Finds the object that a get call means, or says that one is to be made (`None`). ENOENT, EEXIST.
    pub fn lookup(&self, key: i32, flags: u32) -> Result<Option<u32>, Errno> {
        let Some(index) = self.keys.get(&key).filter(|_| key != IPC_PRIVATE) else {
            let make = key == IPC_PRIVATE || flags & IPC_CREAT != 0;
            return if make { Ok(None) } else { Err(Errno::ENOENT) };
        };
        if flags & IPC_CREAT != 0 && flags & IPC_EXCL != 0 {
            return Err(Errno::EEXIST);
        }
        Ok(Some(*index))
    }

    /// Adds an object; returns its identifier. ENOSPC from `most` on.
    pub fn insert(&mut self, mut object: T, most: usize) -> Result<u32, Errno> {
        if self.objects.len() >= most {
            return Err(Errno::ENOSPC);
        }
        let count = u32::try_from(self.objects.len()).unwrap_or(INDEXES);
        let round = (count + count / 2).clamp(CYCLE, INDEXES);
        let free = (self.next..round).chain(0..round).find(|i| !self.objects.contains_key(i));
        let index = free.ok_or(Errno::ENOSPC)?;
        if index < self.next {
            self.seq = (self.seq + 1) & 0x7fff;
        }
        self.next = index + 1;
        object.perm_mut().seq = self.seq;
        let key = object.perm().key;
        if key != IPC_PRIVATE {
            self.keys.insert(key, index);
        }
        self.objects.insert(index, object);
        Ok(id_of(index, self.seq))
    }

    /// The identifier of the object at an index.
    pub fn id_at(&self, index: u32) -> Option<u32> {
        self.objects.get(&index).map(|o| id_of(index, o.perm().seq))
    }

    /// The object with an identifier. EINVAL when there is none (any more).
    pub fn get(&self, id: i32) -> Result<&T, Errno> {
        let id = u32::try_from(id).map_err(|_| Errno::EINVAL)?;
        let index = id % INDEXES;
        self.objects.get(&index).filter(|o| id_of(index, o.perm().seq) == id).ok_or(Errno::EINVAL)
    }

    /// The object with an identifier. EINVAL.
    pub fn get_mut(&mut self, id: i32) -> Result<&mut T, Errno> {
        self.get(id)?;
        let index = u32::try_from(id).map_err(|_| Errno::EINVAL)? % INDEXES;
        self.objects.get_mut(&index).ok_or(Errno::EINVAL)
    }

    /// No key leads to the object any more.
    pub fn forget_key(&mut self, id: i32) {
        if let Ok(object) = self.get_mut(id) {
            let key = std::mem::take(&mut object.perm_mut().key);
            self.keys.remove(&key);
        }
    }

    /// Takes the object out. EINVAL.
    pub fn remove(&mut self, id: i32) -> Result<T, Errno> {
        self.forget_key(id);
        self.get(id)?;
        let index = u32::try_from(id).map_err(|_| Errno::EINVAL)? % INDEXES;
        self.objects.remove(&index).ok_or(Errno::EINVAL)
    }

    /// All objects with their identifiers.
    pub fn iter(&self) -> impl Iterator<Item = (i32, &T)> {
        self.objects.iter().map(|(i, o)| (id_of(*i, o.perm().seq).cast_signed(), o))
    }

    /// All objects.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.objects.values_mut()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The largest index in use; 0 when there is none.
    pub fn last_index(&self) -> u32 {
        self.objects.last_key_value().map_or(0, |(i, _)| *i)
    }
}

/// All System V objects and message queues of the sandbox.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ipc {
    /// Shared memory.
    pub shm: Table<shm::Segment>,
    /// Semaphore sets.
    pub sem: Table<sem::Set>,
    /// Message queues.
    pub msg: Table<msg::Queue>,
    /// What to undo at the death of a process.
    pub undo: sem::Undo,
    /// How many adjustments that is.
    pub undo_entries: usize,
    /// POSIX message queues.
    pub mqueues: mqueue::Mqueues,
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Object for Perm {
        fn perm(&self) -> &Perm {
            self
        }
        fn perm_mut(&mut self) -> &mut Perm {
            self
        }
    }

    #[test]
    fn a_stale_identifier_is_not_taken_for_a_new_object() {
        let mut t = Table::<Perm>::default();
        let first = t.insert(Perm::default(), 9).unwrap().cast_signed();
        t.remove(first).unwrap();
        for _ in 0..200 {
            let id = t.insert(Perm::default(), 9).unwrap().cast_signed();
            assert_ne!(id, first);
            assert_eq!(t.get(first), Err(Errno::EINVAL));
            t.remove(id).unwrap();
        }
        assert_eq!(t.get(-1), Err(Errno::EINVAL));
    }

    #[test]
    fn keys_lead_to_objects_as_the_flags_say() {
        let mut t = Table::default();
        assert_eq!(t.lookup(7, 0), Err(Errno::ENOENT));
        assert_eq!(t.lookup(7, IPC_CREAT), Ok(None));
        let id = t.insert(Perm { key: 7, ..Perm::default() }, 1).unwrap().cast_signed();
        assert_eq!(t.lookup(7, IPC_CREAT | IPC_EXCL), Err(Errno::EEXIST));
        assert!(t.lookup(7, 0).unwrap().is_some());
        assert_eq!(t.insert(Perm::default(), 1), Err(Errno::ENOSPC));
        t.forget_key(id);
        assert_eq!(t.lookup(7, 0), Err(Errno::ENOENT));
        assert!(t.get(id).is_ok());
    }

    #[test]
    fn the_three_digits_of_a_mode_are_for_owner_group_and_others() {
        let p = Perm { uid: 5, cuid: 5, gid: 6, cgid: 6, mode: 0o640, ..Perm::default() };
        let who = |euid, egid| if euid == 0 { Creds::default() } else { Creds::user(euid, egid) };
        assert_eq!(p.check(&who(5, 0), 0o600), Ok(()));
        assert_eq!(p.check(&who(7, 6), 0o400), Ok(()));
        assert_eq!(p.check(&who(7, 6), 0o200), Err(Errno::EACCES));
        assert_eq!(p.check(&who(7, 7), 0o400), Err(Errno::EACCES));
        assert_eq!(p.check(&who(0, 7), 0o600), Ok(()));
        assert_eq!(p.check_owner(&who(7, 6)), Err(Errno::EPERM));
    }
}
