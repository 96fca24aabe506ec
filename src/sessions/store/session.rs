//! One session's directory: its log, and what a crash left beside it. Owns the order of writes and
//! syncs: nothing is acknowledged before it is there to stay, and a file whose sync failed is never
//! believed again.

use super::disk::{self, Disk, How};
use super::entry::{Meta, Turn};
use super::error::{Piece, Refusal};
use super::id::Id;
use super::known::Known;
use super::record::{self, Chain, Head, Kind, Tail};

pub const LOG: &str = "log";
const NEW_LOG: &str = "log.new";
const PARTIAL: &str = "partial";

#[derive(Debug)]
pub struct Session {
    pub id: Id,
    pub head: Head,
    pub known: Known,
    /// Of the log, bytes that are there to stay.
    len: u64,
    chain: Chain,
    /// The log holds more than `len`, or nobody knows what: it is written anew before it goes on.
    doubtful: bool,
    /// Where the last record begins.
    last: u64,
    /// What was read is there to stay. A process before this one may have died, or met an error,
    /// between a write and its sync; what it wrote last is in the page cache and nowhere else.
    pub settled: bool,
    /// The running answer's pieces: where they go on.
    partial: Option<(u64, Chain)>,
    /// A sync of rows failed: they go on in another file.
    pub skip_segments: u32,
    /// Rows on disk were found damaged: the next checkpoint writes all of them again.
    pub distrusted: bool,
    /// Bytes on disk; what is shared counts in parts.
    pub bytes: u64,
    /// Of which rows and states.
    pub states: u64,
}

fn unreadable(piece: Piece) -> impl Fn(std::io::Error) -> Refusal {
    move |why| Refusal::Unreadable {
        piece: piece.clone(),
        why,
    }
}

fn is_of_a_state(file: &str) -> bool {
    file.starts_with("state.") || file.starts_with("rows.")
}

fn changed() -> std::io::Error {
    let why = "the log no longer holds what was written to it";
    std::io::Error::new(std::io::ErrorKind::InvalidData, why)
}

/// A log's bytes.
pub fn log_of(disk: &dyn Disk, id: Id) -> Result<Vec<u8>, Refusal> {
    let read = || disk::read(&*disk.open(&id.to_string(), LOG, How::Read)?);
    read().map_err(unreadable(Piece::Log))
}

/// The log's beginning: what a session has from its first moment on.
pub fn first(head: Head, records: &[(Kind, Vec<u8>)]) -> (Vec<u8>, Chain) {
    let (mut bytes, mut chain) = (head.to_bytes().to_vec(), head.chain());
    for (kind, payload) in records {
        let (more, next) = chain.next(*kind, payload);
        bytes.extend(more);
        chain = next;
    }
    (bytes, chain)
}

impl Session {
    /// What lies in the directory of `id`; changes nothing.
    pub fn read(disk: &dyn Disk, id: Id, uid: u32) -> Result<Session, Refusal> {
        let log = log_of(disk, id)?;
        let read = record::read(&log)?;
        let damaged = |at: usize| Refusal::Damaged {
            piece: Piece::Log,
            at: at as u64,
        };
        if (read.head.id, read.head.uid) != (id, uid) {
            let (other, whose) = (read.head.id, read.head.uid);
            let what = format!("the log of session {other} of user {whose}");
            return Err(Refusal::Foreign { what });
        }
        if read.tail == Tail::Damaged {
            return Err(damaged(read.good));
        }
        let (known, _) = Known::of(&read.records).map_err(|(_, at)| damaged(at))?;
        let mut session = Session {
            id,
            head: read.head,
            known,
            len: read.good as u64,
            chain: read.chain,
            doubtful: read.tail == Tail::Torn,
            last: read.records.last().map_or(0, |r| r.at as u64),
            settled: false,
            partial: None,
            skip_segments: 0,
            distrusted: false,
            bytes: 0,
            states: 0,
        };
        session.weigh(disk);
        Ok(session)
    }

    /// The acknowledged turns.
    pub fn turns(&self, disk: &dyn Disk) -> Result<Vec<Turn>, Refusal> {
        let log = log_of(disk, self.id)?;
        // Behind that lies what failed to be written.
        let good = log.get(..self.len as usize).unwrap_or(&log);
        let read = record::read(good)?;
        let damaged = |at: usize| Refusal::Damaged {
            piece: Piece::Log,
            at: at as u64,
        };
        if read.chain != self.chain {
            return Err(damaged(read.good));
        }
        let known = Known::of(&read.records).map_err(|(_, at)| damaged(at))?;
        Ok(known.1)
    }

    /// As [`Session::read`], and clears away what a crash left.
    pub fn open(disk: &dyn Disk, id: Id, uid: u32) -> Result<Session, Refusal> {
        let mut session = Session::read(disk, id, uid)?;
        if session.doubtful && session.cut(disk).is_err() {
            // Read-only or full: the log is written anew before anything else is.
            log::warn!("session {id}: what a crash left behind its log could not be cut off");
        }
        session.clear(disk);
        Ok(session)
    }

    pub fn dir(&self) -> String {
        self.id.to_string()
    }

    pub fn meta(&self) -> &Meta {
        let meta = self.known.meta.as_ref();
        meta.expect("no session is read without")
    }

    /// A tail that a crash left goes, for good.
    fn cut(&mut self, disk: &dyn Disk) -> std::io::Result<()> {
        let file = disk.open(&self.dir(), LOG, How::Write)?;
        file.set_len(self.len)?;
        file.sync()?;
        self.doubtful = false;
        Ok(())
    }

    /// Removes files that no record names: a crash came before their record, or after the record
    /// that did away with them.
    pub fn clear(&mut self, disk: &dyn Disk) {
        let dir = self.dir();
        for file in disk.files(&dir).unwrap_or_default() {
            let ours = file.name == NEW_LOG || is_of_a_state(&file.name);
            if ours && !self.known.names(&file.name) {
                // What stays goes next time.
                let _ = disk.remove(&dir, &file.name);
            }
        }
        self.weigh(disk);
    }

    /// Adds up what it takes on disk.
    pub fn weigh(&mut self, disk: &dyn Disk) {
        (self.bytes, self.states) = (0, 0);
        for file in disk.files(&self.dir()).unwrap_or_default() {
            let share = file.bytes / file.links.max(1);
            self.bytes += share;
            if is_of_a_state(&file.name) {
                self.states += share;
            }
        }
    }

    /// Appends a record and returns the bytes written once it is there to stay. After an error the
    /// session is as it was.
    pub fn append(&mut self, disk: &dyn Disk, kind: Kind, payload: &[u8]) -> std::io::Result<u64> {
        let written = self.settle(disk)?;
        let (bytes, chain) = self.chain.next(kind, payload);
        let file = disk.open(&self.dir(), LOG, How::Write)?;
        if let Err(failed) = disk::write(&*file, self.len, &bytes) {
            // Some of it may be there.
            self.doubtful = file.set_len(self.len).is_err();
            return Err(failed);
        }
        if let Err(failed) = file.sync() {
            // What is on the disk, nobody knows; and a second sync would say that all is well.
            self.doubtful = true;
            return Err(failed);
        }
        self.last = self.len;
        self.len += bytes.len() as u64;
        self.bytes += bytes.len() as u64;
        self.chain = chain;
        Ok(written + bytes.len() as u64)
    }

    /// Makes what was read stay. Every record but the last was synced before the next one was
    /// written; the last is written once more, since a sync alone would pass over pages that an
    /// earlier, failed one has let go.
    pub fn settle(&mut self, disk: &dyn Disk) -> std::io::Result<u64> {
        if self.doubtful {
            return self.renew(disk);
        }
        if self.settled {
            return Ok(0);
        }
        let file = disk.open(&self.dir(), LOG, How::Write)?;
        let log = disk::read(&*file)?;
        let last = log.get(self.last as usize..self.len as usize);
        let last = last.ok_or_else(changed)?;
        disk::write(&*file, self.last, last)?;
        if let Err(failed) = file.sync() {
            self.doubtful = true;
            return Err(failed);
        }
        disk.sync_dir(Some(&self.dir()))?;
        self.settled = true;
        Ok(last.len() as u64)
    }

    /// Writes the log's acknowledged part to a new file, which takes the old one's place.
    fn renew(&mut self, disk: &dyn Disk) -> std::io::Result<u64> {
        let dir = self.dir();
        let old = disk::read(&*disk.open(&dir, LOG, How::Read)?)?;
        let good = old.get(..self.len as usize).filter(|good| {
            record::read(good).is_ok_and(|r| r.good == good.len() && r.chain == self.chain)
        });
        let good = good.ok_or_else(changed)?;
        match disk.remove(&dir, NEW_LOG) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = disk.open(&dir, NEW_LOG, How::Create)?;
        disk::write(&*file, 0, good)?;
        file.sync()?;
        disk.rename(&dir, NEW_LOG, LOG)?;
        disk.sync_dir(Some(&dir))?;
        (self.doubtful, self.settled) = (false, true);
        Ok(good.len() as u64)
    }

    /// A piece of the running answer. It outlives this process, and a power cut only by luck.
    pub fn partial(
        &mut self,
        disk: &dyn Disk,
        piece: &Turn,
        is_first: bool,
    ) -> std::io::Result<u64> {
        let dir = self.dir();
        let file = match disk.open(&dir, PARTIAL, How::Write) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                disk.open(&dir, PARTIAL, How::Create)?
            }
            opened => opened?,
        };
        let (at, chain) = match self.partial {
            Some(place) if !is_first => place,
            _ => {
                file.set_len(0)?;
                (0, self.partial_chain())
            }
        };
        let (bytes, chain) = chain.next(Kind::Partial, &piece.to_bytes());
        disk::write(&*file, at, &bytes)?;
        self.partial = Some((at + bytes.len() as u64, chain));
        Ok(bytes.len() as u64)
    }

    /// Pieces fit the turn that was open when they were written, and no other.
    fn partial_chain(&self) -> Chain {
        Chain {
            salt: self.head.salt,
            seq: (self.known.turns.len() as u64) << 32,
            last: 0,
        }
    }

    /// The turn is over.
    pub fn forget_partial(&mut self) {
        self.partial = None;
    }

    /// Pieces of an answer that was cut off.
    pub fn partials(&self, disk: &dyn Disk) -> Vec<Turn> {
        let read = || disk::read(&*disk.open(&self.dir(), PARTIAL, How::Read)?);
        let bytes: std::io::Result<Vec<u8>> = read();
        let bytes = bytes.unwrap_or_default();
        let (records, ..) = record::follow(&bytes, 0, self.partial_chain());
        records.iter().map_while(|r| Turn::of(r.payload)).collect()
    }
}
