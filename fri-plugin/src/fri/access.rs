//! Who may use the interface: root, the daemon's own user, and the members of one group.

use nix::unistd::Group;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Gid, Uid, geteuid};
use std::os::fd::AsFd;

/// Why a group cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// There is none of that name.
    #[error(
        "there is no group {0}: make it (groupadd --system {0}), or name another one in the configuration"
    )]
    Unknown(String),
    /// The groups of this host cannot be read.
    #[error("cannot look up the group {name}")]
    Lookup {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: nix::Error,
    },
}

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permission bits of the socket.
    pub mode: u32,
    /// Its group, whose members may connect; `None` for none but root and the daemon's own user.
    pub group: Option<u32>,
}

impl Access {
    /// Access for a group: a name, a number, or empty for none.
    pub fn for_group(group: &str, mode: u32) -> Result<Access, GroupError> {
        if group.is_empty() {
            return Ok(Access { mode, group: None });
        }
        if let Ok(number) = group.parse() {
            return Ok(Access { mode, group: Some(number) });
        }
        match Group::from_name(group) {
            Ok(Some(found)) => Ok(Access { mode, group: Some(found.gid.as_raw()) }),
            Ok(None) => Err(GroupError::Unknown(group.to_owned())),
            Err(source) => Err(GroupError::Lookup { name: group.to_owned(), source }),
        }
    }

    /// Whether a peer may go on. The error is for the log.
    pub fn check(&self, socket: impl AsFd) -> Result<Caller, Refused> {
        let credentials = socket_peercred(&socket).map_err(|e| Refused::Unknown(e.into()))?;
        let caller = Caller {
            pid: rustix::process::Pid::as_raw(Some(credentials.pid)),
            uid: credentials.uid.as_raw(),
            gid: credentials.gid.as_raw(),
        };
        if credentials.uid == Uid::ROOT || credentials.uid == geteuid() {
            return Ok(caller);
        }
        let Some(group) = self.group else { return Err(Refused::Stranger(caller)) };
        if credentials.gid == Gid::from_raw(group) {
            return Ok(caller);
        }
        let groups = vmm::peer::supplementary_groups(&socket).map_err(Refused::Unknown)?;
        if groups.contains(&group) { Ok(caller) } else { Err(Refused::Stranger(caller)) }
    }
}

/// A process that connected, as it was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its process id.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// Why a peer may not go on.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is none of those who may.
    #[error("user {} (group {}, process {}) is not in the group of the socket", .0.uid, .0.gid, .0.pid)]
    Stranger(Caller),
    /// The kernel does not say who it is.
    #[error("cannot tell who it is")]
    Unknown(#[source] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn groups_are_found_by_name_and_by_number() {
        assert_eq!(Access::for_group("", 0o600).unwrap().group, None);
        assert_eq!(Access::for_group("4321", 0o660).unwrap().group, Some(4321));
        assert_eq!(Access::for_group("root", 0o660).unwrap().group, Some(0));
        assert!(matches!(Access::for_group("no such group", 0o660), Err(GroupError::Unknown(_))));
    }

    #[test]
    fn the_daemons_own_user_may_connect() {
        let (one, _other) = UnixStream::pair().unwrap();
        let caller = Access { mode: 0o600, group: None }.check(&one).unwrap();
        assert_eq!(caller.uid, geteuid().as_raw());
        assert_eq!(caller.pid, i32::try_from(std::process::id()).unwrap());
    }
}
