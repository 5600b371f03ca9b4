//! Limits of the host that leave some things possible and others not, one by one: what a function cannot help is no error of the function.

mod support;

use fri_plugin::proto::FunctionSpec;
use std::time::Duration;
use support::daemon::{Coppiced, Options, python};
use support::http::Client;
use support::limits::Pids;
use support::load;

/// More processes than an instance and KVM start together.
const MOST: u64 = 12;

#[test]
fn a_limit_on_processes_is_no_fault_of_a_function() {
    let mut daemon = Coppiced::start(Options { runtimes: vec!["python", "node"], ..Options::default() });
    let Some(pids) = Pids::around(&daemon) else { return };
    daemon.deploy(python("py"), &[("app.py", load::PYTHON)]).unwrap();
    // Less time than most, and yet it is not the function that is late.
    let js = FunctionSpec { runtime: "node".into(), timeout_ms: 500, ..python("js") };
    daemon.deploy(js, &[("app.mjs", load::NODE)]).unwrap();
    let mut client = Client::new(daemon.gateway(), Duration::from_secs(30));
    for name in ["py", "js"] {
        let (mut answered, mut refused) = (0, 0);
        for more in (0..=MOST).rev() {
            pids.settle();
            pids.allow(more);
            let response = client.invoke(name, b"{}").unwrap();
            pids.release();
            if response.status == 200 {
                assert!(response.header("x-amz-function-error").is_none(), "{name}, {more}: {response:?}");
                answered += 1;
            } else {
                let told =
                    response.json()["Message"].as_str().is_some_and(|m| m.contains("allow more processes"));
                assert!(
                    told && response.header("x-amzn-errortype").is_some(),
                    "{name}, {more}: {response:?}"
                );
                refused += 1;
            }
        }
        assert!(answered > 0 && refused > 0, "{name}: {answered} answered, {refused} refused");
    }
    // KVM's thread is waited for.
    pids.settle();
    pids.allow(1);
    let response = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            pids.release();
        });
        client.invoke("py", b"{}").unwrap()
    });
    assert_eq!((response.status, &response.json()["uses"]), (200, &1.into()), "{response:?}");
    drop(client);
    assert!(daemon.stop().success(), "{}", daemon.log());
}
