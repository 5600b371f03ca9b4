//! Who is at the other end of a Unix socket, beyond what the safe wrappers of system calls tell.

use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd};

/// Most groups that a process may have (`NGROUPS_MAX`, limits.h of the kernel).
const MOST_GROUPS: usize = 65_536;

/// The supplementary groups that the peer of a connected Unix stream socket had when it connected (`SO_PEERGROUPS`, unix(7)).
///
/// Errors: what getsockopt(2) says, such as `ENOTSOCK`; `ENODATA` where the socket has no peer.
pub fn supplementary_groups(socket: impl AsFd) -> Result<Vec<u32>> {
    let fd = socket.as_fd().as_raw_fd();
    let mut groups = vec![0_u32; 64];
    loop {
        let mut length =
            libc::socklen_t::try_from(groups.len() * size_of::<u32>()).unwrap_or(libc::socklen_t::MAX);
        // SAFETY: the buffer has `length` bytes and is writable for the time of the call, and any bytes are valid u32s.
        let result = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = Error::last_os_error();
        // The kernel has told how many there are.
        let grows =
            error.raw_os_error() == Some(libc::ERANGE) && count > groups.len() && count <= MOST_GROUPS;
        if !grows {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_groups_of_a_peer_in_this_process_are_its_own() {
        let (one, _other) = UnixStream::pair().unwrap();
        let mut found = supplementary_groups(&one).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("Groups:")).unwrap();
        let mut own: Vec<u32> = line.split_whitespace().map(|g| g.parse().unwrap()).collect();
        found.sort_unstable();
        own.sort_unstable();
        assert_eq!(found, own);
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(supplementary_groups(&file).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    }
}
