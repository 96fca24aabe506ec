//! The ObjectManager, which shows each user its own objects. The library's own manager would tell
//! everyone about everybody's.

use std::collections::HashMap;
use std::sync::Arc;

use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{OwnedObjectPath, interface};

use crate::bus::error::Error;
use crate::bus::hub::Bus;
use crate::bus::objects::Interfaces;

/// The object.
pub struct ObjectManager {
    pub bus: Arc<Bus>,
}

#[interface(
    name = "org.freedesktop.DBus.ObjectManager",
    introspection_docs = false
)]
impl ObjectManager {
    #[zbus(out_args("object_paths_interfaces_and_properties"))]
    async fn get_managed_objects(
        &self,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<HashMap<OwnedObjectPath, Interfaces>, Error> {
        let client = self.bus.client(&header).await?;
        let service = self.bus.door.service.get();
        Ok(self.bus.objects.of(client.caller.uid, service))
    }

    #[zbus(signal)]
    async fn interfaces_added(
        emitter: &SignalEmitter<'_>,
        object_path: OwnedObjectPath,
        interfaces_and_properties: Interfaces,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn interfaces_removed(
        emitter: &SignalEmitter<'_>,
        object_path: OwnedObjectPath,
        interfaces: Vec<String>,
    ) -> zbus::Result<()>;
}
