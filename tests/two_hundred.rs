//! Many functions on one node, Python and Node.js, under a budget of memory that is too small for all seeds: all answer, and what is held
//! stays within the budget.
//!
//! 30 functions by default; `COPPICE_FUNCTIONS=200` has a budget of 2 GiB.

mod support;

use fri_plugin::proto;
use serde_json::json;
use std::time::{Duration, Instant};
use support::daemon::{Coppiced, Options, block_on};
use support::http::Client;

/// Budget for each function, bytes: 2 GiB for two hundred.
const SHARE: u64 = (2 << 30) / 200;
/// Memory of each function's own, bytes.
const OWN: usize = 8 << 20;
/// Between two looks of the daemon at its memory, ms.
const INTERVAL: u64 = 500;

fn status(daemon: &Coppiced) -> proto::StatusResponse {
    block_on(async {
        let client = daemon.client().await;
        client.node().status(proto::StatusRequest { memory: true }).await.unwrap().into_inner()
    })
}

fn name(n: usize) -> String {
    format!("function-{n}")
}

#[test]
fn all_answer_and_the_seeds_stay_within_the_budget() {
    let functions =
        std::env::var("COPPICE_FUNCTIONS").map_or(30, |v| v.parse().unwrap_or_else(|e| panic!("{v}: {e}")));
    let budget = SHARE * u64::try_from(functions).unwrap();
    let more = format!("[memory]\nbudget = {budget}\n[reclaim]\ninterval_ms = {INTERVAL}\n");
    let mut daemon =
        Coppiced::start(Options { runtimes: vec!["python", "node"], more, ..Options::default() });
    let began = Instant::now();
    let mut highest = 0;
    for n in 0..functions {
        let (runtime, file, text) = if n % 2 == 0 {
            let text = format!(
                "import json, decimal\nown = bytearray(b'x' * {OWN})\ndef handler(event, context):\n    return [{n}, event]\n"
            );
            ("python", "app.py", text)
        } else {
            let text = format!(
                "export const own = Buffer.alloc({OWN}, 1);\nexport const handler = async (event) => [{n}, event];\n"
            );
            ("node", "app.mjs", text)
        };
        let spec = proto::FunctionSpec {
            name: name(n),
            runtime: runtime.into(),
            handler: "app.handler".into(),
            memory_bytes: 256 << 20,
            timeout_ms: 60_000,
            ..Default::default()
        };
        daemon.deploy(spec, &[(file, &text)]).unwrap_or_else(|e| panic!("{n}: {e}: {}", daemon.log()));
        if n % 20 == 19 {
            highest = highest.max(status(&daemon).memory.unwrap().pss_bytes);
        }
    }
    let deployed = began.elapsed();
    let mut client = Client::new(daemon.gateway(), Duration::from_secs(60));
    // Twice: the second round asks also those whose seeds went for the others'.
    for round in 0..2 {
        for n in 0..functions {
            let response = client.invoke(&name(n), format!("{round}").as_bytes()).unwrap();
            assert_eq!((response.status, response.json()), (200, json!([n, round])), "{n}: {}", daemon.log());
        }
        highest = highest.max(status(&daemon).memory.unwrap().pss_bytes);
    }
    // It is looked over now and then: a moment later it is within the budget.
    let start = Instant::now();
    let settled = loop {
        std::thread::sleep(Duration::from_millis(2 * INTERVAL));
        let status = status(&daemon);
        let held = status.memory.unwrap().pss_bytes;
        if held <= budget || start.elapsed() > Duration::from_secs(30) {
            break status;
        }
    };
    let memory = settled.memory.unwrap();
    eprintln!(
        "{functions} functions in {deployed:?}: {} seeds, {} MiB held (PSS), at most {} MiB seen",
        settled.seeds,
        memory.pss_bytes >> 20,
        highest >> 20
    );
    assert_eq!(settled.functions as usize, functions);
    assert!(memory.pss_bytes <= budget, "{} bytes are held", memory.pss_bytes);
    assert!(settled.seeds as usize <= functions, "nothing was given up: the budget was never short");
    assert!(daemon.stop().success(), "{}", daemon.log());
}
