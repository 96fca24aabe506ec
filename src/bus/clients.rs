//! Who calls, as the bus says, never as the message says; and who has left.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use zbus::fdo::{ConnectionCredentials, DBusProxy};
use zbus::message::Header;
use zbus::names::{BusName, OwnedUniqueName};

use super::error::Error;
use crate::door::caller;
use crate::request::Caller;

/// One connection to the bus.
#[derive(Debug)]
pub struct Client {
    pub name: OwnedUniqueName,
    pub caller: Caller,
    /// Cancelled when the connection has left the bus.
    pub gone: CancellationToken,
}

/// Everyone who has called and has not left. A unique name is never given twice.
#[derive(Default)]
pub struct Clients {
    known: Mutex<HashMap<OwnedUniqueName, Known>>,
}

#[derive(Default)]
struct Known {
    gone: CancellationToken,
    client: Option<Arc<Client>>,
}

impl Clients {
    pub async fn of(&self, bus: &DBusProxy<'_>, header: &Header<'_>) -> Result<Arc<Client>, Error> {
        let Some(sender) = header.sender() else {
            return Err(Error::NotPermitted("the call names no sender".into()));
        };
        let name = OwnedUniqueName::from(sender.to_owned());
        // Noted before the bus is asked: whoever leaves from now on is seen leaving.
        let gone = {
            let mut known = self.lock();
            let entry = known.entry(name.clone()).or_default();
            if let Some(client) = &entry.client {
                return Ok(client.clone());
            }
            entry.gone.clone()
        };
        let credentials = bus
            .get_connection_credentials(BusName::Unique(sender.to_owned()))
            .await;
        let caller = match credentials.map(|c| caller(&c)) {
            Ok(Some(caller)) => caller,
            Ok(None) | Err(_) => {
                self.forget(&name);
                let why = format!("the bus does not say whose connection {name} is");
                return Err(Error::NotPermitted(why));
            }
        };
        let client = Arc::new(Client {
            name: name.clone(),
            caller,
            gone,
        });
        if let Some(entry) = self.lock().get_mut(&name) {
            entry.client = Some(client.clone());
        }
        Ok(client)
    }

    pub fn forget(&self, name: &OwnedUniqueName) {
        if let Some(known) = self.lock().remove(name) {
            known.gone.cancel();
        }
    }

    pub fn forget_all(&self) {
        for (_, known) in self.lock().drain() {
            known.gone.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OwnedUniqueName, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None` where the bus does not know the user, without whom nothing is permitted.
fn caller(credentials: &ConnectionCredentials) -> Option<Caller> {
    let pinned = credentials.process_fd().map(|fd| fd.as_raw_fd());
    let (pid, unit) = match pinned {
        Some(fd) => {
            let pid = pinned_pid(fd);
            let unit = pid.and_then(caller::unit);
            // Still the same process after its unit was read, so the unit is its own.
            (pid, unit.filter(|_| pinned_pid(fd) == pid))
        }
        None => {
            let pid = credentials.process_id();
            (pid, pid.and_then(caller::unit))
        }
    };
    Some(Caller {
        uid: credentials.unix_user_id()?,
        pid,
        unit,
    })
}

/// The process behind a process descriptor, as long as it lives.
fn pinned_pid(fd: i32) -> Option<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let pid = info.lines().find_map(|l| l.strip_prefix("Pid:"))?;
    // A process that has ended is -1 or 0 here.
    pid.trim().parse().ok().filter(|pid| *pid > 0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    #[test]
    fn a_process_descriptor_names_its_process_only_while_it_lives() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("a process");
        let pid = Pid::from_child(&child);
        let fd = pidfd_open(pid, PidfdFlags::empty()).expect("a descriptor");
        assert_eq!(pinned_pid(fd.as_raw_fd()), Some(child.id()));
        child.kill().expect("it lives");
        child.wait().expect("it ends");
        assert_eq!(pinned_pid(fd.as_raw_fd()), None);
    }

    #[test]
    fn a_descriptor_that_is_no_process_names_none() {
        let pipe = std::io::pipe().expect("a pipe").0;
        assert_eq!(pinned_pid(pipe.as_raw_fd()), None);
    }
}
