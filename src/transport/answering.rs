//! From a body to its answer: read, asked of the service, heard out whole or as a stream of events. Which
//! body asks for what, the routes say.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::Value;

use super::answers::Answers;
use super::background::{self, Running};
use super::cached::Found;
use super::error::Error;
use super::render::{Frame, Render};
use super::replies::Replies;
use super::scores;
use super::state::Http;
use super::{body, cached, messages, reading, responses};
use crate::door::chat::Asked;
use crate::request::{Caller, Failure, Refusal};
use crate::service::{Generation, Service};

pub(super) type Shared = State<Arc<Http>>;
pub(super) type Answer = Result<Response, Error>;

pub(super) fn service<'a>(door: &'a Http, caller: &Caller) -> Result<&'a Service, Refusal> {
    let service = door.service.get().ok_or(Refusal::Loading)?;
    service.permit(caller)?;
    Ok(service)
}

pub(super) async fn body(door: &Http, raw: Body) -> Result<body::Read, Error> {
    body::read(&door.bodies, &door.limits, raw).await
}

/// Long texts take milliseconds to tokenize: the sockets' threads do not wait for that.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => {
            log::error!("a request's preparation failed: {e}");
            Err(Failure::Broken.into())
        }
    }
}

/// The bodies that ask for an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Chat,
    Completion,
    Responses,
    Messages,
    /// Nothing is answered; what was read belongs to this session.
    Reading(Value),
}

impl Kind {
    fn render(self, asked: &Asked, generations: &[Generation], found: &[Found]) -> Box<dyn Render> {
        let prompts: Vec<_> = generations.iter().map(|g| g.prompt.clone()).collect();
        let marks = || generations.iter().flat_map(|g| g.marks.clone()).collect();
        let n_tokens = || prompts.iter().map(Vec::len).sum();
        match self {
            Kind::Chat => Box::new(Replies::new(scores::Kind::Chat, asked, prompts)),
            Kind::Completion => Box::new(Replies::new(scores::Kind::Completion, asked, prompts)),
            Kind::Responses => Box::new(responses::Answer::of(asked)),
            Kind::Messages => {
                let found = found.first().cloned();
                Box::new(messages::Answer::new(n_tokens(), marks(), found))
            }
            Kind::Reading(session) => Box::new(reading::Reading::new(session, n_tokens())),
        }
    }
}

/// What a body came to.
pub(super) enum Prepared {
    Asks(Asked, Kind),
    /// Nothing has to run.
    Done(Value),
}

/// Where an answer is heard out.
enum How {
    Here(Box<dyn Render>),
    /// Whether somebody stays or not.
    Behind(background::Place, Box<responses::Answer>),
}

/// Reads a body, and answers what `prepare` makes of it.
pub(super) async fn answer(
    door: Arc<Http>,
    caller: Caller,
    raw: Body,
    prepare: impl FnOnce(&Service, &Caller, &Value) -> Result<Prepared, Refusal> + Send + 'static,
) -> Answer {
    // Read before anything is refused: a client that is still sending would not see the answer.
    let body = body(&door, raw).await;
    service(&door, &caller)?;
    let body = body?;
    let at = door.clone();
    let begun = off_thread(move || {
        let service = service(&at, &caller)?;
        let (asked, kind) = match prepare(service, &caller, &body.value)? {
            Prepared::Asks(asked, kind) => (asked, kind),
            Prepared::Done(answer) => return Ok(Err(answer)),
        };
        let place = asked.background.then_some(asked.thread.as_ref()).flatten();
        let place = place.map(|thread| at.background.place(caller.uid, &thread.id));
        let place = place.transpose()?;
        // One that is refused drops, and so cancels, those before it.
        let thread = || asked.thread.clone();
        let submit = |r: &_| service.submit_in(caller.clone(), Clone::clone(r), thread());
        let generations = asked.requests.iter().map(submit);
        let mut generations = generations.collect::<Result<Vec<Generation>, _>>()?;
        let found: Vec<Found> = generations.iter_mut().map(cached::of).collect();
        let render = match place {
            Some(place) => How::Behind(place, Box::new(responses::Answer::of(&asked))),
            None => How::Here(kind.render(&asked, &generations, &found)),
        };
        Ok(Ok((asked.stream, render, generations, found)))
    });
    let (stream, how, generations, found) = match begun.await? {
        Ok(begun) => begun,
        Err(answer) => return Ok(Json(answer).into_response()),
    };
    let mut answers = Answers::of(generations);
    let service = service_of(&door)?;
    let mut render = match how {
        How::Behind(place, answer) => {
            let running = place.begin(door.door(), service, *answer, answers);
            if stream {
                return Ok(stream_from(&door, running, 0));
            }
            return Ok(Json(running.response(service)).into_response());
        }
        How::Here(render) => render,
    };
    let patience = door.limits.ping;
    let mut response = if stream {
        stream_out(door, render, answers)
    } else {
        while let Some((prompt, event)) = answers.next().await {
            render.take(service, prompt, event)?;
        }
        Json(render.whole(service, &answers.settle().await)).into_response()
    };
    cached::tell(&found, patience, &mut response).await;
    Ok(response)
}

fn service_of(door: &Http) -> Result<&Service, Refusal> {
    door.service.get().ok_or(Refusal::Loading)
}

fn stream_out(door: Arc<Http>, render: Box<dyn Render>, answers: Answers) -> Response {
    let at = door.clone();
    let frames = stream::unfold(Some((render, answers)), move |state| {
        let door = at.clone();
        async move {
            let (mut render, mut answers) = state?;
            let service = door.service.get()?;
            match answers.next().await {
                Some((prompt, event)) => match render.take(service, prompt, event) {
                    Ok(frames) => Some((frames, Some((render, answers)))),
                    Err(failure) => {
                        let error = Error::from(failure).to_json();
                        Some((vec![render.failed(error)], None))
                    }
                },
                None => Some((render.last(service, &answers.settle().await), None)),
            }
        }
    });
    events_of(&door, frames)
}

/// Frames as they come, and a sign of life where they do not.
pub(super) fn events_of(
    door: &Http,
    frames: impl Stream<Item = Vec<Frame>> + Send + 'static,
) -> Response {
    let ping = KeepAlive::new().interval(door.limits.ping).text("ping");
    let lines = frames.flat_map(|frames: Vec<Frame>| {
        let events = frames.into_iter().map(Frame::into_event);
        stream::iter(events.map(Ok::<_, Infallible>))
    });
    let mut response = Sse::new(lines).keep_alive(ping).into_response();
    let uncached = header::HeaderValue::from_static("no-cache");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, uncached);
    response
}

/// Events from number `from` on. Nothing ends when its reader leaves.
pub(super) fn stream_from(door: &Http, running: Arc<Running>, from: usize) -> Response {
    let frames = stream::unfold((running, from), async |(running, from)| {
        let (frames, next) = running.read(from).await?;
        Some((frames, (running, next)))
    });
    events_of(door, frames)
}
