//! The table logic on a plain arena, without KVM.

use super::*;
use std::sync::atomic::{AtomicBool, AtomicU64};

#[derive(Debug, Default)]
struct Fake {
    live: AtomicBool,
    shadow: AtomicBool,
    zaps: AtomicU64,
}

impl Translations for Fake {
    fn live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }
    fn shadow(&self) -> bool {
        self.shadow.load(Ordering::Relaxed)
    }
    fn full_zap(&self) -> Result<(), PlatformError> {
        self.zaps.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

const RW: Access = Access { write: true, exec: false };
const RX: Access = Access { write: false, exec: true };
const GPA: Gpa = 64 << 20;

fn tables() -> (PageTables, Arc<Fake>, Arc<Arena>) {
    let arena = Arc::new(Arena::new(1 << 30).unwrap());
    let fake = Arc::new(Fake::default());
    (PageTables::new(arena.clone(), fake.clone()).unwrap(), fake, arena)
}

#[test]
fn a_mapped_range_translates_and_its_neighbours_do_not() {
    let (t, ..) = tables();
    let r = t.create_root().unwrap();
    t.map(r, 0x40_0000, GPA + 0x1000, 0x3000, RX).unwrap();
    assert_eq!(t.translate(r, 0x40_2abc).unwrap(), Some((GPA + 0x3abc, RX)));
    assert_eq!(t.translate(r, 0x40_3000).unwrap(), None);
    assert_eq!(t.translate(r, 0x3f_f000).unwrap(), None);
    assert_eq!(t.translate(r, 0x7000_0000_0000).unwrap(), None);
}

#[test]
fn mapping_over_a_present_page_fails_and_leaves_nothing_behind() {
    let (t, ..) = tables();
    let r = t.create_root().unwrap();
    t.map(r, 0x40_2000, GPA, 0x1000, RX).unwrap();
    assert!(t.map(r, 0x40_0000, GPA + 0x10000, 0x4000, RW).is_err());
    assert_eq!(t.translate(r, 0x40_0000).unwrap(), None);
    assert_eq!(t.translate(r, 0x40_2000).unwrap(), Some((GPA, RX)));
}

#[test]
fn addresses_of_the_window_and_ranges_that_wrap_are_refused() {
    let (t, ..) = tables();
    let r = t.create_root().unwrap();
    assert!(t.map(r, TASK_SIZE, GPA, 0x1000, RW).is_err());
    assert!(t.map(r, TASK_SIZE - 0x1000, GPA, 0x2000, RW).is_err());
    assert!(t.unmap(r, u64::MAX - 0xfff, 0x1000).is_err());
    assert!(t.map(r, 0x1000, (1 << 30) - 0x1000, 0x2000, RW).is_err());
}

#[test]
fn a_large_leaf_is_split_when_a_part_of_it_changes() {
    let (t, fake, arena) = tables();
    fake.live.store(true, Ordering::Relaxed);
    let r = t.create_root().unwrap();
    t.map(r, 0x4000_0000, GPA, 4 << 20, RW).unwrap();
    let generation = arena.generation();
    t.protect(r, 0x4000_1000, 0x1000, RX).unwrap();
    assert!(arena.generation() > generation, "the old target was invalidated");
    assert_eq!(t.translate(r, 0x4000_0fff).unwrap(), Some((GPA + 0xfff, RW)));
    assert_eq!(t.translate(r, 0x4000_1000).unwrap(), Some((GPA + 0x1000, RX)));
    assert_eq!(t.translate(r, 0x401f_f000).unwrap(), Some((GPA + 0x1f_f000, RW)));
    assert_eq!(t.translate(r, 0x4020_0000).unwrap(), Some((GPA + (2 << 20), RW)));
    t.unmap(r, 0x4000_0000, 4 << 20).unwrap();
    assert_eq!(t.translate(r, 0x4030_0000).unwrap(), None);
    assert_eq!(t.translate(r, 0x4000_2000).unwrap(), None);
}

#[test]
fn only_changes_that_take_something_away_invalidate() {
    let (t, fake, arena) = tables();
    fake.live.store(true, Ordering::Relaxed);
    fake.shadow.store(true, Ordering::Relaxed);
    let r = t.create_root().unwrap();
    t.map(r, 0x1000, GPA, 0x2000, Access { write: false, exec: false }).unwrap();
    t.protect(r, 0x1000, 0x2000, RW).unwrap();
    t.protect(r, 0x1000, 0x2000, Access { write: true, exec: true }).unwrap();
    assert_eq!(arena.generation(), 0);
    t.protect(r, 0x1000, 0x2000, RW).unwrap();
    assert_eq!(arena.generation(), 2, "one round trip for the contiguous run");
    t.unmap(r, 0x1000, 0x1000).unwrap();
    assert_eq!(arena.generation(), 4);
    t.unmap(r, 0x1000, 0x1000).unwrap();
    assert_eq!(arena.generation(), 4, "nothing was present any more");
}

#[test]
fn pages_of_a_destroyed_root_are_used_again_only_after_a_full_zap() {
    let (t, fake, _) = tables();
    fake.live.store(true, Ordering::Relaxed);
    let mut rounds = 0;
    while fake.zaps.load(Ordering::Relaxed) == 0 {
        let r = t.create_root().unwrap();
        t.map(r, 0x1000, GPA, 0x1000, RW).unwrap();
        t.unmap(r, 0x1000, 0x1000).unwrap();
        t.destroy_root(r);
        rounds += 1;
        assert!(rounds < 10_000);
    }
    let pages = (layout::POOL_END - layout::POOL) / PAGE_SIZE;
    assert!(rounds >= pages / 5, "zapped too early, after {rounds} roots");
    let r = t.create_root().unwrap();
    assert_eq!(t.translate(r, 0x1000).unwrap(), None, "a recycled table is zero");
}

#[test]
fn an_exhausted_pool_is_an_error_and_not_a_leak() {
    let (t, ..) = tables();
    let r = t.create_root().unwrap();
    let mut mapped = Vec::new();
    let error = loop {
        let va = (mapped.len() as u64 + 1) << 30;
        match t.map(r, va, GPA, 0x1000, RW) {
            Ok(()) => mapped.push(va),
            Err(e) => break e,
        }
    };
    assert!(matches!(error, PlatformError::Exhausted));
    t.destroy_root(r);
    t.machine_gone().unwrap();
    let r = t.create_root().unwrap();
    t.map(r, 0x1000, GPA, 0x1000, RW).unwrap();
}
