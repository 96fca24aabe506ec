//! Sessions on no disk at all: in files without a name, in memory, that somebody else holds as well and
//! hands to the next process. What lies where is in an index, which is such a file too, written in two
//! pages in turn: a process that dies in the middle leaves the other. Who holds the files, and how they
//! come back, is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File as Std;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::disk::{self, Disk, Entry, File, How};
use crate::engine::LentFile;

/// Who holds files beyond this process's end.
pub trait Keeper: std::fmt::Debug + Send + Sync {
    /// It has the file, under that name, when this returns.
    fn keep(&self, name: &str, file: BorrowedFd<'_>) -> io::Result<()>;
    /// What it holds under that name is of no use any more.
    fn let_go(&self, name: &str);
    /// How many files it holds at most.
    fn places(&self) -> usize;
}

/// What every name of ours begins with.
const OURS: &str = "deltad-";
const PAGES: [&str; 2] = ["deltad-index-0", "deltad-index-1"];
const MAGIC: [u8; 8] = *b"deltaidx";
/// Of a page: the magic bytes, its number, the length and the hash of what follows.
const HEAD: usize = 32;

fn called(number: u64) -> String {
    format!("{OURS}file-{number}")
}

fn is_number(name: &str) -> Option<u64> {
    name.strip_prefix("deltad-file-")?.parse().ok()
}

/// What lies where: for each user directories, and in them files by their numbers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Index {
    next: u64,
    users: BTreeMap<u32, Dirs>,
}

type Dirs = BTreeMap<String, BTreeMap<String, u64>>;

impl Index {
    fn numbers(&self) -> impl Iterator<Item = u64> {
        let dirs = self.users.values().flat_map(BTreeMap::values);
        dirs.flat_map(|files| files.values().copied())
    }

    fn dir(&mut self, uid: u32, dir: &str) -> io::Result<&mut BTreeMap<String, u64>> {
        let dirs = self.users.entry(uid).or_default();
        dirs.get_mut(dir).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn to_page(&self, turn: u64) -> io::Result<Vec<u8>> {
        let text = serde_json::to_vec(self)?;
        let mut page = MAGIC.to_vec();
        page.extend(turn.to_le_bytes());
        page.extend((text.len() as u64).to_le_bytes());
        page.extend(xxh3_64(&text).to_le_bytes());
        page.extend(text);
        Ok(page)
    }

    /// `None` for a page that was never written, or not to its end.
    fn of_page(page: &[u8]) -> Option<(u64, Index)> {
        let (head, rest) = page.split_at_checked(HEAD)?;
        let number =
            |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap_or_default());
        let text = rest.get(..usize::try_from(number(16)).ok()?)?;
        let is_whole = head[..8] == MAGIC && number(24) == xxh3_64(text);
        let index = is_whole
            .then(|| serde_json::from_slice(text).ok())
            .flatten();
        Some((number(8), index?))
    }
}

/// All users' files, and who holds them.
#[derive(Debug)]
pub struct Hands {
    keeper: Box<dyn Keeper>,
    /// What a file is counted as at least: places are as short as bytes.
    least: u64,
    all: Mutex<All>,
}

#[derive(Debug)]
struct All {
    index: Index,
    /// The page that was written last.
    turn: u64,
    pages: [Std; 2],
    files: BTreeMap<u64, Handed>,
}

/// A file in memory.
#[derive(Debug)]
struct Handed {
    file: Std,
    /// It came from the process before. A descriptor of it stays open here: it is emptied when it goes,
    /// and so never lent.
    came: bool,
}

/// A file in memory that has no name anywhere and can never be run.
fn memory(name: &str) -> io::Result<Std> {
    let flags = MemfdFlags::CLOEXEC;
    // Linux before 6.3 does not know the second.
    let made = rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create(name, flags))?;
    Ok(made.into())
}

impl Hands {
    /// Takes up what the process before left, by the names that the keeper has for it. `most`: bytes
    /// that one user's sessions may take.
    pub fn take_up(
        keeper: Box<dyn Keeper>,
        came: Vec<(String, Std)>,
        most: u64,
    ) -> io::Result<Hands> {
        let mut came: BTreeMap<String, Std> = came.into_iter().collect();
        let mut page = |name: &str| match came.remove(name) {
            Some(page) => Ok(page),
            None => {
                let page = memory(name)?;
                keeper.keep(name, page.as_fd())?;
                Ok::<_, io::Error>(page)
            }
        };
        let pages = [page(PAGES[0])?, page(PAGES[1])?];
        let read = pages
            .iter()
            .filter_map(|p| Index::of_page(&disk::read(p).ok()?));
        let (turn, mut index) = read.max_by_key(|(turn, _)| *turn).unwrap_or_default();
        let mut files = BTreeMap::new();
        for (name, file) in came {
            match is_number(&name).filter(|n| index.numbers().any(|known| known == *n)) {
                Some(number) => drop(files.insert(number, Handed { file, came: true })),
                None => {
                    empty(&file, &name);
                    keeper.let_go(&name);
                }
            }
        }
        for dir in index.users.values_mut().flat_map(BTreeMap::values_mut) {
            dir.retain(|_, number| files.contains_key(number));
        }
        // A quarter of the places stays free for what is being made.
        let places = (keeper.places() / 4 * 3).max(1) as u64;
        Ok(Hands {
            least: most / places,
            keeper,
            all: Mutex::new(All {
                index,
                turn,
                pages,
                files,
            }),
        })
    }

    /// Users who have sessions there.
    pub fn users(&self) -> Vec<u32> {
        let all = self.lock();
        let users = all.index.users.iter().filter(|(_, dirs)| !dirs.is_empty());
        users.map(|(uid, _)| *uid).collect()
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what lies where; what is nowhere afterwards goes. After an error nothing is changed.
    fn change<T>(&self, how: impl FnOnce(&mut Index) -> io::Result<T>) -> io::Result<T> {
        let mut all = self.lock();
        let mut index = all.index.clone();
        let done = how(&mut index)?;
        all.write(index)?;
        let known: BTreeSet<u64> = all.index.numbers().collect();
        let files = std::mem::take(&mut all.files).into_iter();
        let (stays, gone) = files.partition(|(number, _)| known.contains(number));
        all.files = stays;
        let gone: BTreeMap<u64, Handed> = gone;
        for (number, handed) in gone {
            let name = called(number);
            if handed.came {
                empty(&handed.file, &name);
            }
            self.keeper.let_go(&name);
        }
        Ok(done)
    }

    /// A new file, which the keeper has before it lies anywhere.
    fn make(&self, uid: u32, dir: &str, file: &str) -> io::Result<()> {
        let number = {
            let mut all = self.lock();
            if all.files.len() + PAGES.len() >= self.keeper.places() {
                return Err(ErrorKind::StorageFull.into());
            }
            all.index.next += 1;
            all.index.next
        };
        let name = called(number);
        let made = memory(&name)?;
        let kept = self.keeper.keep(&name, made.as_fd());
        let mut all = self.lock();
        let placed = kept.and_then(|()| {
            let mut index = all.index.clone();
            index.dir(uid, dir)?.insert(file.to_owned(), number);
            all.write(index)
        });
        match placed {
            Ok(()) => drop(all.files.insert(
                number,
                Handed {
                    file: made,
                    came: false,
                },
            )),
            Err(_) => self.keeper.let_go(&name),
        }
        placed
    }
}

impl All {
    /// To the page that is older; then it holds.
    fn write(&mut self, index: Index) -> io::Result<()> {
        let turn = self.turn + 1;
        let (page, bytes) = (&self.pages[(turn % 2) as usize], index.to_page(turn)?);
        disk::write(page, 0, &bytes)?;
        Std::set_len(page, bytes.len() as u64)?;
        (self.index, self.turn) = (index, turn);
        Ok(())
    }
}

/// The descriptor that it came by stays open: what lies in it is given back all the same.
fn empty(file: &Std, name: &str) {
    if let Err(e) = Std::set_len(file, 0) {
        log::warn!("{name} stays in memory: {e}");
    }
}

/// One user's directories there.
#[derive(Debug)]
pub struct InHands {
    pub hands: Arc<Hands>,
    pub uid: u32,
}

impl InHands {
    fn look<T>(
        &self,
        dir: &str,
        of: impl FnOnce(&All, &BTreeMap<String, u64>) -> T,
    ) -> io::Result<T> {
        let all = self.hands.lock();
        let dirs = all.index.users.get(&self.uid);
        let dir = dirs.and_then(|dirs| dirs.get(dir));
        Ok(of(&all, dir.ok_or(ErrorKind::NotFound)?))
    }

    fn exists(&self, dir: &str, file: &str) -> io::Result<bool> {
        self.look(dir, |_, files| files.contains_key(file))
    }
}

impl Disk for InHands {
    fn dirs(&self) -> io::Result<Vec<String>> {
        let all = self.hands.lock();
        let dirs = all.index.users.get(&self.uid);
        Ok(dirs.into_iter().flat_map(BTreeMap::keys).cloned().collect())
    }

    fn files(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.look(dir, |all, files| {
            let entry = |(name, number): (&String, &u64)| {
                let file = all.files.get(number);
                let bytes = file.map_or(Ok(0), |file| file.file.size())?;
                Ok(Entry {
                    name: name.clone(),
                    bytes: bytes.max(self.hands.least),
                    links: all.index.numbers().filter(|n| n == number).count() as u64,
                })
            };
            files.iter().map(entry).collect()
        })?
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.hands.change(|index| {
            let dirs = index.users.entry(self.uid).or_default();
            if dirs.contains_key(dir) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            dirs.insert(dir.to_owned(), BTreeMap::new());
            Ok(())
        })
    }

    fn rename_dir(&self, from: &str, to: &str) -> io::Result<()> {
        self.hands.change(|index| {
            let dirs = index.users.entry(self.uid).or_default();
            if dirs.contains_key(to) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            let files = dirs.remove(from).ok_or(ErrorKind::NotFound)?;
            dirs.insert(to.to_owned(), files);
            Ok(())
        })
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.hands.change(|index| {
            if !index.dir(self.uid, dir)?.is_empty() {
                return Err(ErrorKind::DirectoryNotEmpty.into());
            }
            let dirs = index.users.entry(self.uid).or_default();
            dirs.remove(dir);
            Ok(())
        })
    }

    /// Every change is there at once.
    fn sync_dir(&self, _: Option<&str>) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, dir: &str, file: &str, how: How) -> io::Result<Box<dyn File>> {
        if how == How::Create {
            if self.exists(dir, file)? {
                return Err(ErrorKind::AlreadyExists.into());
            }
            self.hands.make(self.uid, dir, file)?;
        }
        self.look(dir, |all, files| {
            let number = files.get(file).ok_or(ErrorKind::NotFound)?;
            let handed = all.files.get(number).ok_or(ErrorKind::NotFound)?;
            let (file, came) = (handed.file.try_clone()?, handed.came);
            Ok(Box::new(Handed { file, came }) as Box<dyn File>)
        })?
    }

    fn rename(&self, dir: &str, from: &str, to: &str) -> io::Result<()> {
        self.hands.change(|index| {
            let files = index.dir(self.uid, dir)?;
            let number = files.remove(from).ok_or(ErrorKind::NotFound)?;
            files.insert(to.to_owned(), number);
            Ok(())
        })
    }

    fn link(&self, from: &str, file: &str, to: &str) -> io::Result<()> {
        self.hands.change(|index| {
            let number = index.dir(self.uid, from)?.get(file).copied();
            let number = number.ok_or(ErrorKind::NotFound)?;
            let there = index.dir(self.uid, to)?;
            if there.contains_key(file) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            there.insert(file.to_owned(), number);
            Ok(())
        })
    }

    fn remove(&self, dir: &str, file: &str) -> io::Result<()> {
        self.hands.change(|index| {
            let removed = index.dir(self.uid, dir)?.remove(file);
            removed.map(drop).ok_or_else(|| ErrorKind::NotFound.into())
        })
    }

    /// There is no more of it than sessions may take anyway.
    fn free(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn scratch(&self) -> io::Result<Std> {
        memory("deltad-scratch")
    }

    fn number(&self) -> io::Result<[u8; 16]> {
        disk::number()
    }
}

impl File for Handed {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        File::read_at(&self.file, at, into)
    }
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        File::write_at(&self.file, at, bytes)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(&self.file, len)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn lend(&self, len: usize) -> io::Result<(Bytes, Option<LentFile>)> {
        if self.came {
            return Ok((disk::read_some(&self.file, 0, len)?.into(), None));
        }
        self.file.lend(len)
    }
}
