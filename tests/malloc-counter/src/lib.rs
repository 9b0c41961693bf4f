//! Counts how often a process asks the C library's heap for memory.
//!
//! Preloaded into a program (`LD_PRELOAD`), these functions take the place of the C library's in the program and in all
//! that it loads, count, and pass on to glibc's own under their second names. So does `write`: each write to standard
//! output notes the count so far. When the process ends, these notes and the last count are written, a line each, to the
//! file PID in the folder that `MALLOC_COUNTER` names: child processes write files of their own.

use std::{
    env,
    ffi::{c_int, c_void},
    fs,
    path::Path,
    process, ptr,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

static CALLS: AtomicU64 = AtomicU64::new(0);
/// The count at each write to standard output; later ones are not noted.
static NOTES: [AtomicU64; 4096] = [const { AtomicU64::new(0) }; 4096];
static WRITES: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    fn __libc_malloc(bytes: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, bytes: usize) -> *mut c_void;
    fn __libc_realloc(memory: *mut c_void, bytes: usize) -> *mut c_void;
    fn __libc_memalign(alignment: usize, bytes: usize) -> *mut c_void;
    fn __write(file: c_int, data: *const c_void, bytes: usize) -> isize;
}

/// # Safety
/// As C has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(file: c_int, data: *const c_void, bytes: usize) -> isize {
    const STANDARD_OUTPUT: c_int = 1;
    if file == STANDARD_OUTPUT {
        let note = NOTES.get(WRITES.fetch_add(1, Relaxed));
        note.inspect(|note| note.store(CALLS.load(Relaxed), Relaxed));
    }
    // SAFETY: the caller's promise.
    unsafe { __write(file, data, bytes) }
}

/// # Safety
/// As C has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc(bytes: usize) -> *mut c_void {
    CALLS.fetch_add(1, Relaxed);
    // SAFETY: the caller's promise.
    unsafe { __libc_malloc(bytes) }
}

/// # Safety
/// As C has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn calloc(count: usize, bytes: usize) -> *mut c_void {
    CALLS.fetch_add(1, Relaxed);
    // SAFETY: the caller's promise.
    unsafe { __libc_calloc(count, bytes) }
}

/// # Safety
/// As C has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(memory: *mut c_void, bytes: usize) -> *mut c_void {
    CALLS.fetch_add(1, Relaxed);
    // SAFETY: the caller's promise.
    unsafe { __libc_realloc(memory, bytes) }
}

/// # Safety
/// As C has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aligned_alloc(alignment: usize, bytes: usize) -> *mut c_void {
    CALLS.fetch_add(1, Relaxed);
    // SAFETY: the caller's promise.
    unsafe { __libc_memalign(alignment, bytes) }
}

/// # Safety
/// As C has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(memory: *mut *mut c_void, alignment: usize, bytes: usize) -> c_int {
    const OUT_OF_MEMORY: c_int = 12;
    CALLS.fetch_add(1, Relaxed);
    // SAFETY: the caller's promise.
    let taken = unsafe { __libc_memalign(alignment, bytes) };
    if ptr::eq(taken, ptr::null()) {
        return OUT_OF_MEMORY;
    }
    // SAFETY: the caller's promise.
    unsafe { memory.write(taken) };
    0
}

#[used]
#[unsafe(link_section = ".fini_array")]
static AT_THE_END: extern "C" fn() = report;

extern "C" fn report() {
    let calls = CALLS.load(Relaxed);
    let notes = NOTES.iter().take(WRITES.load(Relaxed)).map(|note| note.load(Relaxed));
    let lines: Vec<String> = notes.chain([calls]).map(|count| count.to_string()).collect();
    if let Some(folder) = env::var_os("MALLOC_COUNTER") {
        let file = Path::new(&folder).join(process::id().to_string());
        // a failure shows as the missing file
        let _ = fs::write(file, lines.join("\n"));
    }
}
