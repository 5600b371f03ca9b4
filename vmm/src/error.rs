//! Errors of the machine. Each is one clear sentence for an operator; the cause is chained, not repeated.

use std::io;

/// Why the machine cannot be made or cannot go on. Faults of guest code are never among these: they are exits.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `/dev/kvm`.
    #[error(
        "/dev/kvm is not there: load kvm_intel or kvm_amd, and enable virtualization in the firmware (or nested virtualization, where \
         this host is a virtual machine)"
    )]
    NoKvm,
    /// `/dev/kvm` may not be opened.
    #[error("no permission to open /dev/kvm: add yourself to the group kvm and log in again")]
    KvmPermission,
    /// `/dev/kvm` speaks another API.
    #[error("/dev/kvm has API version {0}, and 12 is needed: run a current Linux kernel")]
    KvmVersion(i32),
    /// KVM lacks something.
    #[error("KVM on this host lacks {0}: run a newer Linux kernel")]
    MissingCapability(&'static str),
    /// The processor lacks something.
    #[error("the processor lacks {0}: run on a newer one, or let the hypervisor below show the feature")]
    UnsupportedProcessor(&'static str),
    /// A system call failed.
    #[error("the host refused to {what}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// The host's error.
        #[source]
        source: io::Error,
    },
    /// A vCPU stopped in a way that no guest program may cause.
    #[error("the virtual processor stopped: {0}")]
    VcpuStopped(String),
    /// The stub ran where it cannot work.
    #[error(
        "the trap stub ran at an unexpected privilege level or address, and this KVM cannot be used: {0}"
    )]
    Stub(String),
    /// The guest kernel could not be made.
    #[error("the guest kernel did not start")]
    Kernel(#[source] guest::errno::Errno),
    /// Arena or page-table pool.
    #[error("guest memory could not be prepared")]
    Memory(#[from] guest::platform::PlatformError),
    /// A fork was asked of a process with several threads.
    #[error("a sandbox can be forked only from a single-threaded process, and this one has {0} threads")]
    Threads(usize),
    /// A fork was asked of a sandbox that still has its virtual machine.
    #[error("the sandbox must be paused first")]
    NotPaused,
}

impl Error {
    /// The last system call's error, with what it was for.
    pub(crate) fn last(what: &'static str) -> Self {
        Error::Host { what, source: io::Error::last_os_error() }
    }

    /// An error of the ioctl wrappers, with what it was for.
    pub(crate) fn kvm(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |e| Error::Host { what, source: io::Error::from_raw_os_error(e.errno()) }
    }
}
