//! Two vCPUs in one address space: what one may still do after the tables were changed under it. These need /dev/kvm.

use super::tests::{CODE, DATA, DATA_GPA, Guest};
use super::*;
use guest::platform::{Access, Platform};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

const RW: Access = Access { write: true, exec: false };
const RO: Access = Access { write: false, exec: false };
const AWAY: u64 = DATA_GPA + (1 << 20);

/// A second vCPU that counts in memory until it faults, and goes on when it is told to.
struct Counter {
    exits: Receiver<Exit>,
    go: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Counter {
    fn new(g: &Guest, va: u64) -> Self {
        let vm = g.machine.slots.vm().unwrap();
        let mut vcpu = KvmVcpu::new(g.machine.clone(), &vm, 1).unwrap();
        let (exit_to, exits) = channel();
        let (go, wait) = channel();
        let root = g.root;
        let thread = std::thread::spawn(move || {
            vcpu.attach();
            while wait.recv().is_ok() {
                let mut regs = Regs { rip: CODE, rdi: va, rflags: 0x202, ..Regs::default() };
                exit_to.send(vcpu.run(&mut regs, root).unwrap()).unwrap();
            }
            vcpu.detach();
        });
        Counter { exits, go: Some(go), thread: Some(thread) }
    }

    fn go(&self) {
        self.go.as_ref().unwrap().send(()).unwrap();
    }

    fn exit(&self) -> Exit {
        self.exits.recv_timeout(Duration::from_secs(10)).expect("the other vCPU must come back")
    }

    fn still_runs(&self) -> bool {
        self.exits.try_recv().is_err()
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.go = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn count(g: &Guest, gpa: u64) -> u64 {
    let mut bytes = [0; 8];
    g.machine.read(gpa, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

/// Waits until the counter has moved.
fn wait_for_count(g: &Guest, gpa: u64) {
    let before = count(g, gpa);
    for _ in 0..5_000 {
        if count(g, gpa) != before {
            return;
        }
        sleep(Duration::from_millis(1));
    }
    panic!("the other vCPU does not count");
}

fn stands_still(g: &Guest, gpa: u64) {
    let before = count(g, gpa);
    sleep(Duration::from_millis(3));
    assert_eq!(count(g, gpa), before, "written after the change had returned");
}

// 1: inc qword ptr [rdi]; jmp 1b
const COUNT: &[u8] = b"\x48\xff\x07\xeb\xfb";

#[test]
fn another_vcpu_that_writes_faults_once_its_page_is_taken_away() {
    let g = Guest::new(COUNT);
    let counter = Counter::new(&g, DATA);
    for _ in 0..20 {
        counter.go();
        wait_for_count(&g, DATA_GPA);
        g.machine.protect(g.root, DATA, 0x1000, RO).unwrap();
        stands_still(&g, DATA_GPA);
        assert_eq!(counter.exit(), Exit::Exception { vector: 14, error: 7, cr2: DATA });
        g.machine.protect(g.root, DATA, 0x1000, RW).unwrap();

        counter.go();
        wait_for_count(&g, DATA_GPA);
        g.machine.unmap(g.root, DATA, 0x1000).unwrap();
        stands_still(&g, DATA_GPA);
        assert_eq!(counter.exit(), Exit::Exception { vector: 14, error: 6, cr2: DATA });
        // Another page at the same address.
        g.machine.map(g.root, DATA, AWAY, 0x1000, RW).unwrap();
        counter.go();
        wait_for_count(&g, AWAY);
        stands_still(&g, DATA_GPA);
        g.machine.unmap(g.root, DATA, 0x1000).unwrap();
        assert_eq!(counter.exit(), Exit::Exception { vector: 14, error: 6, cr2: DATA });
        g.machine.map(g.root, DATA, DATA_GPA, 0x1000, RW).unwrap();
    }
}

#[test]
fn a_page_that_is_only_invalidated_or_discarded_is_no_fault_of_another_vcpu() {
    let g = Guest::new(COUNT);
    let counter = Counter::new(&g, DATA);
    counter.go();
    wait_for_count(&g, DATA_GPA);
    for i in 0..500 {
        g.machine.arena().invalidate(DATA_GPA, 0x4000).unwrap();
        if i % 5 == 0 {
            g.machine.discard(DATA_GPA, 0x1000).unwrap();
        }
        if i % 50 == 0 {
            crate::pagetable::Translations::full_zap(&*g.machine.slots).unwrap();
        }
    }
    assert!(counter.still_runs(), "{:?}", counter.exit());
    wait_for_count(&g, DATA_GPA);
    g.machine.unmap(g.root, DATA, 0x1000).unwrap();
    assert_eq!(counter.exit(), Exit::Exception { vector: 14, error: 6, cr2: DATA });
}

#[test]
fn a_kick_ends_the_guest_code_of_the_vcpu_that_it_names() {
    let g = Guest::new(COUNT);
    let counter = Counter::new(&g, DATA);
    for _ in 0..20 {
        counter.go();
        wait_for_count(&g, DATA_GPA);
        assert!(counter.still_runs());
        g.machine.kick(0);
        g.machine.kick(1);
        assert_eq!(counter.exit(), Exit::Preempted);
    }
}
