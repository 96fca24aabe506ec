//! What the service manager is told, and what it hands over. Without a service manager every
//! function here does nothing. Knows the protocols of sd_notify(3), sd_listen_fds(3), the
//! manager's store of descriptors, systemd's memory pressure and a control group's marks, not when to
//! speak.

mod mark;
mod pressure;
mod store;

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use sd_notify::NotifyState;

pub use mark::Marks;
pub use pressure::Pressure;
pub use store::DescriptorStore;

/// The first question can be answered now.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// Starting or stopping goes on: ask for this much more time, from now.
pub fn extend(by: Duration, status: &str) {
    let more = NotifyState::ExtendTimeoutUsec(microseconds(by));
    tell(&[more, NotifyState::Status(status)]);
}

/// The configuration is being read again; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(e) => log::warn!("no clock to tell the service manager of: {e}"),
    }
}

/// The daemon is ending, on purpose or not, and may take this long.
pub fn stopping(within: Duration, status: &str) {
    let more = NotifyState::ExtendTimeoutUsec(microseconds(within));
    tell(&[NotifyState::Stopping, more, NotifyState::Status(status)]);
}

/// How long [`alive`] may stay away before the manager kills us; `None`: for ever.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())
}

/// The work goes on.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// What the manager started us with.
#[derive(Default)]
pub struct Inherited {
    /// The listening socket of `deltad.socket`.
    pub listener: Option<UnixListener>,
    /// What a process before us left with it, by name.
    pub files: Vec<(String, File)>,
}

/// The names of such files begin so.
const OURS: &str = "deltad-";

pub fn inherited() -> Inherited {
    let files = store::handed(OURS);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    // The manager's sockets come first; their names end in their units' kind, or are what a unit says.
    let is_file = |name: &str| files.iter().any(|(of, _)| of == name);
    let first = names.split(':').position(|name| !is_file(name));
    // Checks LISTEN_PID and that the descriptor is a listening Unix socket.
    let mut all = listenfd::ListenFd::from_env();
    let listener = first.map(|at| all.take_unix_listener(at));
    let listener = listener.unwrap_or(Ok(None)).unwrap_or_else(|e| {
        log::warn!("the inherited descriptor is no Unix socket: {e}");
        None
    });
    Inherited { listener, files }
}

/// Whether standard error goes to the journal.
pub fn on_journal() -> bool {
    systemd_journal_logger::connected_to_journal()
}

fn microseconds(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

fn tell(state: &[NotifyState]) {
    if let Err(e) = sd_notify::notify(state) {
        log::warn!("the service manager does not listen: {e}");
    }
}
