//! What a user sees while waiting.

use std::{
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use indicatif::ProgressBar;

/// What takes less is not worth a word.
const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// A spinner on standard error while it lives, if that is a terminal and the work takes over a second.
pub struct Waiting {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Waiting {
    /// Starts to wait for `what`, such as `loading model.gguf`.
    pub fn new(what: String) -> Waiting {
        let (done, dropped) = channel::<()>();
        let thread = thread::spawn(move || {
            if dropped.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                // it draws nothing where standard error is no terminal
                let spinner = ProgressBar::new_spinner().with_message(what);
                spinner.enable_steady_tick(TICK);
                dropped.recv().ok();
                spinner.finish_and_clear();
            }
        });
        Waiting {
            done: Some(done),
            thread: Some(thread),
        }
    }
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
