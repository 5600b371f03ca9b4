//! The service driven through its sockets, without a task.

use super::*;
use crate::kernel::Limits;
use crate::net::addr::Given;
use crate::net::transfer::Progress;
use crate::platform::fake::FakePlatform;
use proptest::prelude::*;
use std::sync::Arc;

fn kernel() -> Kernel {
    let mut k = Kernel::new(Arc::new(FakePlatform::new(16 << 20)), Limits::default()).unwrap();
    k.lambda_serve().unwrap();
    k
}

fn connect(k: &mut Kernel) -> u64 {
    let id = k.socket_create(0, Family::Inet, Style::Stream).unwrap();
    let to = Given::Address(Address::Ip(Ipv4Addr::LOCALHOST.into(), PORT));
    assert!(matches!(k.socket_connect(0, id, to, false), Ok(Progress::Done(()))));
    k.lambda_pump();
    id
}

/// Sends all of it, pumping whenever the queue is full.
fn send(k: &mut Kernel, id: u64, bytes: &[u8]) -> bool {
    let mut done = 0;
    while done < bytes.len() {
        match k.socket_put(id, bytes[done..].to_vec()) {
            Ok(n) => done += n,
            Err(_) => return false,
        }
        k.lambda_pump();
    }
    true
}

fn receive(k: &mut Kernel, id: u64) -> String {
    let mut out = Vec::new();
    while let Some(bytes) = k.objects.net.get(id).ok().and_then(|s| Some(s.queue.front()?.rest().to_vec())) {
        k.socket_take(id, bytes.len());
        out.extend(bytes);
        k.lambda_pump();
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn ask(k: &mut Kernel, id: u64, request: &str) -> String {
    assert!(send(k, id, request.as_bytes()));
    receive(k, id)
}

fn answered(k: &mut Kernel) -> Option<String> {
    k.take_answer().map(|a| String::from_utf8_lossy(&a).into_owned())
}

const NEXT: &str = "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n";

fn post(call: &str, body: &str) -> String {
    format!("POST {VERSION}{call} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn an_invocation_goes_to_who_waits_and_its_response_comes_back() {
    let mut k = kernel();
    k.push_work(b"I{}");
    let c = connect(&mut k);
    assert_eq!(answered(&mut k), None);
    assert!(!k.lambda.awaits_work());
    assert_eq!(ask(&mut k, c, NEXT), "");
    assert_eq!(answered(&mut k).as_deref(), Some("R"));
    assert!(k.lambda.awaits_work());
    // The state goes round.
    let bytes = postcard::to_allocvec(&k.lambda).unwrap();
    k.lambda = postcard::from_bytes(&bytes).unwrap();
    k.push_work(&invocation("id-1", "Lambda-Runtime-Aws-Request-Id: id-1\r\n", b"{\"a\":1}"));
    assert!(!k.lambda.awaits_work());
    let got = receive(&mut k, c);
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("\r\n\r\n{\"a\":1}"), "{got}");
    assert!(got.contains("\r\nContent-Length: 7\r\n") && got.contains("Request-Id: id-1\r\n"), "{got}");
    assert!(
        ask(&mut k, c, &post("invocation/id-2/response", "1")).starts_with("HTTP/1.1 400 Bad Request\r\n")
    );
    assert!(ask(&mut k, c, &post("invocation/id-1/response", "[2]")).starts_with("HTTP/1.1 202 Accepted"));
    assert_eq!(answered(&mut k).as_deref(), Some("K[2]"));
    assert!(ask(&mut k, c, &post("invocation/id-1/response", "[2]")).contains("InvalidRequestID"));
    k.push_work(&invocation("id-2", "", b"{}"));
    assert!(ask(&mut k, c, NEXT).contains("200 OK"));
    ask(&mut k, c, &post("invocation/id-2/error", "{\"errorType\":\"X\"}"));
    assert_eq!(answered(&mut k).as_deref(), Some("E{\"errorType\":\"X\"}"));
}

#[test]
fn an_early_invocation_waits_and_the_longest_waiting_of_several_connections_is_served() {
    let mut k = kernel();
    k.push_work(&invocation("a", "", b"1"));
    let (c, d, e) = (connect(&mut k), connect(&mut k), connect(&mut k));
    assert!(ask(&mut k, d, NEXT).ends_with("\r\n\r\n1"));
    assert_eq!((ask(&mut k, e, NEXT), ask(&mut k, c, NEXT)), (String::new(), String::new()));
    k.push_work(&invocation("b", "", b"2"));
    assert_eq!(receive(&mut k, c), "");
    assert!(receive(&mut k, e).ends_with("\r\n\r\n2"));
    // Who has gone does not count.
    k.socket_close(c);
    k.lambda_pump();
    assert!(!k.lambda.awaits_work());
    assert_eq!(k.lambda_load().0, 2);
    // A request that was pipelined behind one that waits is answered after it.
    assert_eq!(ask(&mut k, d, &format!("{NEXT}{}", "GET /2018-06-01/ping HTTP/1.1\r\n\r\n")), "");
    k.push_work(&invocation("c", "", b"3"));
    let got = receive(&mut k, d);
    assert!(got.find("\r\n\r\n3").unwrap() < got.find("pong").unwrap(), "{got}");
}

#[test]
fn errors_at_the_start_and_in_a_stream_are_told() {
    let mut k = kernel();
    k.push_work(b"I");
    let c = connect(&mut k);
    let bad = format!(
        "POST {VERSION}init/error HTTP/1.1\r\nLambda-Runtime-Function-Error-Type: Runtime.\"No\r\nContent-Length: 0\r\n\r\n"
    );
    assert!(ask(&mut k, c, &bad).contains("202 Accepted"));
    let told = answered(&mut k).unwrap();
    assert!(told.starts_with(r#"E{"errorType":"Runtime.\"No","errorMessage":""#), "{told}");
    assert!(ask(&mut k, c, &bad).contains("403 Forbidden"));
    ask(&mut k, c, NEXT);
    k.push_work(&invocation("s", "", b"0"));
    receive(&mut k, c);
    let stream = format!(
        "POST {VERSION}invocation/s/response HTTP/1.1\r\nLambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n\
         Trailer: Lambda-Runtime-Function-Error-Type\r\n\r\n3\r\nabc\r\n0\r\nLambda-Runtime-Function-Error-Type: Oops\r\n\r\n"
    );
    assert!(ask(&mut k, c, &stream).contains("202"));
    assert!(answered(&mut k).unwrap().starts_with("E{\"errorType\":\"Oops\""));
}

#[test]
fn what_is_not_of_the_protocol_is_refused() {
    let mut k = kernel();
    let c = connect(&mut k);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("GET /2018-06-01/runtime/invocation HTTP/1.1\r\n\r\n", "404"),
        ("DELETE /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n", "404"),
        ("POST /2018-06-01/runtime/invocation/x/other HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "404"),
        ("POST /2018-06-01/runtime/restore/error HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "403"),
    ] {
        assert!(ask(&mut k, c, request).starts_with(&format!("HTTP/1.1 {status} ")), "{request}");
    }
    let head = ask(&mut k, c, "HEAD /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 404 ") && head.ends_with("\r\n\r\n"), "{head}");
    let long = format!(
        "POST {VERSION}invocation/x/response HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
        MAX_PAYLOAD + 1
    );
    assert!(ask(&mut k, c, &long).contains("413 Content Too Large"));
    assert!(k.objects.net.get(c).unwrap().shut_read, "the service has no more to say");
    assert!(send(&mut k, c, &vec![b'x'; 1 << 20]), "what the client had on its way is taken");
    assert_eq!(k.lambda_load(), (1, 0));
    k.socket_close(c);
    k.lambda_pump();
    assert_eq!(k.lambda_load(), (0, 0));
    let c = connect(&mut k);
    assert!(ask(&mut k, c, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
}

#[test]
fn the_longest_event_and_response_pass_and_what_is_held_is_bounded() {
    let mut k = kernel();
    let c = connect(&mut k);
    ask(&mut k, c, NEXT);
    k.push_work(&invocation("x", "", &vec![b'e'; MAX_PAYLOAD]));
    assert!(receive(&mut k, c).len() > MAX_PAYLOAD);
    let body = "r".repeat(MAX_PAYLOAD);
    assert!(ask(&mut k, c, &post("invocation/x/response", &body)).contains("202"));
    assert_eq!(answered(&mut k).unwrap().len(), MAX_PAYLOAD + 1);
    let head = format!("POST {VERSION}x HTTP/1.1\r\nContent-Length: {MAX_PAYLOAD}\r\n\r\n");
    let some = "x".repeat(MAX_PAYLOAD - 1);
    for _ in 0..100 {
        let c = connect(&mut k);
        let _ = send(&mut k, c, head.as_bytes()) && send(&mut k, c, some.as_bytes());
        let (connections, held) = k.lambda_load();
        assert!(connections <= MAX_CONNECTIONS && held <= u64_of(MAX_HELD + PIECE), "{connections} {held}");
    }
}

#[test]
fn a_snapshot_hook_is_let_go_on_before_the_event() {
    let mut k = kernel();
    k.push_work(b"I");
    let c = connect(&mut k);
    ask(&mut k, c, "GET /2018-06-01/runtime/restore/next HTTP/1.1\r\n\r\n");
    assert_eq!(answered(&mut k).as_deref(), Some("R"));
    assert!(k.lambda.awaits_work());
    k.push_work(&invocation("x", "", b"7"));
    assert!(receive(&mut k, c).starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(ask(&mut k, c, NEXT).ends_with("\r\n\r\n7"));
}

proptest! {
    #[test]
    fn no_input_panics_or_loses_the_books(
        parts in proptest::collection::vec((0..4usize, 0..8usize, proptest::collection::vec(any::<u8>(), 0..40)), 0..40)
    ) {
        let mut k = kernel();
        let mut open: Vec<u64> = (0..4).map(|_| connect(&mut k)).collect();
        let known = [NEXT.to_owned(), post("invocation/x/response", "abc"), "HEAD / HTTP/1.1\r\n".into(), "\r\n".into(),
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".into(), "1\r\nx\r\n".into()];
        for (which, what, bytes) in parts {
            let id = open[which];
            match known.get(what) {
                Some(text) => { send(&mut k, id, text.as_bytes()); }
                None if what == 6 => { send(&mut k, id, &bytes); k.push_work(&invocation("x", "", &bytes)); }
                None => { k.socket_close(id); k.lambda_pump(); open[which] = connect(&mut k); }
            }
            receive(&mut k, open[which]);
            k.take_answer();
            prop_assert!(k.objects.net.is_consistent());
            prop_assert!(k.lambda_load().0 <= 4);
        }
    }
}
