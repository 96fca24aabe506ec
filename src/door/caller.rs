//! Who calls: at the other end of a Unix socket, as the kernel says, and in which unit.

use tokio::net::UnixStream;

use crate::request::Caller;

pub fn of(stream: &UnixStream) -> std::io::Result<Caller> {
    let credentials = stream.peer_cred()?;
    let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok());
    Ok(Caller {
        uid: credentials.uid(),
        pid,
        unit: pid.and_then(unit),
    })
}

/// For logs only: a process may be gone, and its number another's, by the time we look.
pub fn unit(pid: u32) -> Option<String> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let name = groups.lines().next()?.rsplit('/').next()?;
    let is_unit = name.ends_with(".service") || name.ends_with(".scope");
    is_unit.then(|| name.to_owned())
}
