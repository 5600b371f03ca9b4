//! The sockets of the Function Runtime Interface under clients that may not use them, or that speak nonsense.

#[allow(dead_code)] // of its functions some are for others
#[path = "support/random.rs"]
mod random;
mod support;

use fri_plugin::fri::ttrpc::error_of;
use fri_plugin::proto;
use random::Random;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use support::LIMIT;
use support::daemon::{Coppiced, Options, block_on, python};
use support::fri::{Call, Failure, Transport, connect};
use support::left::{descriptors, eventually};
use ttrpc::proto::{Codec, MessageHeader, Request, Response};

const ECHO: &str = "def handler(event, context): return event\n";

async fn status(t: &Transport) -> proto::StatusResponse {
    t.unary("Node/Status", proto::StatusRequest::default()).await.unwrap()
}

/// A frame of ttrpc.
fn frame(stream: u32, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [Vec::from(MessageHeader { length, stream_id: stream, type_: kind, flags }), payload.to_vec()].concat()
}

fn request(method: &str, payload: &[u8]) -> Vec<u8> {
    let (service, method) = method.split_once('/').unwrap();
    let mut request = Request::new();
    request.service = format!("coppice.fri.v1.{service}");
    request.method = method.to_owned();
    request.payload = payload.to_vec();
    request.encode().unwrap()
}

/// Sends bytes, and reads what comes until the end, or until nothing has come for a while.
fn exchange(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    // The other side may close before it has all.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn byte(random: &mut Random) -> u8 {
    u8::try_from(random.below(256)).unwrap()
}

/// What ttrpc answers to each of several sendings: stream and code of the response, which is an error. Then the connection must end.
fn errors(socket: &Path, sendings: &[Vec<u8>]) -> Vec<(u32, String)> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut found = Vec::new();
    for bytes in sendings {
        // The other side may close before it has all.
        let _ = stream.write_all(bytes);
        let mut head = [0; 10];
        stream.read_exact(&mut head).unwrap();
        let header = MessageHeader::from(head);
        let mut payload = vec![0; usize::try_from(header.length).unwrap()];
        stream.read_exact(&mut payload).unwrap();
        let response = Response::decode(payload).unwrap();
        let error = error_of(&response.status).expect("an error with its details");
        found.push((header.stream_id, error.code));
    }
    // A reset is an end too: of a long message not all is read.
    match stream.read(&mut [0]) {
        Ok(n) => assert_eq!(n, 0, "something follows"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it does not end"),
    }
    found
}

#[test]
fn frames_against_the_protocol_get_an_error_and_the_end() {
    let daemon = Coppiced::start(Options::default());
    let socket = daemon.ttrpc();
    let status = request("Node/Status", b"");
    let one = |stream, code: &str| vec![(stream, code.to_owned())];
    let long = Vec::from(MessageHeader { length: (4 << 20) + 1, stream_id: 5, type_: 1, flags: 0 });
    for (bytes, wanted) in [
        (frame(2, 1, 0, &status), one(2, "Request.Malformed")),
        (frame(1, 2, 0, &status), one(1, "Request.Malformed")),
        (frame(1, 9, 0, b""), one(1, "Request.Malformed")),
        (frame(1, 1, 0, &[0xff; 8]), one(1, "Request.Malformed")),
        (long, one(5, "Request.TooLarge")),
    ] {
        assert_eq!(errors(&socket, &[bytes]), wanted);
    }
    // The stream of a call that is under way: it waits for its first message, and says nothing any more.
    let twice = [frame(1, 1, 6, &request("Instances/Invoke", b"")), frame(1, 1, 0, &status)].concat();
    for _ in 0..500 {
        assert_eq!(errors(&socket, std::slice::from_ref(&twice)), one(1, "Request.Malformed"));
    }
    // These fail a call only: the connection goes on.
    let unknown = frame(1, 1, 0, &request("Node/None", b""));
    let undecodable = frame(3, 1, 0, &request("Functions/Get", &[0x0a, 0xff]));
    let end = frame(4, 1, 0, b"");
    let last = [frame(7, 3, 0, b"data for nobody"), end].concat();
    let found = errors(&socket, &[unknown, undecodable, last]);
    let wanted = [(1, "Request.NoSuchMethod"), (3, "Request.Malformed"), (4, "Request.Malformed")];
    assert_eq!(found, wanted.map(|(stream, code)| (stream, code.to_owned())));
    // HTTP/1, or anything else, is no beginning of gRPC.
    assert_eq!(exchange(&daemon.grpc(), b"GET / HTTP/1.1\r\nHost: x\r\nMore: text\r\n\r\n"), b"");
}

#[test]
fn nonsense_on_the_sockets_harms_nobody_else() {
    let daemon = Coppiced::start(Options::default());
    daemon.deploy(python("f"), &[("app.py", ECHO)]).unwrap();
    let before = {
        block_on(async { status(&Transport::grpc(&daemon.grpc()).await).await });
        descriptors(daemon.pid())
    };
    std::thread::scope(|scope| {
        let hostile = scope.spawn(|| {
            let mut random = Random(20_261_121);
            let invoke = request("Instances/Invoke", b"");
            for n in 0..150 {
                // Valid frames with some bytes changed; or bytes without sense.
                let mut bytes = match random.below(3) {
                    0 => (0..random.below(400)).map(|_| byte(&mut random)).collect::<Vec<u8>>(),
                    1 => [
                        frame(1, 1, 2, &invoke),
                        frame(1, 3, 0, &[byte(&mut random); 40]),
                        frame(1, 3, 5, b""),
                    ]
                    .concat(),
                    _ => frame(1, 1, 0, &request("Functions/List", &[byte(&mut random); 9])),
                };
                for _ in 0..random.below(4) {
                    let at = random.below(bytes.len().max(1) as u64) as usize;
                    if let Some(changed) = bytes.get_mut(at) {
                        *changed = byte(&mut random);
                    }
                }
                exchange(&daemon.ttrpc(), &bytes);
                let mut http = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
                http.truncate(if n % 3 == 0 { random.below(33) as usize } else { 33 });
                http.extend((0..random.below(300)).map(|_| byte(&mut random)));
                exchange(&daemon.grpc(), &http);
            }
        });
        let mut answered = 0_u32;
        block_on(async {
            let both = [Transport::grpc(&daemon.grpc()).await, Transport::ttrpc(&daemon.ttrpc()).await];
            let client = daemon.client().await;
            while !hostile.is_finished() {
                for t in &both {
                    assert_eq!(status(t).await.state, "ready");
                    answered += 1;
                }
                let (_, answer) = support::daemon::invoke(&client, "f", "[1]").await.unwrap();
                assert_eq!(answer, b"[1]");
            }
        });
        hostile.join().unwrap();
        assert!(answered > 0);
    });
    assert!(
        eventually(|| descriptors(daemon.pid()) <= before + 4),
        "{} descriptors, {before} before",
        descriptors(daemon.pid())
    );
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

#[test]
fn messages_that_are_too_long_are_refused_over_grpc() {
    let daemon = Coppiced::start(Options::default());
    block_on(async {
        let t = Transport::grpc(&daemon.grpc()).await;
        let long = proto::GetFunctionRequest { name: "x".repeat(5 << 20) };
        let error = t.unary::<_, proto::Function>("Functions/Get", long).await.unwrap_err();
        assert_eq!((error.code(), error.status), ("Request.TooLarge", 11));
        assert_eq!(status(&t).await.state, "ready");
    });
}

#[test]
fn calls_of_one_connection_are_bounded_and_end_with_the_daemon() {
    let mut daemon = Coppiced::start(Options::default());
    block_on(async {
        let t = Transport::ttrpc(&daemon.ttrpc()).await;
        let mut watching = Vec::new();
        for _ in 0..fri_plugin::fri::CALLS {
            let mut call = t
                .call::<_, proto::SeedEvent>("Seeds/Watch", vec![proto::WatchSeedsRequest {}])
                .await
                .unwrap();
            call.next().await.unwrap().unwrap();
            watching.push(call);
        }
        let error = t.unary::<_, proto::StatusResponse>("Node/Status", proto::StatusRequest::default()).await;
        let error = error.unwrap_err();
        assert_eq!((error.code(), error.status), ("Request.TooMany", 8));
        // Another connection has calls of its own.
        assert_eq!(status(&Transport::ttrpc(&daemon.ttrpc()).await).await.state, "ready");
        // Those who watch do not keep the daemon from ending.
        assert!(daemon.stop().success());
        let mut first = watching.swap_remove(0);
        while first.next().await.unwrap().is_some() {}
    });
}

/// An Invoke of `f` of whose event so many MiB are sent, and the end is not.
async fn half(t: &Transport, mib: usize) -> Call<proto::InvokeRequest, proto::InvokeResponse> {
    use proto::invoke_request::Part;
    let mut call = t.open("Instances/Invoke", None).await.unwrap();
    let head = proto::InvokeHead { function: "f".into(), payload: "\"".into(), ..Default::default() };
    call.send(proto::InvokeRequest { part: Some(Part::Head(head)) }).await;
    for _ in 0..mib {
        call.send(proto::InvokeRequest { part: Some(Part::Chunk(vec![b'x'; 1 << 20].into())) }).await;
    }
    call
}

/// Sends the end of an event, and gives the length of the answer.
async fn finish(mut call: Call<proto::InvokeRequest, proto::InvokeResponse>) -> Result<usize, Failure> {
    let part = Some(proto::invoke_request::Part::Chunk("\"".into()));
    call.send(proto::InvokeRequest { part }).await;
    call.close().await;
    let chunks = call.all().await?.into_iter().map(|answer| match answer.part {
        Some(proto::invoke_response::Part::Chunk(chunk)) => chunk.len(),
        _ => 0,
    });
    Ok(chunks.sum())
}

#[test]
fn events_that_are_half_there_are_bounded_in_sum_and_in_time() {
    let daemon = Coppiced::start(Options {
        fri: "event_timeout_ms = 8000".into(),
        more: "[memory]\nevents = \"8 MiB\"\n".into(),
        ..Options::default()
    });
    daemon.deploy(python("f"), &[("app.py", ECHO)]).unwrap();
    block_on(async {
        for t in [Transport::grpc(&daemon.grpc()).await, Transport::ttrpc(&daemon.ttrpc()).await] {
            let (first, error) = loop {
                let first = half(&t, 5).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
                // Where the second one's bytes came before, the first is the one that is refused: once more.
                if let Err(error) = finish(half(&t, 4).await).await {
                    break (first, error);
                }
            };
            assert_eq!((error.code(), error.status), ("Node.Overloaded", 8));
            assert_eq!(
                finish(half(&t, 1).await).await.unwrap(),
                (1 << 20) + 2,
                "there is room for a small one"
            );
            assert_eq!(finish(first).await.unwrap(), (5 << 20) + 2, "who was first is served");
            let mut stalled = half(&t, 5).await;
            let error = stalled.next().await.unwrap_err();
            assert_eq!((error.code(), error.status), ("Request.TooSlow", 4));
            // What they had they have given back.
            assert_eq!(finish(half(&t, 5).await).await.unwrap(), (5 << 20) + 2);
        }
    });
}

#[test]
fn deploys_that_are_half_there_are_bounded_in_sum_and_in_time() {
    use proto::deploy_request::Part;
    let daemon = Coppiced::start(Options {
        fri: "upload_timeout_ms = 4000\nupload_bytes = \"1 MiB\"".into(),
        more: "[code]\nzip_bytes = \"1 MiB\"\n".into(),
        ..Options::default()
    });
    let uploads = || std::fs::read_dir(daemon.state().join("uploads")).unwrap().count();
    block_on(async {
        let t = Transport::grpc(&daemon.grpc()).await;
        let begin = async || {
            let mut call: Call<_, proto::DeployEvent> = t.open("Functions/Deploy", None).await.unwrap();
            let archive = proto::Archive { kind: proto::archive::Kind::Code.into() };
            for part in
                [Part::Spec(python("f")), Part::Archive(archive), Part::Chunk(vec![0; 700 << 10].into())]
            {
                call.send(proto::DeployRequest { part: Some(part) }).await;
            }
            call
        };
        let mut first = begin().await;
        while uploads() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let error = begin().await.all().await.unwrap_err();
        assert_eq!((error.code(), error.status), ("Node.Overloaded", 8));
        let error = first.all().await.unwrap_err();
        assert_eq!((error.code(), error.status), ("Request.TooSlow", 4));
    });
    assert!(eventually(|| uploads() == 0), "{} uploads are left", uploads());
    daemon.deploy(python("f"), &[("app.py", ECHO)]).unwrap();
}

#[test]
fn silent_connections_lock_nobody_out() {
    let fri = "connections = 4\nidle_timeout_ms = 500".to_owned();
    let daemon = Coppiced::start(Options { fri, ..Options::default() });
    block_on(async {
        for (is_grpc, socket) in [(true, daemon.grpc()), (false, daemon.ttrpc())] {
            let connect = async || match is_grpc {
                true => Transport::grpc(&socket).await,
                false => Transport::ttrpc(&socket).await,
            };
            let busy = connect().await;
            let watch = vec![proto::WatchSeedsRequest {}];
            let mut watch = busy.call::<_, proto::SeedEvent>("Seeds/Watch", watch).await.unwrap();
            watch.next().await.unwrap().unwrap();
            let silent: Vec<UnixStream> = (0..8)
                .map(|n| {
                    let mut stream = UnixStream::connect(&socket).unwrap();
                    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    if is_grpc && n % 2 == 0 {
                        // One that is refused is closed already.
                        let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
                    }
                    stream
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(700)).await;
            let good = [connect().await, connect().await, connect().await];
            for t in &good {
                assert_eq!(status(t).await.state, "ready");
            }
            assert_eq!(status(&busy).await.state, "ready", "one with a call stays");
            for mut stream in silent {
                // A reset is an end too.
                if let Err(error) = stream.read_to_end(&mut Vec::new()) {
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it stays open");
                }
            }
        }
    });
    let log = daemon.log();
    let lines = log.lines().filter(|line| line.contains("a connection is refused")).count();
    assert!((1..10).contains(&lines), "{lines} lines: {log}");
}

#[test]
fn calls_without_a_head_lock_nobody_out() {
    let fri = "connections = 2\nidle_timeout_ms = 200\nevent_timeout_ms = 1000".to_owned();
    let daemon = Coppiced::start(Options { fri, ..Options::default() });
    block_on(async {
        for over_grpc in [true, false] {
            // A connection of who asked whether the daemon is there makes room first.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let (one, two) = (connect(&daemon, over_grpc).await, connect(&daemon, over_grpc).await);
            let mut invoke: Call<proto::InvokeRequest, proto::InvokeResponse> =
                one.open("Instances/Invoke", None).await.unwrap();
            let mut activate: Call<proto::ActivateRequest, proto::InvokeResponse> =
                two.open("Instances/Activate", None).await.unwrap();
            for error in [invoke.next().await.unwrap_err(), activate.next().await.unwrap_err()] {
                assert_eq!((error.code(), error.status), ("Request.TooSlow", 4));
            }
            // Their connections are there still, and make room.
            tokio::time::sleep(Duration::from_millis(400)).await;
            assert_eq!(status(&connect(&daemon, over_grpc).await).await.state, "ready");
        }
    });
}

#[test]
fn only_root_the_owner_and_the_group_get_in() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root may become somebody else");
        return;
    }
    const GROUP: &str = "54321";
    let daemon = Coppiced::start(Options { group: GROUP.into(), ..Options::default() });
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for socket in [daemon.grpc(), daemon.ttrpc()] {
        assert_eq!(mode(&socket), 0o660);
        assert_eq!(std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&socket).unwrap()), 54321);
    }
    let open = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    // Connects, says hello over HTTP/2, and waits for an answer: 0 where one came.
    let program = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ntry:\n    s.connect(sys.argv[1])\nexcept PermissionError:\n    sys.exit(7)\n\
        s.settimeout(10)\ntry:\n    s.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n' + bytes([0,0,0,4,0,0,0,0,0]))\n    \
        sys.exit(0 if s.recv(9) else 8)\nexcept OSError:\n    sys.exit(8)\n";
    let tries = |user: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        // From the directory of the socket: those above it may be root's alone.
        command
            .args(user)
            .args(["/usr/bin/python3", "-I", "-c", program])
            .arg(daemon.grpc().file_name().unwrap());
        command.current_dir(daemon.run_directory());
        let outcome = support::finish(&mut command, b"", LIMIT);
        assert!(!outcome.stderr.contains("Traceback"), "{}", outcome.stderr);
        outcome.status
    };
    let nobody = ["--reuid=65534", "--regid=65534"];
    let stranger = [&nobody[..], &["--clear-groups"]].concat();
    assert_eq!(tries(&stranger), 7, "the mode of the socket keeps strangers out");
    assert_eq!(tries(&[&nobody[..], &["--groups", GROUP]].concat()), 0, "a supplementary group");
    assert_eq!(
        tries(&["--reuid=65534", &format!("--regid={GROUP}"), "--clear-groups"]),
        0,
        "a primary group"
    );
    // Where the mode lets everybody in, the credentials do not.
    open(&daemon.grpc(), 0o666);
    assert_eq!(tries(&stranger), 8, "a stranger is closed before a byte is answered");
    assert_eq!(tries(&[&nobody[..], &["--groups", "1,2,3"]].concat()), 8, "other groups are none");
    assert!(daemon.log().contains("a connection is refused"), "{}", daemon.log());
    assert_eq!(tries(&["--reuid=0"]), 0, "root");
}
