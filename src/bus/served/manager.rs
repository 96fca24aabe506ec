//! The daemon as an object on the bus: one question, a chat, a new session, tokens.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Map, Value, json};
use zbus::message::Header;
use zbus::object_server::ResponseDispatchNotifier;
use zbus::{OwnedFd, OwnedObjectPath, interface};

use super::session;
use crate::bus::carry::Given;
use crate::bus::clients::Client;
use crate::bus::error::Error;
use crate::bus::hub::Bus;
use crate::bus::run::{self, Submitted};
use crate::bus::value::{self, Dictionary};
use crate::bus::{events, options};
use crate::door::fields::Fields;
use crate::request::{Caller, Token};
use crate::service::{About, Service, Specials};

/// Bytes of a file that are taken in at once.
const PIECE: usize = 1 << 20;

/// The object.
pub struct Manager {
    pub bus: Arc<Bus>,
}

impl Manager {
    /// A chat, and who wants it.
    async fn submit(
        &self,
        header: &Header<'_>,
        messages: Vec<Dictionary>,
        options: Dictionary,
    ) -> Result<(Arc<Client>, Submitted), Error> {
        let client = self.bus.client(header).await?;
        let messages = options::messages(&messages)?;
        let options = options::named(&options)?;
        let caller = client.caller.clone();
        let submitted = run::submit(&self.bus, caller, messages, options, None).await?;
        Ok((client, submitted))
    }

    /// Work that may wait for a disk, for a caller of that user id.
    async fn with<T: Send + 'static>(
        &self,
        client: &Client,
        work: impl FnOnce(&Service, u32) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let work = move |service: &Service, caller: Caller| work(service, caller.uid);
        self.bus.work(client.caller.clone(), work).await
    }
}

#[interface(name = "org.deltad.Inference1.Manager", introspection_docs = false)]
impl Manager {
    #[zbus(out_args("models"))]
    async fn list_models(
        &self,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<Dictionary>, Error> {
        let client = self.bus.client(&header).await?;
        let service = self.bus.service(&client.caller)?;
        let card = service.card();
        Ok(vec![value::dictionary(&json!({
            "id": card.id,
            "created": service.created(),
            "context_length": card.context,
            "vocabulary_size": card.n_vocab,
        }))])
    }

    #[zbus(out_args("session"))]
    async fn create_session(
        &self,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        let client = self.bus.client(&header).await?;
        self.bus.service(&client.caller)?;
        let mut given = value::object(&options, "")?;
        let persist = options::persist(&mut given)?.unwrap_or(false);
        let name = options::name(&mut given)?;
        let messages = match given.remove("messages") {
            None => Vec::new(),
            Some(messages @ Value::Array(_)) => options::messages_of(messages)?,
            Some(_) => return options::invalid("messages", "want aa{sv}"),
        };
        // Read as a question would be, so that a wrong one is known now and not at the first Send.
        let max = self.bus.door.limits.request_bytes;
        options::chat(messages.clone(), given.clone(), max)?;
        let about = About {
            name,
            held: true,
            lasting: persist,
            fixed: false,
            settings: Value::Object(given),
        };
        let made = self.with(&client, move |service, uid| {
            Ok(service.sessions().create(uid, about, messages)?)
        });
        session::add(&self.bus, &client, &made.await?).await
    }

    /// The object of a session that was made elsewhere, by its name or id.
    #[zbus(out_args("session"))]
    async fn open_session(
        &self,
        who: String,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        let client = self.bus.client(&header).await?;
        let service = self.bus.service(&client.caller)?;
        let found = service.sessions().summary(client.caller.uid, &who)?;
        session::add(&self.bus, &client, &found).await
    }

    /// Makes a session of an exported one, which is read from where the caller's descriptor stands.
    #[zbus(out_args("session"))]
    async fn import(
        &self,
        file: OwnedFd,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        let client = self.bus.client(&header).await?;
        let mut file = Given::new(file, self.bus.door.limits.patience)?;
        let made = self.with(&client, move |service, uid| {
            let mut incoming = service.sessions().receive(uid)?;
            let mut piece = vec![0; PIECE];
            loop {
                match file.read(&mut piece) {
                    Ok(0) => break,
                    Ok(n) => incoming.write(&piece[..n])?,
                    Err(e) => return Err(Error::InvalidArgument(format!("file: {e}"))),
                }
            }
            Ok(service.import(incoming, None)?)
        });
        session::add(&self.bus, &client, &made.await?).await
    }

    /// What was said in a session whose state cannot be used any more, to be read anew.
    #[zbus(out_args("session"))]
    async fn rebuild(
        &self,
        who: String,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        let client = self.bus.client(&header).await?;
        let made = self.with(&client, move |service, uid| Ok(service.rebuild(uid, &who)?));
        session::add(&self.bus, &client, &made.await?).await
    }

    #[zbus(out_args("text", "usage"))]
    async fn ask(
        &self,
        prompt: String,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(String, Dictionary), Error> {
        let client = self.bus.client(&header).await?;
        let options = options::named(&options)?;
        options::one_text(&options)?;
        let question = vec![options::question(prompt, &mut Map::new())?];
        let caller = client.caller.clone();
        let submitted = run::submit(&self.bus, caller, question, options, None).await?;
        let (said, reason, usage) = run::whole(&client, submitted).await?;
        let mut about = events::used(usage);
        about["finish_reason"] = events::spelled(reason).into();
        let thought = said.reasoning();
        if !thought.is_empty() {
            about["reasoning"] = thought.into();
        }
        Ok((value::text(&said.text()), value::dictionary(&about)))
    }

    #[zbus(out_args("generation", "events"))]
    async fn chat(
        &self,
        messages: Vec<Dictionary>,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(OwnedObjectPath, OwnedFd), Error> {
        let (client, submitted) = self.submit(&header, messages, options).await?;
        run::by_descriptor(&self.bus, &client, submitted, None).await
    }

    #[zbus(out_args("generation"))]
    async fn chat_by_signals(
        &self,
        messages: Vec<Dictionary>,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<ResponseDispatchNotifier<OwnedObjectPath>, Error> {
        let (client, submitted) = self.submit(&header, messages, options).await?;
        run::by_signals(&self.bus, &client, submitted, None).await
    }

    #[zbus(out_args("tokens"))]
    async fn tokenize(
        &self,
        text: String,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<Token>, Error> {
        let client = self.bus.client(&header).await?;
        let given = Value::Object(value::object(&options, "")?);
        let (add_special, specials) = {
            let fields = Fields::of(&given, "")?;
            let add = fields.boolean("add_special")?.unwrap_or(false);
            let parse = fields.boolean("parse_special")?.unwrap_or(true);
            options::refuse_unread(&fields)?;
            (
                add,
                if parse {
                    Specials::Parse
                } else {
                    Specials::Plain
                },
            )
        };
        options::fits(text.len(), self.bus.door.limits.request_bytes)?;
        let tokens = self.with(&client, move |service, _| {
            Ok(service.tokenize(&text, add_special, specials))
        });
        tokens.await
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    /// 0 unknown, 1 loading, 2 ready, 3 stopping.
    #[zbus(property)]
    async fn state(&self) -> u32 {
        if self.bus.stopping.load(Relaxed) {
            3
        } else {
            2
        }
    }

    /// What is given up for want of memory: 0 nothing; 1 no more states are kept, 2 half of them went,
    /// 3 all of them; 4 new requests are turned away.
    #[zbus(property)]
    async fn pressure(&self) -> u32 {
        let service = self.bus.door.service.get();
        service.map_or(0, |s| s.pressure().rung)
    }

    #[zbus(property)]
    async fn model(&self) -> String {
        let service = self.bus.door.service.get();
        service.map_or(String::new(), |s| s.card().id.clone())
    }

    #[zbus(property)]
    async fn context_length(&self) -> u32 {
        let service = self.bus.door.service.get();
        service.map_or(0, |s| u32::try_from(s.card().context).unwrap_or(u32::MAX))
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn active_generations(&self) -> u32 {
        let service = self.bus.door.service.get();
        service.map_or(0, |s| s.stats().running.load(Relaxed) as u32)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn queue_length(&self) -> u32 {
        let service = self.bus.door.service.get();
        service.map_or(0, |s| s.queued() as u32)
    }
}
