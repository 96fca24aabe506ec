//! Threads that share the pieces of one job after another. A worker claims small pieces from an
//! atomic counter, so whoever is held up by the system holds back one piece and no more; it spins
//! for some microseconds where nothing is left, then sleeps. Knows nothing of what a piece does.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::share::Shared;

/// How long a worker looks for the next job before it sleeps: a wake-up costs some 5 µs, and the
/// jobs of one pass follow each other closer than this.
const SPIN: Duration = Duration::from_micros(40);
/// How long the caller looks for the last pieces of others. Whoever does not bring them by then was
/// put aside by the system; sleeping gives the core to whoever holds it back.
const LAST_PIECES: Duration = Duration::from_micros(20);
/// Looks between two looks at the clock.
const LOOKS: usize = 64;

/// Pieces of a job, and how many are taken, are 16 bits of [`Desk::ticket`].
pub const MOST_PIECES: usize = (1 << 16) - 1;

/// What a job does with piece `0` and worker `1`.
type Work<'w> = dyn Fn(usize, usize) + Sync + 'w;

/// Runs jobs on its caller's thread and on workers of its own. One job at a time.
#[derive(Debug)]
pub struct Pool {
    desk: Arc<Desk>,
    workers: Vec<Worker>,
    /// Keeps callers of different threads apart.
    busy: Mutex<()>,
}

#[derive(Debug)]
struct Worker {
    thread: JoinHandle<()>,
    asleep: Arc<AtomicBool>,
}

/// Neighbouring pieces of one job: those from `next` to `end` are still to be had. A cache line each.
#[repr(align(64))]
struct Stretch {
    next: AtomicUsize,
    end: usize,
}

impl Stretch {
    fn take(&self) -> Option<usize> {
        let piece = self.next.fetch_add(1, Ordering::Relaxed);
        (piece < self.end).then_some(piece)
    }
}

/// What caller and workers share.
#[derive(Default)]
struct Desk {
    /// `job << 32 | pieces << 16 | taken`. A piece is taken by raising `taken` in one exchange,
    /// which proves that the job is still the one that was looked at.
    ticket: AtomicU64,
    /// The job's closure: a pointer to the caller's `&Work`.
    work: AtomicPtr<&'static Work<'static>>,
    finished: AtomicUsize,
    /// Set by a caller that sleeps until the last piece.
    waiting: Mutex<Option<Thread>>,
    is_waited_for: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

thread_local! {
    /// The worker's number while this thread works on a piece: a job inside a job would wait for
    /// itself.
    static INSIDE: Cell<Option<usize>> = const { Cell::new(None) };
}

impl Pool {
    /// `threads` in all, the caller's among them; at least one. With fewer threads to be had than
    /// asked for, it works with those.
    pub fn new(threads: usize) -> Pool {
        let desk = Arc::new(Desk::default());
        let spawn = |at: usize| {
            let (desk, asleep) = (desk.clone(), Arc::new(AtomicBool::new(false)));
            let own = asleep.clone();
            let run = move || work(&desk, at, &own);
            let named = std::thread::Builder::new().name(format!("worker {at}"));
            let thread = named.spawn(run).ok()?;
            Some(Worker { thread, asleep })
        };
        let workers = (1..threads.clamp(1, 512)).map_while(spawn).collect();
        Pool {
            desk,
            workers,
            busy: Mutex::new(()),
        }
    }

    /// Threads that work on a job: workers have numbers below this.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work(piece, worker)` once for every piece below `pieces`, on any threads in any
    /// order, and returns when all are done. A panic of a piece is the caller's once the others
    /// have ended. Inside a piece it runs on that thread alone.
    pub fn run(&self, pieces: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        if let Some(worker) = INSIDE.get() {
            return (0..pieces).for_each(|piece| work(piece, worker));
        }
        if self.workers.is_empty() || pieces <= 1 {
            return (0..pieces).for_each(|piece| work(piece, 0));
        }
        // A poisoned lock: an earlier job panicked, and ended.
        let _mine = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let mut start = 0;
        while start < pieces {
            let count = (pieces - start).min(MOST_PIECES);
            self.run_job(count, &|piece, worker| work(start + piece, worker));
            start += count;
        }
    }

    /// As [`Pool::run`], but who has done a piece takes the one behind it while there is one: of pieces
    /// that lie one behind another in memory, every worker reads a stretch, and the processor's own
    /// reading ahead need not begin anew at each. Whoever has come to the end of a stretch goes on with
    /// another's.
    pub fn run_along(&self, pieces: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        let count = self.threads().min(pieces);
        let stretch = |at: usize| Stretch {
            next: AtomicUsize::new(pieces * at / count),
            end: pieces * (at + 1) / count,
        };
        let stretches: Vec<_> = (0..count).map(stretch).collect();
        self.run(count, &|own, worker| {
            let (others, own) = stretches.split_at(own);
            for stretch in own.iter().chain(others) {
                while let Some(piece) = stretch.take() {
                    work(piece, worker);
                }
            }
        });
    }

    /// As [`Pool::run`], over `chunk` elements of `out` a piece (the last may have fewer).
    pub fn run_chunks<T: Send>(
        &self,
        out: &mut [T],
        chunk: usize,
        work: &(dyn Fn(usize, &mut [T], usize) + Sync),
    ) {
        let (len, chunk) = (out.len(), chunk.max(1));
        let shared = Shared::new(out);
        self.run(len.div_ceil(chunk), &|piece, worker| {
            let range = piece * chunk..len.min((piece + 1) * chunk);
            // SAFETY: pieces are different, so their ranges do not meet.
            work(piece, unsafe { shared.part(range) }, worker);
        });
    }

    fn run_job(&self, pieces: usize, work: &Work<'_>) {
        let desk = &*self.desk;
        // SAFETY: only the lifetime changes. The pointer is followed by whoever took a piece of
        // this job, and this function does not return, nor unwind, before every piece is finished
        // and no further one can be taken.
        let mut forever: &'static Work<'static> = unsafe { std::mem::transmute(work) };
        desk.finished.store(0, Ordering::Relaxed);
        desk.work.store(&mut forever, Ordering::Relaxed);
        let job = (desk.ticket.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        desk.ticket
            .store(job << 32 | (pieces as u64) << 16, Ordering::SeqCst);
        for worker in self.workers.iter().take(pieces - 1) {
            if worker.asleep.swap(false, Ordering::SeqCst) {
                worker.thread.thread().unpark();
            }
        }
        while desk.do_a_piece(0) {}
        self.wait_for_others(pieces);
        let panic = lock(&desk.panic).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn wait_for_others(&self, pieces: usize) {
        let desk = &*self.desk;
        let all_done = || desk.finished.load(Ordering::SeqCst) == pieces;
        if spin(LAST_PIECES, &all_done) {
            return;
        }
        *lock(&desk.waiting) = Some(std::thread::current());
        desk.is_waited_for.store(true, Ordering::SeqCst);
        while !all_done() {
            std::thread::park();
        }
        desk.is_waited_for.store(false, Ordering::SeqCst);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.desk.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread.thread().unpark();
            // A worker catches the panics of its pieces.
            let _ = worker.thread.join();
        }
    }
}

impl Desk {
    /// Takes a piece and does it; false where none is left.
    fn do_a_piece(&self, worker: usize) -> bool {
        let mut ticket = self.ticket.load(Ordering::Acquire);
        loop {
            let (pieces, taken) = (ticket >> 16 & 0xffff, ticket & 0xffff);
            if taken >= pieces {
                return false;
            }
            let work = self.work.load(Ordering::Relaxed);
            let next = self.ticket.compare_exchange_weak(
                ticket,
                ticket + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match next {
                Ok(_) => {
                    self.finish(taken as usize, pieces as usize, worker, work);
                    return true;
                }
                Err(now) => ticket = now,
            }
        }
    }

    fn finish(
        &self,
        piece: usize,
        pieces: usize,
        worker: usize,
        work: *const &'static Work<'static>,
    ) {
        // SAFETY: a job's closure is stored before its ticket, and neither changes before all its
        // pieces are finished. The exchange found the ticket as it was before `work` was loaded,
        // with a piece to take, so `work` is that job's; this piece is not finished, so its caller
        // still holds the closure. (A job's number comes back after 2^32 jobs: no thread sleeps
        // between a load and an exchange for the days they take.)
        let work = unsafe { *work };
        INSIDE.set(Some(worker));
        let result = catch_unwind(AssertUnwindSafe(|| work(piece, worker)));
        INSIDE.set(None);
        if let Err(panic) = result {
            lock(&self.panic).get_or_insert(panic);
        }
        let done = self.finished.fetch_add(1, Ordering::SeqCst) + 1;
        if done == pieces
            && self.is_waited_for.load(Ordering::SeqCst)
            && let Some(caller) = lock(&self.waiting).as_ref()
        {
            caller.unpark();
        }
    }

    fn has_work(&self) -> bool {
        let ticket = self.ticket.load(Ordering::SeqCst);
        ticket & 0xffff < ticket >> 16 & 0xffff
    }
}

/// A worker's life.
fn work(desk: &Desk, number: usize, asleep: &AtomicBool) {
    let is_over = || desk.stop.load(Ordering::SeqCst);
    while !is_over() {
        while desk.do_a_piece(number) {}
        if spin(SPIN, &|| desk.has_work() || is_over()) {
            continue;
        }
        asleep.store(true, Ordering::SeqCst);
        // Whoever brings work from here on sees `asleep` and wakes it.
        while asleep.load(Ordering::SeqCst) && !desk.has_work() && !is_over() {
            std::thread::park();
        }
        asleep.store(false, Ordering::SeqCst);
    }
}

/// Looks for `found` for at most `time`; whether it was.
fn spin(time: Duration, found: &dyn Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..LOOKS {
            if found() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > time {
            return false;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Held for one assignment each time, so whole whoever panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once_by_any_number_of_threads() {
        for threads in [1, 2, 3, 9] {
            let pool = Pool::new(threads);
            for pieces in [0, 1, 2, 7, 100, 70_000] {
                let done: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                pool.run(pieces, &|piece, worker| {
                    assert!(worker < threads);
                    done[piece].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|d| d.load(Ordering::Relaxed) == 1));
                pool.run_along(pieces, &|piece, worker| {
                    assert!(worker < threads);
                    done[piece].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|d| d.load(Ordering::Relaxed) == 2));
            }
        }
    }

    #[test]
    fn a_stretch_of_pieces_is_done_in_its_order_and_its_end_by_whoever_is_free() {
        let (pool, done) = (Pool::new(2), Mutex::new(Vec::new()));
        pool.run_along(100, &|piece, _| {
            // Whoever has the first stretch is held up by the first piece until all others are done.
            let all_others = || lock(&done).len() == 99;
            while piece == 0 && !all_others() {
                std::thread::yield_now();
            }
            lock(&done).push(piece);
        });
        let done = done.into_inner().unwrap();
        let expected: Vec<_> = (50..100).chain(1..50).chain([0]).collect();
        assert_eq!(done, expected);
    }

    #[test]
    fn many_short_jobs_follow_each_other() {
        let pool = Pool::new(3);
        let mut sums = vec![0u64; 5];
        for job in 0..20_000u64 {
            pool.run_chunks(&mut sums, 2, &|_, part, _| {
                part.iter_mut().for_each(|s| *s += job);
            });
            if job % 997 == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        assert_eq!(sums, vec![19_999 * 20_000 / 2; 5]);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        let run = || pool.run(64, &|piece, _| assert_ne!(piece, 40, "piece 40"));
        let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("piece 40"), "{text}");
        let done = AtomicUsize::new(0);
        pool.run(64, &|_, _| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 64);
    }

    #[test]
    fn a_job_inside_a_job_runs_on_its_own_thread() {
        let pool = Pool::new(2);
        let done = AtomicUsize::new(0);
        pool.run(8, &|_, _| {
            pool.run(8, &|_, _| {
                done.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(done.into_inner(), 64);
    }

    #[test]
    fn callers_of_two_threads_take_turns() {
        let pool = Pool::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let mut out = [0u8; 10];
                        pool.run_chunks(&mut out, 1, &|at, part, _| part[0] = at as u8);
                        assert_eq!(out, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
                    }
                });
            }
        });
    }
}
