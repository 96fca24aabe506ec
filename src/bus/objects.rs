//! The sessions and generations that are on the bus, each known to its user alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use zbus::names::OwnedUniqueName;
use zbus::{Connection, OwnedObjectPath};

use super::generation::Generation;
use super::names::{self, PATH, emitter};
use super::session::Session;
use super::value::Dictionary;
use crate::service::Service;

/// An object's interfaces, each with its properties.
pub type Interfaces = HashMap<String, Dictionary>;

#[derive(Clone)]
enum Object {
    Session(Arc<Session>),
    Generation(Arc<Generation>),
}

impl Object {
    fn uid(&self) -> u32 {
        match self {
            Object::Session(s) => s.uid,
            Object::Generation(g) => g.uid,
        }
    }

    fn interface(&self) -> &'static str {
        match self {
            Object::Session(_) => names::SESSION,
            Object::Generation(_) => names::GENERATION,
        }
    }

    fn interfaces(&self, properties: Dictionary) -> Interfaces {
        Interfaces::from([(self.interface().to_owned(), properties)])
    }

    fn properties(&self, service: Option<&Service>) -> Dictionary {
        match self {
            Object::Session(s) => service.map(|at| s.properties(at)).unwrap_or_default(),
            Object::Generation(g) => g.properties(),
        }
    }

    /// Where it is, and who is told of it.
    fn place(&self) -> (&OwnedObjectPath, Option<&OwnedUniqueName>) {
        match self {
            Object::Session(s) => (&s.path, s.maker.as_ref()),
            Object::Generation(g) => (&g.path, Some(&g.asker)),
        }
    }
}

pub struct Objects {
    connection: Connection,
    all: Mutex<HashMap<OwnedObjectPath, Object>>,
}

impl Objects {
    pub fn new(connection: Connection) -> Objects {
        Objects {
            connection,
            all: Mutex::default(),
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut HashMap<OwnedObjectPath, Object>) -> T) -> T {
        look(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub async fn add_session(&self, session: Arc<Session>, properties: Dictionary) {
        self.add(Object::Session(session), properties).await;
    }

    pub async fn add_generation(&self, generation: Arc<Generation>) {
        let properties = generation.properties();
        self.add(Object::Generation(generation), properties).await;
    }

    /// Whether it was still there.
    pub async fn remove_session(&self, session: &Arc<Session>) -> bool {
        self.remove(&Object::Session(session.clone())).await
    }

    pub async fn remove_generation(&self, generation: &Arc<Generation>) {
        self.remove(&Object::Generation(generation.clone())).await;
    }

    async fn add(&self, object: Object, properties: Dictionary) {
        let (path, to) = object.place();
        self.with(|all| all.insert(path.clone(), object.clone()));
        let body = (path, object.interfaces(properties));
        self.tell(to, "InterfacesAdded", &body).await;
    }

    async fn remove(&self, object: &Object) -> bool {
        let (path, to) = object.place();
        let was_there = self.with(|all| all.remove(path).is_some());
        if was_there {
            let body = (path, vec![object.interface()]);
            self.tell(to, "InterfacesRemoved", &body).await;
        }
        was_there
    }

    async fn tell<B>(&self, to: Option<&OwnedUniqueName>, signal: &'static str, body: &B)
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let Some(to) = to else { return };
        let Ok(emitter) = emitter(&self.connection, PATH, to) else {
            return;
        };
        let interface = "org.freedesktop.DBus.ObjectManager";
        // Who has left is told nothing.
        if let Err(e) = emitter.emit(interface, signal, body).await {
            log::debug!("{signal} did not reach {to}: {e}");
        }
    }

    pub fn sessions(&self) -> Vec<Arc<Session>> {
        self.with(|all| {
            let sessions = all.values().filter_map(|o| match o {
                Object::Session(s) => Some(s.clone()),
                Object::Generation(_) => None,
            });
            sessions.collect()
        })
    }

    /// Where the objects of a user are.
    pub fn paths(&self, uid: u32) -> Vec<OwnedObjectPath> {
        self.with(|all| {
            let own = all.iter().filter(|(_, o)| o.uid() == uid);
            own.map(|(path, _)| path.clone()).collect()
        })
    }

    pub fn of(&self, uid: u32, service: Option<&Service>) -> HashMap<OwnedObjectPath, Interfaces> {
        let own: Vec<_> = self.with(|all| {
            let own = all.iter().filter(|(_, o)| o.uid() == uid);
            own.map(|(path, o)| (path.clone(), o.clone())).collect()
        });
        let told = own.into_iter().map(|(path, object)| {
            let properties = object.properties(service);
            (path, object.interfaces(properties))
        });
        told.collect()
    }
}
