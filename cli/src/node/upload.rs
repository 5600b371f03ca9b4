//! The messages of a deploy, read from the archives while they are sent, and its events as they are shown.

use super::pack;
use anyhow::Context;
use fri_plugin::fri::CHUNK;
use fri_plugin::fri::client::ClientError;
use fri_plugin::proto;
use fri_plugin::proto::archive::Kind;
use fri_plugin::proto::deploy_event::Event;
use fri_plugin::proto::deploy_request::Part;
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// An archive to be sent.
pub struct Archive {
    kind: Kind,
    file: File,
    bytes: u64,
}

impl Archive {
    /// A zip file as it is, or a directory as one.
    pub fn open(kind: Kind, path: &Path) -> anyhow::Result<Archive> {
        let fail = || format!("cannot read {}", path.display());
        let file = if std::fs::metadata(path).with_context(fail)?.is_dir() {
            pack::directory(path)?
        } else {
            File::open(path).with_context(fail)?
        };
        let bytes = file.metadata().with_context(fail)?.len();
        Ok(Archive { kind, file, bytes })
    }
}

/// What went wrong while an archive was read.
pub type Failure = Arc<Mutex<Option<std::io::Error>>>;

/// The messages of a deploy. They end early where an archive cannot be read; the failure says so.
pub fn messages(
    spec: proto::FunctionSpec,
    archives: Vec<Archive>,
    shown: Shown,
) -> (impl Iterator<Item = proto::DeployRequest> + Send + 'static, Failure) {
    let failure = Failure::default();
    let failed = failure.clone();
    shown.begin(archives.iter().map(|a| a.bytes).sum());
    let parts = archives.into_iter().flat_map(move |mut archive| {
        let (failed, shown) = (failed.clone(), shown.clone());
        let head = Part::Archive(proto::Archive { kind: archive.kind.into() });
        let chunks = std::iter::from_fn(move || {
            let mut chunk = Vec::new();
            match (&mut archive.file).take(CHUNK as u64).read_to_end(&mut chunk) {
                Ok(0) => None,
                Ok(n) => {
                    shown.sent(n as u64);
                    Some(Part::Chunk(chunk.into()))
                }
                Err(error) => {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    None
                }
            }
        });
        std::iter::once(head).chain(chunks)
    });
    let parts = std::iter::once(Part::Spec(spec)).chain(parts);
    (parts.map(|part| proto::DeployRequest { part: Some(part) }), failure)
}

/// Progress on stderr: a bar on a terminal, else a line for each step; nothing where JSON is wanted.
#[derive(Clone)]
pub struct Shown {
    bar: Option<ProgressBar>,
    quiet: bool,
}

impl Shown {
    pub fn new(as_json: bool) -> Shown {
        let bar = (!as_json && std::io::stderr().is_terminal()).then(ProgressBar::no_length);
        Shown { bar, quiet: as_json }
    }

    fn begin(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(bytes);
            let style = ProgressStyle::with_template("{spinner} {msg} {bytes}/{total_bytes}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message("uploading");
            bar.enable_steady_tick(Duration::from_millis(100));
        } else if !self.quiet {
            tell!("uploading {bytes} bytes");
        }
    }

    fn sent(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn step(&self, text: &str) {
        if let Some(bar) = &self.bar {
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_message(text.to_owned());
        } else if !self.quiet {
            tell!("{text}");
        }
    }

    fn printed(&self, bytes: &[u8]) {
        let write = || {
            let _ = crate::output::bytes(&mut std::io::stderr(), bytes);
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None if !self.quiet => write(),
            None => {}
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows the events of a deploy to their end.
pub async fn follow(
    mut events: tonic::Streaming<proto::DeployEvent>,
    shown: &Shown,
) -> Result<proto::Function, ClientError> {
    let mut failed = None;
    let result = loop {
        match events.message().await {
            Ok(Some(event)) => match event.event {
                Some(Event::Progress(text)) => shown.step(&text),
                Some(Event::Output(bytes)) => shown.printed(&bytes),
                Some(Event::Failed(error)) => failed = Some(error),
                Some(Event::Deployed(function)) => break Ok(function),
                None => {}
            },
            Ok(None) => break Err(ClientError::Protocol),
            // The event has the whole traceback.
            Err(status) => break Err(failed.map_or_else(|| status.into(), ClientError::Refused)),
        }
    };
    shown.end();
    result
}
