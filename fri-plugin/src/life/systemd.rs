//! What the service manager is told (sd_notify(3)). Without one, nothing happens.

use sd_notify::NotifyState;
use std::time::Duration;
use tokio::task::JoinHandle;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Requests are served from now on.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// What the daemon is doing, for `systemctl status`.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(&one_line(status))]);
}

/// The daemon is going down; it may take this long.
pub fn stopping(within: Duration) {
    let within = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(within), NotifyState::Status("stopping")]);
}

/// A line end would begin another message.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r', '\0'], " ")
}

/// Tells the watchdog that the daemon is alive, four times in the time that it allows, as long as `alive` says so within a quarter of it: an
/// answer that is slow, and one that does not come, leave it a quarter. `None` where there is no watchdog. The task runs where requests do:
/// when they hang, so does it, and the service manager starts the daemon anew.
pub fn watchdog<A: Future<Output = bool> + Send + 'static>(
    alive: impl FnMut() -> A + Send + 'static,
) -> Option<JoinHandle<()>> {
    let allowed = sd_notify::watchdog_enabled()?;
    Some(tokio::spawn(feed(allowed, alive, || tell(&[NotifyState::Watchdog]))))
}

async fn feed<A: Future<Output = bool> + Send>(
    allowed: Duration,
    mut alive: impl FnMut() -> A + Send,
    mut fed: impl FnMut() + Send,
) {
    let quarter = allowed / 4;
    let mut ticks = tokio::time::interval(quarter);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if tokio::time::timeout(quarter, alive()).await == Ok(true) {
            fed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;
    use std::sync::Mutex;

    const CHILD: &str = "COPPICE_TEST_SYSTEMD";

    /// The process of the next test: the environment of a service is a process's own.
    #[test]
    fn service() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            ready("2 functions\nREADY=0");
            let mut ticks = 0;
            let task = watchdog(move || {
                ticks += 1;
                let tick = ticks;
                async move {
                    match tick {
                        2 => false,
                        // Hangs: the next one is asked all the same.
                        3 => std::future::pending().await,
                        _ => true,
                    }
                }
            });
            tokio::time::sleep(Duration::from_millis(700)).await;
            task.unwrap().abort();
            stopping(Duration::from_secs(3));
        });
    }

    #[test]
    fn the_service_manager_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        // It is read when the child has ended: few enough messages that the socket has room for all (net.unix.max_dgram_qlen).
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "life::systemd::tests::service"])
            .env(CHILD, "1")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "400000")
            .env_remove("WATCHDOG_PID")
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        socket.set_nonblocking(true).unwrap();
        let mut told = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(n) = socket.recv(&mut buffer) {
            told.push(String::from_utf8(buffer[..n].to_vec()).unwrap());
        }
        assert_eq!(told.first().unwrap(), "READY=1\nSTATUS=2 functions READY=0\n");
        assert_eq!(told.last().unwrap(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=3000000\nSTATUS=stopping\n");
        let alive = told.iter().filter(|t| *t == "WATCHDOG=1\n").count();
        assert!((2..=6).contains(&alive), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_answers_and_a_missing_one_leave_the_watchdog_a_quarter_of_its_time() {
        use tokio::time::{Instant, sleep, timeout};
        let allowed = Duration::from_secs(20);
        // Milliseconds until each answer; one of 6000 comes too late for its quarter.
        for answers in [&[0][..], &[4900], &[0, 4900], &[0, 6000, 4900], &[4900, 6000, 4900, 0]] {
            let (mut asked, last, gap) = (0, Mutex::new(Instant::now()), Mutex::new(Duration::ZERO));
            let alive = || {
                let ms = answers[asked % answers.len()];
                asked += 1;
                async move {
                    sleep(Duration::from_millis(ms)).await;
                    true
                }
            };
            let fed = || {
                let since = std::mem::replace(&mut *last.lock().unwrap(), Instant::now()).elapsed();
                let mut gap = gap.lock().unwrap();
                *gap = since.max(*gap);
            };
            timeout(allowed * 10, feed(allowed, alive, fed)).await.unwrap_err();
            assert!(asked >= 20, "{answers:?}: asked {asked} times");
            let gap = gap.into_inner().unwrap();
            assert!(gap > Duration::ZERO && gap <= allowed * 3 / 4, "{answers:?}: {gap:?}");
            assert!(last.into_inner().unwrap().elapsed() < allowed, "{answers:?}");
        }
    }

    #[test]
    fn the_unit_says_what_the_daemon_does() {
        let unit = include_str!("../../coppiced.service");
        for line in ["Type=notify", "Delegate=yes", "Restart=on-failure", "KillMode=mixed"] {
            assert!(unit.lines().any(|l| l == line), "{line}");
        }
        let value = |key: &str| unit.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('=')).unwrap();
        assert!(value("ExecStart").ends_with(crate::config::PATH));
        let stop: u64 = value("TimeoutStopSec").parse().unwrap();
        assert!(stop * 1000 > crate::config::Config::default().drain_timeout_ms, "a drain is cut off");
        assert!(value("WatchdogSec").parse::<u64>().unwrap() >= 10);
        let config = crate::config::Config::default();
        assert!(
            config.state.ends_with(value("StateDirectory"))
                && config.run.ends_with(value("RuntimeDirectory"))
        );
    }
}
