//! The machine: KVM, vCPUs, the arena, guest page tables, the stub, fork and prefill.
//!
//! The only crate with `unsafe`. It implements [`guest::platform`] on KVM and knows nothing of what a system call means.
//! [`sandbox::Sandbox`] owns one [`machine::Machine`] and one guest kernel and drives them; [`fork`] clones a paused one.
//!
//! Lock order, outermost first: the guest kernel ([`sandbox::Sandbox::kernel`]), page tables ([`pagetable`]), the virtual
//! machine ([`machine`]). No lock is held while guest code runs.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

pub mod arena;
mod copy;
mod cpuid;
pub mod error;
pub mod floor;
pub mod fork;
pub mod host;
pub mod layout;
pub mod lock;
pub mod machine;
pub mod memslots;
pub mod pagetable;
pub mod peer;
pub mod prefill;
pub mod probe;
pub mod sandbox;
pub mod selftest;
pub mod signal;
pub mod stats;
pub mod stub;
pub mod threads;
pub mod title;
pub mod vcpu;
pub mod vdso;

pub use error::Error;
