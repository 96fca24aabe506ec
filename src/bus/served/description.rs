//! What introspection tells: to each user the paths of the objects that are his. The library's own
//! description would tell everyone everybody's.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use zbus::interface;
use zbus::message::Header;
use zbus::names::InterfaceName;
use zbus::object_server::Interface;

use super::manager::Manager;
use super::objects::ObjectManager;
use crate::bus::error::Error;
use crate::bus::hub::Bus;
use crate::bus::names::PATH;

const NAME: &str = "org.freedesktop.DBus.Introspectable";

/// Objects that have others below them. Those at the end have an interface of their own.
const NODES: [&str; 6] = [
    "/",
    "/org",
    "/org/deltad",
    PATH,
    "/org/deltad/Inference1/session",
    "/org/deltad/Inference1/generation",
];

/// What every object has beside its own.
const STANDARD: &str = r#"  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect">
      <arg type="s" direction="out"/>
    </method>
  </interface>
  <interface name="org.freedesktop.DBus.Peer">
    <method name="Ping"/>
    <method name="GetMachineId">
      <arg type="s" direction="out"/>
    </method>
  </interface>
  <interface name="org.freedesktop.DBus.Properties">
    <method name="Get">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg type="v" direction="out"/>
    </method>
    <method name="Set">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="in"/>
    </method>
    <method name="GetAll">
      <arg name="interface_name" type="s" direction="in"/>
      <arg type="a{sv}" direction="out"/>
    </method>
    <signal name="PropertiesChanged">
      <arg name="interface_name" type="s"/>
      <arg name="changed_properties" type="a{sv}"/>
      <arg name="invalidated_properties" type="as"/>
    </signal>
  </interface>
"#;

/// Puts our description in the place of the library's.
pub async fn serve(bus: &Arc<Bus>) -> zbus::Result<()> {
    let server = bus.connection.object_server();
    for node in NODES {
        // Else it goes with the last object below it, and comes again with the library's.
        server.at(node, Kept).await?;
        let theirs = InterfaceName::try_from(NAME)?;
        server.remove_named(node, theirs).await?;
        server.at(node, Description { bus: bus.clone() }).await?;
    }
    Ok(())
}

/// Keeps an object with nothing below it.
struct Kept;

#[interface(name = "org.deltad.Inference1.Node", introspection_docs = false)]
impl Kept {}

struct Description {
    bus: Arc<Bus>,
}

#[interface(
    name = "org.freedesktop.DBus.Introspectable",
    introspection_docs = false
)]
impl Description {
    async fn introspect(&self, #[zbus(header)] header: Header<'_>) -> Result<String, Error> {
        let client = self.bus.clients.of(&self.bus.daemon, &header).await?;
        let at = header.path().map_or("/", |path| path.as_str());
        let mut xml = String::from("<node>\n");
        xml += STANDARD;
        if at == PATH {
            let bus = || self.bus.clone();
            ObjectManager { bus: bus() }.introspect_to_writer(&mut xml, 2);
            Manager { bus: bus() }.introspect_to_writer(&mut xml, 2);
        }
        let own = self.bus.objects.paths(client.caller.uid);
        let all = NODES
            .into_iter()
            .chain(own.iter().map(|path| path.as_str()));
        for child in children(at, all) {
            // Writing to a text does not fail.
            let _ = writeln!(xml, "  <node name=\"{child}\"/>");
        }
        xml += "</node>\n";
        Ok(xml)
    }
}

/// The next steps from `at` to each of `all` that is below it.
fn children<'a>(at: &str, all: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let next = |path: &'a str| {
        let below = path.strip_prefix(at.trim_end_matches('/'))?;
        below.strip_prefix('/')?.split('/').next()
    };
    all.filter_map(next).filter(|n| !n.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_object_names_the_next_ones_below_it() {
        let one = format!("{PATH}/session/a1");
        let all = || NODES.into_iter().chain([one.as_str()]);
        let of = |at: &str| children(at, all()).into_iter().collect::<Vec<_>>();
        assert_eq!(of("/"), ["org"]);
        assert_eq!(of("/org/deltad"), ["Inference1"]);
        assert_eq!(of(PATH), ["generation", "session"]);
        assert_eq!(of("/org/deltad/Inference1/session"), ["a1"]);
        assert_eq!(of("/org/deltad/Inference1/generation"), [""; 0]);
        assert_eq!(of(&one), [""; 0]);
    }
}
