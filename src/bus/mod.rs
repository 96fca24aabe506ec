//! The daemon on D-Bus. Control goes over the bus, tokens over a descriptor. Every request goes
//! through `service`; every option is read where HTTP's are.

mod carry;
mod clients;
mod description;
mod error;
mod events;
mod generation;
mod manager;
mod objects;
pub mod options;
mod run;
mod session;
mod sink;
pub mod value;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio_util::task::TaskTracker;
use zbus::fdo::{DBusProxy, NameOwnerChangedStream, RequestNameFlags};
use zbus::message::Header;
use zbus::names::{BusName, OwnedUniqueName};
use zbus::object_server::{ResponseDispatchNotifier, SignalEmitter};
use zbus::{Connection, OwnedFd, OwnedObjectPath};

use clients::{Client, Clients};
pub use error::Error;
use generation::Generation;
use objects::Objects;
use run::Submitted;
use session::{Session, Turn};
use sink::Sink;
use value::Dictionary;

use crate::door::Door;
use crate::request::{Caller, Refusal};
use crate::service::{Service, Summary};

pub const NAME: &str = "org.deltad.Inference1";
pub const PATH: &str = "/org/deltad/Inference1";

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

/// What all objects share.
struct Bus {
    door: Arc<Door>,
    connection: Connection,
    daemon: DBusProxy<'static>,
    clients: Clients,
    objects: Objects,
    /// Answers on their way.
    running: TaskTracker,
    stopping: AtomicBool,
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
    let bus = Arc::new(Bus {
        door,
        daemon,
        clients: Clients::default(),
        objects: Objects::new(connection.clone()),
        running: TaskTracker::new(),
        stopping: AtomicBool::new(false),
        connection: connection.clone(),
    });
    let server = connection.object_server();
    let manager = manager::Manager { bus: bus.clone() };
    server.at(PATH, manager).await?;
    let objects = objects::ObjectManager { bus: bus.clone() };
    server.at(PATH, objects).await?;
    description::serve(&bus).await?;
    bus.put_what_lasts().await;
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
                    bus.end_session(&session).await;
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
        let Ok(manager) = server.interface::<_, manager::Manager>(PATH).await else {
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
            let Ok(manager) = server.interface::<_, manager::Manager>(PATH).await else {
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

/// Signals from `path` to one connection alone.
fn emitter<'a>(
    connection: &Connection,
    path: &'a str,
    to: &'a OwnedUniqueName,
) -> zbus::Result<SignalEmitter<'a>> {
    let emitter = SignalEmitter::new(connection, path)?;
    Ok(emitter.set_destination(BusName::Unique(to.as_ref())))
}

impl Bus {
    /// Who calls, known to the bus and permitted to be here.
    async fn client(&self, header: &Header<'_>) -> Result<Arc<Client>, Error> {
        let client = self.clients.of(&self.daemon, header).await?;
        if let Some(service) = self.door.service.get() {
            service.permit(&client.caller)?;
        }
        Ok(client)
    }

    /// Who calls, if it is the user whose object it is.
    async fn owner(&self, header: &Header<'_>, uid: u32) -> Result<Arc<Client>, Error> {
        let client = self.client(header).await?;
        if client.caller.uid == uid {
            Ok(client)
        } else {
            Err(Error::NotPermitted("this is another user's".into()))
        }
    }

    /// As [`Bus::owner`]; we may read properties ourselves.
    async fn reader(&self, header: Option<Header<'_>>, uid: u32) -> Result<(), Error> {
        match header {
            None => Ok(()),
            Some(header) => self.owner(&header, uid).await.map(drop),
        }
    }

    fn service(&self, caller: &Caller) -> Result<&Service, Error> {
        let service = self.door.service.get().ok_or(Refusal::Loading)?;
        service.permit(caller)?;
        Ok(service)
    }

    /// Different each time. It need not be secret: every call on it asks whose it is.
    fn fresh_path(kind: &str) -> Result<OwnedObjectPath, Error> {
        let half = || RandomState::new().hash_one(Instant::now());
        let path = format!("{PATH}/{kind}/{:016x}{:016x}", half(), half());
        OwnedObjectPath::try_from(path).map_err(Error::Bus)
    }

    async fn by_descriptor(
        self: &Arc<Bus>,
        client: &Client,
        submitted: Submitted,
        turn: Option<Turn>,
    ) -> Result<(OwnedObjectPath, OwnedFd), Error> {
        let path = Bus::fresh_path("generation")?;
        let pipe = Sink::pipe(self.door.limits.patience);
        let (sink, theirs) = pipe.map_err(|e| {
            log::error!("no pipe for an answer: {e}");
            Error::EngineFailed(format!("no pipe for the answer: {e}"))
        })?;
        self.begin(client, &path, submitted, sink, turn).await?;
        Ok((path, theirs.into()))
    }

    async fn by_signals(
        self: &Arc<Bus>,
        client: &Client,
        submitted: Submitted,
        turn: Option<Turn>,
    ) -> Result<ResponseDispatchNotifier<OwnedObjectPath>, Error> {
        let path = Bus::fresh_path("generation")?;
        let (reply, replied) = ResponseDispatchNotifier::new(path.clone());
        let sink = Sink::Signals {
            emitter: emitter(&self.connection, &path, &client.name)?.into_owned(),
            gone: client.gone.clone(),
            replied: Some(replied),
        };
        self.begin(client, &path, submitted, sink, turn).await?;
        Ok(reply)
    }

    async fn begin(
        self: &Arc<Bus>,
        client: &Client,
        path: &OwnedObjectPath,
        submitted: Submitted,
        sink: Sink,
        turn: Option<Turn>,
    ) -> Result<(), Error> {
        let tokens = submitted.generation.prompt.len();
        let (uid, name) = (client.caller.uid, client.name.clone());
        let generation = Generation::new(path.clone(), uid, name, tokens);
        run::begin(self, generation, submitted, sink, turn).await
    }

    /// Puts a conversation on the bus, where it is not there yet; its path.
    async fn add_session(
        self: &Arc<Bus>,
        client: &Client,
        summary: &Summary,
    ) -> Result<OwnedObjectPath, Error> {
        let maker = Some(client.name.clone());
        let session = Arc::new(Session::of(client.caller.uid, maker, summary)?);
        self.put(&session).await?;
        // Who left meanwhile is not there to end it.
        if client.gone.is_cancelled() && !session.persist {
            self.end_session(&session).await;
        }
        Ok(session.path.clone())
    }

    async fn put(self: &Arc<Bus>, session: &Arc<Session>) -> Result<(), Error> {
        let served = session::Served {
            bus: self.clone(),
            session: session.clone(),
        };
        let server = self.connection.object_server();
        if server.at(&session.path, served).await?.is_none() {
            let service = self.door.service.get();
            let properties = service.map(|s| session.properties(s)).unwrap_or_default();
            self.objects.add_session(session.clone(), properties).await;
        }
        Ok(())
    }

    /// Conversations of users that were there before the daemon.
    async fn put_what_lasts(self: &Arc<Bus>) {
        let bus = self.clone();
        let find = move || {
            let sessions = bus.door.service.get().map(|s| s.sessions().clone());
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
                Ok(session) => self.put(&Arc::new(session)).await,
                Err(e) => Err(e),
            };
            if let Err(e) = put {
                log::warn!("session {} is not on the bus: {e}", summary.id);
            }
        }
    }

    /// Tells who made a session what has changed of it.
    async fn session_changed(&self, session: &Session) {
        let (Some(service), Some(maker)) = (self.door.service.get(), &session.maker) else {
            return;
        };
        let interface = "org.deltad.Inference1.Session";
        let changed = session.changing(service);
        self.changed(maker, &session.path, interface, changed).await;
    }

    async fn end_session(&self, session: &Arc<Session>) {
        session.close();
        if let Some(service) = self.door.service.get() {
            let (sessions, session) = (service.sessions().clone(), session.clone());
            let end = move || sessions.delete(session.uid, &session.id).map(drop);
            // It may have been ended by another door.
            let _ = tokio::task::spawn_blocking(end).await;
        }
        let server = self.connection.object_server();
        if self.objects.remove_session(session).await {
            // The connection may be gone, and the object with it.
            let _ = server.remove::<session::Served, _>(&session.path).await;
        }
    }

    /// `PropertiesChanged`, to one connection alone.
    async fn changed(
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
