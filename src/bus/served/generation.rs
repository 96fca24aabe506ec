//! `org.deltad.Inference1.Generation`: one answer as its asker sees it.

use std::sync::Arc;

use zbus::interface;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;

use crate::bus::error::Error;
use crate::bus::generation::Generation;
use crate::bus::hub::Bus;
use crate::bus::value::Dictionary;

/// The object.
pub struct Served {
    pub bus: Arc<Bus>,
    pub generation: Arc<Generation>,
}

#[interface(name = "org.deltad.Inference1.Generation", introspection_docs = false)]
impl Served {
    async fn cancel(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Error> {
        self.bus.owner(&header, self.generation.uid).await?;
        self.generation.cancel.cancel();
        Ok(())
    }

    #[zbus(property)]
    async fn state(&self, #[zbus(header)] header: Option<Header<'_>>) -> Result<u32, Error> {
        self.bus.reader(header, self.generation.uid).await?;
        Ok(self.generation.phase())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn prompt_tokens(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> Result<u32, Error> {
        self.bus.reader(header, self.generation.uid).await?;
        Ok(self.generation.prompt_tokens)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn completion_tokens(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> Result<u32, Error> {
        self.bus.reader(header, self.generation.uid).await?;
        Ok(self.generation.completion_tokens())
    }

    #[zbus(signal)]
    async fn delta(
        emitter: &SignalEmitter<'_>,
        choice: u32,
        kind: &str,
        text: &str,
        details: Dictionary,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn finished(
        emitter: &SignalEmitter<'_>,
        reason: &str,
        usage: Dictionary,
    ) -> zbus::Result<()>;
}
