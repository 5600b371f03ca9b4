//! Records of what programs asked of sockets and did not get although Linux has it (`coppice run --summary`).

use super::super::Context;
use crate::errno::Errno;
use crate::net::Style;
use crate::net::addr::Family;
use crate::num::low32;

/// [`super::kind`], with a record of what Linux may have and this kernel has not.
pub(super) fn kind(
    c: &mut Context<'_>,
    family: u64,
    style: u64,
    protocol: u64,
) -> Result<(Family, Style, u32), Errno> {
    super::kind(family, style, protocol).map_err(|e| {
        let asked = [family, style & 0xf, protocol].map(|v| u64::from(low32(v)));
        let has = |protocols: &[u64]| protocols.contains(&u64::from(low32(protocol)));
        let refused = match (e, style & 0xf) {
            (Errno::EAFNOSUPPORT, _) => crate::refused::family_name(u64::from(low32(family))).is_some(),
            // Raw sockets; ping sockets.
            (Errno::EPERM | Errno::EACCES, _) => true,
            // Netlink's other families.
            (Errno::EPROTONOSUPPORT, _) if low32(family) == 16 => true,
            // SCTP and MPTCP.
            (Errno::EPROTONOSUPPORT, 1) => has(&[132, 262]),
            (Errno::ESOCKTNOSUPPORT, 5) => has(&[0, 132]) && low32(family) != 1,
            _ => false,
        };
        if refused { c.refuse("family, type, protocol", &asked, e) } else { e }
    })
}

/// Records a socket option that Linux has and this kernel has not.
pub(super) fn option(c: &mut Context<'_>, level: u64, name: u64, errno: Errno) -> Errno {
    let asked = [level, name].map(|v| u64::from(low32(v)));
    let [asked_level, asked_name] = asked;
    let known = crate::refused::option_name(asked_level, asked_name).is_some();
    // Linux lets nobody set these either: SO_TYPE, SO_ERROR, SO_PEERCRED and more of their kind.
    let read_only =
        asked_level == 1 && matches!(asked_name, 3 | 4 | 17 | 28 | 30 | 38 | 39 | 55 | 56 | 57 | 59);
    let reads = c.k.task(c.tid).and_then(|t| t.syscall.as_ref()).is_some_and(|call| call.number == 55);
    if errno == Errno::ENOPROTOOPT && known && (reads || !read_only) {
        return c.refuse("level, option", &asked, errno);
    }
    errno
}
