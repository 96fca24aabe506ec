//! Sessions as files of the person's: one that is written as it comes, one that is sent as it is read.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::Bytes;
use futures_util::stream;
use serde_json::Value;
use tokio::sync::mpsc;

use super::session::spelled;
use super::{ClientError, Daemon, input};

/// Bytes that are sent in one piece, and pieces that wait to be sent.
const PIECE: usize = 1 << 20;
const PIECES: usize = 4;

fn is_standard(file: &Path) -> bool {
    file == Path::new("-")
}

/// What is broken off leaves no file.
pub async fn export(daemon: &Daemon, path: &str, file: &Path) -> Result<(), ClientError> {
    if is_standard(file) {
        let mut out = std::io::stdout();
        if out.is_terminal() {
            return Err(input("an export is no text: give a file, or a pipe"));
        }
        return daemon
            .bytes(path, |bytes| {
                out.write_all(bytes).map_err(ClientError::Output)
            })
            .await;
    }
    let failed = |e: std::io::Error| input(format!("{}: {e}", file.display()));
    let mut out = None;
    let written = daemon.bytes(path, |bytes| {
        let out = match &mut out {
            Some(out) => out,
            // Once there is something to write. It is as private as the conversation.
            None => {
                let made = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(file);
                out.insert(made.map_err(failed)?)
            }
        };
        out.write_all(bytes).map_err(failed)
    });
    let written = written.await;
    if written.is_err() && out.is_some() {
        // It is half a session; that it may still be there is told by the error.
        let _ = std::fs::remove_file(file);
    }
    written
}

pub async fn import(
    daemon: &Daemon,
    file: &Path,
    name: Option<&str>,
) -> Result<Value, ClientError> {
    let from: Box<dyn Read + Send> = if is_standard(file) {
        Box::new(std::io::stdin())
    } else {
        let opened = File::open(file);
        Box::new(opened.map_err(|e| input(format!("{}: {e}", file.display())))?)
    };
    let (pieces, come) = mpsc::channel(PIECES);
    std::thread::spawn(move || pour(from, &pieces));
    let come = stream::unfold(come, async |mut come: mpsc::Receiver<_>| {
        Some((come.recv().await?, come))
    });
    let name = name.map_or(String::new(), |name| format!("?name={}", spelled(name)));
    daemon
        .pour(&format!("/v1/sessions/import{name}"), come)
        .await
}

/// Until the end, an error, or until nobody takes any more.
fn pour(mut from: Box<dyn Read + Send>, pieces: &mpsc::Sender<std::io::Result<Bytes>>) {
    loop {
        let mut piece = Vec::new();
        let read = from.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let is_last = !matches!(read, Ok(n) if n > 0);
        let piece = match read {
            Ok(0) => return,
            read => read.map(|_| Bytes::from(piece)),
        };
        if pieces.blocking_send(piece).is_err() || is_last {
            return;
        }
    }
}
