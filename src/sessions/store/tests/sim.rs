//! A disk in memory that can be killed, cut off and made to fail. What was written and not synced is
//! pending: a process that dies leaves it, a power cut keeps any part of it.
//!
//! Harsher than a journalling file system: pending names come or stay away one by one, and of a
//! pending write any run of bytes may be missing. A sync of a file that failed drops what was pending
//! for good, and the next one says that all is well, as Linux does. Names stay pending then: a
//! journal that cannot be written ends the file system.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::disk::{Disk, Entry, File, How};

#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Arc<[u8]>),
    SetLen(u64),
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen(len) => bytes.resize(*len as usize, 0),
        Change::Write(at, new) => {
            let (at, end) = (*at as usize, *at as usize + new.len());
            bytes.resize(bytes.len().max(end), 0);
            bytes[at..end].copy_from_slice(new);
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Inode {
    live: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    pending: Vec<Change>,
}

/// Names of one directory: to inodes, or, in the root, to directories.
#[derive(Debug, Clone, Default)]
struct Names {
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    /// What goes, and what comes with it: at once or not at all.
    pending: Vec<Rename>,
}

type Rename = (Option<String>, Option<(String, usize)>);

impl Names {
    fn change(&mut self, goes: Option<&str>, comes: Option<(&str, usize)>) {
        let comes = comes.map(|(name, to)| (name.to_owned(), to));
        let change = (goes.map(str::to_owned), comes);
        rename(&mut self.live, &change);
        self.pending.push(change);
    }
}

fn rename(names: &mut BTreeMap<String, usize>, change: &Rename) {
    if let Some(goes) = &change.0 {
        names.remove(goes);
    }
    if let Some((name, to)) = &change.1 {
        names.insert(name.clone(), *to);
    }
}

/// What goes wrong at the next operation that is counted down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process is dead: nothing happens any more.
    Death,
    Io,
    Full,
    /// A write writes a part and says so; everything else is interrupted before it began.
    Short,
    /// A sync fails, and what was pending is lost.
    Sync,
}

#[derive(Debug, Clone, Default)]
pub struct World {
    inodes: Vec<Inode>,
    dirs: Vec<Names>,
    root: Names,
    /// Operations left until the fault.
    fault: Option<(usize, Fault)>,
    dead: bool,
    /// Names given out.
    numbers: u64,
    /// Images from before every operation, where they are wanted.
    record: Option<Vec<World>>,
}

impl World {
    /// The process is gone, the machine is not.
    pub fn death(&mut self) {
        self.fault = None;
        self.dead = false;
    }

    /// Only what was synced is sure to be there.
    pub fn power_cut(&mut self, dice: &mut Dice) {
        self.death();
        let style = dice.below(4);
        for inode in &mut self.inodes {
            let mut bytes = inode.durable.clone();
            for change in std::mem::take(&mut inode.pending) {
                let keep = match style {
                    0 => continue,
                    1 => true,
                    _ => dice.below(2) == 0,
                };
                if keep && style != 3 {
                    apply(Arc::make_mut(&mut bytes), &change);
                } else if let Change::Write(at, new) = change {
                    // Torn: a run of it is there.
                    let from = dice.below(new.len());
                    let from = if dice.below(2) == 0 { 0 } else { from };
                    let to = from + dice.below(new.len() - from + 1);
                    let torn = Change::Write(at + from as u64, new[from..to].into());
                    apply(Arc::make_mut(&mut bytes), &torn);
                }
            }
            inode.live = bytes.clone();
            inode.durable = bytes;
        }
        for names in self.dirs.iter_mut().chain([&mut self.root]) {
            for change in std::mem::take(&mut names.pending) {
                let keep = match style {
                    0 => false,
                    1 => true,
                    _ => dice.below(2) == 0,
                };
                if keep {
                    rename(&mut names.durable, &change);
                }
            }
            names.live = names.durable.clone();
        }
    }

    pub fn fail_at(&mut self, operations: usize, fault: Fault) {
        self.fault = Some((operations, fault));
    }

    pub fn died(&self) -> bool {
        self.dead
    }

    /// Keeps an image of the world before every operation from here on.
    pub fn record(&mut self) {
        self.record = Some(Vec::new());
    }

    pub fn recorded(&mut self) -> Vec<World> {
        self.record.take().unwrap_or_default()
    }

    /// Names of everything, for looking for what was left behind.
    pub fn names(&self) -> Vec<String> {
        let dirs = self.root.live.iter();
        let inside = dirs.flat_map(|(dir, at)| {
            let files = self.dirs[*at].live.keys();
            files.map(move |file| format!("{dir}/{file}"))
        });
        self.root.live.keys().cloned().chain(inside).collect()
    }

    /// One operation that changes something, or may fail.
    fn operation(&mut self) -> Result<Option<Fault>, io::Error> {
        if self.dead {
            return Err(io::Error::other("the process is dead"));
        }
        if let Some(mut images) = self.record.take() {
            images.push(self.clone());
            self.record = Some(images);
        }
        let due = match &mut self.fault {
            Some((0, fault)) => Some(*fault),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        if due.is_some() {
            self.fault = None;
        }
        match due {
            Some(Fault::Death) => {
                self.dead = true;
                Err(io::Error::other("the process dies"))
            }
            Some(Fault::Io) => Err(io::Error::from_raw_os_error(5)),
            Some(Fault::Full) => Err(io::Error::from_raw_os_error(28)),
            other => Ok(other),
        }
    }

    fn dir(&mut self, dir: &str) -> io::Result<&mut Names> {
        let at = self.root.live.get(dir).copied();
        at.map(|at| &mut self.dirs[at])
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A process's hold on the world.
#[derive(Debug, Clone, Default)]
pub struct Sim(pub Arc<Mutex<World>>);

impl Sim {
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
    /// Another process on a copy of this world.
    pub fn of(world: World) -> Sim {
        Sim(Arc::new(Mutex::new(world)))
    }
    fn change(&self) -> io::Result<MutexGuard<'_, World>> {
        let mut world = self.world();
        match world.operation()? {
            Some(Fault::Short) => Err(io::ErrorKind::Interrupted.into()),
            Some(_) => Err(io::Error::from_raw_os_error(5)),
            None => Ok(world),
        }
    }
    fn look(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.world();
        if world.dead {
            return Err(io::Error::other("the process is dead"));
        }
        Ok(world)
    }
}

impl Disk for Sim {
    fn dirs(&self) -> io::Result<Vec<String>> {
        Ok(self.look()?.root.live.keys().cloned().collect())
    }
    fn files(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let mut world = self.look()?;
        let names = world.dir(dir)?.live.clone();
        let all = world.root.live.values().map(|d| &world.dirs[*d]);
        let named: Vec<usize> = all.flat_map(|d| d.live.values().copied()).collect();
        let entry = |(name, at): (String, usize)| Entry {
            name,
            bytes: world.inodes[at].live.len() as u64,
            links: named.iter().filter(|n| **n == at).count() as u64,
        };
        Ok(names.into_iter().map(entry).collect())
    }
    fn make_dir(&self, dir: &str) -> io::Result<()> {
        let mut world = self.change()?;
        let at = world.dirs.len();
        world.dirs.push(Names::default());
        world.root.change(None, Some((dir, at)));
        Ok(())
    }
    fn rename_dir(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.change()?;
        let at = world.root.live.get(from).copied();
        let at = at.ok_or(io::ErrorKind::NotFound)?;
        world.root.change(Some(from), Some((to, at)));
        Ok(())
    }
    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        let mut world = self.change()?;
        if !world.dir(dir)?.live.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        world.root.change(Some(dir), None);
        Ok(())
    }
    fn sync_dir(&self, dir: Option<&str>) -> io::Result<()> {
        let mut world = self.world();
        let failed = world.operation()?.is_some();
        let names = match dir {
            None => &mut world.root,
            Some(dir) => world.dir(dir)?,
        };
        if failed {
            return Err(io::Error::from_raw_os_error(5));
        }
        for change in std::mem::take(&mut names.pending) {
            rename(&mut names.durable, &change);
        }
        Ok(())
    }
    fn open(&self, dir: &str, file: &str, how: How) -> io::Result<Box<dyn File>> {
        let mut world = if how == How::Create {
            self.change()?
        } else {
            self.look()?
        };
        let new = world.inodes.len();
        let names = world.dir(dir)?;
        let inode = match (names.live.get(file).copied(), how) {
            (Some(_), How::Create) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, How::Create) => {
                names.change(None, Some((file, new)));
                world.inodes.push(Inode::default());
                new
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        let sim = self.clone();
        Ok(Box::new(Handle { sim, inode }))
    }
    fn rename(&self, dir: &str, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.change()?;
        let names = world.dir(dir)?;
        let inode = names.live.get(from).copied();
        let inode = inode.ok_or(io::ErrorKind::NotFound)?;
        names.change(Some(from), Some((to, inode)));
        Ok(())
    }
    fn link(&self, from: &str, file: &str, to: &str) -> io::Result<()> {
        let mut world = self.change()?;
        let inode = world.dir(from)?.live.get(file).copied();
        let inode = inode.ok_or(io::ErrorKind::NotFound)?;
        world.dir(to)?.change(None, Some((file, inode)));
        Ok(())
    }
    fn remove(&self, dir: &str, file: &str) -> io::Result<()> {
        let mut world = self.change()?;
        let names = world.dir(dir)?;
        if !names.live.contains_key(file) {
            return Err(io::ErrorKind::NotFound.into());
        }
        names.change(Some(file), None);
        Ok(())
    }
    fn free(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
    fn scratch(&self) -> io::Result<std::fs::File> {
        tempfile::tempfile()
    }
    fn number(&self) -> io::Result<[u8; 16]> {
        let mut world = self.look()?;
        world.numbers += 1;
        Ok(Dice(world.numbers)
            .next()
            .to_le_bytes()
            .repeat(2)
            .try_into()
            .unwrap())
    }
}

struct Handle {
    sim: Sim,
    inode: usize,
}

impl Handle {
    fn change(&self, world: &mut World, change: Change) {
        let inode = &mut world.inodes[self.inode];
        apply(Arc::make_mut(&mut inode.live), &change);
        inode.pending.push(change);
    }
}

impl File for Handle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.sim.look()?.inodes[self.inode].live.len() as u64)
    }
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let world = self.sim.look()?;
        let bytes = world.inodes[self.inode].live.get(at as usize..);
        let bytes = bytes.unwrap_or_default();
        let n = bytes.len().min(into.len());
        into[..n].copy_from_slice(&bytes[..n]);
        Ok(n)
    }
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut world = self.sim.world();
        let n = match world.operation()? {
            Some(_) => bytes.len() / 2,
            None => bytes.len(),
        };
        self.change(&mut world, Change::Write(at, bytes[..n].into()));
        Ok(n)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut world = self.sim.change()?;
        self.change(&mut world, Change::SetLen(len));
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        let mut world = self.sim.world();
        let failed = world.operation()?.is_some();
        let inode = &mut world.inodes[self.inode];
        let pending = std::mem::take(&mut inode.pending);
        if failed {
            return Err(io::Error::from_raw_os_error(5));
        }
        let durable = Arc::make_mut(&mut inode.durable);
        pending.iter().for_each(|change| apply(durable, change));
        Ok(())
    }
}
