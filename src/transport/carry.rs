//! Sessions as files: one goes out as a stream, one comes in as a body of any length, and the words
//! of one that cannot be taken up are had back.

use std::io::{self, Write};

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use futures_util::stream;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::answering::{Answer, Prepared, Shared, answer, off_thread, service};
use super::body::discard;
use super::error::Error;
use super::sessions::{Id, named, reading, session};
use crate::door::fields::{Fields, refuse};
use crate::request::{Caller, Refusal};
use crate::service::{Outgoing, Service};

/// Bytes that go out in one piece.
const PIECE: usize = 256 << 10;
/// Pieces between the disk and the socket.
const PIECES: usize = 4;

/// Where a blocking writer leaves pieces for a socket.
struct Pipe(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Ok(Bytes::copy_from_slice(bytes));
        match self.0.blocking_send(piece) {
            Ok(()) => Ok(bytes.len()),
            // Its reader has left.
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pour(outgoing: &Outgoing, pieces: mpsc::Sender<io::Result<Bytes>>) {
    let mut out = io::BufWriter::with_capacity(PIECE, Pipe(pieces.clone()));
    if let Err(why) = outgoing.write(&mut out) {
        log::debug!("an export broke off: {why}");
        // Half a file must not look like a whole one: the connection is cut.
        let _ = pieces.blocking_send(Err(io::Error::other(why.to_string())));
    }
}

pub async fn export(State(door): Shared, Extension(caller): Extension<Caller>, id: Id) -> Answer {
    let id = named(id)?;
    let outgoing = off_thread(move || Ok(service(&door, &caller)?.export(caller.uid, &id)?));
    let outgoing = outgoing.await?;
    let (pieces, come) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || pour(&outgoing, pieces));
    let come = stream::unfold(come, async |mut come| Some((come.recv().await?, come)));
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, Body::from_stream(come)).into_response())
}

/// What a session that comes in is to be called.
#[derive(Debug, Deserialize)]
pub struct Named {
    name: Option<String>,
}

pub async fn import(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Named>, QueryRejection>,
    mut raw: Body,
) -> Answer {
    let name = match query {
        Ok(Query(named)) => Ok(named.name),
        Err(_) => refuse("name", "is given twice or no text"),
    };
    let taken = match name {
        Ok(name) => take(&door, &caller, &mut raw, name).await,
        Err(refused) => Err(refused.into()),
    };
    if taken.is_err() {
        discard(&door.limits, raw).await;
    }
    taken
}

/// Takes in the body as it comes, and makes a session of it. Its end is waited for as long as pieces
/// of it come.
async fn take(
    door: &std::sync::Arc<super::state::Http>,
    caller: &Caller,
    raw: &mut Body,
    name: Option<String>,
) -> Answer {
    let (pieces, mut come) = mpsc::channel::<Bytes>(PIECES);
    let (at, who) = (door.clone(), caller.clone());
    let stated = axum::body::HttpBody::size_hint(raw).lower();
    let made = tokio::spawn(off_thread(move || {
        let service = service(&at, &who)?;
        let mut incoming = service.sessions().receive(who.uid)?;
        incoming.expect(stated)?;
        while let Some(piece) = come.blocking_recv() {
            // Nothing ends a body but its end.
            if piece.is_empty() {
                let made = service.import(incoming, name)?;
                return Ok(Some(made));
            }
            incoming.write(&piece)?;
        }
        Ok(None)
    }));
    let broken = read(door, raw, &pieces).await.err();
    drop(pieces);
    let made = made.await.map_err(|_| Error::from(Refusal::Broken))?;
    match (made?, broken) {
        (Some(summary), _) => Ok(Json(session(&summary)).into_response()),
        (None, Some(broken)) => Err(broken),
        (None, None) => Err(Refusal::Broken.into()),
    }
}

/// The body's pieces, and an empty one when all of it came. Ends early where nobody takes them.
async fn read(
    door: &super::state::Http,
    raw: &mut Body,
    pieces: &mpsc::Sender<Bytes>,
) -> Result<(), Error> {
    loop {
        let frame = tokio::time::timeout(door.limits.body, raw.frame()).await;
        let frame = frame.map_err(|_| {
            let why = "the file's next piece did not come in time".to_owned();
            Error::new(StatusCode::REQUEST_TIMEOUT, Some("timeout"), why)
        })?;
        let piece = match frame {
            None => Bytes::new(),
            Some(Err(e)) => {
                let why = format!("the file cannot be read: {e}");
                return Err(Error::new(StatusCode::BAD_REQUEST, None, why));
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if !data.is_empty() => data,
                _ => continue,
            },
        };
        let is_end = piece.is_empty();
        if pieces.send(piece).await.is_err() || is_end {
            return Ok(());
        }
    }
}

pub async fn rebuild(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    id: Id,
    raw: Body,
) -> Answer {
    let id = named(id)?;
    let prepare = move |service: &Service, caller: &Caller, value: &Value| {
        let stream = Fields::of(value, "")?.boolean("stream")?;
        let summary = service.rebuild(caller.uid, &id)?;
        if summary.messages == 0 {
            Ok(Prepared::Done(session(&summary)))
        } else {
            reading(&summary, stream == Some(true))
        }
    };
    answer(door, caller, raw, prepare).await
}
