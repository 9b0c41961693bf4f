//! What a user sees while waiting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// What takes less is not worth a word.
const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);
const BAR: &str = "{spinner} {msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// How many bytes of a piece of work are done; shared between who works and who shows it.
#[derive(Debug, Default)]
pub struct Meter {
    done: AtomicU64,
    total: AtomicU64,
}

impl Meter {
    /// There are `bytes` more to do.
    pub fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Relaxed);
    }

    /// `bytes` more are done.
    pub fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }
}

/// A spinner on standard error while it lives, if that is a terminal and the work takes over a second; a bar once the
/// work says how many bytes there are.
pub struct Waiting {
    meter: Arc<Meter>,
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Waiting {
    /// Starts to wait for `what`, such as `loading model.gguf`.
    pub fn new(what: String) -> Waiting {
        let (done, dropped) = channel::<()>();
        let meter = Arc::<Meter>::default();
        let shown = meter.clone();
        let thread = thread::spawn(move || {
            if dropped.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                show(what, &shown, &dropped);
            }
        });
        Waiting {
            meter,
            done: Some(done),
            thread: Some(thread),
        }
    }

    /// Where the work says how far it is.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
}

/// Shows the work until `dropped`. Nothing is drawn where standard error is no terminal.
fn show(what: String, meter: &Meter, dropped: &Receiver<()>) {
    let shown = ProgressBar::new_spinner().with_message(what);
    while dropped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        let total = meter.total.load(Relaxed);
        if total > 0 && shown.length() != Some(total) {
            shown.set_length(total);
            shown.set_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar()));
        }
        shown.set_position(meter.done.load(Relaxed));
        shown.tick();
    }
    shown.finish_and_clear();
}

impl Drop for Waiting {
    /// The line is clear when this returns.
    fn drop(&mut self) {
        self.done.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
