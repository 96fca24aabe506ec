//! A conversation on the bus. It ends with the connection that made it, unless it was made to persist.
//! What was said, `sessions` knows; here is who made it, where it is on the bus, and how its answer is
//! stopped.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use zbus::OwnedObjectPath;
use zbus::names::OwnedUniqueName;

use super::error::Error;
use super::names::PATH;
use super::value::Dictionary;
use crate::request::{Origin, Thread};
use crate::service::{Service, Summary, fresh_id, now};

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
        let path = format!("{PATH}/session/{name}");
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

    /// It answers, and that is how it is stopped.
    pub fn runs(&self, cancel: CancellationToken) {
        let mut talk = self.talk();
        if talk.closed {
            cancel.cancel();
        }
        talk.running = Some(cancel);
    }

    pub fn rests(&self) {
        self.talk().running = None;
    }

    /// Stops what it is answering; nothing starts after that.
    pub fn close(&self) {
        let mut talk = self.talk();
        talk.closed = true;
        if let Some(cancel) = &talk.running {
            cancel.cancel();
        }
    }

    /// Where its next answer belongs.
    pub fn thread(&self) -> Thread {
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

/// As D-Bus counts.
pub fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
