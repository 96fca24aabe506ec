//! A conversation as an object on the bus: what was said, one answer at a time. It ends with the
//! connection that made it, unless it was made to persist. What it is, `sessions` knows; here is
//! who made it, where it is on the bus, and how its answer is stopped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use zbus::message::Header;
use zbus::names::OwnedUniqueName;
use zbus::object_server::{ResponseDispatchNotifier, SignalEmitter};
use zbus::{OwnedFd, OwnedObjectPath, interface};

use super::carry::Given;
use super::clients::Client;
use super::error::Error;
use super::run::{self, Submitted};
use super::value::{self, Dictionary};
use super::{Bus, options};
use crate::door::messages;
use crate::request::{Origin, Thread};
use crate::service::{About, Service, Summary, fresh_id, now};

pub struct Session {
    pub path: OwnedObjectPath,
    pub uid: u32,
    /// Its id among the user's conversations.
    pub id: String,
    /// The connection that made it; none for one that was there before the daemon.
    pub maker: Option<OwnedUniqueName>,
    pub persist: bool,
    /// Options of every answer, unless a call says otherwise.
    pub defaults: Map<String, Value>,
    talk: Mutex<Talk>,
}

#[derive(Default)]
struct Talk {
    running: Option<CancellationToken>,
    closed: bool,
}

impl Session {
    /// One that is among the user's conversations already.
    pub fn of(
        uid: u32,
        maker: Option<OwnedUniqueName>,
        summary: &Summary,
    ) -> Result<Session, Error> {
        let name = summary.id.trim_start_matches("sess_");
        let path = format!("{}/session/{name}", super::PATH);
        Ok(Session {
            path: OwnedObjectPath::try_from(path).map_err(Error::Bus)?,
            uid,
            id: summary.id.clone(),
            maker,
            persist: summary.about.lasting,
            defaults: summary
                .about
                .settings
                .as_object()
                .cloned()
                .unwrap_or_default(),
            talk: Mutex::default(),
        })
    }

    fn talk(&self) -> MutexGuard<'_, Talk> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops what it is answering; nothing starts after that.
    pub fn close(&self) {
        let mut talk = self.talk();
        talk.closed = true;
        if let Some(cancel) = &talk.running {
            cancel.cancel();
        }
    }

    fn thread(&self) -> Thread {
        Thread {
            id: fresh_id("resp_"),
            created: now(),
            origin: Origin::Session {
                who: self.id.clone(),
                alone: true,
            },
            keep: true,
            answer: true,
            apart: 0,
            face: Value::Null,
        }
    }

    pub fn summary(&self, service: &Service) -> Result<Summary, Error> {
        Ok(service.sessions().summary(self.uid, &self.id)?)
    }

    pub fn changing(&self, service: &Service) -> Dictionary {
        let Ok(summary) = self.summary(service) else {
            return Dictionary::new();
        };
        let usage = service.sessions().tokens(self.uid, &self.id);
        let state = service.state(self.uid, &self.id).unwrap_or(0);
        Dictionary::from([
            ("MessageCount".to_owned(), count(summary.messages).into()),
            ("Busy".to_owned(), summary.busy.into()),
            ("Durable".to_owned(), summary.durable.into()),
            (
                "ContextUsage".to_owned(),
                count(usage.map_or(0, |t| t.len())).into(),
            ),
            ("State".to_owned(), state.into()),
        ])
    }

    pub fn properties(&self, service: &Service) -> Dictionary {
        let mut all = self.changing(service);
        all.insert("Owner".to_owned(), self.uid.into());
        all.insert("Persist".to_owned(), self.persist.into());
        all.insert(
            "ContextWindow".to_owned(),
            count(service.card().context).into(),
        );
        all
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// An answer in a session, whose changes are told to who made the session.
pub struct Turn {
    bus: Arc<Bus>,
    session: Arc<Session>,
}

impl Turn {
    pub fn runs(&self, cancel: CancellationToken) {
        let mut talk = self.session.talk();
        if talk.closed {
            cancel.cancel();
        }
        talk.running = Some(cancel);
    }

    pub async fn began(&self) {
        self.announce().await;
    }

    /// What was said is kept by now, or was not said.
    pub async fn ended(self) {
        self.session.talk().running = None;
        self.announce().await;
    }

    async fn announce(&self) {
        self.bus.session_changed(&self.session).await;
    }
}

/// The object.
pub struct Served {
    pub bus: Arc<Bus>,
    pub session: Arc<Session>,
}

impl Served {
    async fn submit(
        &self,
        client: &Client,
        text: String,
        given: Dictionary,
    ) -> Result<(Submitted, Turn), Error> {
        let mut options = self.session.defaults.clone();
        options.extend(options::named(&given)?);
        let mut question = json!({"role": "user", "content": text});
        // What a message is beside its text; a tool's result names its call.
        for name in ["role", "name", "tool_call_id"] {
            if let Some(value) = options.remove(name) {
                question[name] = value;
            }
        }
        if options.get("n").is_some_and(|n| *n != 1) {
            return options::invalid("n", "a session holds one answer to each question");
        }
        let caller = client.caller.clone();
        let thread = Some(self.session.thread());
        let submitted = run::submit(&self.bus, caller, vec![question], options, thread).await;
        if let Err(Error::TooLong(_)) = &submitted {
            self.overflows(client).await;
        }
        let submitted = submitted?;
        let turn = Turn {
            bus: self.bus.clone(),
            session: self.session.clone(),
        };
        Ok((submitted, turn))
    }

    /// Tells the caller alone that the session has no room for what it asked.
    async fn overflows(&self, client: &Client) {
        let told = async {
            let emitter = super::emitter(&self.bus.connection, &self.session.path, &client.name)?;
            Served::context_overflow(&emitter).await
        };
        if let Err(e) = told.await {
            log::debug!("an overflow was not told: {e}");
        }
    }

    /// Work that may wait for the disk or the tokenizer, for the session's owner.
    async fn with<T: Send + 'static>(
        &self,
        header: &Header<'_>,
        work: impl FnOnce(&Service, &Session) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let client = self.bus.owner(header, self.session.uid).await?;
        let (bus, session) = (self.bus.clone(), self.session.clone());
        let work = move || work(bus.service(&client.caller)?, &session);
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(e) => Err(Error::EngineFailed(e.to_string())),
        }
    }

    /// A property's value; we may read it ourselves.
    async fn told<T>(
        &self,
        header: Option<Header<'_>>,
        look: impl FnOnce(&Service, &Session) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.bus.reader(header, self.session.uid).await?;
        let service = self.bus.door.service.get();
        look(
            service.ok_or(crate::request::Refusal::Loading)?,
            &self.session,
        )
    }
}

fn read(messages: &[Dictionary]) -> Result<Vec<crate::request::Message>, Error> {
    let body = json!({"messages": options::messages(messages)?});
    let fields = crate::door::fields::Fields::of(&body, "")?;
    Ok(messages::messages(&fields)?.unwrap_or_default())
}

#[interface(name = "org.deltad.Inference1.Session", introspection_docs = false)]
impl Served {
    #[zbus(out_args("generation", "events"))]
    async fn send(
        &self,
        text: String,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(OwnedObjectPath, OwnedFd), Error> {
        let client = self.bus.owner(&header, self.session.uid).await?;
        let (submitted, turn) = self.submit(&client, text, options).await?;
        self.bus.by_descriptor(&client, submitted, Some(turn)).await
    }

    #[zbus(out_args("generation"))]
    async fn send_by_signals(
        &self,
        text: String,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<ResponseDispatchNotifier<OwnedObjectPath>, Error> {
        let client = self.bus.owner(&header, self.session.uid).await?;
        let (submitted, turn) = self.submit(&client, text, options).await?;
        self.bus.by_signals(&client, submitted, Some(turn)).await
    }

    #[zbus(out_args("messages"))]
    async fn messages(&self, #[zbus(header)] header: Header<'_>) -> Result<Vec<Dictionary>, Error> {
        let messages = self.with(&header, |service, session| {
            Ok(service.sessions().messages(session.uid, &session.id)?)
        });
        let messages = messages.await?;
        let each = messages.iter().map(messages::message_json);
        Ok(each.map(|m| value::dictionary(&m)).collect())
    }

    /// Something more was said, and nothing asked.
    async fn append(
        &self,
        messages: Vec<Dictionary>,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        let said = read(&messages)?;
        let work = self.with(&header, |service, session| {
            service.sessions().append(session.uid, &session.id, said)?;
            Ok(())
        });
        work.await?;
        self.bus.session_changed(&self.session).await;
        Ok(())
    }

    /// A session of its own that begins with what was said here.
    #[zbus(name = "Clone", out_args("session"))]
    async fn fork(
        &self,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        let client = self.bus.owner(&header, self.session.uid).await?;
        let mut given = value::object(&options, "")?;
        let persist = options::persist(&mut given)?.unwrap_or(self.session.persist);
        let name = options::name(&mut given)?;
        if let Some(other) = given.keys().next() {
            return Err(Error::UnknownOption(format!("{other}: no such option")));
        }
        let made = self.with(&header, move |service, session| {
            let about = About {
                name,
                held: true,
                lasting: persist,
                fixed: false,
                settings: Value::Object(session.defaults.clone()),
            };
            Ok(service
                .sessions()
                .fork(session.uid, &session.id, None, about)?)
        });
        let made = made.await?;
        self.bus.add_session(&client, &made).await
    }

    /// Tokens of the session with that question after it.
    #[zbus(out_args("tokens"))]
    async fn measure(
        &self,
        text: String,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<u64, Error> {
        let more = crate::request::Message {
            role: "user".into(),
            content: text,
            ..Default::default()
        };
        let measured = self.with(&header, move |service, session| {
            Ok(service.measure(session.uid, &session.id, &[more])? as u64)
        });
        measured.await
    }

    async fn suspend(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Error> {
        let work = self.with(&header, |service, session| {
            service.suspend(session.uid, &session.id)?;
            Ok(())
        });
        work.await?;
        self.bus.session_changed(&self.session).await;
        Ok(())
    }

    /// Returns when the next answer could begin at once.
    async fn resume(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Error> {
        let client = self.bus.owner(&header, self.session.uid).await?;
        if self.told(Some(header), Session::summary_of).await?.messages > 0 {
            let reading = Thread {
                keep: false,
                answer: false,
                ..self.session.thread()
            };
            let (caller, options) = (client.caller.clone(), self.session.defaults.clone());
            let read = run::submit(&self.bus, caller, Vec::new(), options, Some(reading)).await?;
            run::whole(&client, read).await?;
        }
        self.bus.session_changed(&self.session).await;
        Ok(())
    }

    /// Writes the session to a file of the caller's, as it stands now.
    async fn export(&self, file: OwnedFd, #[zbus(header)] header: Header<'_>) -> Result<(), Error> {
        let mut file = Given::new(file, self.bus.door.limits.patience)?;
        let work = self.with(&header, move |service, session| {
            service.export(session.uid, &session.id)?.write(&mut file)?;
            Ok(())
        });
        work.await
    }

    /// A question was refused as too long.
    #[zbus(signal)]
    async fn context_overflow(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;

    async fn close(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Error> {
        self.bus.owner(&header, self.session.uid).await?;
        self.bus.end_session(&self.session).await;
        Ok(())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn owner(&self, #[zbus(header)] header: Option<Header<'_>>) -> Result<u32, Error> {
        self.bus.reader(header, self.session.uid).await?;
        Ok(self.session.uid)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn persist(&self, #[zbus(header)] header: Option<Header<'_>>) -> Result<bool, Error> {
        self.bus.reader(header, self.session.uid).await?;
        Ok(self.session.persist)
    }

    #[zbus(property)]
    async fn message_count(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> Result<u32, Error> {
        let summary = self.told(header, Session::summary_of).await?;
        Ok(count(summary.messages))
    }

    #[zbus(property)]
    async fn busy(&self, #[zbus(header)] header: Option<Header<'_>>) -> Result<bool, Error> {
        Ok(self.told(header, Session::summary_of).await?.busy)
    }

    /// Everything of it is on disk.
    #[zbus(property)]
    async fn durable(&self, #[zbus(header)] header: Option<Header<'_>>) -> Result<bool, Error> {
        Ok(self.told(header, Session::summary_of).await?.durable)
    }

    /// Tokens of what was said, as of the last answer.
    #[zbus(property)]
    async fn context_usage(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> Result<u32, Error> {
        let tokens = self.told(header, |service, session| {
            Ok(service.sessions().tokens(session.uid, &session.id)?)
        });
        Ok(count(tokens.await?.len()))
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn context_window(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> Result<u32, Error> {
        let window = self.told(header, |service, _| Ok(service.card().context));
        Ok(count(window.await?))
    }

    /// 0 unknown, 1 live, 2 suspended, 3 needs re-reading.
    #[zbus(property)]
    async fn state(&self, #[zbus(header)] header: Option<Header<'_>>) -> Result<u32, Error> {
        let state = self.told(header, |service, session| {
            Ok(service.state(session.uid, &session.id)?)
        });
        state.await
    }

    /// What its state takes: `state`, as of the last answer.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn bytes(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> Result<HashMap<String, u64>, Error> {
        let bytes = self.told(header, |service, session| {
            let tokens = service.sessions().tokens(session.uid, &session.id)?;
            Ok(service.state_bytes(tokens.len()) as u64)
        });
        Ok(HashMap::from([("state".to_owned(), bytes.await?)]))
    }
}

impl Session {
    /// For [`Served::told`].
    fn summary_of(service: &Service, session: &Session) -> Result<Summary, Error> {
        session.summary(service)
    }
}
