//! `coppice top`: the functions of a node, live.

use super::function::Common;
use crate::node::{refused, show};
use fri_plugin::fri::client::{Client, ClientError};
use fri_plugin::proto;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::widgets::{Paragraph, Row, Table};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coppice top\n  coppice top --once --json\n\nKeys: q ends it.")]
pub struct Args {
    /// Print once and end, as where standard output is no terminal
    #[arg(long)]
    once: bool,
    /// Time between two looks, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,
    #[command(flatten)]
    common: Common,
}

/// What the node says at one moment.
struct Look {
    at: Instant,
    status: proto::StatusResponse,
    functions: Vec<proto::Function>,
}

impl Look {
    async fn take(client: &Client) -> Result<Look, ClientError> {
        let request = proto::StatusRequest { memory: true };
        let status = client.node().status(request).await?.into_inner();
        let request = proto::ListFunctionsRequest {};
        let functions = client.functions().list(request).await.map_err(refused)?.into_inner().functions;
        Ok(Look { at: Instant::now(), status, functions })
    }

    /// Requests per second of each function since an earlier look.
    #[allow(clippy::cast_precision_loss)] // for people
    fn rates(&self, before: &Look) -> BTreeMap<&str, f64> {
        let seconds = self.at.duration_since(before.at).as_secs_f64().max(0.001);
        let requests = |f: &proto::Function| f.counts.unwrap_or_default().requests;
        let earlier: BTreeMap<&str, u64> = before.functions.iter().map(|f| (name(f), requests(f))).collect();
        let rate = |f: &proto::Function| {
            let since = requests(f).saturating_sub(earlier.get(name(f)).copied().unwrap_or(0));
            since as f64 / seconds
        };
        self.functions.iter().map(|f| (name(f), rate(f))).collect()
    }
}

fn name(function: &proto::Function) -> &str {
    function.spec.as_ref().map_or("", |s| s.name.as_str())
}

/// Shows it until told to end.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let interval = Duration::from_millis(super::milliseconds(args.interval)?);
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let once = args.once || args.common.json || !is_terminal;
    args.common.socket.run(args.common.json, async |client| {
        let first = Look::take(&client).await?;
        if once {
            if args.common.json {
                say!("{}", serde_json::json!({"status": first.status, "functions": first.functions}));
            } else {
                say!("{}\n{}", show::status(&first.status), show::functions(&first.functions));
            }
            return Ok(0);
        }
        let mut terminal = ratatui::try_init()?;
        let result = live(&mut terminal, &client, first, interval).await;
        ratatui::restore();
        result.map(|()| 0)
    })
}

async fn live(
    terminal: &mut DefaultTerminal,
    client: &Client,
    first: Look,
    interval: Duration,
) -> anyhow::Result<()> {
    let (mut before, mut look) = (None, first);
    loop {
        terminal.draw(|frame| draw(frame, before.as_ref(), &look))?;
        let wait = interval.saturating_sub(look.at.elapsed());
        if tokio::task::spawn_blocking(move || ends_within(wait)).await?? {
            return Ok(());
        }
        if look.at.elapsed() >= interval {
            let next = Look::take(client).await?;
            before = Some(std::mem::replace(&mut look, next));
        }
    }
}

/// Whether somebody asks for the end.
fn ends_within(wait: Duration) -> std::io::Result<bool> {
    if !event::poll(wait)? {
        return Ok(false);
    }
    let Event::Key(key) = event::read()? else { return Ok(false) };
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    Ok(control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

fn draw(frame: &mut ratatui::Frame<'_>, before: Option<&Look>, look: &Look) {
    let areas: [_; 2] = Layout::vertical([Constraint::Length(4), Constraint::Min(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(show::status(&look.status)), areas[0]);
    let rates = before.map(|before| look.rates(before)).unwrap_or_default();
    let mut functions: Vec<&proto::Function> = look.functions.iter().collect();
    let rate = |f: &proto::Function| rates.get(name(f)).copied().unwrap_or(0.0);
    functions.sort_by(|a, b| rate(b).total_cmp(&rate(a)).then_with(|| name(a).cmp(name(b))));
    let rows = functions.iter().map(|function| {
        let counts = function.counts.unwrap_or_default();
        Row::new([
            name(function).to_owned(),
            function.state.clone(),
            format!("{:.1}", rate(function)),
            counts.requests.to_string(),
            counts.running.to_string(),
            counts.waiting.to_string(),
            counts.spares.to_string(),
            counts.kept.to_string(),
            counts.errors.to_string(),
            counts.refused.to_string(),
            show::bytes(counts.pss_bytes),
        ])
    });
    let header = [
        "function", "state", "req/s", "requests", "running", "waiting", "spares", "kept", "errors",
        "refused", "memory",
    ];
    let mut widths = vec![Constraint::Min(16), Constraint::Length(9)];
    widths.resize(header.len(), Constraint::Length(9));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Table::new(rows, widths).header(Row::new(header).style(bold)), areas[1]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn look(at: Instant, requests: u64) -> Look {
        let function = |name: &str, requests| proto::Function {
            spec: Some(proto::FunctionSpec { name: name.into(), ..Default::default() }),
            state: "ready".into(),
            counts: Some(proto::FunctionCounts { requests, ..Default::default() }),
            ..Default::default()
        };
        let status = proto::StatusResponse { state: "ready".into(), ..Default::default() };
        Look { at, status, functions: vec![function("idle", 5), function("busy", requests)] }
    }

    #[test]
    fn the_busiest_function_is_on_top_with_its_rate() {
        let start = Instant::now();
        let (before, after) = (look(start, 100), look(start + Duration::from_secs(2), 150));
        let mut terminal = Terminal::new(TestBackend::new(120, 10)).unwrap();
        terminal.draw(|frame| draw(frame, Some(&before), &after)).unwrap();
        let screen = terminal.backend().to_string();
        let lines: Vec<&str> = screen.lines().filter(|l| l.contains("ready")).collect();
        assert!(lines[1].contains("busy") && lines[1].contains("25.0"), "{screen}");
        assert!(lines[2].contains("idle") && lines[2].contains("0.0"), "{screen}");
    }
}
