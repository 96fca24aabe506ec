//! What the service manager is told, and what it hands over. Without a service manager every
//! function here does nothing. Knows the protocols of sd_notify(3), sd_listen_fds(3) and systemd's
//! memory pressure, not when to speak.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use rustix::event::{PollFd, PollFlags, poll};
use sd_notify::NotifyState;
use tokio::sync::Notify;

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

/// The kernel's word that our control group runs short of memory, as the manager arranged it.
pub struct Pressure {
    felt: Arc<Notify>,
}

impl Pressure {
    /// Watches what `MEMORY_PRESSURE_WATCH` names, on a thread of its own: the file speaks through
    /// POLLPRI only, and blocks nobody there.
    pub fn watch() -> Pressure {
        let felt = Arc::new(Notify::new());
        match open_pressure() {
            Ok(None) => {}
            Ok(Some(file)) => {
                let told = felt.clone();
                let watching = std::thread::Builder::new().name("pressure".into());
                if let Err(e) = watching.spawn(move || watch_pressure(&file, &told)) {
                    log::warn!("memory pressure is not watched: {e}");
                }
            }
            Err(e) => log::warn!("memory pressure is not watched: {e}"),
        }
        Pressure { felt }
    }

    /// Resolves when memory is short. The kernel itself keeps from saying so all the time.
    pub async fn felt(&self) {
        self.felt.notified().await;
    }
}

fn watch_pressure(file: &File, told: &Notify) {
    loop {
        let mut polled = [PollFd::new(file, PollFlags::PRI)];
        match poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) if polled[0].revents().contains(PollFlags::PRI) => told.notify_one(),
            // The control group is gone, and we soon after.
            Ok(_) => return,
            Err(e) => return log::warn!("memory pressure is watched no longer: {e}"),
        }
    }
}

fn open_pressure() -> io::Result<Option<File>> {
    let path = match std::env::var_os("MEMORY_PRESSURE_WATCH") {
        Some(path) if path != "/dev/null" => path,
        _ => return Ok(None),
    };
    let mut file = File::options().read(true).write(true).open(path)?;
    if let Ok(trigger) = std::env::var("MEMORY_PRESSURE_WRITE") {
        let trigger = base64::engine::general_purpose::STANDARD.decode(trigger);
        file.write_all(&trigger.map_err(io::Error::other)?)?;
    }
    Ok(Some(file))
}

fn microseconds(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

fn tell(state: &[NotifyState]) {
    if let Err(e) = sd_notify::notify(state) {
        log::warn!("the service manager does not listen: {e}");
    }
}
