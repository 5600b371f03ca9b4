//! The calls that ordinary programs need are there: needed_calls.txt against the system-call table.
#![allow(clippy::unwrap_used, clippy::panic)]

use guest::syscall::{Support, table};

#[test]
fn every_call_that_the_workloads_make_is_there() {
    let needed = include_str!("needed_calls.txt");
    let names: Vec<&str> =
        needed.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace).collect();
    assert!(names.len() > 150, "needed_calls.txt lists {} calls only", names.len());
    let lacking: Vec<String> = (names.iter())
        .filter_map(|name| match table().iter().find(|entry| entry.name == *name) {
            None => Some(format!("{name} is not in the table")),
            Some(entry) => match entry.support {
                Support::Refused(errno, why) => Some(format!("{name} is refused with {errno}: {why}")),
                Support::Full | Support::Partial(_) => None,
            },
        })
        .collect();
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));
}
