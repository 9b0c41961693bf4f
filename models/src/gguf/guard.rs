//! A message instead of a silent death when a mapped file is cut while it is in use.
//!
//! Reading a mapped page that no longer has a file behind it raises SIGBUS. The handler looks the address up in a
//! table of the mapped files and ends the process with a message that names the file.

use std::io;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// More files than that, in all models open at once, go unguarded.
const SLOTS: usize = 1024;

static TABLE: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];

/// A mapped file, as the handler sees it: only atomics, since it may run at any moment, in any thread.
struct Slot {
    taken: AtomicBool,
    start: AtomicUsize,
    /// 0 while the other fields mean nothing.
    end: AtomicUsize,
    message: AtomicPtr<u8>,
    message_length: AtomicUsize,
}

impl Slot {
    const fn new() -> Self {
        Slot {
            taken: AtomicBool::new(false),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            message: AtomicPtr::new(ptr::null_mut()),
            message_length: AtomicUsize::new(0),
        }
    }

    fn take(&self) -> bool {
        self.taken
            .compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    fn publish(&self, map: &[u8], message: &[u8]) {
        let start = map.as_ptr().addr();
        self.message.store(message.as_ptr().cast_mut(), Ordering::Relaxed);
        self.message_length.store(message.len(), Ordering::Relaxed);
        self.start.store(start, Ordering::Relaxed);
        self.end.store(start + map.len(), Ordering::Release);
    }

    fn release(&self) {
        self.end.store(0, Ordering::Release);
        self.taken.store(false, Ordering::Release);
    }

    fn holds(&self, address: usize) -> bool {
        address < self.end.load(Ordering::Acquire) && address >= self.start.load(Ordering::Relaxed)
    }
}

/// Keeps a mapped file in the table; drop it before the map.
#[derive(Debug)]
pub(super) struct Watch {
    slot: Option<usize>,
    /// The slot points into it.
    _message: Box<[u8]>,
}

impl Watch {
    /// Watches the map of the file `name`.
    pub fn new(map: &[u8], name: &str) -> Watch {
        let message = format!("error: {name}: the file changed while it was in use: part of it is gone\n");
        let message = message.into_bytes().into_boxed_slice();
        let slot = TABLE.iter().position(Slot::take);
        match slot {
            Some(slot) => TABLE[slot].publish(map, &message),
            None => tracing::warn!("{name}: too many open files to watch this one for changes"),
        }
        Watch {
            slot,
            _message: message,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            TABLE[slot].release();
        }
    }
}

/// From now on, a SIGBUS in a mapped model file ends the process with a message that names the file, and exit
/// status 1. A SIGBUS elsewhere does what it did by default. For a program's start; later calls do nothing.
pub fn install_sigbus_handler() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
        if let Err(error) = set_action(handler as libc::sighandler_t, libc::SA_SIGINFO | libc::SA_ONSTACK) {
            tracing::warn!("cannot watch mapped files for changes: {error}");
        }
    });
}

fn set_action(handler: libc::sighandler_t, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: sigaction is plain data for which zeros are valid; the handler is SIG_DFL or `on_sigbus`, which has the
    // signature that SA_SIGINFO asks for and calls only async-signal-safe functions.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &action, ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Returning after SIG_DFL is restored repeats the access, which then kills the process as if nobody had looked.
extern "C" fn on_sigbus(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid siginfo to a handler with SA_SIGINFO, and SIGBUS fills in the address.
    let address = unsafe { (*info).si_addr() }.addr();
    let Some(slot) = TABLE.iter().find(|slot| slot.holds(address)) else {
        let _ = set_action(libc::SIG_DFL, 0);
        return;
    };
    let (message, length) = (
        slot.message.load(Ordering::Relaxed),
        slot.message_length.load(Ordering::Relaxed),
    );
    // SAFETY: the slot of a map lives as long as the map, which is being read, and its message as long as the slot.
    unsafe {
        libc::write(libc::STDERR_FILENO, message.cast_const().cast(), length);
        libc::_exit(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_known_from_its_first_byte_to_its_last_until_its_watch_is_dropped() {
        let known = |address: usize| TABLE.iter().any(|slot| slot.holds(address));
        let map = vec![0u8; 100];
        let start = map.as_ptr().addr();
        let watch = Watch::new(&map, "model.gguf");
        assert!(known(start) && known(start + 99));
        assert!(!known(start - 1) && !known(start + 100));
        drop(watch);
        assert!(!known(start));
    }
}
