//! A seed that is played here, without a sandbox: what becomes of requests when it dies or falls silent.

use super::*;
use crate::handle::sleeper;
use crate::proto::{Role, receive, send};

/// The seed's end of its channel, and the seed as the node has it.
fn seed(fork_timeout_ms: u64) -> (Channel, Arc<NodeSeed>) {
    let (ours, theirs) = Channel::pair().unwrap();
    let reaper = Reaper::start();
    let planter = Planter::start(reaper.known.clone(), Duration::from_secs(60)).unwrap();
    let ground = Ground { queue: 16, fork_timeout_ms, reaper: reaper.clone(), planter, lost: Arc::default() };
    let forked =
        Forked { channel: AsyncChannel::new(ours).unwrap(), process: Process::new(sleeper(), reaper) };
    (theirs, Arc::new(NodeSeed::new(2, "played".into(), 0, forked, ground)))
}

fn spec() -> ForkSpec {
    ForkSpec {
        id: "x".into(),
        role: Role::Instance,
        name: "f".into(),
        steps: Vec::new(),
        memory: None,
        cpus: None,
        timeout_ms: 1,
        record: false,
        measure: false,
        keep: false,
    }
}

/// Asks for forks, in this order; the seed has got them, or they wait.
async fn ask(seed: &Arc<NodeSeed>, count: usize) -> Vec<tokio::task::JoinHandle<Result<i32, ForkError>>> {
    let mut asked = Vec::new();
    for n in 0..count {
        let seed_ = seed.clone();
        asked
            .push(tokio::spawn(async move { seed_.fork(spec(), Vec::new()).await.map(|f| f.process.pid()) }));
        while seed.forks.load(Ordering::Relaxed) <= n as u64 {
            tokio::task::yield_now().await;
        }
    }
    while seed.queued() > count.saturating_sub(UNDER_WAY) {
        tokio::task::yield_now().await;
    }
    asked
}

/// What became of each: `o`k, `g`one (another seed may be asked), `f`ailed.
async fn outcomes(asked: Vec<tokio::task::JoinHandle<Result<i32, ForkError>>>) -> String {
    let mut text = String::new();
    for one in asked {
        text.push(match one.await.unwrap() {
            Ok(_) => 'o',
            Err(ForkError::Gone(_)) => 'g',
            Err(ForkError::Failed(_)) => 'f',
            Err(ForkError::Overloaded(_)) => 'x',
        });
    }
    text
}

fn announce(theirs: &Channel) {
    let child = sleeper();
    send(theirs, &Event::Forked { pid: child.pid }, &[child.as_fd()]).unwrap();
    let mut child = child;
    child.forget();
}

#[tokio::test]
async fn requests_that_a_dead_seed_may_have_forked_fail_and_the_others_go_elsewhere() {
    // It read one and told of nothing; of two more one may have been read, the last was not; two wait.
    let (theirs, seed_) = seed(60_000);
    let asked = ask(&seed_, 6).await;
    receive::<Request>(&theirs).unwrap();
    drop(theirs);
    assert_eq!(outcomes(asked).await, "fffggg");
    assert!(seed_.is_gone());
    // It read all that it was sent.
    let (theirs, seed_) = seed(60_000);
    let asked = ask(&seed_, 3).await;
    for _ in 0..3 {
        receive::<Request>(&theirs).unwrap();
    }
    drop(theirs);
    assert_eq!(outcomes(asked).await, "fff");
    assert!(matches!(seed_.fork(spec(), Vec::new()).await, Err(ForkError::Gone(_))));
}

#[tokio::test]
async fn what_a_seed_told_before_its_end_counts() {
    let (theirs, seed_) = seed(60_000);
    let asked = ask(&seed_, 4).await;
    receive::<Request>(&theirs).unwrap();
    receive::<Request>(&theirs).unwrap();
    announce(&theirs);
    announce(&theirs);
    drop(theirs);
    assert_eq!(outcomes(asked).await, "oofg");
}

#[tokio::test]
async fn a_silent_seed_is_given_up_and_killed() {
    let (theirs, seed_) = seed(200);
    let asked = ask(&seed_, 6).await;
    let outcome = outcomes(asked).await;
    // Each of those that it was sent fails; those that wait give up at the same time, or go elsewhere.
    assert!(outcome.starts_with("ffff"), "{outcome}");
    while !seed_.is_gone() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Not reaped as long as somebody holds it.
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", seed_.pid())).unwrap();
    while !stat().contains(") Z") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(theirs);
}

#[tokio::test]
async fn a_child_that_nobody_waits_for_is_ended() {
    let (theirs, seed_) = seed(60_000);
    let asked = ask(&seed_, 1).await;
    receive::<Request>(&theirs).unwrap();
    asked[0].abort();
    let child = sleeper();
    let pid = child.pid;
    // Let the request go before its child is told of.
    tokio::time::sleep(Duration::from_millis(20)).await;
    send(&theirs, &Event::Forked { pid }, &[child.as_fd()]).unwrap();
    let mut child = child;
    child.forget();
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A request that nobody waits for any more is not even sent.
    assert!(!seed_.is_gone());
}
