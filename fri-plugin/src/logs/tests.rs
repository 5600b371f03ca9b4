use super::*;
use seedtree::node::instance::Sink;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

fn texts<L: std::ops::Deref<Target = Line>>(lines: &[L]) -> Vec<&str> {
    lines.iter().map(|l| l.text.as_str()).collect()
}

fn files(state: &Path) -> BTreeMap<String, u64> {
    let entries = std::fs::read_dir(state.join("logs")).into_iter().flatten().flatten();
    entries.map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len())).collect()
}

#[tokio::test]
async fn what_is_printed_becomes_lines() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), 1 << 20, 1 << 20);
    let mut follower = logs.follow(Some("f"));
    let mut all = logs.follow(None);
    let mut request = logs.request("f", "id-1");
    request.printed(b"one\ntw");
    request.printed(b"o\n\nna\xc3");
    request.set_instance("i-1");
    request.printed(b"\xafve \xff");
    request.platform("REPORT");
    request.printed(b"end");
    assert_eq!(request.tail(), b"one\ntwo\n\nna\xc3\xafve \xffREPORT\nend");
    drop(request);
    let lines = logs.tail("f", 100).await;
    assert_eq!(texts(&lines), ["one", "two", "", "naïve \u{fffd}", "REPORT", "end"]);
    assert_eq!((lines[4].stream, lines[5].stream), (Stream::Platform, Stream::Output));
    assert_eq!((lines[0].request.as_str(), lines[0].instance.as_str()), ("id-1", ""));
    assert_eq!(lines[5].instance, "i-1");
    assert!(lines.is_sorted_by_key(|l| l.time_ns));
    for line in &lines {
        assert_eq!(&follower.recv().await.unwrap(), line);
        assert_eq!(&all.recv().await.unwrap(), line);
    }
    assert_eq!(texts(&logs.tail("f", 2).await), ["REPORT", "end"]);
    assert!(logs.tail("g", 2).await.is_empty());
}

#[tokio::test]
async fn logs_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), 1 << 20, 1 << 20);
    logs.request("f", "r").printed(b"before\n");
    logs.flush().await;
    drop(logs);
    // A crash in the middle of a line.
    let path = dir.path().join("logs/f.jsonl");
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"time_ns\":5,\"fun");
    std::fs::write(&path, text).unwrap();
    let logs = Logs::open(dir.path(), 1 << 20, 1 << 20);
    logs.request("f", "r").printed(b"after\n");
    assert_eq!(texts(&logs.tail("f", 10).await), ["before", "after"]);
}

#[tokio::test]
async fn a_function_that_prints_without_end_has_its_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), 256 << 10, 16 << 10);
    let mut follower = logs.follow(Some("f"));
    let mut request = logs.request("f", "r");
    let chunk = vec![b'x'; 16 << 10];
    let began = std::time::Instant::now();
    for _ in 0..4000 {
        request.printed(&chunk);
        tokio::task::yield_now().await;
    }
    assert!(request.tail().len() == TAIL && request.partial_bytes() <= line::LONGEST);
    drop(request);
    logs.flush().await;
    let files = files(dir.path());
    assert_eq!(files.keys().collect::<Vec<_>>(), ["f.jsonl", "f.jsonl.1"]);
    assert!(files.values().sum::<u64>() <= 256 << 10, "{files:?}");
    assert!(lock(&logs.of("f").ring).last(usize::MAX).len() < 3);
    // 8000 lines were printed: 8 MiB at once, and 1 MiB a second.
    let admitted = (9 + began.elapsed().as_secs()) * (1 << 20) / u64::try_from(line::LONGEST).unwrap();
    assert!(logs.dropped() >= 8000u64.saturating_sub(admitted), "{}", logs.dropped());
    assert!(matches!(follower.recv().await, Err(RecvError::Lagged(_))));
    // Another one is not held up by it.
    logs.request("g", "r").printed(b"fine\n");
    assert_eq!(texts(&logs.tail("g", 10).await), ["fine"]);
}

#[tokio::test]
async fn lines_of_escapes_stay_within_the_bytes_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), 128 << 10, 16 << 10);
    let mut request = logs.request("f", "r");
    for _ in 0..40 {
        request.printed(&[1; 8000]);
        request.printed(b"\n");
        logs.flush().await;
        assert!(files(dir.path()).values().sum::<u64>() <= 128 << 10);
    }
}

#[tokio::test]
async fn a_disk_that_takes_nothing_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    // Where the directory should be.
    std::fs::write(dir.path().join("logs"), "").unwrap();
    let logs = Logs::open(dir.path(), 1 << 20, 1 << 20);
    for n in 0..10 {
        logs.request("f", "r").printed(format!("{n}\n").as_bytes());
    }
    assert_eq!(logs.tail("f", 100).await.len(), 10);
    assert_eq!(logs.dropped(), 10);
    std::fs::remove_file(dir.path().join("logs")).unwrap();
    logs.request("f", "r").printed(b"again\n");
    logs.flush().await;
    assert_eq!((logs.dropped(), files(dir.path()).len()), (10, 1));
}

#[tokio::test]
async fn a_removed_function_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), 1 << 20, 1 << 20);
    let mut late = logs.request("f", "r");
    late.printed(b"first\n");
    logs.remove("f").await;
    assert!(files(dir.path()).is_empty());
    late.printed(b"late\n");
    drop(late);
    logs.flush().await;
    assert!(files(dir.path()).is_empty());
    assert!(logs.tail("f", 10).await.is_empty());
    for name in ["a", "b"] {
        logs.request(name, "r").printed(b"x\n");
    }
    logs.collect(["a".to_owned()].into()).await;
    assert_eq!(files(dir.path()).keys().collect::<Vec<_>>(), ["a.jsonl"]);
}

#[tokio::test]
async fn nothing_goes_to_disk_where_it_is_not_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), 0, 1 << 20);
    logs.request("f", "r").printed(b"x\n");
    logs.remove("g").await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(logs.tail("f", 10).await.len(), 1);
    assert!(files(dir.path()).is_empty() && logs.dropped() == 0);
}

#[tokio::test]
async fn who_has_stopped_following_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), 0, 1 << 20);
    drop(logs.follow(Some("f")));
    logs.request("f", "r").printed(b"x\n");
    assert!(lock(&logs.of("f").followers.0).is_none());
}
