//! What all objects on the bus share: who calls and what he may, work for the service, and telling one
//! connection what has changed.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio_util::task::TaskTracker;
use zbus::fdo::DBusProxy;
use zbus::message::Header;
use zbus::names::OwnedUniqueName;
use zbus::{Connection, OwnedObjectPath};

use super::clients::{Client, Clients};
use super::error::Error;
use super::names::{SESSION, emitter};
use super::objects::Objects;
use super::session::Session;
use super::value::Dictionary;
use crate::door::Door;
use crate::request::{Caller, Refusal};
use crate::service::Service;

pub struct Bus {
    pub door: Arc<Door>,
    pub connection: Connection,
    pub daemon: DBusProxy<'static>,
    pub clients: Clients,
    pub objects: Objects,
    /// Answers on their way.
    pub running: TaskTracker,
    pub stopping: AtomicBool,
}

impl Bus {
    pub fn new(door: Arc<Door>, connection: Connection, daemon: DBusProxy<'static>) -> Bus {
        Bus {
            door,
            daemon,
            clients: Clients::default(),
            objects: Objects::new(connection.clone()),
            running: TaskTracker::new(),
            stopping: AtomicBool::new(false),
            connection,
        }
    }

    /// Who calls, known to the bus and permitted to be here.
    pub async fn client(&self, header: &Header<'_>) -> Result<Arc<Client>, Error> {
        let client = self.clients.of(&self.daemon, header).await?;
        if let Some(service) = self.door.service.get() {
            service.permit(&client.caller)?;
        }
        Ok(client)
    }

    /// Who calls, if it is the user whose object it is.
    pub async fn owner(&self, header: &Header<'_>, uid: u32) -> Result<Arc<Client>, Error> {
        let client = self.client(header).await?;
        if client.caller.uid == uid {
            Ok(client)
        } else {
            Err(Error::NotPermitted("this is another user's".into()))
        }
    }

    /// As [`Bus::owner`]; we may read properties ourselves.
    pub async fn reader(&self, header: Option<Header<'_>>, uid: u32) -> Result<(), Error> {
        match header {
            None => Ok(()),
            Some(header) => self.owner(&header, uid).await.map(drop),
        }
    }

    pub fn service(&self, caller: &Caller) -> Result<&Service, Error> {
        let service = self.door.service.get().ok_or(Refusal::Loading)?;
        service.permit(caller)?;
        Ok(service)
    }

    /// What may wait for the disk or the tokenizer, off the threads that do the sockets.
    pub async fn work<T: Send + 'static>(
        self: &Arc<Bus>,
        caller: Caller,
        work: impl FnOnce(&Service, Caller) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let bus = self.clone();
        let work = move || work(bus.service(&caller)?, caller);
        tokio::task::spawn_blocking(work).await.map_err(|e| {
            log::error!("work for a call failed: {e}");
            Error::EngineFailed(e.to_string())
        })?
    }

    /// Tells who made a session what has changed of it.
    pub async fn session_changed(&self, session: &Session) {
        let (Some(service), Some(maker)) = (self.door.service.get(), &session.maker) else {
            return;
        };
        let changed = session.changing(service);
        self.changed(maker, &session.path, SESSION, changed).await;
    }

    /// `PropertiesChanged`, to one connection alone.
    pub async fn changed(
        &self,
        to: &OwnedUniqueName,
        path: &OwnedObjectPath,
        interface: &str,
        changed: Dictionary,
    ) {
        let Ok(emitter) = emitter(&self.connection, path, to) else {
            return;
        };
        let body = (interface, changed, Vec::<&str>::new());
        let properties = "org.freedesktop.DBus.Properties";
        if let Err(e) = emitter.emit(properties, "PropertiesChanged", &body).await {
            log::debug!("a change did not reach {to}: {e}");
        }
    }
}
