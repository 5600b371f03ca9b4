//! Where the machine's own pages lie: the low arena (guest-physical) and its window in every address space.
//!
//! ```text
//! gpa 0x0000_1000  global descriptor table
//! gpa 0x0000_2000  interrupt descriptor table (256 gates)
//! gpa 0x0000_3000  stub code: the only page that user mode may reach (read, execute)
//! gpa 0x0000_4000  page directory shared by all roots, and its page table at 0x5000
//! gpa 0x0000_6000  list of addresses for the routine that touches a working set (user mode may read it)
//! gpa 0x0001_0000  per vCPU: a page with its task state segment, a page of exception stack
//! gpa 0x0010_0000  pool of page tables, to FIRST_EXTENT
//! ```
//! The window maps gpa `g` at `WINDOW + g`. It lies at the top of the lower half, because the upper half is not usable
//! on hosts that run the guest without hardware support.

use guest::platform::{FIRST_EXTENT, Gpa, PAGE_SIZE, TASK_SIZE, Va};

/// First address of the window.
pub const WINDOW: Va = TASK_SIZE;
/// Global descriptor table.
pub const GDT: Gpa = 0x1000;
/// Interrupt descriptor table.
pub const IDT: Gpa = 0x2000;
/// Stub code.
pub const STUB: Gpa = 0x3000;
/// Page directory of the window, shared by all roots.
pub const WINDOW_PD: Gpa = 0x4000;
/// Page table of the window, shared by all roots.
pub const WINDOW_PT: Gpa = 0x5000;
/// List of addresses for the routine that touches a working set.
pub const TOUCH_LIST: Gpa = 0x6000;
/// Addresses that the list has room for.
pub const TOUCH_ENTRIES: usize = ((VCPU_PAGES - TOUCH_LIST) / 8) as usize;
/// First page of the vCPUs' own pages.
pub const VCPU_PAGES: Gpa = 0x1_0000;
/// Bytes of each vCPU's own pages.
pub const VCPU_STRIDE: u64 = 2 * PAGE_SIZE;
/// Most vCPUs that the low arena has room for.
pub const MAX_VCPUS: usize = 64;
/// First page of the page-table pool.
pub const POOL: Gpa = 0x10_0000;
/// End of the page-table pool.
pub const POOL_END: Gpa = FIRST_EXTENT;

/// The task state segment of a vCPU.
pub const fn tss(vcpu: usize) -> Gpa {
    VCPU_PAGES + vcpu as u64 * VCPU_STRIDE
}

/// One past the top of the exception stack of a vCPU.
pub const fn stack_top(vcpu: usize) -> Gpa {
    tss(vcpu) + VCPU_STRIDE
}

/// The address in the window of a gpa of the low arena.
pub const fn window(gpa: Gpa) -> Va {
    WINDOW + gpa
}

const _: () = assert!(VCPU_PAGES + MAX_VCPUS as u64 * VCPU_STRIDE <= POOL);
