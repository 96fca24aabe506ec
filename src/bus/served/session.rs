//! `org.deltad.Inference1.Session`: a conversation as its user sees it, and how one comes on the bus and
//! goes from it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use zbus::message::Header;
use zbus::object_server::{ResponseDispatchNotifier, SignalEmitter};
use zbus::{OwnedFd, OwnedObjectPath, interface};

use crate::bus::carry::Given;
use crate::bus::clients::Client;
use crate::bus::error::Error;
use crate::bus::hub::Bus;
use crate::bus::names::emitter;
use crate::bus::options;
use crate::bus::run::{self, Submitted};
use crate::bus::session::{Session, count};
use crate::bus::value::{self, Dictionary};
use crate::door::messages;
use crate::request::{Refusal, Thread};
use crate::service::{About, Service, Summary};

/// Puts a conversation on the bus, where it is not there yet; its path.
pub async fn add(
    bus: &Arc<Bus>,
    client: &Client,
    summary: &Summary,
) -> Result<OwnedObjectPath, Error> {
    let maker = Some(client.name.clone());
    let session = Arc::new(Session::of(client.caller.uid, maker, summary)?);
    put(bus, &session).await?;
    // Who left meanwhile is not there to end it.
    if client.gone.is_cancelled() && !session.persist {
        end(bus, &session).await;
    }
    Ok(session.path.clone())
}

async fn put(bus: &Arc<Bus>, session: &Arc<Session>) -> Result<(), Error> {
    let served = Served {
        bus: bus.clone(),
        session: session.clone(),
    };
    let server = bus.connection.object_server();
    if server.at(&session.path, served).await?.is_none() {
        let service = bus.door.service.get();
        let properties = service.map(|s| session.properties(s)).unwrap_or_default();
        bus.objects.add_session(session.clone(), properties).await;
    }
    Ok(())
}

/// Conversations of users that were there before the daemon.
pub async fn put_what_lasts(bus: &Arc<Bus>) {
    let at = bus.clone();
    let find = move || {
        let sessions = at.door.service.get().map(|s| s.sessions().clone());
        let sessions = sessions.into_iter();
        let each = sessions.flat_map(|s| {
            let users = s.users_on_disk().into_iter();
            let each = users.flat_map(|uid| s.list(uid).into_iter().map(move |l| (uid, l)));
            each.collect::<Vec<_>>()
        });
        each.filter(|(_, s)| s.durable).collect::<Vec<_>>()
    };
    let found = tokio::task::spawn_blocking(find).await.unwrap_or_default();
    for (uid, summary) in found {
        let put = match Session::of(uid, None, &summary) {
            Ok(session) => put(bus, &Arc::new(session)).await,
            Err(e) => Err(e),
        };
        if let Err(e) = put {
            log::warn!("session {} is not on the bus: {e}", summary.id);
        }
    }
}

/// Ends a conversation, and what it is answering.
pub async fn end(bus: &Bus, session: &Arc<Session>) {
    session.close();
    if let Some(service) = bus.door.service.get() {
        let (sessions, session) = (service.sessions().clone(), session.clone());
        let end = move || sessions.delete(session.uid, &session.id).map(drop);
        // It may have been ended by another door.
        let _ = tokio::task::spawn_blocking(end).await;
    }
    let server = bus.connection.object_server();
    if bus.objects.remove_session(session).await {
        // The connection may be gone, and the object with it.
        let _ = server.remove::<Served, _>(&session.path).await;
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
    ) -> Result<Submitted, Error> {
        let mut options = self.session.defaults.clone();
        options.extend(options::named(&given)?);
        let question = options::question(text, &mut options)?;
        if options.get("n").is_some_and(|n| *n != 1) {
            return options::invalid("n", "a session holds one answer to each question");
        }
        let caller = client.caller.clone();
        let thread = Some(self.session.thread());
        let submitted = run::submit(&self.bus, caller, vec![question], options, thread).await;
        if let Err(Error::TooLong(_)) = &submitted {
            self.overflows(client).await;
        }
        submitted
    }

    /// Tells the caller alone that the session has no room for what it asked.
    async fn overflows(&self, client: &Client) {
        let told = async {
            let emitter = emitter(&self.bus.connection, &self.session.path, &client.name)?;
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
        let session = self.session.clone();
        let work = move |service: &Service, _| work(service, &session);
        self.bus.work(client.caller.clone(), work).await
    }

    /// A property's value; we may read it ourselves.
    async fn told<T>(
        &self,
        header: Option<Header<'_>>,
        look: impl FnOnce(&Service, &Session) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.bus.reader(header, self.session.uid).await?;
        let service = self.bus.door.service.get();
        look(service.ok_or(Refusal::Loading)?, &self.session)
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
        let submitted = self.submit(&client, text, options).await?;
        let session = Some(self.session.clone());
        run::by_descriptor(&self.bus, &client, submitted, session).await
    }

    #[zbus(out_args("generation"))]
    async fn send_by_signals(
        &self,
        text: String,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<ResponseDispatchNotifier<OwnedObjectPath>, Error> {
        let client = self.bus.owner(&header, self.session.uid).await?;
        let submitted = self.submit(&client, text, options).await?;
        let session = Some(self.session.clone());
        run::by_signals(&self.bus, &client, submitted, session).await
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
        let said = options::messages(&messages)?;
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
        add(&self.bus, &client, &made).await
    }

    /// Tokens of the session with that question after it.
    #[zbus(out_args("tokens"))]
    async fn measure(
        &self,
        text: String,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<u64, Error> {
        let more = options::question(text, &mut Map::new())?;
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
        end(&self.bus, &self.session).await;
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

    /// What its state takes: `state`, as of the last answer, which is `fixed` and `per_token` for each
    /// token, up to the next multiple of `block_tokens`.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn bytes(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> Result<HashMap<String, u64>, Error> {
        let told = self.told(header, |service, session| {
            let tokens = service.sessions().tokens(session.uid, &session.id)?;
            Ok((service.state_size(), tokens.len()))
        });
        let (size, tokens) = told.await?;
        let each = [
            ("state", size.of(tokens)),
            ("fixed", size.fixed),
            ("per_token", size.per_token),
            ("block_tokens", size.block),
        ];
        Ok(each.map(|(name, n)| (name.to_owned(), n as u64)).into())
    }
}

impl Session {
    /// For [`Served::told`].
    fn summary_of(service: &Service, session: &Session) -> Result<Summary, Error> {
        session.summary(service)
    }
}
