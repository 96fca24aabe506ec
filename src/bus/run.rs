//! Carries one answer from the engine's events to whoever asked on the bus, and to its session.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;
use zbus::object_server::ResponseDispatchNotifier;
use zbus::{OwnedFd, OwnedObjectPath};

use super::clients::Client;
use super::error::Error;
use super::events;
use super::generation::{Generation, Phase};
use super::hub::Bus;
use super::names::{GENERATION, emitter, fresh_path};
use super::options;
use super::served::generation::Served;
use super::session::Session;
use super::sink::{Left, Sink};
use super::value::Dictionary;
use crate::request::{Caller, Event, Failure, FinishReason, Message, Thread, Usage};
use crate::service::events::Events;
use crate::service::{self, Answer, Service};

/// How long an ended generation can still be asked how it ended.
const LINGER: Duration = Duration::from_secs(10);

/// What the service took.
pub struct Submitted {
    pub generation: service::Generation,
    /// Choices.
    pub n: usize,
}

/// Reads and admits, off the threads that do the sockets. A large call waits for its place among the
/// large ones of all doors.
pub async fn submit(
    bus: &Arc<Bus>,
    caller: Caller,
    said: Vec<Message>,
    options: Map<String, Value>,
    thread: Option<Thread>,
) -> Result<Submitted, Error> {
    let (door, bytes) = (&bus.door, options::weight(&said, &options) as u64);
    let due = Instant::now() + door.limits.body;
    let Some(share) = door.bodies.share(&door.limits, bytes, due).await else {
        let why = "too many large calls are being read; ask again in a moment";
        return Err(Error::QueueFull(why.into()));
    };
    let max_bytes = door.limits.request_bytes;
    let submit = move |service: &Service, caller| {
        let _share = share;
        let asked = options::chat(said, options, max_bytes)?;
        // A chat is one request.
        let request = asked.requests.into_iter().next().ok_or(Failure::Broken)?;
        let n = request.n;
        let generation = service.submit_in(caller, request, thread)?;
        Ok(Submitted { generation, n })
    };
    bus.work(caller, submit).await
}

/// The whole answer as one text, with what else is known of it.
pub async fn whole(
    client: &Client,
    submitted: Submitted,
) -> Result<(Answer, FinishReason, Usage), Error> {
    let mut events = submitted.generation.events;
    let mut reason = FinishReason::Stop;
    loop {
        let event = tokio::select! {
            event = events.next() => event.unwrap_or(Event::Failed(Failure::Broken)),
            () = client.gone.cancelled() => {
                return Err(Error::Cancelled("the caller left the bus".into()));
            }
        };
        match event {
            Event::Prompt(_) | Event::Read(_) => {}
            Event::Delta { .. } => {}
            Event::Finished { reason: why, .. } => reason = why,
            Event::Done(usage, _) => {
                let answer = events.answer(0).cloned().unwrap_or_default();
                events.settle();
                return Ok((answer, reason, usage));
            }
            Event::Failed(failure) => return Err(failure.into()),
        }
    }
}

/// Tells the answer down a pipe; whose other end, and the answer's path. `session`: that it is given in.
pub async fn by_descriptor(
    bus: &Arc<Bus>,
    client: &Client,
    submitted: Submitted,
    session: Option<Arc<Session>>,
) -> Result<(OwnedObjectPath, OwnedFd), Error> {
    let path = fresh_path("generation")?;
    let pipe = Sink::pipe(bus.door.limits.patience);
    let (sink, theirs) = pipe.map_err(|e| {
        log::error!("no pipe for an answer: {e}");
        Error::EngineFailed(format!("no pipe for the answer: {e}"))
    })?;
    begin(bus, client, &path, submitted, sink, session).await?;
    Ok((path, theirs.into()))
}

/// Tells the answer by signals, to its asker alone and after the reply.
pub async fn by_signals(
    bus: &Arc<Bus>,
    client: &Client,
    submitted: Submitted,
    session: Option<Arc<Session>>,
) -> Result<ResponseDispatchNotifier<OwnedObjectPath>, Error> {
    let path = fresh_path("generation")?;
    let (reply, replied) = ResponseDispatchNotifier::new(path.clone());
    let sink = Sink::Signals {
        emitter: emitter(&bus.connection, &path, &client.name)?.into_owned(),
        gone: client.gone.clone(),
        replied: Some(replied),
    };
    begin(bus, client, &path, submitted, sink, session).await?;
    Ok(reply)
}

/// Puts the answer's object on the bus and lets it run. `sink` is where it is told.
async fn begin(
    bus: &Arc<Bus>,
    client: &Client,
    path: &OwnedObjectPath,
    submitted: Submitted,
    sink: Sink,
    session: Option<Arc<Session>>,
) -> Result<(), Error> {
    let tokens = submitted.generation.prompt.len();
    let (uid, name) = (client.caller.uid, client.name.clone());
    let generation = Arc::new(Generation::new(path.clone(), uid, name, tokens));
    let served = Served {
        bus: bus.clone(),
        generation: generation.clone(),
    };
    bus.connection.object_server().at(path, served).await?;
    bus.objects.add_generation(generation.clone()).await;
    if let Some(session) = &session {
        session.runs(generation.cancel.clone());
    }
    let run = Run {
        bus: bus.clone(),
        generation,
        session,
        events: submitted.generation.events,
        reasons: vec![None; submitted.n],
        usage: Usage {
            prompt_tokens: tokens,
            ..Usage::default()
        },
        sink,
    };
    bus.running.spawn(run.finish());
    Ok(())
}

struct Run {
    bus: Arc<Bus>,
    generation: Arc<Generation>,
    /// Where it is given, if it is; its changes are told to who made it.
    session: Option<Arc<Session>>,
    events: Events,
    /// Of each choice.
    reasons: Vec<Option<FinishReason>>,
    usage: Usage,
    sink: Sink,
}

impl Run {
    async fn finish(mut self) {
        if let Some(session) = &self.session {
            self.bus.session_changed(session).await;
        }
        let phase = self.tell().await.unwrap_or(Phase::Cancelled);
        // The engine is told at once that nobody listens.
        drop(self.events);
        self.generation.count(self.usage.completion_tokens);
        // What was said is kept by now, or was not said.
        if let Some(session) = &self.session {
            session.rests();
            self.bus.session_changed(session).await;
        }
        self.generation.enter(phase);
        // The descriptor's end is the reader's sign: it comes after everything it could ask about.
        drop(self.sink);
        announce(&self.bus, &self.generation).await;
        let (bus, generation) = (self.bus, self.generation);
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            let server = bus.connection.object_server();
            // The connection may be gone by now, and the object with it.
            let _ = server.remove::<Served, _>(&generation.path).await;
            bus.objects.remove_generation(&generation).await;
        });
    }

    /// How it ended; or its reader left.
    async fn tell(&mut self) -> Result<Phase, Left> {
        let bus = self.bus.clone();
        let Some(service) = bus.door.service.get() else {
            return Err(Left);
        };
        let prompt_tokens = self.usage.prompt_tokens;
        let start = events::start(self.generation.path.as_str(), service, prompt_tokens);
        self.say(&start).await?;
        loop {
            let event = tokio::select! {
                biased;
                () = self.generation.cancel.cancelled() => return self.cancelled().await,
                () = self.sink.left() => return Err(Left),
                event = self.events.next() => event,
            };
            // A channel that closes early means that the engine's thread died.
            match event.unwrap_or(Event::Failed(Failure::Broken)) {
                Event::Prompt(_) | Event::Read(_) => {}
                Event::Delta {
                    choice,
                    parts,
                    logprob,
                } => {
                    self.usage.completion_tokens += 1;
                    self.generation.count(self.usage.completion_tokens);
                    if self.generation.enter(Phase::Running) {
                        announce(&bus, &self.generation).await;
                    }
                    for event in events::deltas(service, choice, parts, logprob.as_ref()) {
                        self.say(&event).await?;
                    }
                }
                Event::Finished { choice, reason, .. } => {
                    if let Some(slot) = self.reasons.get_mut(choice) {
                        *slot = Some(reason);
                    }
                    self.say(&events::finished(choice, reason)).await?;
                }
                Event::Done(usage, _) => {
                    self.usage = usage;
                    // What is to be kept is kept before the end is told.
                    self.events.settle();
                    let first = self.reasons[0].map_or("stop", events::spelled);
                    self.end(events::end(first, usage)).await?;
                    return Ok(Phase::Finished);
                }
                Event::Failed(failure) => {
                    self.events.leave();
                    let failed = events::failed(&failure.into(), self.usage);
                    self.end(failed).await?;
                    return Ok(Phase::Failed);
                }
            }
        }
    }

    async fn cancelled(&mut self) -> Result<Phase, Left> {
        self.events.close();
        self.events.leave();
        self.end(events::end("cancelled", self.usage)).await?;
        Ok(Phase::Cancelled)
    }

    async fn end(&mut self, mut event: Value) -> Result<(), Left> {
        let reasons = self.reasons.iter();
        event["reasons"] = reasons
            .map(|r| r.map_or("", events::spelled))
            .collect::<Vec<_>>()
            .into();
        self.say(&event).await
    }

    /// A line that has begun is written to its end, but a cancelled engine does not wait for that.
    async fn say(&mut self, event: &Value) -> Result<(), Left> {
        let said = self.sink.say(event);
        tokio::pin!(said);
        tokio::select! {
            biased;
            said = &mut said => return said,
            () = self.generation.cancel.cancelled() => self.events.close(),
        }
        said.await
    }
}

async fn announce(bus: &Bus, generation: &Generation) {
    let state = Dictionary::from([("State".to_owned(), generation.phase().into())]);
    bus.changed(&generation.asker, &generation.path, GENERATION, state)
        .await;
}
