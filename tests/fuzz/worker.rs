//! One process that runs cases of one target until it is killed, or until something is found.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::Flags;
use super::dice::Dice;

/// What a case may have of the address space, with the models and threads that stand already; a
/// template's stack is a gibibyte of it.
const MEMORY: u64 = 8 << 30;

/// As tokio gives the threads on which the daemon reads requests and models.
const STACK: usize = 2 << 20;

/// What the watcher reads: the case under way, how many are done, the longest one in microseconds,
/// and its number.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    pub case: u64,
    pub done: u64,
    pub longest: u64,
    pub longest_case: u64,
}

impl Progress {
    pub fn to_bytes(self) -> [u8; 32] {
        let words = [self.case, self.done, self.longest, self.longest_case];
        std::array::from_fn(|i| words[i / 8].to_le_bytes()[i % 8])
    }
    pub fn from_bytes(bytes: &[u8]) -> Progress {
        let words = bytes.as_chunks::<8>().0;
        let word = |i: usize| words.get(i).map_or(0, |w| u64::from_le_bytes(*w));
        Progress {
            case: word(0),
            done: word(1),
            longest: word(2),
            longest_case: word(3),
        }
    }
}

pub fn run(flags: &Flags, worker: &[String]) -> ExitCode {
    let (first, progress, dir) = (&worker[0], &worker[1], &worker[2]);
    let first: u64 = first.parse().expect("a number");
    let mut limits = [(Resource::As, MEMORY), (Resource::Core, 0)].into_iter();
    limits.by_ref().for_each(|(resource, limit)| {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        setrlimit(resource, limit).expect("a lower limit");
    });
    // Whichever thread it is: those that catch panics do so to live on, and we want to know.
    std::panic::set_hook(Box::new(|info| {
        let at = info.location().map_or("", |l| l.file());
        // It catches its own panics on grammars that it cannot follow, and says so as an error.
        if at.contains("/llguidance-") || at.contains("/derivre-") {
            return;
        }
        eprintln!("{info}");
        std::process::exit(101);
    }));
    let target = flags.target.expect("a worker has one target");
    let file = std::fs::OpenOptions::new().write(true).open(progress);
    let file = file.expect("the progress file");
    let dir = Path::new(dir).to_owned();
    let (seed, step, only) = (flags.seed, flags.threads, flags.case);
    let keep = flags.keep.clone();
    let work = move || {
        let mut run = target.prepare(&dir);
        let mut progress = Progress::default();
        for case in (first..).step_by(step.max(1) as usize) {
            progress.case = case;
            file.write_all_at(&progress.to_bytes(), 0).expect("room");
            let began = Instant::now();
            run(&mut Dice::new(seed, case, keep.clone()));
            let took = began.elapsed().as_micros() as u64;
            progress.done += 1;
            if took > progress.longest {
                (progress.longest, progress.longest_case) = (took, case);
            }
            if only.is_some() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(work);
    thread.expect("a thread").join().expect("no panic");
    ExitCode::SUCCESS
}
