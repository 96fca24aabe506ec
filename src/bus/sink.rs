//! Where an answer's events go: down a pipe that the caller holds the other end of, or to the
//! caller alone as signals. A pipe that is not read holds back only its own answer.

use std::os::fd::OwnedFd;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;
use zbus::object_server::{ResponseDispatchListener, SignalEmitter};

use super::names::GENERATION;
use super::value;

/// The caller is not there any more, or has not read for too long.
#[derive(Debug, PartialEq, Eq)]
pub struct Left;

pub enum Sink {
    Descriptor {
        pipe: pipe::Sender,
        patience: Duration,
    },
    Signals {
        /// Of the generation, to its caller alone.
        emitter: SignalEmitter<'static>,
        gone: CancellationToken,
        /// The caller learns the object's path from the reply, which must come first.
        replied: Option<ResponseDispatchListener>,
    },
}

impl Sink {
    /// The end to keep and the end to give away, which blocks as readers expect.
    pub fn pipe(patience: Duration) -> Result<(Sink, OwnedFd), std::io::Error> {
        let (pipe, theirs) = pipe::pipe()?;
        Ok((
            Sink::Descriptor { pipe, patience },
            theirs.into_blocking_fd()?,
        ))
    }

    pub async fn say(&mut self, event: &Value) -> Result<(), Left> {
        match self {
            Sink::Descriptor { pipe, patience } => {
                let line = format!("{event}\n");
                let written = tokio::time::timeout(*patience, pipe.write_all(line.as_bytes()));
                match written.await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) | Err(_) => Err(Left),
                }
            }
            Sink::Signals {
                emitter, replied, ..
            } => {
                if let Some(replied) = replied.take() {
                    replied.await;
                }
                signal(emitter, event).await.map_err(|_| Left)
            }
        }
    }

    /// Returns when nobody can be reading any more.
    pub async fn left(&self) {
        match self {
            Sink::Descriptor { pipe, .. } => closed(pipe).await,
            Sink::Signals { gone, .. } => gone.cancelled().await,
        }
    }
}

#[cfg(target_os = "linux")]
async fn closed(pipe: &pipe::Sender) {
    loop {
        match pipe.ready(tokio::io::Interest::ERROR).await {
            // Readiness can be spurious.
            Ok(ready) if !ready.is_error() && !ready.is_write_closed() => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// Elsewhere a pipe shows at the next write that it was closed.
#[cfg(not(target_os = "linux"))]
async fn closed(_: &pipe::Sender) {
    std::future::pending().await
}

async fn signal(emitter: &SignalEmitter<'_>, event: &Value) -> zbus::Result<()> {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let mut rest = event.clone();
    let fields = rest.as_object_mut();
    let drop_fields = |names: &[&str]| {
        fields
            .into_iter()
            .for_each(|f| names.iter().for_each(|n| drop(f.remove(*n))));
    };
    match text("event") {
        "delta" => {
            let choice = event["choice"].as_u64().unwrap_or_default() as u32;
            drop_fields(&["event", "choice", "kind", "text"]);
            let body = (
                choice,
                text("kind"),
                value::text(text("text")),
                value::dictionary(&rest),
            );
            emitter.emit(GENERATION, "Delta", &body).await
        }
        "end" => {
            let mut usage = value::dictionary(&event["usage"]);
            drop_fields(&["event", "reason", "usage"]);
            usage.extend(value::dictionary(&rest));
            let body = (text("reason"), usage);
            emitter.emit(GENERATION, "Finished", &body).await
        }
        // The start is the reply; how each choice ended is in the last signal's `reasons`.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Read;

    const SOON: Duration = Duration::from_secs(30);

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_closed_descriptor_is_noticed_while_there_is_nothing_to_say() {
        let (sink, theirs) = Sink::pipe(SOON).expect("a pipe");
        let early = tokio::time::timeout(Duration::from_millis(20), sink.left());
        assert!(early.await.is_err(), "it is still open");
        drop(theirs);
        let noticed = tokio::time::timeout(SOON, sink.left());
        assert_eq!(noticed.await, Ok(()));
    }

    #[tokio::test]
    async fn a_reader_that_stops_reading_is_given_up_after_the_patience() {
        let (mut sink, _theirs) = Sink::pipe(Duration::from_millis(20)).expect("a pipe");
        let line = json!({"text": "x".repeat(1000)});
        let mut said = 0;
        while sink.say(&line).await == Ok(()) {
            said += 1;
        }
        assert!(said > 0, "some fits the pipe");
    }

    #[tokio::test]
    async fn each_event_is_a_line() {
        let (mut sink, theirs) = Sink::pipe(SOON).expect("a pipe");
        let event = json!({"text": "two\nlines"});
        assert_eq!(sink.say(&event).await, Ok(()));
        drop(sink);
        let mut text = String::new();
        std::fs::File::from(theirs)
            .read_to_string(&mut text)
            .expect("text");
        assert_eq!(text, "{\"text\":\"two\\nlines\"}\n");
    }
}
