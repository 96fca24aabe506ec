//! A conversation as an object on the bus: what was said, one answer at a time. It ends with the
//! connection that made it, unless it was made to persist.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use zbus::message::Header;
use zbus::names::OwnedUniqueName;
use zbus::object_server::ResponseDispatchNotifier;
use zbus::{OwnedFd, OwnedObjectPath, interface};

use super::clients::Client;
use super::error::Error;
use super::run::{self, Submitted};
use super::value::{self, Dictionary};
use super::{Bus, options};

pub struct Session {
    pub path: OwnedObjectPath,
    pub uid: u32,
    /// The connection that made it.
    pub maker: OwnedUniqueName,
    pub persist: bool,
    /// Options of every answer, unless a call says otherwise.
    pub defaults: Map<String, Value>,
    talk: Mutex<Talk>,
}

struct Talk {
    messages: Vec<Value>,
    answering: Answering,
    closed: bool,
}

enum Answering {
    No,
    Preparing,
    Running(CancellationToken),
}

impl Session {
    pub fn new(
        path: OwnedObjectPath,
        maker: &Client,
        persist: bool,
        messages: Vec<Value>,
        defaults: Map<String, Value>,
    ) -> Session {
        Session {
            path,
            uid: maker.caller.uid,
            maker: maker.name.clone(),
            persist,
            defaults,
            talk: Mutex::new(Talk {
                messages,
                answering: Answering::No,
                closed: false,
            }),
        }
    }

    fn talk(&self) -> MutexGuard<'_, Talk> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One answer at a time: a second question would not know the first one's answer.
    fn take_turn(session: &Arc<Session>, bus: &Arc<Bus>, question: Value) -> Result<Turn, Error> {
        let mut talk = session.talk();
        if !matches!(talk.answering, Answering::No) {
            let why = "the session still answers; wait for its end or cancel it";
            return Err(Error::Busy(why.into()));
        }
        talk.answering = Answering::Preparing;
        Ok(Turn {
            bus: bus.clone(),
            session: session.clone(),
            question,
        })
    }

    /// Stops what it is answering; nothing starts after that.
    pub fn close(&self) {
        let mut talk = self.talk();
        talk.closed = true;
        if let Answering::Running(cancel) = &talk.answering {
            cancel.cancel();
        }
    }

    fn message_count(&self) -> u32 {
        u32::try_from(self.talk().messages.len()).unwrap_or(u32::MAX)
    }

    fn is_busy(&self) -> bool {
        !matches!(self.talk().answering, Answering::No)
    }

    fn changing(&self) -> Dictionary {
        Dictionary::from([
            ("MessageCount".to_owned(), self.message_count().into()),
            ("Busy".to_owned(), self.is_busy().into()),
        ])
    }

    pub fn properties(&self) -> Dictionary {
        let mut all = self.changing();
        all.insert("Owner".to_owned(), self.uid.into());
        all.insert("Persist".to_owned(), self.persist.into());
        all
    }
}

/// The right to answer in a session. Dropped without an answer, nothing was said.
pub struct Turn {
    bus: Arc<Bus>,
    session: Arc<Session>,
    question: Value,
}

impl Turn {
    fn messages(&self) -> Vec<Value> {
        let mut messages = self.session.talk().messages.clone();
        messages.push(self.question.clone());
        messages
    }

    pub fn runs(&self, cancel: CancellationToken) {
        let mut talk = self.session.talk();
        if talk.closed {
            cancel.cancel();
        }
        talk.answering = Answering::Running(cancel);
    }

    pub async fn began(&self) {
        self.announce().await;
    }

    /// A question stays only with what was answered to it, whole or cut short.
    pub async fn settle(self, answer: Option<Value>) {
        {
            let mut talk = self.session.talk();
            if let Some(answer) = answer {
                talk.messages.push(self.question.clone());
                talk.messages.push(answer);
            }
            talk.answering = Answering::No;
        }
        self.announce().await;
    }

    async fn announce(&self) {
        let session = &self.session;
        let interface = "org.deltad.Inference1.Session";
        let changed = session.changing();
        self.bus
            .changed(&session.maker, &session.path, interface, changed)
            .await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.session.talk().answering = Answering::No;
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
        let turn = Session::take_turn(&self.session, &self.bus, question)?;
        let messages = turn.messages();
        let caller = client.caller.clone();
        let submitted = run::submit(&self.bus, caller, messages, options).await?;
        Ok((submitted, turn))
    }
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
        self.bus.owner(&header, self.session.uid).await?;
        let messages = self.session.talk().messages.clone();
        Ok(messages.iter().map(value::dictionary).collect())
    }

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
        self.bus.reader(header, self.session.uid).await?;
        Ok(self.session.message_count())
    }

    #[zbus(property)]
    async fn busy(&self, #[zbus(header)] header: Option<Header<'_>>) -> Result<bool, Error> {
        self.bus.reader(header, self.session.uid).await?;
        Ok(self.session.is_busy())
    }
}
