//! The guest OS: a Linux-ABI application kernel.
//!
//! It is data plus functions. A sandbox's whole kernel state is one [`kernel::Kernel`] value of plain, serialisable
//! types; guest user code runs elsewhere (on a KVM vCPU, see [`platform`]) and every trap it takes arrives here as an
//! [`platform::Exit`]. The driver's loop is [`kernel::Kernel::next`] -> run -> [`kernel::Kernel::on_exit`].
//!
//! A blocked system call is a task with its registers and a [`wait::Block`]; when it is woken its handler is called
//! again. So the same state can be forked with its process, written out, or inspected by a test at any exit.
//!
//! Layers, top to bottom: [`syscall`] (one family of calls per file: parse and check arguments) -> subsystems ([`mm`], [`vfs`],
//! [`task`], [`signal`], [`futex`], [`time`]: the meaning) -> [`platform`].

pub mod abi;
pub mod aio;
pub mod entropy;
pub mod errno;
pub mod exec;
pub mod fork;
pub mod futex;
pub mod ipc;
pub mod kernel;
pub mod lambda;
pub mod mm;
pub mod net;
pub mod num;
pub mod platform;
pub mod poll;
pub mod ptrace;
pub mod refused;
pub mod sched;
pub mod signal;
pub mod store;
pub mod strace;
pub mod syscall;
pub mod task;
pub mod time;
pub mod timers;
pub mod tty;
pub mod vfs;
pub mod wait;
