//! `Functions.Logs`: what functions have printed, and what they print.

use super::{Outgoing, Service};
use crate::logs::Line;
use crate::proto;
use async_stream::try_stream;
use futures::StreamExt;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// Most lines of the past that are asked for at once.
const MOST: usize = 100_000;

impl Service {
    /// `Functions.Logs`.
    pub fn logs(&self, request: proto::LogsRequest) -> Outgoing<proto::LogLine> {
        let service = self.clone();
        try_stream! {
            let one = (!request.function.is_empty()).then_some(request.function.as_str());
            if let Some(name) = one {
                service.daemon().function(name)?;
            }
            // Followed before it is read: no line is missed in between. What is in both is left out once.
            let mut follower = request.follow.then(|| service.daemon().logs().follow(one));
            let past = service.past(one, request.tail).await;
            let mut known: HashSet<Known> = if follower.is_some() { past.iter().map(|l| of(l)).collect() } else { HashSet::new() };
            for line in past {
                yield message(&line);
            }
            while let Some(lines) = &mut follower {
                let line = tokio::select! {
                    line = lines.recv() => line,
                    () = service.closing() => break,
                };
                match line {
                    Ok(line) if known.remove(&of(&line)) => {}
                    Ok(line) => yield message(&line),
                    Err(RecvError::Lagged(n)) => yield proto::LogLine {
                        function: request.function.clone(),
                        text: format!("({n} lines were printed too fast to be shown)"),
                        ..Default::default()
                    },
                    // The function was removed.
                    Err(RecvError::Closed) => break,
                }
            }
        }
        .boxed()
    }

    /// The last lines of one function, or of all together, the oldest first.
    async fn past(&self, function: Option<&str>, lines: u32) -> Vec<Arc<Line>> {
        let lines = usize::try_from(lines).unwrap_or(MOST).min(MOST);
        if lines == 0 {
            return Vec::new();
        }
        let logs = self.daemon().logs();
        if let Some(function) = function {
            return logs.tail(function, lines).await;
        }
        let mut all = Vec::new();
        for function in self.daemon().functions() {
            let name = function.spec.map(|s| s.name).unwrap_or_default();
            all.extend(logs.tail(&name, lines).await);
            all.sort_by_key(|line| line.time_ns);
            all.drain(..all.len().saturating_sub(lines));
        }
        all
    }
}

type Known = (u64, String, String);

fn of(line: &Line) -> Known {
    (line.time_ns, line.request.clone(), line.text.clone())
}

fn message(line: &Line) -> proto::LogLine {
    proto::LogLine {
        time_unix_ns: line.time_ns,
        function: line.function.clone(),
        request_id: line.request.clone(),
        instance: line.instance.clone(),
        text: line.text.clone(),
    }
}
