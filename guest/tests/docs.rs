//! docs/COMPATIBILITY.md and docs/INHERITANCE.md are generated from the code: checks that they are current, or writes them when
//! `UPDATE_DOCS` is set.
#![allow(clippy::unwrap_used, clippy::panic)]

use guest::fork::Class;
use guest::kernel::Kernel;
use guest::syscall::{Support, table};
use std::fmt::Write;
use std::path::PathBuf;

fn check(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(on_disk == text, "docs/{name} is out of date: run UPDATE_DOCS=1 cargo test -p guest --test docs");
}

#[test]
fn the_compatibility_page_is_the_system_call_table() {
    let mut text = String::from(
        "# Compatibility\n\nGenerated from the system-call table (guest/src/syscall/): do not edit. A call that is not listed returns ENOSYS \
         and is counted\n(`coppice run --stats`). \"full\" means: as on Linux for what programs inside one sandbox can see.\n\n",
    );
    let (mut full, mut partial, mut refused) = (0, 0, 0);
    let mut rows = String::new();
    for entry in table() {
        let support = match entry.support {
            Support::Full => {
                full += 1;
                "full".to_owned()
            }
            Support::Partial(note) => {
                partial += 1;
                format!("partial: {note}")
            }
            Support::Refused(errno, why) => {
                refused += 1;
                format!("{errno}: {why}")
            }
        };
        writeln!(rows, "| {} | {} | {support} |", entry.number, entry.name).unwrap();
    }
    writeln!(text, "{full} full, {partial} partial, {refused} refused.\n\n| number | call | support |\n| ---: | --- | --- |").unwrap();
    text.push_str(&rows);
    check("COMPATIBILITY.md", &text);
}

#[test]
fn the_inheritance_page_is_what_the_types_declare() {
    let mut text = String::from(
        "# What a fork does to each field of the kernel's state\n\nGenerated from the declarations (`forkable!`): do not edit. *Inherited* fields are kept; *reset* ones start \
         afresh in the child;\n*reissued* ones get a new value.\n\n| type | field | at a fork |\n| --- | --- | --- |\n",
    );
    for line in Kernel::inheritance_table() {
        let class = match line.class {
            Class::Inherited => "inherited",
            Class::Reset => "reset",
            Class::Reissued => "reissued",
        };
        writeln!(text, "| {} | {} | {class} |", line.owner, line.field).unwrap();
    }
    check("INHERITANCE.md", &text);
}
