//! The Function Runtime Interface as a client sees it: a real daemon, both transports.

mod support;

use fri_plugin::proto;
use fri_plugin::proto::deploy_event::Event;
use fri_plugin::proto::invoke_response::Part as Answer;
use futures::StreamExt;
use serde_json::{Value, json};
use support::daemon::{Coppiced, Options, archive, block_on, deploy_messages, python};
use support::fri::{Answered, Failure, Transport, both, connect, gathered, invoke_messages, until, working};

const ECHO: &str = "def handler(event, context): return event\n";
const MANY: &str = "import os, sys, time\n\
    def handler(event, context):\n\
    \x20   if event == 'exit': os._exit(3)\n\
    \x20   if event == 'fail': raise ValueError('not today')\n\
    \x20   if event == 'long': return 'x' * (7 << 20)\n\
    \x20   if event == 'sleep': time.sleep(600)\n\
    \x20   if event == 'talk':\n\
    \x20       for n in range(3):\n\
    \x20           print('line', n, flush=True)\n\
    \x20           time.sleep(0.3)\n\
    \x20   if isinstance(event, dict) and 'size' in event: return 'y' * event['size']\n\
    \x20   return event\n";

async fn invoke(t: &Transport, function: &str, event: impl AsRef<[u8]>) -> Result<Answered, Failure> {
    let mut call = t.call("Instances/Invoke", invoke_messages(function, event.as_ref(), false)).await?;
    Ok(gathered(call.all().await?))
}

async fn deploy(
    t: &Transport,
    spec: proto::FunctionSpec,
    files: &[(&str, &str)],
) -> Result<Vec<Event>, Failure> {
    let mut call = t.call("Functions/Deploy", deploy_messages(spec, archive(files))).await?;
    let events: Vec<proto::DeployEvent> = call.all().await?;
    Ok(events.into_iter().map(|e| e.event.unwrap()).collect())
}

#[test]
fn every_method_does_its_work_over_both_transports() {
    let mut daemon = Coppiced::start(Options::default());
    block_on(async {
        for (n, t) in both(&daemon).await.iter().enumerate() {
            let name = format!("f{n}");
            let spec = proto::FunctionSpec { spares: Some(1), ..python(&name) };
            let events = deploy(t, spec, &[("app.py", MANY)]).await.unwrap();
            let Some(Event::Deployed(function)) = events.last() else { panic!("{events:?}") };
            assert_eq!((function.version, function.state.as_str()), (1, "ready"));
            assert!(events.iter().any(|e| matches!(e, Event::Progress(_))), "{events:?}");

            let found: proto::Function =
                t.unary("Functions/Get", proto::GetFunctionRequest { name: name.clone() }).await.unwrap();
            assert_eq!(found.spec.unwrap().handler, "app.handler");
            let list: proto::ListFunctionsResponse =
                t.unary("Functions/List", proto::ListFunctionsRequest {}).await.unwrap();
            assert!(list.functions.iter().any(|f| f.spec.as_ref().is_some_and(|s| s.name == name)));

            let answered = invoke(t, &name, br#"{"a": 1}"#).await.unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&answered.bytes).unwrap(), json!({"a": 1}));
            assert_eq!((answered.end.level, answered.end.version), (2, 1));
            assert!(!answered.end.instance.is_empty() && answered.end.request_id.len() == 36);
            assert!(answered.end.phases.unwrap().run_ns > 0);

            // An instance of one's own: fork, activate, activate again, destroy.
            let own: proto::Instance =
                t.unary("Instances/Fork", proto::ForkRequest { function: name.clone() }).await.unwrap();
            assert_eq!((own.state.as_str(), own.function.as_str()), ("idle", name.as_str()));
            for event in ["1", "2"] {
                use proto::activate_request::Part;
                let head = proto::ActivateHead { id: own.id.clone(), ..Default::default() };
                let parts = [Part::Head(head), Part::Chunk(event.into())];
                let messages = parts.map(|part| proto::ActivateRequest { part: Some(part) }).to_vec();
                let mut call = t.call("Instances/Activate", messages).await.unwrap();
                let answered = gathered(call.all().await.unwrap());
                assert_eq!((answered.bytes.as_slice(), &answered.end.instance), (event.as_bytes(), &own.id));
            }
            let wanted = proto::ListInstancesRequest { function: name.clone() };
            let list: proto::ListInstancesResponse = t.unary("Instances/List", wanted.clone()).await.unwrap();
            assert!(list.instances.iter().any(|i| i.id == own.id && i.pid > 0));
            let _: proto::DestroyResponse =
                t.unary("Instances/Destroy", proto::DestroyRequest { id: own.id.clone() }).await.unwrap();
            let list: proto::ListInstancesResponse = t.unary("Instances/List", wanted).await.unwrap();
            assert!(!list.instances.iter().any(|i| i.id == own.id));

            let seed: proto::Seed =
                t.unary("Seeds/Create", proto::CreateSeedRequest { name: "python".into() }).await.unwrap();
            assert_eq!((seed.level, seed.parent.as_str()), (1, "os"));
            let seeds: proto::ListSeedsResponse =
                t.unary("Seeds/List", proto::ListSeedsRequest { memory: true }).await.unwrap();
            let own = seeds.seeds.iter().find(|s| s.name == name).unwrap();
            assert_eq!((own.level, own.parent.as_str()), (2, "python"));
            assert!(own.memory.unwrap().pss_bytes > 0 && own.age_ns > 0);
            let mut watch = t
                .call::<_, proto::SeedEvent>("Seeds/Watch", vec![proto::WatchSeedsRequest {}])
                .await
                .unwrap();
            let mut names = Vec::new();
            while names.len() < seeds.seeds.len() {
                names.push(watch.next().await.unwrap().unwrap().seed.unwrap().name);
            }
            assert!(names.contains(&"os".to_owned()) && names.contains(&name), "{names:?}");

            let status: proto::StatusResponse =
                t.unary("Node/Status", proto::StatusRequest { memory: true }).await.unwrap();
            assert_eq!((status.state.as_str(), status.functions), ("ready", 1));
            assert!(status.seeds >= 3 && status.forks > 0 && status.memory.unwrap().pss_bytes > 0);
            let pools: proto::PoolsResponse = t.unary("Node/Pools", proto::PoolsRequest {}).await.unwrap();
            assert_eq!((pools.pools.len(), pools.pools[0].wanted), (1, 1));

            let _: proto::RemoveFunctionResponse = t
                .unary("Functions/Remove", proto::RemoveFunctionRequest { name: name.clone() })
                .await
                .unwrap();
            assert_eq!(invoke(t, &name, "1").await.err().unwrap().code(), "Function.NotFound");
        }
        let t = Transport::ttrpc(&daemon.ttrpc()).await;
        let drained: proto::DrainResponse =
            t.unary("Node/Drain", proto::DrainRequest::default()).await.unwrap();
        assert_eq!(drained.given_up, 0);
        let status: proto::StatusResponse =
            t.unary("Node/Status", proto::StatusRequest::default()).await.unwrap();
        assert_eq!(status.state, "draining");
    });
    assert!(daemon.stop().success());
    assert!(!support::daemon::exists(&daemon.grpc()) && !support::daemon::exists(&daemon.ttrpc()));
}

#[test]
fn long_events_and_answers_go_in_pieces_both_ways() {
    let daemon = Coppiced::start(Options::default());
    daemon.deploy(python("echo"), &[("app.py", MANY)]).unwrap();
    block_on(async {
        for t in both(&daemon).await {
            // 6 MiB, to the byte.
            let event = format!("\"{}\"", "e".repeat((6 << 20) - 2));
            let answered = invoke(&t, "echo", &event).await.unwrap();
            assert!(answered.bytes == event.as_bytes(), "{} bytes", answered.bytes.len());
            let error = invoke(&t, "echo", format!("{event} ")).await.err().unwrap();
            assert_eq!((error.code(), error.status), ("Request.TooLarge", 11));
            // Many at once over one connection, each its own.
            let calls = (0..16_usize).map(|n| {
                let t = t.clone();
                async move {
                    let event = format!("\"{}\"", n.to_string().repeat(n * 60_000));
                    assert_eq!(invoke(&t, "echo", &event).await.unwrap().bytes, event.as_bytes());
                }
            });
            futures::stream::iter(calls).buffer_unordered(8).collect::<Vec<()>>().await;
        }
    });
}

#[test]
fn what_a_function_prints_comes_while_it_runs() {
    let daemon = Coppiced::start(Options::default());
    daemon.deploy(python("f"), &[("app.py", MANY)]).unwrap();
    block_on(async {
        for t in both(&daemon).await {
            let mut call =
                t.call("Instances/Invoke", invoke_messages("f", br#""talk""#, true)).await.unwrap();
            let first: proto::InvokeResponse = call.next().await.unwrap().unwrap();
            let Some(Answer::Log(first)) = first.part else { panic!("{first:?}") };
            // The first line is here before the last is printed: it came in a message of its own.
            assert!(first.starts_with(b"line 0") && !first.ends_with(b"line 2\n"), "{first:?}");
            let rest = gathered(call.all().await.unwrap());
            assert_eq!([&first[..], &rest.logs].concat(), b"line 0\nline 1\nline 2\n");
            assert_eq!(rest.bytes, br#""talk""#);
            // Not asked for, not sent.
            assert!(invoke(&t, "f", r#""talk""#).await.unwrap().logs.is_empty());
        }
    });
}

#[test]
fn errors_have_the_same_codes_on_both_transports() {
    let daemon = Coppiced::start(Options::default());
    daemon.deploy(python("f"), &[("app.py", MANY)]).unwrap();
    daemon.deploy(proto::FunctionSpec { timeout_ms: 300, ..python("short") }, &[("app.py", MANY)]).unwrap();
    block_on(async {
        for t in both(&daemon).await {
            let name = |name: &str| proto::GetFunctionRequest { name: name.into() };
            let error = t.unary::<_, proto::Function>("Functions/Get", name("none")).await.unwrap_err();
            assert_eq!((error.code(), error.status), ("Function.NotFound", 5));
            let error = t
                .unary::<_, proto::DestroyResponse>(
                    "Instances/Destroy",
                    proto::DestroyRequest { id: "9".into() },
                )
                .await
                .unwrap_err();
            assert_eq!((error.code(), error.status), ("Instance.NotFound", 5));
            for (event, code, status) in [("{", "Request.NotJson", 3), ("\u{fffd}\"", "Request.NotJson", 3)] {
                let error = invoke(&t, "f", event).await.err().unwrap();
                assert_eq!((error.code(), error.status), (code, status));
            }
            let error = invoke(&t, "none", "1").await.err().unwrap();
            assert_eq!((error.code(), error.status), ("Function.NotFound", 5));
            // A function's own failures are answers, as AWS Lambda has them.
            for (function, event, kind) in [
                ("f", "fail", "ValueError"),
                ("f", "exit", "Runtime.ExitError"),
                ("short", "sleep", "Sandbox.Timedout"),
                ("f", "long", "Function.ResponseSizeTooLarge"),
            ] {
                let answered = invoke(&t, function, json!(event).to_string()).await.unwrap();
                assert_eq!(answered.end.function_error, "Unhandled", "{event}");
                let value: Value = serde_json::from_slice(&answered.bytes).unwrap();
                assert_eq!(value["errorType"], kind, "{value}");
            }
            // A method that there is not, a message that cannot be decoded, messages out of order.
            let error = t.unary::<_, proto::Function>("Functions/Take", name("f")).await.unwrap_err();
            assert_eq!((error.code(), error.status), ("Request.NoSuchMethod", 12));
            let error =
                t.unary::<_, proto::Function>("Functions/Get", Garbage(vec![0x0a, 0xff])).await.unwrap_err();
            assert_eq!((error.code(), error.status), ("Request.Malformed", 3));
            let mut call = t
                .call::<_, proto::InvokeResponse>(
                    "Instances/Invoke",
                    vec![proto::InvokeRequest::default(); 2],
                )
                .await
                .unwrap();
            assert_eq!(call.all().await.unwrap_err().code(), "Request.Malformed");
            let mut long = invoke_messages("f", b"1", false);
            long[1].part = Some(proto::invoke_request::Part::Chunk(vec![b' '; (1 << 20) + 1].into()));
            let mut call = t.call::<_, proto::InvokeResponse>("Instances/Invoke", long).await.unwrap();
            assert_eq!(call.all().await.unwrap_err().code(), "Request.TooLarge");
            // A deploy that fails says what the function said, in its events and with its status.
            let bad = [("app.py", "print('on the way')\nraise ValueError('not today')\n")];
            let messages = deploy_messages(python("f"), archive(&bad));
            let mut call = t.call::<_, proto::DeployEvent>("Functions/Deploy", messages).await.unwrap();
            let (mut printed, mut failed) = (Vec::new(), None);
            let error = loop {
                match call.next().await {
                    Ok(Some(event)) => match event.event.unwrap() {
                        Event::Output(bytes) => printed.extend_from_slice(&bytes),
                        Event::Failed(error) => failed = Some(error),
                        Event::Progress(_) => {}
                        Event::Deployed(_) => panic!("deployed"),
                    },
                    Ok(None) => panic!("no error"),
                    Err(error) => break error,
                }
            };
            assert_eq!(printed, b"on the way\n");
            assert_eq!((error.code(), error.status), ("Runtime.ImportError", 9));
            let said: Value = serde_json::from_slice(&failed.unwrap().function).unwrap();
            assert_eq!(
                (&said["errorType"], &said["errorMessage"]),
                (&json!("ValueError"), &json!("not today"))
            );
            assert_eq!(said, serde_json::from_slice::<Value>(&error.error.function).unwrap());
            assert_eq!(invoke(&t, "f", "1").await.unwrap().bytes, b"1", "the old version must serve");
        }
    });
}

/// Bytes that are no message.
#[derive(Clone, Debug, Default)]
struct Garbage(Vec<u8>);

impl prost::Message for Garbage {
    fn encode_raw(&self, buf: &mut impl prost::bytes::BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        _: u32,
        _: prost::encoding::WireType,
        _: &mut impl prost::bytes::Buf,
        _: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {}
}

#[test]
fn a_client_that_goes_away_takes_its_request_and_its_upload_with_it() {
    let daemon = Coppiced::start(Options::default());
    daemon.deploy(python("f"), &[("app.py", MANY)]).unwrap();
    block_on(async {
        let watching = Transport::grpc(&daemon.grpc()).await;
        for over_grpc in [true, false] {
            for logs in [true, false] {
                let t = connect(&daemon, over_grpc).await;
                let call = t.call::<_, proto::InvokeResponse>(
                    "Instances/Invoke",
                    invoke_messages("f", br#""sleep""#, logs),
                );
                let call = call.await.unwrap();
                until(async || working(&watching).await == 1, "the request is at work").await;
                drop((call, t));
                until(async || working(&watching).await == 0, "the instance of a client that is gone").await;
            }
            // Half an upload; and a deploy whose function imports for ever.
            let t = connect(&daemon, over_grpc).await;
            let mut call = t.open::<_, proto::DeployEvent>("Functions/Deploy", None).await.unwrap();
            let mut messages = deploy_messages(python("half"), vec![0; 3 << 20]);
            messages.pop();
            for message in messages {
                call.send(message).await;
            }
            let uploads = daemon.state().join("uploads");
            let files =
                || std::fs::read_dir(&uploads).unwrap().flatten().map(|e| e.metadata().unwrap().len());
            until(async || files().sum::<u64>() == 2 << 20, "the upload is under way").await;
            drop((call, t));
            until(async || files().count() == 0, "the upload of a client that is gone").await;

            let t = connect(&daemon, over_grpc).await;
            let before = daemon.sandboxes().len();
            let forever = [("app.py", "import time\ntime.sleep(600)\n")];
            let messages = deploy_messages(python("forever"), archive(&forever));
            let call = t.call::<_, proto::DeployEvent>("Functions/Deploy", messages).await.unwrap();
            until(async || daemon.sandboxes().len() > before, "the seed is growing").await;
            drop((call, t));
            until(async || daemon.sandboxes().len() == before, "the seed of a deploy that is given up").await;
            until(async || files().count() == 0, "the archive of a deploy that is given up").await;
        }
    });
}

#[test]
fn a_deployed_function_answers_through_the_helpers() {
    let mut daemon = Coppiced::start(Options::default());
    let function = daemon.deploy(python("echo"), &[("app.py", ECHO)]).unwrap();
    assert_eq!((function.version, function.state.as_str()), (1, "ready"));
    let (end, answer) = daemon.invoke("echo", r#"{"a": [1]}"#).unwrap();
    assert_eq!((answer.as_slice(), end.level), (&br#"{"a": [1]}"#[..], 2));
    assert!(daemon.stop().success());
}
