//! The device's own threads.
//!
//! A job is a number of parts. Each thread has a share of them, neighbours, which it claims a few at a time, so that what
//! it reads lies side by side; whoever is done goes on with what others have left. Workers join a job while it is open and
//! leave it when no part is left; the caller closes the job and waits for those that joined, so a worker that still
//! sleeps costs nothing. All of it is one word, [`Shared::state`]: the number of the job (high half), whether it is open,
//! and how many workers are inside.

use std::{
    any::Any,
    cell::UnsafeCell,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use backend_api::{BackendError, Result};

const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const NEXT_JOB: u64 = 1 << 32;

/// How long a worker looks for the next job before it sleeps: longer than the serial stretches within a step.
const SPIN: Duration = Duration::from_micros(100);

/// Bytes of stack of a worker; kernels keep their scratch there.
const STACK: usize = 4 << 20;

/// The most threads of a pool.
const MOST_THREADS: usize = 4096;

/// A thread claims one part in so many of what is left of a share: claims are few, and the last ones small. Measured;
/// more claims cost more than they even out.
const CLAIM: usize = 2;

/// What a job does with neighbouring parts.
type Work<'a> = dyn Fn(Range<usize>) + Sync + 'a;

#[derive(Clone, Copy)]
struct Job<'a> {
    work: &'a Work<'a>,
    parts: usize,
    /// The fewest and the most parts of a claim.
    claim: (usize, usize),
}

/// A counter that shares its cache line with nothing.
#[repr(align(128))]
struct Share(AtomicUsize);

struct Shared {
    state: AtomicU64,
    job: UnsafeCell<Job<'static>>,
    /// The next part of each thread's share, the caller's first.
    next: Box<[Share]>,
    /// Workers that have started.
    started: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
}

// SAFETY: `job` is written by the caller alone, while the job is closed and nobody is inside; workers read it only
// between entering (an acquiring change of `state` that saw it open) and leaving (a releasing one). Its closure is `Sync`.
// The other fields are shared by themselves.
unsafe impl Sync for Shared {}

/// Threads that work on one job at a time. The thread that calls [`Pool::run`] works too.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    caller: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads that this process may keep busy: affinity and the quota of its control group, not the machine's processors.
pub fn available_threads() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get().min(MOST_THREADS))
}

impl Pool {
    /// A pool of `threads` threads with the caller's, 0 for [`available_threads`]. All have started when this returns: what a
    /// thread's start takes, memory among it, is no part of a job.
    pub fn new(threads: usize) -> Result<Pool> {
        let threads = if threads == 0 { available_threads() } else { threads };
        if threads > MOST_THREADS {
            return Err(BackendError::invalid(format!(
                "{threads} threads, where at most {MOST_THREADS} are served"
            )));
        }
        let mut pool = Pool {
            shared: Arc::new(Shared::new(threads)),
            workers: Vec::with_capacity(threads - 1),
            caller: Mutex::new(()),
        };
        for i in 1..threads {
            let shared = pool.shared.clone();
            let worker = thread::Builder::new()
                .name(format!("graft-cpu-{i}"))
                .stack_size(STACK)
                .spawn(move || shared.serve(i))
                .map_err(|e| BackendError::failed(format!("thread {i} of {threads} cannot be started: {e}")))?;
            pool.workers.push(worker);
        }
        let mut waits = 0u32;
        while pool.shared.started.load(Acquire) < pool.workers.len() {
            relax(&mut waits);
        }
        Ok(pool)
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work` once with each number below `parts`, on any of the threads, and returns when all calls ended.
    /// Nothing is allocated. A panic in a call goes on in the caller, after the other threads have left the job. Not to
    /// be called from within `work`.
    pub fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        self.work(&Job {
            work: &|parts| parts.for_each(work),
            parts,
            claim: (1, 1),
        });
    }

    /// The same in ranges, each number in one of them: long ones first, then ever shorter ones, down to `least` numbers,
    /// so that all threads end together.
    pub fn run_ranges(&self, parts: usize, least: usize, work: &(dyn Fn(Range<usize>) + Sync)) {
        let claim = (least.max(1), usize::MAX);
        self.work(&Job { work, parts, claim });
    }

    fn work(&self, job: &Job<'_>) {
        if job.parts <= job.claim.0 || self.workers.is_empty() {
            return (job.work)(0..job.parts);
        }
        let turn = lock(&self.caller);
        self.shared.open(job);
        self.shared.take_parts(0, job);
        self.shared.close();
        let panic = lock(&self.shared.panic).take();
        drop(turn);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        drop(lock(&self.shared.bed));
        self.shared.bell.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches what its parts throw, so it ends well.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn new(threads: usize) -> Shared {
        Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(Job {
                work: &|_| {},
                parts: 0,
                claim: (1, 1),
            }),
            next: (0..threads).map(|_| Share(AtomicUsize::new(0))).collect(),
            started: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            bell: Condvar::new(),
        }
    }

    /// Starts a job. Only one caller at a time, and only after `close`.
    fn open(&self, job: &Job<'_>) {
        // SAFETY: lifetimes are lengthened only in the type: `close` returns after the last use of the job, and `work`
        // does not return, or unwind, before it.
        let job = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(*job) };
        // SAFETY: the job is closed and nobody is inside, so nobody else touches it.
        unsafe { *self.job.get() = job };
        for (i, next) in self.next.iter().enumerate() {
            next.0.store(self.share(i, job.parts).start, Relaxed);
        }
        let closed = self.state.load(Relaxed);
        // Sequentially consistent with the sleepers' count: either the worker's last look sees the job, or this load
        // sees the worker.
        self.state
            .store((closed & !INSIDE).wrapping_add(NEXT_JOB) | OPEN, SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            drop(lock(&self.bed));
            self.bell.notify_all();
        }
    }

    /// Ends the job: nobody enters any more; waits until everybody left.
    fn close(&self) {
        self.state.fetch_and(!OPEN, AcqRel);
        let mut waits = 0u32;
        while self.state.load(Acquire) & INSIDE != 0 {
            relax(&mut waits);
        }
    }

    /// The parts of thread `i`.
    fn share(&self, i: usize, parts: usize) -> Range<usize> {
        let threads = self.next.len();
        parts * i / threads..parts * (i + 1) / threads
    }

    /// Works on parts, thread `own`'s first, until none is left. A panic is kept for the caller, and the parts not yet
    /// begun are dropped.
    fn take_parts(&self, own: usize, job: &Job<'_>) {
        let threads = self.next.len();
        let done = catch_unwind(AssertUnwindSafe(|| {
            for i in (own..threads).chain(0..own) {
                let end = self.share(i, job.parts).end;
                while let Some(parts) = self.claim(i, end, job.claim) {
                    (job.work)(parts);
                }
            }
        }));
        if let Err(payload) = done {
            self.next.iter().for_each(|next| next.0.store(job.parts, Relaxed));
            lock(&self.panic).get_or_insert(payload);
        }
    }

    /// Takes the next parts of thread `i`'s share, which ends at `end`.
    fn claim(&self, i: usize, end: usize, (least, most): (usize, usize)) -> Option<Range<usize>> {
        let claimed = |first: usize| {
            let left = end.checked_sub(first).filter(|&left| left > 0)?;
            Some(first + (left / CLAIM).clamp(least, most).min(left))
        };
        let next = &self.next[i].0;
        let first = next.fetch_update(Relaxed, Relaxed, claimed).ok()?;
        claimed(first).map(|end| first..end)
    }

    /// The life of the worker that is thread `own`.
    fn serve(&self, own: usize) {
        self.started.fetch_add(1, Release);
        let mut last = 0;
        while let Some(seen) = self.wait_for_job(last) {
            if self
                .state
                .compare_exchange_weak(seen, seen + 1, AcqRel, Relaxed)
                .is_err()
            {
                continue;
            }
            last = seen >> 32;
            // SAFETY: entered while the job was open, so the caller waits in `close` until this worker has left.
            let job = unsafe { *self.job.get() };
            self.take_parts(own, &job);
            self.state.fetch_sub(1, Release);
        }
    }

    /// The state with a job after number `last`, or nothing when the pool ends.
    fn wait_for_job(&self, last: u64) -> Option<u64> {
        let fresh = |state: u64| state & OPEN != 0 && state >> 32 != last;
        let start = Instant::now();
        let mut waits = 0u32;
        loop {
            let state = self.state.load(Acquire);
            if self.stop.load(Relaxed) {
                return None;
            }
            if fresh(state) {
                return Some(state);
            }
            std::hint::spin_loop();
            waits = waits.wrapping_add(1);
            if waits.is_multiple_of(64) && start.elapsed() > SPIN {
                self.sleep(fresh);
            }
        }
    }

    fn sleep(&self, fresh: impl Fn(u64) -> bool) {
        let mut bed = lock(&self.bed);
        self.sleepers.fetch_add(1, SeqCst);
        while !fresh(self.state.load(SeqCst)) && !self.stop.load(SeqCst) {
            bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, SeqCst);
    }
}

/// Waits a moment; after many, lets another thread run: the one waited for may share this processor.
fn relax(waits: &mut u32) {
    *waits += 1;
    if *waits < 2000 {
        std::hint::spin_loop();
    } else {
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(pool: &Pool, parts: usize) -> Vec<usize> {
        let calls: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
        pool.run(parts, &|i| {
            calls[i].fetch_add(1, Relaxed);
        });
        calls.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn every_part_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            for parts in [0, 1, 2, 7, 1000] {
                for _ in 0..50 {
                    assert_eq!(count(&pool, parts), vec![1; parts]);
                }
            }
        }
    }

    #[test]
    fn ranges_have_every_part_once_and_become_shorter() {
        for (threads, parts, least) in [
            (1, 100, 1),
            (2, 1, 1),
            (2, 1000, 3),
            (3, 1000, 1),
            (3, 7, 10),
            (2, 0, 1),
        ] {
            let ranges = Mutex::new(Vec::new());
            let pool = Pool::new(threads).unwrap();
            pool.run_ranges(parts, least, &|range| lock(&ranges).push(range));
            let mut ranges = ranges.into_inner().unwrap();
            ranges.retain(|range| !range.is_empty());
            ranges.sort_by_key(|range| range.start);
            let all: Vec<usize> = ranges.iter().cloned().flatten().collect();
            assert_eq!(all, (0..parts).collect::<Vec<_>>());
            let share = ranges.iter().take_while(|range| range.end <= parts / threads);
            assert!(share.clone().is_sorted_by_key(|range| std::cmp::Reverse(range.len())));
        }
    }

    #[test]
    fn an_absurd_number_of_threads_is_refused() {
        let error = Pool::new(u32::MAX as usize).err().unwrap();
        assert!(error.message.contains("4294967295 threads"), "{error}");
    }

    #[test]
    fn sleeping_workers_wake() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..3 {
            thread::sleep(SPIN * 20);
            let meeting = std::sync::Barrier::new(3);
            pool.run(3, &|_| {
                meeting.wait();
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3).unwrap();
        let meeting = std::sync::Barrier::new(3);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            pool.run(3, &|i| {
                meeting.wait();
                assert_ne!(i, 2, "part two fails");
            })
        }));
        let payload = panicked.unwrap_err();
        assert!(payload.downcast_ref::<String>().unwrap().contains("part two fails"));
        assert_eq!(count(&pool, 100), vec![1; 100]);
    }

    #[test]
    fn callers_take_turns() {
        let pool = Pool::new(2).unwrap();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..200).for_each(|_| assert_eq!(count(&pool, 20), vec![1; 20])));
            }
        });
    }
}
