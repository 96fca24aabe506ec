//! Starts workers, watches them, names what they find, and counts.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::Flags;
use super::targets::Target;
use super::worker::Progress;

/// A case may take this long. Far more than any should, since many workers may share a core.
const PATIENCE: Duration = Duration::from_secs(20);

/// Findings after which a target is given up: they are the same one, most likely.
const ENOUGH: usize = 10;

struct Worker {
    child: Child,
    /// Its first case.
    first: u64,
    dir: PathBuf,
    progress: Progress,
    moved: Instant,
}

impl Worker {
    fn start(flags: &Flags, target: Target, first: u64, dir: PathBuf) -> std::io::Result<Worker> {
        std::fs::create_dir(&dir)?;
        let progress = dir.join("progress");
        File::create(&progress)?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("--target")
            .arg(target.name())
            .arg("--seed")
            .arg(flags.seed.to_string())
            .arg("--threads")
            .arg(flags.threads.to_string());
        if let Some(case) = flags.case {
            command.arg("--case").arg(case.to_string());
        }
        if let Some(keep) = &flags.keep {
            command.arg("--keep").arg(keep);
        }
        command
            .arg("--worker")
            .arg(first.to_string())
            .args([&progress, &dir])
            .stderr(File::create(dir.join("stderr"))?)
            .stdout(Stdio::null());
        Ok(Worker {
            child: command.spawn()?,
            first,
            dir,
            progress: Progress::default(),
            moved: Instant::now(),
        })
    }

    fn look(&mut self) {
        let bytes = std::fs::read(self.dir.join("progress")).unwrap_or_default();
        let now = Progress::from_bytes(&bytes);
        if now.done != self.progress.done || now.case != self.progress.case {
            self.moved = Instant::now();
        }
        self.progress = now;
    }

    fn end(&mut self) {
        // It may have ended by itself, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }

    /// The end of what it said.
    fn words(&self) -> String {
        let said = std::fs::read(self.dir.join("stderr")).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n    ")
    }
}

#[derive(Default)]
struct Count {
    cases: u64,
    longest: u64,
    longest_case: u64,
    findings: usize,
}

impl Count {
    fn add(&mut self, progress: Progress) {
        self.cases += progress.done;
        if progress.longest > self.longest {
            (self.longest, self.longest_case) = (progress.longest, progress.longest_case);
        }
    }
}

pub fn run(flags: &Flags) -> ExitCode {
    let targets: Vec<Target> = match flags.target {
        Some(target) => vec![target],
        None => Target::value_variants().to_vec(),
    };
    // Files of models are written for each case: memory is quicker than a disk.
    let shared = Path::new("/dev/shm");
    let dir = tempfile::Builder::new()
        .prefix("deltad-fuzz-")
        .tempdir_in(shared);
    let dir = dir.or_else(|_| tempfile::tempdir()).expect("a directory");
    let each = Duration::from_secs(flags.seconds) / targets.len() as u32;
    let mut found = 0;
    println!(
        "{:<10} {:>10} {:>8} {:>10} {:>12}  findings",
        "target", "cases", "seconds", "cases/s", "longest"
    );
    for target in targets {
        let began = Instant::now();
        let count = fuzz(flags, target, dir.path(), each);
        let took = began.elapsed().as_secs_f64();
        println!(
            "{:<10} {:>10} {:>8.1} {:>10.0} {:>9} us  {} (longest: case {})",
            target.name(),
            count.cases,
            took,
            count.cases as f64 / took,
            count.longest,
            count.findings,
            count.longest_case,
        );
        found += count.findings;
    }
    match found {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn fuzz(flags: &Flags, target: Target, dir: &Path, time: Duration) -> Count {
    let mut count = Count::default();
    let mut n_started = 0;
    let mut start = |first: u64| {
        n_started += 1;
        let at = dir.join(format!("{}-{n_started}", target.name()));
        Worker::start(flags, target, first, at).expect("a worker")
    };
    let n = if flags.case.is_some() {
        1
    } else {
        flags.threads
    };
    let mut workers: Vec<Worker> = (0..n).map(|i| start(flags.case.unwrap_or(i))).collect();
    let began = Instant::now();
    while !workers.is_empty() {
        std::thread::sleep(Duration::from_millis(20));
        // Time is up once everyone has done something, however slow the machine.
        let due = began.elapsed() >= time && workers.iter().all(|w| w.progress.done > 0);
        let over = count.findings >= ENOUGH || (due && flags.case.is_none());
        for mut worker in std::mem::take(&mut workers) {
            worker.look();
            let ended = worker.child.try_wait().expect("a child");
            let stuck = worker.moved.elapsed() > PATIENCE;
            if ended.is_none() && !stuck && !over {
                workers.push(worker);
                continue;
            }
            count.add(worker.progress);
            let fine = ended.is_some_and(|e| e.success()) || (ended.is_none() && !stuck);
            if fine {
                worker.end();
                continue;
            }
            count.findings += 1;
            let case = worker.progress.case;
            let how = ended.map_or("takes too long".to_owned(), how);
            println!(
                "FOUND: --target {} --seed {} --case {case}: {how}\n    {}",
                target.name(),
                flags.seed,
                worker.words()
            );
            // Before its first case it is not the input that is at fault.
            let began = case >= worker.first && worker.progress.to_bytes() != [0; 32] || case > 0;
            worker.end();
            if flags.case.is_none() && !over && began {
                workers.push(start(case + flags.threads));
            }
        }
    }
    count
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("killed by signal {signal}"),
        (_, Some(101)) => "a panic".to_owned(),
        (_, code) => format!("ended with {code:?}"),
    }
}
