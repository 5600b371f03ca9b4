//! A hostile guest: forbidden instructions, forbidden addresses, signals without room, races, bombs. Each program ends as it does on
//! the host, or where that cannot be compared, in bounded time and without harm to the sandbox process.

mod support;

use support::{
    Failures, LIMIT, Link, cases, coppice, finish, guest, native, program, same, scratch, survived,
    two_at_a_time,
};

/// Statuses that a program may end with when only survival is asked for: by itself, or by a signal of a fault.
const TAME: &[i32] = &[0, 4, 5, 7, 8, 11, 132, 133, 134, 135, 136, 139];

#[test]
fn a_forbidden_instruction_raises_the_signal_that_linux_raises() {
    let program = program("hostile_instructions", Link::Static);
    let failures = Failures::default();
    two_at_a_time(&cases(&program), |case| {
        failures.check(|| same(&[], &program, &[case]));
        failures.check(|| same(&[], &program, &[case, "caught"]));
    });
    failures.report();
}

#[test]
fn an_instruction_whose_outcome_depends_on_the_processor_harms_nobody() {
    let program = program("hostile_instructions", Link::Static);
    let list = native(&program, &["list-loose"], &scratch(), b"").text();
    let list: Vec<&str> = list.lines().collect();
    assert!(!list.is_empty());
    let failures = Failures::default();
    two_at_a_time(&list, |case| {
        failures.check(|| {
            let status = guest(&[], &program, &[case, "caught"], b"").status;
            assert!(TAME.contains(&status), "{case}: status {status}");
        });
    });
    failures.report();
}

/// `int 0x80` is an exception: it makes a 32-bit system call on the host, which Coppice does not have. And KVM without hardware
/// support swallows `int 26` before the guest kernel hears of it.
#[test]
fn every_software_interrupt_ends_as_on_linux() {
    let program = program("hostile_instructions", Link::Static);
    let numbers: Vec<String> =
        (0..256).filter(|n| ![26, 0x80].contains(n)).map(|n: u32| n.to_string()).collect();
    let failures = Failures::default();
    two_at_a_time(&numbers, |n| failures.check(|| same(&[], &program, &["int", n, "caught"])));
    for n in ["26", "128"] {
        failures.check(|| {
            let status = guest(&[], &program, &["int", n], b"").status;
            assert!(TAME.contains(&status), "int {n}: status {status}");
        });
    }
    failures.report();
}

#[test]
fn an_address_outside_the_program_raises_sigsegv() {
    let program = program("hostile_instructions", Link::Static);
    let failures = Failures::default();
    let mut all = Vec::new();
    for how in ["r", "w", "x"] {
        for address in [
            "0",
            "1",
            "4095",
            "0xffff",
            "0x7fff00000000",
            "0x7fff00001000",
            "0x7fff00002000",
            "0x7fff00004000",
            "0x7fff00005000",
            "0x7fff00010000",
            "0x7fff00011ff8",
            "0x7fff00100000",
            "0x7fff00200000",
            "0x7fff3fffffff",
            "0x7fff40000000",
            "0x800000000000",
            "0x8000000000000000",
            "0xffff7fffffffffff",
            "0xffff800000000000",
            "0xffff888000000000",
            "0xffffffff81000000",
            "0xffffffffffffffff",
        ] {
            all.push((how, address));
        }
    }
    two_at_a_time(&all, |(how, address)| {
        failures.check(|| same(&[], &program, &["touch", how, address]));
        failures.check(|| same(&[], &program, &["touch", how, address, "caught"]));
    });
    // The entry page of the machine may be readable and executable (hosts that run all of the guest in user mode need that), but to
    // jump there is at most a system call of one's own, and to write there is an error.
    for offset in ["0", "1", "2", "8", "0x80", "0x7ff", "0xff8", "0xfff"] {
        let number = u64::from_str_radix(
            offset.trim_start_matches("0x"),
            if offset.starts_with("0x") { 16 } else { 10 },
        )
        .unwrap();
        let address = format!("{:#x}", 0x7fff_0000_3000 + number);
        failures.check(|| {
            assert_eq!(guest(&[], &program, &["touch", "w", &address], b"").status, 139, "write at {address}")
        });
        failures.check(|| {
            let outcome = guest(&[], &program, &["touch", "x", &address], b"");
            assert!(TAME.contains(&outcome.status), "jump to {address}: {}", outcome.status);
        });
    }
    failures.report();
}

#[test]
fn a_signal_that_has_no_room_kills_as_on_linux() {
    let program = program("hostile_signals", Link::Static);
    let failures = Failures::default();
    two_at_a_time(&cases(&program), |case| failures.check(|| same(&[], &program, &[case])));
    failures.report();
}

#[test]
fn a_signal_frame_of_garbage_harms_only_its_program() {
    let program = program("hostile_signals", Link::Static);
    let failures = Failures::default();
    let seeds: Vec<String> = (1..=24).map(|n: u32| n.to_string()).collect();
    two_at_a_time(&seeds, |seed| {
        failures.check(|| {
            let outcome = guest(&[], &program, &["frames", seed, "400"], b"");
            assert!(
                outcome.status == 0 || outcome.status > 128 || outcome.status == 127,
                "{seed}: {}",
                outcome.status
            );
        });
    });
    failures.report();
}

#[test]
fn threads_that_race_for_mappings_fault_and_go_on() {
    let program = program("hostile_memory", Link::Dynamic);
    let failures = Failures::default();
    for (kind, changers, readers) in [("m", "1", "1"), ("p", "1", "1"), ("a", "1", "1"), ("x", "2", "2")] {
        let args = ["race", kind, changers, readers, "3"];
        failures.check(|| assert_eq!(native(&program, &args, &scratch(), b"").text(), "done\n"));
        for cpus in ["1", "2"] {
            failures.check(|| {
                let outcome = guest(&["--cpus", cpus], &program, &args, b"");
                assert_eq!(
                    (outcome.status, outcome.text().as_str()),
                    (0, "done\n"),
                    "{args:?} with {cpus} CPUs"
                );
            });
        }
    }
    failures.report();
}

#[test]
fn a_bomb_of_threads_meets_a_limit_and_the_sandbox_ends_with_its_program() {
    let program = program("hostile_memory", Link::Dynamic);
    for cpus in ["1", "2"] {
        let outcome = guest(&["--cpus", cpus], &program, &["thread-bomb"], b"");
        assert_eq!(outcome.status, 0, "{} {}", outcome.text(), outcome.stderr);
        assert!(outcome.text().starts_with("Resource temporarily unavailable"), "{}", outcome.text());
    }
}

#[test]
fn a_thousand_threads_one_after_another_leave_nothing_in_the_way() {
    let program = program("hostile_memory", Link::Static);
    for cpus in ["1", "2"] {
        same(&["--cpus", cpus], &program, &["thread-churn", "1000"]);
    }
}

#[test]
fn a_bomb_of_mappings_gets_enomem() {
    let program = program("hostile_memory", Link::Static);
    for kind in ["0", "1", "2"] {
        same(&[], &program, &["mmap-bomb", kind]);
    }
}

#[test]
fn a_program_that_fills_its_memory_is_killed_and_told_why() {
    let program = program("hostile_memory", Link::Static);
    let outcome = guest(&["--memory", "64m"], &program, &["memory-bomb"], b"");
    assert_eq!(outcome.status, 137, "{} {}", outcome.text(), outcome.stderr);
    assert!(outcome.stderr.contains("memory limit"), "{}", outcome.stderr);
}

#[test]
fn files_in_the_memory_layer_count_against_the_memory_limit() {
    let program = program("hostile_memory", Link::Static);
    let outcome = guest(&["--memory", "64m"], &program, &["file-bomb"], b"");
    let full = outcome.status == 7 && outcome.text().contains("No space left on device");
    assert!(full, "{} {} {}", outcome.status, outcome.text(), outcome.stderr);
}

#[test]
fn descriptors_recursion_and_arguments_have_the_limits_of_linux() {
    let program = program("hostile_memory", Link::Static);
    let failures = Failures::default();
    failures.check(|| same(&[], &program, &["fd-bomb"]));
    failures.check(|| same(&[], &program, &["recurse"]));
    failures.check(|| same(&[], &program, &["recurse-caught"]));
    let long = "x".repeat(100_000);
    let many = ["y"; 3000];
    let mut args = vec!["arguments", &long, &long, &long];
    args.extend(many);
    failures.check(|| same(&[], &program, &args));
    failures.report();
}

#[test]
fn a_program_can_replace_itself_a_hundred_times() {
    for link in [Link::Static, Link::Dynamic] {
        let program = program("hostile_memory", link);
        same(&[], &program, &["exec", "100", "end"]);
        same(&[], &program, &["exec-big"]);
    }
}

#[test]
fn sigkill_to_the_sandbox_at_any_moment_leaves_no_process() {
    let program = program("hostile_memory", Link::Static);
    for delay in [1, 5, 20, 60, 150] {
        let mut command = coppice();
        command.args(["run", "--cpus", "2", "--"]).arg(&program).args(["race", "x", "2", "2", "30"]);
        let mark = format!("hostile-kill-{delay}-{}", std::process::id());
        command.env("COPPICE_TEST_MARK", &mark);
        let outcome = finish(&mut command, b"", std::time::Duration::from_millis(delay));
        assert!(outcome.timed_out, "{}", outcome.stderr);
        assert!(support::left::eventually(|| support::left::marked(&mark).is_empty()), "after {delay} ms");
    }
    let outcome = finish(coppice().args(["run", "--", "/bin/true"]), b"", LIMIT);
    survived(&outcome, "/bin/true");
    assert_eq!(outcome.status, 0);
}

/// Which processor which thread gets is chance: five runs would find a limit that only the first processor keeps.
#[test]
fn memory_that_a_second_processor_takes_counts_while_the_first_sleeps() {
    let program = program("hidden_memory", Link::Static);
    for _ in 0..5 {
        let outcome = guest(&["--cpus", "2", "--memory", "128m"], &program, &[], b"");
        assert_eq!((outcome.status, outcome.text().as_str()), (137, ""));
    }
}
