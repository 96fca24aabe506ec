//! The daemon as a stranger sees it on the bus: whether it is there and ready, and one question.

use std::collections::HashMap;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;
use zbus::proxy::{Builder, CacheProperties, MethodFlags};
use zbus::{Connection, OwnedFd, OwnedObjectPath, OwnedVariant, Proxy, Variant};

const NAME: &str = "org.deltad.Inference1";
const PATH: &str = "/org/deltad/Inference1";
const MANAGER: &str = "org.deltad.Inference1.Manager";
/// `State` of a daemon that answers.
const READY: u32 = 2;
/// The longest answer, in tokens: a search result is no place for an essay.
const LONGEST: u32 = 512;

#[derive(Clone)]
pub struct Daemon {
    bus: DBusProxy<'static>,
    manager: Proxy<'static>,
    properties: Proxy<'static>,
}

impl Daemon {
    pub async fn new(connection: &Connection) -> zbus::Result<Daemon> {
        // A cache would ask for the properties, and so start the daemon.
        let at = |interface: &'static str| async move {
            let builder = Builder::<Proxy>::new(connection)
                .destination(NAME)
                .path(PATH)
                .interface(interface);
            builder.cache_properties(CacheProperties::No).build().await
        };
        Ok(Daemon {
            bus: DBusProxy::new(connection).await?,
            manager: at(MANAGER).await?,
            properties: at("org.freedesktop.DBus.Properties").await?,
        })
    }

    /// Whether an answer would begin at once. Starts nothing.
    pub async fn is_ready(&self) -> bool {
        let Ok(name) = BusName::try_from(NAME) else {
            return false;
        };
        if !self.bus.name_has_owner(name).await.unwrap_or(false) {
            return false;
        }
        let flags = MethodFlags::NO_AUTO_START;
        let get = self
            .properties
            .call_with_flags("Get", flags, &(MANAGER, "State"));
        let state: zbus::Result<Option<OwnedVariant>> = get.await;
        let state = state.ok().flatten().and_then(|v| u32::try_from(v).ok());
        state == Some(READY)
    }

    /// Asks, and starts the daemon if need be; `said` gets the answer piece by piece. Dropped, it
    /// cancels the answer. `Err` is for people.
    pub async fn answer(&self, question: &str, said: impl FnMut(&str)) -> Result<(), String> {
        let message = HashMap::from([
            ("role", Variant::from("user")),
            ("content", Variant::from(question)),
        ]);
        let options = HashMap::from([
            ("max_tokens", Variant::from(LONGEST)),
            // A shell may ask again for what it has shown before.
            ("temperature", Variant::from(0.0)),
            // Nobody waits in a search field for a train of thought.
            ("reasoning_effort", Variant::from("none")),
        ]);
        let body = (vec![message], options);
        let opened = self.manager.call("Chat", &body).await;
        let (_, events): (OwnedObjectPath, OwnedFd) = opened.map_err(in_words)?;
        let pipe = Receiver::from_owned_fd(events.into());
        read(pipe.map_err(|e| e.to_string())?, said).await
    }
}

fn in_words(e: zbus::Error) -> String {
    match e {
        zbus::Error::MethodError(name, text, _) => text.unwrap_or_else(|| name.to_string()),
        other => other.to_string(),
    }
}

/// Reads events to the answer's end.
async fn read(pipe: Receiver, mut said: impl FnMut(&str)) -> Result<(), String> {
    let mut lines = BufReader::new(pipe).lines();
    while let Some(line) = lines.next_line().await.map_err(|e| e.to_string())? {
        let event: Value = serde_json::from_str(&line).map_err(|e| e.to_string())?;
        match (event["event"].as_str(), event["kind"].as_str()) {
            (Some("delta"), Some("text")) => said(event["text"].as_str().unwrap_or_default()),
            (Some("end"), _) => {
                return match event["message"].as_str() {
                    Some(why) => Err(why.to_owned()),
                    None => Ok(()),
                };
            }
            _ => {}
        }
    }
    Err("the answer broke off".into())
}
