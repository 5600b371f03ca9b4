//! Clients of the gateway that mean no good, or just go away; a good client goes on meanwhile.

#[allow(dead_code)]
#[path = "support/random.rs"]
mod random;
mod support;

use serde_json::json;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::daemon::{Coppiced, Options};
use support::gateway::{client, metric, probed};
use support::http::{Response, read_response};
use support::left::{descriptors, eventually};

const WORKING: &str = r#"coppice_instances{state="working"}"#;
const PATH: &str = "/2015-03-31/functions/probe/invocations";

fn connect(daemon: &Coppiced) -> TcpStream {
    let stream = TcpStream::connect(daemon.gateway()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends bytes and gives back the first response.
fn raw(daemon: &Coppiced, bytes: &[u8]) -> std::io::Result<Response> {
    let mut stream = connect(daemon);
    // The gateway may have answered and closed before all is written.
    let _ = stream.write_all(bytes);
    read_response(&mut BufReader::new(stream))
}

/// Whether the gateway closes a connection by itself; what it sends before is of no interest.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

#[test]
fn slow_clients_are_closed_while_a_good_one_goes_on() {
    let gateway = "header_timeout_ms = 500\nbody_timeout_ms = 1000\nidle_timeout_ms = 1500\nconnections = 64"
        .to_owned();
    let mut daemon = probed(Options { gateway, ..Options::default() });
    let before = descriptors(daemon.pid());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let good = scope.spawn(|| {
            let mut client = client(&daemon);
            let mut served = 0;
            while !done.load(Ordering::Relaxed) {
                let response = client.invoke("probe", b"1").unwrap();
                assert_eq!(response.json()["event"], 1);
                served += 1;
            }
            served
        });
        let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n");
        let mut slow: Vec<(&str, TcpStream)> = Vec::new();
        for _ in 0..10 {
            for (what, bytes) in [
                ("says nothing", String::new()),
                ("half a head", head.clone()),
                ("half a body", format!("{head}content-length: 10\r\n\r\n1")),
                ("half a chunk", format!("{head}transfer-encoding: chunked\r\n\r\n5\r\n12")),
                ("half of HTTP/2", "PRI * HTTP/2.0\r\n".to_owned()),
            ] {
                let mut stream = connect(&daemon);
                stream.write_all(bytes.as_bytes()).unwrap();
                slow.push((what, stream));
            }
        }
        // One of them sends a little all the time, and gains nothing by it.
        let mut drip = connect(&daemon);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(15) && drip.write_all(b"G").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(start.elapsed() < Duration::from_secs(15), "who drips is never closed");
        for (what, stream) in &mut slow {
            assert!(is_closed(stream), "{what}");
        }
        done.store(true, Ordering::Relaxed);
        assert!(good.join().unwrap() > 0);
    });
    assert!(eventually(|| descriptors(daemon.pid()) <= before), "{before}, {}", descriptors(daemon.pid()));
    assert!(daemon.stop().success());
}

#[test]
fn what_is_no_http_is_refused_and_changes_nothing() {
    let mut daemon = probed(Options::default());
    let mut good = client(&daemon);
    let mut random = random::Random(7);
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n");
    let long = |n: usize| "x".repeat(n);
    for (bytes, status) in [
        ("garbage\r\n\r\n".to_owned(), 400),
        (format!("{head}content-length: -1\r\n\r\n"), 400),
        (format!("{head}content-length: 99999999999999999999\r\n\r\n"), 400),
        (format!("{head}content-length: 2\r\ncontent-length: 3\r\n\r\nxxx"), 400),
        (format!("{head}transfer-encoding: chunked\r\n\r\nxyz\r\n\r\n"), 400),
        (format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n1\r\n0\r\n\r\n"), 400),
        (format!("{head}transfer-encoding: gzip\r\ncontent-length: 1\r\n\r\n1"), 400),
        (format!("{head}bad header: 1\r\n\r\n"), 400),
        (format!("{head}x: \0\r\n\r\n"), 400),
        (format!("{head}x: {}\r\n\r\n", long(100 << 10)), 431),
        (format!("{head}{}\r\n", "a: b\r\n".repeat(200)), 431),
        (format!("POST /{} HTTP/1.1\r\nhost: x\r\n\r\n", long(80 << 10)), 414),
        (format!("GET {PATH} HTTP/9.9\r\nhost: x\r\n\r\n"), 400),
        (format!("{head}expect: 100-continue\r\ncontent-length: 1000000000\r\n\r\n"), 413),
        // A first answer of 100 would have it send them all.
        (format!("{head}expect: 100-continue\r\ncontent-length: 7000000\r\n\r\n"), 413),
    ] {
        let shown: String = bytes.chars().take(120).collect();
        let response = raw(&daemon, bytes.as_bytes()).unwrap_or_else(|e| panic!("{e}: {shown}"));
        assert!(
            response.status == status || (status != 413 && (400..500).contains(&response.status)),
            "{} for {shown}",
            response.status
        );
        assert_eq!(good.invoke("probe", b"1").unwrap().status, 200);
    }
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..random.below(300)).map(|_| random.below(256) as u8).collect();
        let mut stream = connect(&daemon);
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        assert!(is_closed(&mut stream), "{bytes:?}");
    }
    assert_eq!(good.invoke("probe", b"1").unwrap().status, 200);
    assert!(daemon.stop().success());
}

#[test]
fn requests_behind_one_another_are_told_apart() {
    let mut daemon = probed(Options::default());
    // Three at once on one connection; the answers come in their order.
    let mut stream = connect(&daemon);
    let mut all = Vec::new();
    for n in 0..3 {
        all.extend(format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n{n}").into_bytes());
    }
    stream.write_all(&all).unwrap();
    let mut reader = BufReader::new(stream);
    for n in 0..3 {
        assert_eq!(read_response(&mut reader).unwrap().json()["event"], n);
    }
    // A length and chunks together: what lies in the chunk is never a request of its own.
    let inner = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n7");
    let chunk = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    for lengths in
        ["content-length: 1\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 1"]
    {
        let before = metric(&daemon, r#"coppice_gateway_answers_total{api="invoke",status="2xx"}"#);
        let mut stream = connect(&daemon);
        stream
            .write_all(format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n{lengths}\r\n\r\n{chunk}").as_bytes())
            .unwrap();
        let response = read_response(&mut BufReader::new(stream)).unwrap();
        assert_eq!(response.status, 400, "{lengths}");
        let after = metric(&daemon, r#"coppice_gateway_answers_total{api="invoke",status="2xx"}"#);
        assert_eq!(before, after, "{lengths}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn a_client_that_goes_away_ends_its_instance() {
    let mut daemon = probed(Options::default());
    let before = daemon.sandboxes().len();
    let event = json!({"op": "sleep", "seconds": 15}).to_string();
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{event}", event.len());
    let streams: Vec<TcpStream> = (0..5)
        .map(|_| {
            let mut stream = connect(&daemon);
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert!(eventually(|| metric(&daemon, WORKING) == 5.0));
    assert!(daemon.sandboxes().len() >= before + 5);
    drop(streams);
    assert!(eventually(|| metric(&daemon, WORKING) == 0.0));
    assert!(eventually(|| daemon.sandboxes().len() <= before), "{before}: {:?}", daemon.sandboxes());
    assert!(daemon.stop().success());
}

#[test]
fn slow_events_of_one_function_leave_places_to_another() {
    let gateway = "async_running = 3\nasync_function_running = 2".to_owned();
    let daemon = probed(Options { gateway, ..Options::default() });
    let event = |name: &str, event: &serde_json::Value| {
        let headers = [("x-amz-invocation-type", "Event")];
        let status = support::gateway::invoke(&daemon, name, &headers, event.to_string().as_bytes()).status;
        assert_eq!(status, 202);
    };
    for _ in 0..20 {
        event("probe", &json!({"op": "sleep", "seconds": 60}));
    }
    assert!(eventually(|| metric(&daemon, WORKING) == 2.0));
    for _ in 0..5 {
        event("hasty", &json!(1));
    }
    let done = || metric(&daemon, r#"coppice_async_events_total{what="done"}"#);
    assert!(eventually(|| done() == 5.0), "{} done", done());
    assert_eq!(metric(&daemon, WORKING), 2.0);
}

#[test]
fn a_daemon_that_ends_finishes_what_it_has_begun() {
    let mut daemon = probed(Options::default());
    let mut idle = connect(&daemon);
    let address = daemon.gateway();
    let event = json!({"op": "sleep", "seconds": 1}).to_string();
    let asked = std::thread::spawn(move || {
        let mut client = support::http::Client::new(address, Duration::from_secs(20));
        client.invoke("probe", event.as_bytes())
    });
    assert!(eventually(|| metric(&daemon, WORKING) == 1.0));
    assert!(daemon.stop().success());
    assert_eq!(asked.join().unwrap().unwrap().json()["event"]["seconds"], 1);
    assert!(is_closed(&mut idle));
    assert!(TcpStream::connect(address).is_err());
}
