//! A pseudo-terminal with `host` on it, and what stands on its screen.

use std::{
    io::{Read, Write},
    num::NonZeroU16,
    path::Path,
    process::Child,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use pty_process::blocking::{Command, Pty};
use tests::command;
use vt100::{Cell, Parser};

/// Nothing takes so long but a program that hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// So many that nothing scrolls away.
const ROWS: u16 = 2000;
pub const CTRL_C: &str = "\x03";
pub const CTRL_D: &str = "\x04";
pub const UP: &str = "\x1b[A";

/// What the terminal shows.
struct Shown {
    parser: Parser,
    /// Whether the program has closed it.
    closed: bool,
}

/// A terminal where somebody talks with a model.
pub struct Terminal {
    pty: Arc<Pty>,
    child: Child,
    shown: Arc<(Mutex<Shown>, Condvar)>,
}

/// The screen at a moment.
pub struct Screen {
    pub rows: Vec<String>,
    /// Rows that go on in the next because the terminal broke them.
    pub broken: Vec<bool>,
    /// Rows that begin dimmed.
    pub dim: Vec<bool>,
    /// The cursor's row and column.
    pub cursor: (usize, usize),
}

impl Screen {
    fn of(shown: &Shown) -> Screen {
        let screen = shown.parser.screen();
        let (row, column) = screen.cursor_position();
        let rows = screen.rows(0, u16::MAX);
        Screen {
            rows: rows.map(|row| row.trim_end().to_owned()).collect(),
            broken: (0..ROWS).map(|row| screen.row_wrapped(row)).collect(),
            dim: (0..ROWS)
                .map(|row| screen.cell(row, 0).is_some_and(Cell::dim))
                .collect(),
            cursor: (row.into(), column.into()),
        }
    }

    /// The row that the cursor is in.
    pub fn line(&self) -> &str {
        &self.rows[self.cursor.0]
    }

    /// Whether the program waits for a message.
    pub fn is_prompt(&self) -> bool {
        self.line() == ">>> Send a message (/? for help)" && self.cursor.1 == 4
    }
}

impl Terminal {
    /// `host run embedded` with these arguments, once it waits for a message; `home` is where it keeps its history.
    pub fn start(home: &Path, columns: u16, arguments: &[&str]) -> Terminal {
        Terminal::start_model("embedded", home, columns, arguments)
    }

    /// As [`Terminal::start`], of another model.
    pub fn start_model(model: &str, home: &Path, columns: u16, arguments: &[&str]) -> Terminal {
        let terminal = Terminal::open(home, columns, &[&["run", model], arguments].concat());
        terminal.wait("a prompt", Screen::is_prompt);
        terminal
    }

    /// `host` with these arguments.
    pub fn open(home: &Path, columns: u16, arguments: &[&str]) -> Terminal {
        Terminal::open_with(&[], home, columns, arguments)
    }

    /// As [`Terminal::open`], with environment variables.
    pub fn open_with(variables: &[(&str, &str)], home: &Path, columns: u16, arguments: &[&str]) -> Terminal {
        let (pty, pts) = pty_process::blocking::open().unwrap();
        pty.resize(pty_process::Size::new(ROWS, columns)).unwrap();
        let mut host = command(arguments);
        host.env("TERM", "xterm-256color")
            .env("XDG_STATE_HOME", home)
            .envs(variables.iter().copied())
            .current_dir(home);
        for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            host.env_remove(variable);
        }
        let size = |number| NonZeroU16::new(number).unwrap();
        let shown = Shown {
            parser: Parser::new(size(ROWS), size(columns), 0),
            closed: false,
        };
        // the command's own streams give way to the terminal
        let child = Command::from(host).spawn(pts).unwrap();
        let terminal = Terminal {
            pty: Arc::new(pty),
            child,
            shown: Arc::new((Mutex::new(shown), Condvar::new())),
        };
        terminal.watch();
        terminal
    }

    /// Reads what the program prints until it ends.
    fn watch(&self) {
        let (pty, shown) = (self.pty.clone(), self.shown.clone());
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = (&*pty).read(&mut bytes) {
                update(&shown, |shown| shown.parser.process(&bytes[..count]));
            }
            update(&shown, |shown| shown.closed = true);
        });
    }

    /// Makes the terminal wider or narrower.
    pub fn resize(&self, columns: u16) {
        let size = [ROWS, columns].map(|number| NonZeroU16::new(number).unwrap());
        self.shown
            .0
            .lock()
            .unwrap()
            .parser
            .screen_mut()
            .set_size(size[0], size[1]);
        self.pty.resize(pty_process::Size::new(ROWS, columns)).unwrap();
    }

    /// The screen as it is now.
    pub fn screen(&self) -> Screen {
        Screen::of(&self.shown.0.lock().unwrap())
    }

    /// Waits until the screen is as it should be.
    pub fn wait(&self, what: &str, is_there: impl Fn(&Screen) -> bool) -> Screen {
        let deadline = Instant::now() + PATIENCE;
        let mut shown: MutexGuard<'_, Shown> = self.shown.0.lock().unwrap();
        loop {
            let screen = Screen::of(&shown);
            if is_there(&screen) {
                return screen;
            }
            let text = || screen.rows.join("\n").trim_end().to_owned();
            assert!(!shown.closed, "the program ended, no {what}:\n{}", text());
            assert!(Instant::now() < deadline, "no {what}:\n{}", text());
            shown = self.shown.1.wait_timeout(shown, PATIENCE).unwrap().0;
        }
    }

    /// Presses keys.
    pub fn press(&self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).unwrap();
    }

    /// Types a line, without Enter.
    pub fn enter_without_return(&self, line: &str) {
        self.press(line);
        self.wait(line, |screen| {
            screen.line().ends_with(line.trim_end()) && !screen.is_prompt()
        });
    }

    /// Types a line and gives what is printed until the program waits again.
    pub fn enter(&self, line: &str) -> Vec<String> {
        self.enter_without_return(line);
        self.confirm()
    }

    /// Presses Enter and gives what is printed until the program waits again.
    pub fn confirm(&self) -> Vec<String> {
        let typed = self.screen().cursor.0;
        self.press("\r");
        self.printed_since(typed)
    }

    /// What is printed below a row until the program waits for a message.
    pub fn printed_since(&self, row: usize) -> Vec<String> {
        let screen = self.wait("a prompt", |screen| screen.is_prompt() && screen.cursor.0 > row);
        screen.rows[row + 1..screen.cursor.0].to_vec()
    }

    /// The program's exit code, once it has ended by itself, and what stands on the screen.
    pub fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let (lock, changed) = &*self.shown;
        let shown = changed.wait_while(lock.lock().unwrap(), |shown| !shown.closed).unwrap();
        let text = shown.parser.screen().contents();
        (code, text.trim_end().to_owned())
    }
}

/// Changes what is shown; a test that has failed needs it no more.
fn update((shown, changed): &(Mutex<Shown>, Condvar), change: impl FnOnce(&mut Shown)) {
    if let Ok(mut shown) = shown.lock() {
        change(&mut shown);
        changed.notify_all();
    }
}

impl Drop for Terminal {
    /// A test that fails leaves no program behind.
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
