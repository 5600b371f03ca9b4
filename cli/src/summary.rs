//! What `coppice run` prints at the end on request: counts, the time of calls, and what was refused.

use guest::kernel::Kernel;
use guest::syscall::names::name;
use guest::task::ExitStatus;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use vmm::sandbox::Sandbox;

/// Prints on stderr; that nobody reads it is no failure of the program's.
fn print(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn by_count(counts: &BTreeMap<u64, u64>) -> Vec<(String, u64)> {
    let mut list: Vec<(String, u64)> = counts.iter().map(|(n, c)| (name(*n), *c)).collect();
    list.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    list
}

/// `--stats`: exits, faults, the calls made most often, those that are not there.
pub fn print_stats(sandbox: &Sandbox) {
    let stats = sandbox.stats().unwrap_or_default();
    let kernel = sandbox.kernel();
    let counters = &kernel.counters;
    let mut text = format!(
        "exits {}  shadow or EPT faults {}  guest page faults {}\n",
        stats.exits(),
        stats.pf_taken(),
        counters.page_faults
    );
    for (name, count) in by_count(&counters.syscalls).iter().take(30) {
        let _ = writeln!(text, "{count:>9}  {name}");
    }
    for (name, count) in by_count(&counters.unknown) {
        let _ = writeln!(text, "{count:>9}  {name} (not implemented: ENOSYS)");
    }
    print(&text);
}

/// `--summary`: a line per call, the slowest first, and a line per refusal, the most frequent first.
pub fn print_summary(kernel: &Kernel) {
    let mut times: Vec<_> = kernel.counters.times.iter().collect();
    times.sort_by_key(|(_, time)| std::cmp::Reverse(time.ns));
    let (mut calls, mut errors, mut ns) = (0, 0, 0);
    let mut text = format!("{:>11} {:>9} {:>9} {:>9}  call\n", "seconds", "us/call", "calls", "errors");
    let mut line = |calls: u64, errors: u64, ns: u64, name: &str| {
        let per_call = ns / 1000 / calls.max(1);
        let seconds = format!("{}.{:06}", ns / 1_000_000_000, ns % 1_000_000_000 / 1000);
        let errors = if errors == 0 { String::new() } else { errors.to_string() };
        let _ = writeln!(text, "{seconds:>11} {per_call:>9} {calls:>9} {errors:>9}  {name}");
    };
    for (number, time) in times {
        line(time.calls, time.errors, time.ns, &name(*number));
        (calls, errors, ns) = (calls + time.calls, errors + time.errors, ns + time.ns);
    }
    line(calls, errors, ns, "total");
    let refused = &kernel.refused;
    if refused.list.is_empty() {
        text.push_str("nothing was refused that Linux would have done\n");
    } else {
        text.push_str("refused although Linux has it (a report with these lines helps):\n");
        let mut list: Vec<_> = refused.list.iter().collect();
        list.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (refusal, count) in list {
            let _ = writeln!(text, "{count:>9}  {refusal}, in {}", refusal.program);
        }
        if refused.more > 0 {
            let _ = writeln!(text, "{:>9}  others", refused.more);
        }
    }
    print(&text);
}

/// `--json`: all of it in one line.
pub fn print_json(sandbox: &Sandbox, status: ExitStatus) {
    let stats = sandbox.stats().unwrap_or_default();
    let kernel = sandbox.kernel();
    let counters = &kernel.counters;
    let counts = |counts: &BTreeMap<u64, u64>| -> Map<String, Value> {
        by_count(counts).into_iter().map(|(name, count)| (name, json!(count))).collect()
    };
    let refused: Vec<Value> = (kernel.refused.list.iter())
        .map(|(refusal, count)| {
            json!({
                "call": name(refusal.call), "what": refusal.what, "values": refusal.values, "errno": refusal.errno.name(),
                "program": refusal.program, "text": refusal.to_string(), "count": count,
            })
        })
        .collect();
    let status = match status {
        ExitStatus::Code(code) => json!({"code": code}),
        ExitStatus::Signal(signal) => json!({"signal": signal}),
    };
    let mut all = json!({
        "status": status, "exits": stats.exits(), "faults": stats.pf_taken(), "guest_page_faults": counters.page_faults,
        "exceptions": counters.exceptions, "syscalls": counts(&counters.syscalls), "unknown_syscalls": counts(&counters.unknown),
        "refused": refused, "refused_others": kernel.refused.more,
    });
    if counters.timed {
        let calls: Map<String, Value> = (counters.times.iter())
            .map(|(n, t)| (name(*n), json!({"calls": t.calls, "errors": t.errors, "ns": t.ns})))
            .collect();
        if let Some(all) = all.as_object_mut() {
            all.insert("calls".into(), Value::Object(calls));
        }
    }
    print(&format!("{all}\n"));
}
