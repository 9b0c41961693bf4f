//! What the terminal itself shows of what is typed.

use std::io::stdin;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// While it lives, the terminal shows nothing by itself: what is typed while an answer comes stays out of it, and so does
/// the `^C` that ends it. The line editor shows what it takes.
pub struct Quiet {
    before: Option<Termios>,
}

impl Quiet {
    /// Leaves a terminal that cannot be told so as it is.
    pub fn new() -> Quiet {
        let before = tcgetattr(stdin()).ok();
        if let Some(mut modes) = before.clone() {
            modes.local_modes.remove(LocalModes::ECHO);
            tcsetattr(stdin(), OptionalActions::Now, &modes).ok();
        }
        Quiet { before }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            tcsetattr(stdin(), OptionalActions::Now, before).ok();
        }
    }
}
