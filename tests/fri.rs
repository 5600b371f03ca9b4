//! The Function Runtime Interface as a client sees it: a real daemon, both transports.

mod support;

use support::daemon::{Coppiced, Options, python};

const ECHO: &str = "def handler(event, context): return event\n";

#[test]
fn a_function_is_deployed_and_answers() {
    let mut daemon = Coppiced::start(Options::default());
    let function = daemon.deploy(python("echo"), &[("app.py", ECHO)]).unwrap();
    assert_eq!((function.version, function.state.as_str()), (1, "ready"));
    let (end, answer) = daemon.invoke("echo", r#"{"a": [1]}"#).unwrap();
    assert_eq!((answer.as_slice(), end.level), (&br#"{"a": [1]}"#[..], 2));
    assert!(daemon.stop().success());
}
