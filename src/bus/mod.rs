//! The daemon on D-Bus. Control goes over the bus, tokens over a descriptor. Every request goes
//! through `service`; every option is read where HTTP's are.
//!
//! | file | job |
//! |---|---|
//! | `names`, `value`, `error` | what things are called, values as JSON, refusals |
//! | `options`, `events` | what a call asks in JSON, what an answer tells |
//! | `sink`, `carry`, `clients` | where an answer goes, files that callers give, who calls |
//! | `generation`, `session`, `objects` | what is on the bus, and whose it is |
//! | `hub` | what all of these share |
//! | `run` | one answer, from the service to whoever asked |
//! | `served` | the interfaces |
//!
//! Each names those above it in this table alone; `run` names the interface of a generation besides.

mod carry;
mod clients;
mod error;
mod events;
mod generation;
mod hub;
mod names;
mod objects;
pub mod options;
mod run;
mod served;
mod session;
mod sink;
pub mod value;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::StreamExt;
use zbus::fdo::{DBusProxy, NameOwnerChangedStream, RequestNameFlags};
use zbus::names::{BusName, OwnedUniqueName};

pub use error::Error;
use hub::Bus;
use names::{NAME, PATH};
use served::manager::Manager;
use served::objects::ObjectManager;
use served::{description, session as served_session};
use session::Session;

use crate::door::Door;

/// Which bus to serve on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    User,
    System,
}

#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("the {0} bus cannot be reached: {1}")]
    Unreachable(&'static str, zbus::Error),
    #[error("another program owns the name {NAME}")]
    NameTaken,
    #[error("{0}")]
    Bus(#[from] zbus::Error),
}

/// The daemon's presence on a bus.
pub struct Presence {
    bus: Arc<Bus>,
}

/// Serves the objects, then takes the name: who finds the name finds the objects.
pub async fn serve(which: Which, door: Arc<Door>) -> Result<Presence, BusError> {
    let (builder, called) = match which {
        Which::User => (zbus::connection::Builder::session(), "session"),
        Which::System => (zbus::connection::Builder::system(), "system"),
    };
    let built = builder.build().await;
    let connection = built.map_err(|e| BusError::Unreachable(called, e))?;
    let daemon = DBusProxy::new(&connection).await?;
    // Only connections that leave: they have no new owner.
    let leaving = daemon.receive_name_owner_changed_with_args(&[(2, "")]);
    let leaving = leaving.await?;
    let bus = Arc::new(Bus::new(door, connection.clone(), daemon));
    let server = connection.object_server();
    let manager = Manager { bus: bus.clone() };
    server.at(PATH, manager).await?;
    let objects = ObjectManager { bus: bus.clone() };
    server.at(PATH, objects).await?;
    description::serve(&bus).await?;
    served_session::put_what_lasts(&bus).await;
    tokio::spawn(watch(bus.clone(), leaving));
    // Nobody may replace us, and we wait in no queue: two daemons would share one model's callers.
    let flags = RequestNameFlags::DO_NOT_QUEUE;
    match connection.request_name_with_flags(NAME, flags).await {
        Ok(_) => {}
        Err(zbus::Error::NameTaken) => return Err(BusError::NameTaken),
        Err(e) => return Err(e.into()),
    }
    log::info!("{NAME} on the {called} bus");
    Ok(Presence { bus })
}

/// Ends what belongs to connections that leave, and everything when the bus itself goes.
async fn watch(bus: Arc<Bus>, mut leaving: NameOwnerChangedStream) {
    loop {
        let signal = tokio::select! {
            signal = leaving.next() => signal,
            () = bus.connection.closed() => None,
        };
        let Some(signal) = signal else { break };
        if let Ok(args) = signal.args()
            && let BusName::Unique(name) = args.name()
        {
            let name = OwnedUniqueName::from(name.to_owned());
            bus.clients.forget(&name);
            for session in bus.objects.sessions() {
                if session.maker.as_ref() == Some(&name) && !session.persist {
                    served_session::end(&bus, &session).await;
                }
            }
        }
    }
    bus.clients.forget_all();
    if !bus.stopping.load(Relaxed) {
        log::error!("the bus has gone; the socket is served on");
    }
}

impl Presence {
    /// Tells everyone that nothing more is taken.
    pub async fn stopping(&self) {
        self.bus.stopping.store(true, Relaxed);
        let server = self.bus.connection.object_server();
        let Ok(manager) = server.interface::<_, Manager>(PATH).await else {
            return;
        };
        let told = manager
            .get()
            .await
            .state_changed(manager.signal_emitter())
            .await;
        if let Err(e) = told {
            log::debug!("the bus was not told of the end: {e}");
        }
    }

    /// Tells everyone how much is given up for want of memory. Waits for nobody.
    pub fn pressure_changed(&self) {
        let bus = self.bus.clone();
        tokio::spawn(async move {
            let server = bus.connection.object_server();
            let Ok(manager) = server.interface::<_, Manager>(PATH).await else {
                return;
            };
            let emitter = manager.signal_emitter();
            if let Err(e) = manager.get().await.pressure_changed(emitter).await {
                log::debug!("the bus was not told of memory pressure: {e}");
            }
        });
    }

    /// Sessions that an end would end, and answers on their way.
    pub fn in_use(&self) -> usize {
        let service = self.bus.door.service.get();
        let lost = |session: &Arc<Session>| {
            let summary = service.and_then(|s| session.summary(s).ok());
            summary.is_some_and(|s| !s.durable)
        };
        let sessions = self.bus.objects.sessions();
        sessions.iter().filter(|s| lost(s)).count() + self.bus.running.len()
    }

    /// Gives the name back. Calls that were sent to it before are here already, since the bus keeps
    /// the order; later ones go to whoever is started for the name.
    pub async fn withdraw(&self) {
        if let Err(e) = self.bus.connection.release_name(NAME).await {
            log::debug!("the name was not given back: {e}");
        }
    }

    /// Leaves the bus once the last events are on their way, or at the latest after `patience`.
    pub async fn leave(self, patience: Duration) {
        let bus = self.bus;
        bus.stopping.store(true, Relaxed);
        bus.running.close();
        let leaving = async {
            bus.running.wait().await;
            bus.connection.release_name(NAME).await?;
            bus.connection.clone().close().await
        };
        match tokio::time::timeout(patience, leaving).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => log::debug!("leaving the bus: {e}"),
            Err(_) => log::debug!("leaving the bus took too long"),
        }
    }
}
