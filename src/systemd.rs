//! What the service manager is told, and what it hands over. Without a service manager every
//! function here does nothing. Knows the protocols of sd_notify(3), sd_listen_fds(3) and systemd's
//! memory pressure, not when to speak.

mod pressure;

use std::os::unix::net::UnixListener;
use std::time::Duration;

use sd_notify::NotifyState;

pub use pressure::Pressure;

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

/// The listening socket of `deltad.socket`, when the manager started us with it.
pub fn inherited_listener() -> Option<UnixListener> {
    // Checks LISTEN_PID and that the descriptor is a listening Unix socket.
    match listenfd::ListenFd::from_env().take_unix_listener(0) {
        Ok(listener) => listener,
        Err(e) => {
            log::warn!("the inherited descriptor is no Unix socket: {e}");
            None
        }
    }
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
