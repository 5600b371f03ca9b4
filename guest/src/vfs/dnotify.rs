//! Directory notification by signals (fcntl(2), F_NOTIFY) and who gets the signals of a file (F_SETOWN, F_SETSIG). The events are those of
//! inotify: `Kernel::dnotify_event` hears of each event of a directory.

use super::InodeId;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::signal::SigInfo;
use crate::task::Tid;
use linux_raw_sys::general as g;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Requests that a sandbox may have: each event of a directory goes through all that are made of it.
const MAX_REQUESTS: usize = 1024;
/// DN_MULTISHOT.
const MULTISHOT: u32 = 0x8000_0000;
/// What DN_RENAME is among the events: IN_ has no bit for it.
pub(super) const RENAMED: u32 = 0x1000_0000;
/// SIGIO.
const SIGIO: u32 = 29;

/// Whom a file's signals go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// F_OWNER_TID, F_OWNER_PID or F_OWNER_PGRP.
    pub kind: u32,
    /// Its number; 0 for nobody.
    pub id: u32,
    /// F_SETSIG's signal; 0 for SIGIO without particulars.
    pub signal: u32,
    /// User that said so: real and effective.
    pub uid: (u32, u32),
}

/// F_OWNER_TID.
pub const OWNER_TID: u32 = 0;
/// F_OWNER_PID.
pub const OWNER_PID: u32 = 1;
/// F_OWNER_PGRP.
pub const OWNER_PGRP: u32 = 2;

/// One F_NOTIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    /// The open file.
    file: u64,
    /// The descriptor table that it was asked through.
    table: u64,
    /// The descriptor, as the signal names it.
    fd: u32,
    /// IN_ events, and [`RENAMED`].
    events: u32,
    /// Not for one event only.
    keep: bool,
}

/// All requests, and the owners of files that have one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Dnotify {
    by_inode: BTreeMap<InodeId, Vec<Request>>,
    /// Owners by open file.
    owners: BTreeMap<u64, Owner>,
    count: usize,
}

impl Dnotify {
    /// Whether nobody asked for anything.
    pub fn is_idle(&self) -> bool {
        self.by_inode.is_empty()
    }

    /// Whether somebody asked for events of an inode.
    pub fn has(&self, inode: InodeId) -> bool {
        self.by_inode.contains_key(&inode)
    }

    fn retain(&mut self, inode: InodeId, keep: impl FnMut(&Request) -> bool) {
        let Some(requests) = self.by_inode.get_mut(&inode) else { return };
        let before = requests.len();
        requests.retain(keep);
        self.count -= before - requests.len();
        if requests.is_empty() {
            self.by_inode.remove(&inode);
        }
    }
}

/// The events of DN_ bits.
fn events_of(mask: u32) -> u32 {
    let pairs = [
        (1, g::IN_ACCESS),
        (2, g::IN_MODIFY),
        (4, g::IN_CREATE | g::IN_MOVED_TO),
        (8, g::IN_DELETE | g::IN_MOVED_FROM),
        (16, RENAMED),
        (32, g::IN_ATTRIB),
    ];
    pairs.iter().filter(|(bit, _)| mask & bit != 0).fold(0, |all, (_, events)| all | events)
}

impl Kernel {
    /// Who gets a file's signals.
    pub fn owner_of(&self, file: u64) -> Owner {
        self.objects.watches.dnotify.owners.get(&file).copied().unwrap_or_default()
    }

    /// Says who gets a file's signals.
    pub fn set_owner(&mut self, file: u64, owner: Owner) {
        if owner == Owner::default() {
            self.objects.watches.dnotify.owners.remove(&file);
        } else {
            self.objects.watches.dnotify.owners.insert(file, owner);
        }
    }

    /// F_SETOWN_EX: a file's signals go to `id`, 0 for nobody. ESRCH.
    pub fn own_file(&mut self, tid: Tid, file: u64, kind: u32, id: u32) -> Result<(), Errno> {
        // Linux looks only whether there is something of that number: any thread, process or group.
        let known = self.tasks.contains_key(&id)
            || self.processes.contains_key(&id)
            || self.processes.values().any(|p| p.pgid == id || p.sid == id);
        if id != 0 && !known {
            return Err(Errno::ESRCH);
        }
        let creds = self.creds_of(tid);
        let signal = self.owner_of(file).signal;
        let owner = match id {
            0 => Owner { signal, ..Owner::default() },
            _ => Owner { kind, id, signal, uid: (creds.uid, creds.euid) },
        };
        self.set_owner(file, owner);
        Ok(())
    }

    /// F_GETOWN_EX: kind and number; 0 when it is gone.
    pub fn owner_shown(&self, file: u64) -> (u32, u32) {
        let owner = self.owner_of(file);
        let alive = match owner.kind {
            OWNER_TID => self.tasks.contains_key(&owner.id),
            OWNER_PID => self.processes.contains_key(&owner.id),
            _ => self.processes.values().any(|p| p.pgid == owner.id),
        };
        (owner.kind, if alive { owner.id } else { 0 })
    }

    /// F_NOTIFY for DN_ bits in `mask`; none takes earlier requests back. ENOTDIR, ENOMEM.
    pub fn dnotify_add(&mut self, tid: Tid, fd: u32, file: u64, mask: u32) -> Result<(), Errno> {
        let inode = self.open_file(file)?.kind.inode().ok_or(Errno::ENOTDIR);
        let table = self.task(tid).map(|t| t.files).ok_or(Errno::EBADF)?;
        if mask & !MULTISHOT == 0 {
            if let Ok(inode) = inode {
                self.objects.watches.dnotify.retain(inode, |r| r.file != file || r.table != table);
            }
            return Ok(());
        }
        let inode = inode?;
        if !self.vfs.inode(inode)?.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let pid = self.task(tid).map_or(0, |t| t.pid);
        if self.owner_of(file).id == 0 {
            self.own_file(tid, file, OWNER_PID, pid)?;
        }
        let (events, keep) = (events_of(mask), mask & MULTISHOT != 0);
        let dnotify = &mut self.objects.watches.dnotify;
        let requests = dnotify.by_inode.entry(inode).or_default();
        if let Some(known) = requests.iter_mut().find(|r| r.file == file && r.table == table) {
            (known.fd, known.events, known.keep) = (fd, known.events | events, known.keep || keep);
            return Ok(());
        }
        if dnotify.count >= MAX_REQUESTS {
            if requests.is_empty() {
                dnotify.by_inode.remove(&inode);
            }
            return Err(Errno::ENOMEM);
        }
        dnotify.count += 1;
        requests.push(Request { file, table, fd, events, keep });
        Ok(())
    }

    /// A descriptor of a file was closed in a table: what was asked through this table is taken back.
    pub(super) fn dnotify_close(&mut self, table: u64, file: u64) {
        if self.objects.watches.dnotify.is_idle() {
            return;
        }
        if let Some(inode) = self.files.get(file).and_then(|f| f.kind.inode()) {
            self.objects.watches.dnotify.retain(inode, |r| r.file != file || r.table != table);
        }
    }

    /// A file is closed for good.
    pub(super) fn dnotify_forget(&mut self, file: u64, inode: Option<InodeId>) {
        let dnotify = &mut self.objects.watches.dnotify;
        dnotify.owners.remove(&file);
        if let Some(inode) = inode {
            dnotify.retain(inode, |r| r.file != file);
        }
    }

    /// An event of a directory: of a name in it, or of itself.
    pub(super) fn dnotify_event(&mut self, inode: InodeId, mask: u32, named: bool) {
        if !named && mask & g::IN_ISDIR == 0 {
            return;
        }
        let Some(requests) = self.objects.watches.dnotify.by_inode.get(&inode) else { return };
        let met: Vec<Request> = requests.iter().filter(|r| r.events & mask != 0).copied().collect();
        if met.is_empty() {
            return;
        }
        self.objects.watches.dnotify.retain(inode, |r| r.keep || r.events & mask == 0);
        for r in met {
            // POLL_MSG, and the events that poll(2) has for it.
            self.signal_owner(r.file, r.fd, 3, 0x441);
        }
    }

    /// Signals a file's owner: `code` is POLL_IN and the like, `band` the events as poll(2) has them.
    fn signal_owner(&mut self, file: u64, fd: u32, code: i32, band: u64) {
        let owner = self.owner_of(file);
        let pids: Vec<u32> = match owner.kind {
            _ if owner.id == 0 => return,
            OWNER_TID => self.task(owner.id).map(|t| t.pid).into_iter().collect(),
            OWNER_PID => vec![owner.id],
            _ => self.processes.iter().filter(|(_, p)| p.pgid == owner.id).map(|(id, _)| *id).collect(),
        };
        let plain = SigInfo { signo: SIGIO, errno: 0, code: 0x80, fields: [0; 4] };
        // SI_SIGIO where the signal has codes of its own: ILL, TRAP, BUS, FPE, SEGV, CHLD, SYS.
        let code = if matches!(owner.signal, 4 | 5 | 7 | 8 | 11 | 17 | 31) { -5 } else { code };
        let info = SigInfo { signo: owner.signal, errno: 0, code, fields: [band, u64::from(fd), 0, 0] };
        for pid in pids {
            let Some(p) = self.processes.get(&pid) else { continue };
            let (uid, euid) = owner.uid;
            let may = euid == 0 || [p.creds.uid, p.creds.suid].iter().any(|u| [uid, euid].contains(u));
            if !may {
                continue;
            }
            let tid = (owner.kind == OWNER_TID).then_some(owner.id);
            let send = |k: &mut Kernel, info: SigInfo| match tid {
                Some(tid) => k.try_signal_task(tid, info),
                None => k.try_signal_process(pid, info),
            };
            if owner.signal == 0 || send(self, info).is_err() {
                let _ = send(self, plain);
            }
        }
    }
}
