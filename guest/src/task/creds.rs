//! Credentials: user and group ids, capabilities, and what changing the one does to the other (credentials(7), capabilities(7)).
//!
//! Pure data and rules; who asks and who is told is the business of `syscall::process::creds` and of `exec`.

use crate::errno::Errno;
use serde::{Deserialize, Serialize};

/// Capabilities by number (capabilities(7)).
#[allow(missing_docs)]
pub mod cap {
    pub const CHOWN: u32 = 0;
    pub const DAC_OVERRIDE: u32 = 1;
    pub const DAC_READ_SEARCH: u32 = 2;
    pub const FOWNER: u32 = 3;
    pub const FSETID: u32 = 4;
    pub const KILL: u32 = 5;
    pub const SETGID: u32 = 6;
    pub const SETUID: u32 = 7;
    pub const SETPCAP: u32 = 8;
    pub const NET_BIND_SERVICE: u32 = 10;
    pub const NET_ADMIN: u32 = 12;
    pub const IPC_LOCK: u32 = 14;
    pub const IPC_OWNER: u32 = 15;
    pub const SYS_CHROOT: u32 = 18;
    pub const SYS_PTRACE: u32 = 19;
    pub const SYS_ADMIN: u32 = 21;
    pub const SYS_NICE: u32 = 23;
    pub const SYS_RESOURCE: u32 = 24;
    pub const MKNOD: u32 = 27;
    pub const SETFCAP: u32 = 31;
    /// The last one that this release knows.
    pub const LAST: u32 = 40;
    /// Every one of them.
    pub const ALL: u64 = (1 << (LAST + 1)) - 1;
    /// Those that setfsuid(2) takes and gives: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, LINUX_IMMUTABLE, MKNOD, MAC_OVERRIDE.
    pub const FILES: u64 = 0x1f | 1 << 9 | 1 << 27 | 1 << 32;
}

/// Bits of PR_SET_SECUREBITS; each has its lock one bit higher.
#[allow(missing_docs)]
pub mod secure {
    pub const NOROOT: u32 = 1;
    pub const NO_SETUID_FIXUP: u32 = 4;
    pub const KEEP_CAPS: u32 = 16;
    pub const KEEP_CAPS_LOCKED: u32 = 32;
    pub const NO_CAP_AMBIENT_RAISE: u32 = 64;
    pub const LOCKS: u32 = 0xaa;
    pub const ALL: u32 = 0xff;
}

/// The five sets of capabilities, bit n for capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // capabilities(7)
pub struct Caps {
    pub permitted: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub ambient: u64,
}

/// User and group ids and capabilities. The guest's root owns the sandbox and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // credentials(7)
pub struct Creds {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    pub groups: Vec<u32>,
    pub caps: Caps,
    /// PR_SET_SECUREBITS.
    pub securebits: u32,
}

impl Default for Creds {
    /// The first process's: user 0 with all capabilities.
    fn default() -> Self {
        let caps =
            Caps { permitted: cap::ALL, effective: cap::ALL, inheritable: 0, bounding: cap::ALL, ambient: 0 };
        Creds {
            uid: 0,
            euid: 0,
            suid: 0,
            fsuid: 0,
            gid: 0,
            egid: 0,
            sgid: 0,
            fsgid: 0,
            groups: Vec::new(),
            caps,
            securebits: 0,
        }
    }
}

fn within(part: u64, whole: u64) -> bool {
    part & !whole == 0
}

/// What a program's file does to credentials at execve(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileRights {
    /// Owner of a set-user-ID program.
    pub setuid: Option<u32>,
    /// Group of a set-group-ID program.
    pub setgid: Option<u32>,
}

/// Who could make use of rights that a program gains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watchers {
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// Another process shares the working directory and root (CLONE_FS).
    pub shares_fs: bool,
    /// It is traced by one that lacks CAP_SYS_PTRACE.
    pub traced: bool,
}

impl Creds {
    /// An ordinary user's: no capabilities.
    #[cfg(test)]
    pub fn user(uid: u32, gid: u32) -> Self {
        Creds {
            uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            caps: Caps { bounding: cap::ALL, ..Caps::default() },
            ..Creds::default()
        }
    }

    /// Whether a capability is effective.
    pub fn can(&self, capability: u32) -> bool {
        self.caps.effective.checked_shr(capability).is_some_and(|m| m & 1 != 0)
    }

    /// Whether it belongs to a group, by its file-system group id or its supplementary groups.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }

    /// Whether it counts as a file's owner: it is, or has CAP_FOWNER.
    pub fn owns(&self, uid: u32) -> bool {
        self.fsuid == uid || self.can(cap::FOWNER)
    }

    /// The mode bits that a write, or a change of owner, takes away from a file: set-user-ID, and set-group-ID where the group may
    /// execute or the writer is no member.
    pub fn bits_lost(&self, mode: u32, gid: u32) -> u32 {
        let group = mode & 0o010 != 0 || !(self.in_group(gid) || self.can(cap::FSETID));
        mode & (0o4000 | if group { 0o2000 } else { 0 })
    }

    fn has(&self, bit: u32) -> bool {
        self.securebits & bit != 0
    }

    /// What a change of the real, effective and saved user ids does to capabilities; `old` is from before.
    pub fn after_setuid(&mut self, old: &Creds) {
        if self.has(secure::NO_SETUID_FIXUP) {
            return;
        }
        let roots = |c: &Creds| [c.uid, c.euid, c.suid].contains(&0);
        if roots(old) && !roots(self) {
            if !self.has(secure::KEEP_CAPS) {
                self.caps.permitted = 0;
                self.caps.effective = 0;
            }
            self.caps.ambient = 0;
        }
        match (old.euid == 0, self.euid == 0) {
            (true, false) => self.caps.effective = 0,
            (false, true) => self.caps.effective = self.caps.permitted,
            _ => {}
        }
    }

    /// What setfsuid(2) does to capabilities.
    pub fn after_setfsuid(&mut self, old: &Creds) {
        if self.has(secure::NO_SETUID_FIXUP) {
            return;
        }
        match (old.fsuid == 0, self.fsuid == 0) {
            (true, false) => self.caps.effective &= !cap::FILES,
            (false, true) => self.caps.effective |= self.caps.permitted & cap::FILES,
            _ => {}
        }
    }

    /// Whether a process that changed from `old` to these may not be looked into any more: its ids changed, or it gained capabilities.
    pub fn hides_from(&self, old: &Creds) -> bool {
        (old.euid, old.egid, old.fsuid, old.fsgid) != (self.euid, self.egid, self.fsuid, self.fsgid)
            || !within(self.caps.permitted, old.caps.permitted)
    }

    /// capset(2). EPERM.
    pub fn set_caps(&mut self, effective: u64, permitted: u64, inheritable: u64) -> Result<(), Errno> {
        let c = &self.caps;
        if (!self.can(cap::SETPCAP) && !within(inheritable, c.inheritable | c.permitted))
            || !within(inheritable, c.inheritable | c.bounding)
            || !within(permitted, c.permitted)
            || !within(effective, permitted)
        {
            return Err(Errno::EPERM);
        }
        let ambient = c.ambient & permitted & inheritable;
        self.caps = Caps { permitted, effective, inheritable, ambient, ..self.caps };
        Ok(())
    }

    /// PR_SET_SECUREBITS. EPERM.
    pub fn set_securebits(&mut self, new: u32) -> Result<(), Errno> {
        let locks = self.securebits & secure::LOCKS;
        if (locks >> 1) & (self.securebits ^ new) != 0
            || locks & !new != 0
            || new & !secure::ALL != 0
            || !self.can(cap::SETPCAP)
        {
            return Err(Errno::EPERM);
        }
        self.securebits = new;
        Ok(())
    }

    /// Credentials after execve(2) of a program, and whether it runs in secure mode (AT_SECURE).
    pub fn after_exec(&self, file: FileRights, by: Watchers) -> (Creds, bool) {
        let mut new = self.clone();
        new.euid = file.setuid.unwrap_or(self.euid);
        new.egid = file.setgid.unwrap_or(self.egid);
        // No file has capabilities of its own here.
        new.caps.permitted = 0;
        let root = !self.has(secure::NOROOT);
        if root && (new.euid == 0 || new.uid == 0) {
            new.caps.permitted = self.caps.bounding | self.caps.inheritable;
        }
        let effective = root && new.euid == 0;
        let changed = |new: &Creds| {
            new.euid != self.euid || !(new.egid == self.fsgid || self.groups.contains(&new.egid))
        };
        let gained = !within(new.caps.permitted, self.caps.permitted);
        if (changed(&new) || gained) && (by.no_new_privs || by.shares_fs || by.traced) {
            if !self.can(cap::SETUID) || by.no_new_privs {
                (new.euid, new.egid) = (self.uid, self.gid);
            }
            new.caps.permitted &= self.caps.permitted;
        }
        let changed = changed(&new);
        (new.suid, new.fsuid) = (new.euid, new.euid);
        (new.sgid, new.fsgid) = (new.egid, new.egid);
        if changed {
            new.caps.ambient = 0;
        }
        new.caps.permitted |= new.caps.ambient;
        new.caps.effective = if effective { new.caps.permitted } else { new.caps.ambient };
        new.securebits &= !secure::KEEP_CAPS;
        let secure = changed
            || new.euid != self.uid
            || new.egid != self.gid
            || (new.uid != 0 && (effective || !within(new.caps.permitted, new.caps.ambient)));
        (new, secure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_user_zero_for_good_takes_all_capabilities_unless_they_are_kept() {
        let old = Creds::default();
        let mut new = Creds { uid: 1, euid: 1, suid: 1, ..old.clone() };
        new.after_setuid(&old);
        assert_eq!((new.caps.permitted, new.caps.effective), (0, 0));
        let old = Creds { securebits: secure::KEEP_CAPS, ..Creds::default() };
        let mut new = Creds { uid: 1, euid: 1, suid: 1, ..old.clone() };
        new.after_setuid(&old);
        assert_eq!((new.caps.permitted, new.caps.effective), (cap::ALL, 0));
    }

    #[test]
    fn a_set_user_id_program_of_root_gets_everything_that_the_bounding_set_allows() {
        let mut me = Creds::user(1000, 1000);
        me.caps.bounding &= !(1 << cap::CHOWN);
        let file = FileRights { setuid: Some(0), setgid: None };
        let (new, secure) = me.after_exec(file, Watchers::default());
        assert!(secure && new.can(cap::KILL) && !new.can(cap::CHOWN));
        assert_eq!((new.uid, new.euid, new.suid, new.fsuid), (1000, 0, 0, 0));
    }

    #[test]
    fn a_traced_or_sharing_process_gains_nothing() {
        let me = Creds::user(1000, 1000);
        let file = FileRights { setuid: Some(0), setgid: Some(0) };
        for by in [
            Watchers { traced: true, ..Watchers::default() },
            Watchers { shares_fs: true, ..Watchers::default() },
            Watchers { no_new_privs: true, ..Watchers::default() },
        ] {
            let (new, _) = me.after_exec(file, by);
            assert_eq!((new.euid, new.egid, new.caps.permitted), (1000, 1000, 0), "{by:?}");
        }
    }

    #[test]
    fn ambient_capabilities_survive_an_ordinary_program_only() {
        let mut me = Creds::user(1000, 1000);
        let kill = 1 << cap::KILL;
        me.caps = Caps { permitted: kill, inheritable: kill, ambient: kill, ..me.caps };
        let (new, secure) = me.after_exec(FileRights::default(), Watchers::default());
        assert_eq!((new.caps.permitted, new.caps.effective, secure), (kill, kill, false));
        let other = FileRights { setuid: Some(7), setgid: None };
        let (new, _) = me.after_exec(other, Watchers::default());
        assert_eq!((new.caps.permitted, new.caps.ambient), (0, 0));
    }

    #[test]
    fn a_locked_securebit_stays() {
        let mut me = Creds::default();
        me.set_securebits(0x3).unwrap();
        assert_eq!(me.set_securebits(0), Err(Errno::EPERM));
        assert_eq!(me.set_securebits(0x100), Err(Errno::EPERM));
        me.set_securebits(0x13).unwrap();
    }
}
