//! The manager's store of descriptors: files that it holds while no process of ours runs, and hands to the
//! next one, by name. sd_notify(3) says how; nothing here knows what is in them.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sendmsg_addr, socket_with,
};

use crate::sessions::store::Keeper;

/// The manager takes a descriptor in at once, unless it is very busy.
const PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

#[derive(Debug)]
pub struct DescriptorStore {
    manager: SocketAddrUnix,
    places: usize,
}

impl DescriptorStore {
    /// `None` where the manager has no room for any: it would take them without a word and close them.
    pub fn of_manager() -> Option<DescriptorStore> {
        let places = std::env::var("FDSTORE").ok()?.parse().ok()?;
        let manager = std::env::var_os("NOTIFY_SOCKET")?;
        let manager = match manager.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
            path => SocketAddrUnix::new(path),
        };
        let manager = manager.inspect_err(|e| log::warn!("the manager's address: {e}"));
        (places > 0).then_some(DescriptorStore {
            manager: manager.ok()?,
            places,
        })
    }

    fn tell(&self, text: &str, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
        let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files: &[BorrowedFd<'_>] = file.as_slice();
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(ErrorKind::OutOfMemory.into());
        }
        let text = [IoSlice::new(text.as_bytes())];
        sendmsg_addr(
            socket,
            &self.manager,
            &text,
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// Until all that was told before is done: the manager closes what it was sent when it comes to it.
    fn done(&self) -> io::Result<()> {
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        self.tell("BARRIER=1", Some(theirs.as_fd()))?;
        drop(theirs);
        let mut ended = [PollFd::new(&ours, PollFlags::empty())];
        match poll(&mut ended, Some(&PATIENCE))? {
            0 => Err(ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

impl Keeper for DescriptorStore {
    fn keep(&self, name: &str, file: BorrowedFd<'_>) -> io::Result<()> {
        self.tell(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), Some(file))?;
        self.done()
    }

    fn let_go(&self, name: &str) {
        if let Err(e) = self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None) {
            log::warn!("the service manager keeps {name}: {e}");
        }
    }

    fn places(&self) -> usize {
        self.places
    }
}

/// What the manager held of a process before, by name: files of ours are opened anew, so that they are
/// whole files here and their descriptors stay where the manager put them.
pub(super) fn handed(ours: &str) -> Vec<(String, File)> {
    let all = match sd_notify::listen_fds_with_names() {
        Ok(all) => all,
        Err(e) => {
            log::warn!("what the service manager hands over is not taken: {e}");
            return Vec::new();
        }
    };
    let files = all.filter(|(_, name)| name.starts_with(ours));
    let open = |(number, name): (i32, String)| {
        let path = format!("/proc/self/fd/{number}");
        let file = File::options().read(true).write(true).open(path);
        let file = file.inspect_err(|e| log::warn!("{name} of the service manager is lost: {e}"));
        Some((name, file.ok()?))
    };
    files.filter_map(open).collect()
}
