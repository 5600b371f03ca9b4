//! `coppice run --tty`: a terminal in the guest, shown on the operator's.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{coppice, finish};

/// tests/programs/terminal.py types into an interactive bash: job control, line editing, window size, and the operator's own terminal afterwards.
#[test]
fn an_operator_works_in_an_interactive_shell() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/programs/terminal.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(coppice().get_program());
    command.args(["run", "-e", "PS1", "--", "bash", "--norc", "--noprofile", "-i"]);
    let done = finish(&mut command, b"", Duration::from_secs(300));
    assert_eq!(done.text(), "done 3\n", "{}", done.stderr);
}

#[test]
fn without_a_terminal_a_program_gets_one_only_when_asked_for() {
    let asks = ["--", "sh", "-c", "test -t 0 && tty; exit 5"];
    let plain = finish(coppice().arg("run").args(asks), b"", Duration::from_secs(60));
    assert_eq!((plain.text().as_str(), plain.status), ("", 5));
    let with = finish(coppice().args(["run", "-t"]).args(asks), b"", Duration::from_secs(60));
    assert_eq!((with.text().as_str(), with.status), ("/dev/pts/0\r\n", 5));
    let reads = ["run", "--tty=always", "--", "sh", "-c", "cat; echo end"];
    let piped = finish(coppice().args(reads), b"one\ntw\x7fwo\n", Duration::from_secs(60));
    assert!(piped.text().contains("two\r\n"), "{piped:?}");
    assert!(piped.text().ends_with("end\r\n"), "{piped:?}");
}
