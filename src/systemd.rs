//! What the service manager is told, and the socket it hands over. Without a service manager every
//! function here does nothing. Knows the protocol of sd_notify(3), not when to speak.

use std::os::unix::net::UnixListener;

use sd_notify::NotifyState;

/// The first question can be answered now.
pub fn ready(model: &str) {
    tell(&[
        NotifyState::Ready,
        NotifyState::Status(&format!("serving {model}")),
    ]);
}

/// The daemon is ending, on purpose or not.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
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

fn tell(state: &[NotifyState]) {
    if let Err(e) = sd_notify::notify(state) {
        log::warn!("the service manager does not listen: {e}");
    }
}
