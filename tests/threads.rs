//! Several vCPUs: two threads do the work of two.

mod support;

use std::path::Path;
use std::process::Command;
use support::{LIMIT, coppice, finish};

/// Counts what one thread and then two threads do in the same time, in turns, and prints the two sums.
const SPIN: &str = r#"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
static atomic_int stop;
static void *spin(void *p) {
    unsigned long n = 0;
    while (!atomic_load_explicit(&stop, memory_order_relaxed))
        n++;
    *(unsigned long *)p = n;
    return 0;
}
static unsigned long run(int threads) {
    pthread_t t[2];
    unsigned long n[2] = {0, 0};
    stop = 0;
    for (int i = 0; i < threads; i++)
        pthread_create(&t[i], 0, spin, &n[i]);
    struct timespec time = {0, 150000000};
    nanosleep(&time, 0);
    stop = 1;
    for (int i = 0; i < threads; i++)
        pthread_join(t[i], 0);
    return n[0] + n[1];
}
int main(void) {
    unsigned long one = 0, two = 0;
    for (int i = 0; i < 3; i++) {
        one += run(1);
        two += run(2);
    }
    printf("%lu %lu\n", one, two);
    return 0;
}
"#;

fn compile(directory: &Path) -> std::path::PathBuf {
    let (source, program) = (directory.join("spin.c"), directory.join("spin"));
    std::fs::write(&source, SPIN).unwrap();
    let status = Command::new("cc").args(["-O1", "-pthread", "-o"]).arg(&program).arg(&source).status();
    assert!(status.expect("cannot start cc: install gcc and libc6-dev").success());
    program
}

/// How much more two threads did than one.
fn gain(command: &mut Command) -> f64 {
    let outcome = finish(command, b"", LIMIT);
    assert!(outcome.status == 0 && !outcome.timed_out, "{outcome:?}");
    let text = outcome.text();
    let counts: Vec<f64> = text.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert!(counts.len() == 2 && counts[0] > 0.0, "{text}");
    counts[1] / counts[0]
}

/// Measured against what the host itself gains at that moment, since it may be busy; the best of a few attempts counts.
#[test]
fn two_threads_on_two_vcpus_gain_nine_tenths_of_what_they_gain_on_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let program = compile(directory.path());
    let mut seen = Vec::new();
    for _ in 0..20 {
        let native = gain(&mut Command::new(&program));
        let inside = gain(coppice().args(["run", "--cpus", "2", "--"]).arg(&program));
        println!(
            "two threads do {native:.2} times the work of one on the host, {inside:.2} times in the sandbox"
        );
        if inside >= 0.9 * native {
            return;
        }
        seen.push((native, inside));
    }
    panic!("never nine tenths of the host's gain: {seen:?}");
}

#[test]
fn one_vcpu_gives_two_threads_the_time_of_one() {
    let directory = tempfile::tempdir().unwrap();
    let program = compile(directory.path());
    let inside = gain(coppice().args(["run", "--cpus", "1", "--"]).arg(&program));
    assert!(inside < 1.5, "{inside}");
}
