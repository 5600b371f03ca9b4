//! Error numbers that system calls return.

use linux_raw_sys::errno as e;

/// A Linux error number, 1..=4095, plus the kernel-internal restart codes that never reach user mode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Errno(pub u16);

macro_rules! errnos {
    ($($name:ident)*) => {
        #[allow(missing_docs)] // errno(3) documents each
        impl Errno {
            $(pub const $name: Errno = Errno(const_u16(e::$name));)*
        }
        const NAMES: &[(u16, &str)] = &[$((const_u16(e::$name), stringify!($name))),*];
    };
}

const fn const_u16(x: u32) -> u16 {
    let [a, b, _, _] = x.to_le_bytes();
    u16::from_le_bytes([a, b])
}

errnos! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST
    EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM
    ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ENODATA ETIME EPROTO EBADMSG EOVERFLOW
    EILSEQ EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP
    EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS
    EISCONN ENOTCONN ESHUTDOWN ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EDQUOT
    ECANCELED EOWNERDEAD ENOTRECOVERABLE ELIBBAD ETOOMANYREFS EBADR
}

impl Errno {
    /// Its name, such as `ENOENT`.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(n, _)| *n == self.0).map_or("E?", |(_, s)| s)
    }

    /// The register value of a call that failed with it.
    pub fn to_rax(self) -> u64 {
        (-i64::from(self.0)).cast_unsigned()
    }
}

impl std::fmt::Debug for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Errno {}

impl From<rustix::io::Errno> for Errno {
    fn from(e: rustix::io::Errno) -> Self {
        Errno(u16::try_from(e.raw_os_error()).unwrap_or(Errno::EIO.0))
    }
}

impl From<crate::platform::PlatformError> for Errno {
    fn from(e: crate::platform::PlatformError) -> Self {
        match e {
            crate::platform::PlatformError::Exhausted => Errno::ENOMEM,
            crate::platform::PlatformError::OutOfArena { .. } => Errno::EFAULT,
            crate::platform::PlatformError::Host { .. } => Errno::ENOMEM,
        }
    }
}
