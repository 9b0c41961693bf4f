//! The emulation as a `libcuda.so.1`: the functions of NVIDIA's driver that `backend-cuda37` calls, over emulated devices, so that the
//! plugin itself is tested, its calls of the driver included. Link this library under that name into a folder of
//! `LD_LIBRARY_PATH`.
//!
//! As strict as the driver where that is known: calls need a current context, a capture allows launches alone, and a
//! module has the kernels that its PTX has. Tests ask for other devices, and for errors, as `asked` says.
#![allow(non_snake_case, clippy::missing_safety_doc, unused_unsafe)] // the names, and what they ask, are NVIDIA's

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
    ffi::{CStr, CString, c_char, c_int, c_uint, c_ulonglong, c_void},
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use backend_api::{BackendError, Result, error::Code};
use backend_cuda37::driver::{Captured, Driver, Event, Module, Shape, Stream};

use crate::{MEMORY, asked, driver::Emulated, streams};

/// Bytes of memory of each device.
static TOTAL: LazyLock<u64> = LazyLock::new(|| asked::number("memory").map_or(MEMORY, |mib| u64::from(mib) << 20));

/// Devices. A context is the number of its device, from 1.
static DEVICES: LazyLock<Vec<Emulated>> = LazyLock::new(|| {
    let count = asked::number("devices").unwrap_or(2);
    (0..count).map(|_| Emulated::new(*TOTAL)).collect()
});

/// The error that spoiled the context of each device, and how often the context is retained.
static CONTEXTS: LazyLock<Vec<Context>> = LazyLock::new(|| DEVICES.iter().map(|_| Context::default()).collect());

#[derive(Default)]
struct Context {
    spoiled: AtomicU32,
    retained: AtomicU32,
}

thread_local! {
    static CONTEXT: Cell<u64> = const { Cell::new(0) };
    /// The stream that this thread captures.
    static CAPTURES: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The PTX of modules by their handles, and the kernels that were asked for.
static MODULES: LazyLock<Mutex<HashMap<u64, String>>> = LazyLock::new(Mutex::default);
static KERNELS: Mutex<Vec<CString>> = Mutex::new(Vec::new());

/// The names and words of errors that were asked for; they stay.
static WORDS: Mutex<BTreeSet<CString>> = Mutex::new(BTreeSet::new());

/// What a function gives: 0, or the number of an error.
type Status = u32;

fn status(done: Result<(), Status>) -> Status {
    done.err().unwrap_or(0)
}

/// The number for an error of the emulation, whose words go to standard error, since the driver has none.
fn number(error: BackendError) -> Status {
    eprintln!("emulated driver: {error}");
    match error.code() {
        Code::OutOfMemory => 2,
        Code::Invalid => 1,
        _ => 719,
    }
}

/// The device of this thread's context.
fn device() -> Result<&'static Emulated, Status> {
    let index = CONTEXT.get().checked_sub(1).ok_or(201u32)? as usize;
    let device = DEVICES.get(index).ok_or(201u32)?;
    match CONTEXTS[index].spoiled.load(Relaxed) {
        0 => Ok(device),
        error => Err(error),
    }
}

/// Fails where a test asked for that; some errors spoil this thread's context.
fn planted(function: &str) -> Result<(), Status> {
    let Some(error) = asked::fault(function) else {
        return Ok(());
    };
    let context = CONTEXT.get().checked_sub(1).and_then(|i| CONTEXTS.get(i as usize));
    if let Some(context) = context.filter(|_| asked::spoils(error)) {
        context.spoiled.store(error, Relaxed);
    }
    Err(error)
}

/// A text of the driver, which stays as long as the process.
fn kept(text: &str) -> Result<*const c_char, Status> {
    let text = CString::new(text).map_err(|_| 1u32)?;
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    words.insert(text.clone());
    words.get(&text).map(|text| text.as_ptr()).ok_or(999)
}

/// As [`device`], for what a capture does not allow.
fn uncaptured() -> Result<&'static Emulated, Status> {
    match CAPTURES.get() {
        Some(_) => Err(900),
        None => device(),
    }
}

/// Defines functions of the driver. Their callers vouch for pointers and handles, as NVIDIA's documentation asks.
macro_rules! driver {
    ($(fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)+) => {$(
        /// As the driver's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> Status {
            // SAFETY: the caller's promise covers every use of its pointers and handles.
            let body = || -> Result<(), Status> { unsafe { $body } };
            status(planted(stringify!($name)).and_then(|()| body()))
        }
    )+};
}

/// Writes a result.
///
/// # Safety
/// `to` may be written.
unsafe fn give<T>(to: *mut T, value: T) -> Result<(), Status> {
    // SAFETY: the caller's promise.
    unsafe { to.write(value) };
    Ok(())
}

/// The room for a compiler's words that options ask for.
///
/// # Safety
/// As many values as options are there, and live as long as what is returned.
unsafe fn error_log<'a>(options: &[c_uint], values: *const *mut c_void) -> Result<&'a mut [u8], Status> {
    // the numbers of a buffer for errors, and of its size
    if options != [5, 6] {
        return Err(1);
    }
    // SAFETY: the caller's promise; the second value is a number in a pointer's place.
    Ok(unsafe { std::slice::from_raw_parts_mut((*values).cast(), (*values.add(1)).addr()) })
}

/// Refuses PTX that is not for the oldest devices, or as a test asked, with words in the log.
fn compile(ptx: &str, log: &mut [u8]) -> Result<(), Status> {
    let fitting = ptx.contains(".version 6.0") && ptx.contains(".target sm_37");
    let Some(error) = asked::fault("compiler").or((!fitting).then_some(218)) else {
        return Ok(());
    };
    let words =
        b"ptxas application ptx input, line 1; fatal   : not for this device\nptxas fatal   : Ptx assembly aborted\n\0";
    log.get_mut(..words.len()).ok_or(1u32)?.copy_from_slice(words);
    Err(error)
}

fn known(ordinal: c_int) -> Result<u64, Status> {
    let known = u64::try_from(ordinal).ok().filter(|&n| n < DEVICES.len() as u64);
    known.ok_or(101)
}

driver! {
    fn cuInit(flags: c_uint) {
        if flags != 0 { return Err(1) }
        // as the driver does where it finds none
        if DEVICES.is_empty() { Err(100) } else { Ok(()) }
    }

    fn cuDriverGetVersion(version: *mut c_int) { give(version, asked::number("version").map_or(11040, |n| n as c_int)) }

    fn cuDeviceGetCount(count: *mut c_int) { give(count, DEVICES.len() as c_int) }

    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) { give(device, known(ordinal)? as c_int) }

    fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) {
        let spelled = format!("emulated driver's device {}\0", known(device)?);
        if spelled.len() > length as usize { return Err(1) }
        name.copy_from_nonoverlapping(spelled.as_ptr().cast(), spelled.len());
        Ok(())
    }

    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) {
        known(device)?;
        give(bytes, *TOTAL as usize)
    }

    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: c_int) {
        known(device)?;
        let capability = asked::number("capability").map_or(37, |n| n as c_int);
        // its two numbers
        give(value, match attribute { 75 => capability / 10, 76 => capability % 10, _ => return Err(1) })
    }

    fn cuDevicePrimaryCtxRetain(context: *mut u64, device: c_int) {
        let device = known(device)?;
        CONTEXTS[device as usize].retained.fetch_add(1, Relaxed);
        give(context, device + 1)
    }

    fn cuDevicePrimaryCtxRelease_v2(device: c_int) {
        let context = &CONTEXTS[known(device)? as usize];
        match context.retained.fetch_sub(1, Relaxed) {
            0 => return Err(201),
            1 => context.spoiled.store(0, Relaxed),
            _ => {}
        }
        Ok(())
    }

    fn cuCtxSetCurrent(context: u64) { CONTEXT.set(context); Ok(()) }

    fn cuCtxEnablePeerAccess(context: u64, flags: c_uint) {
        if flags != 0 || context == CONTEXT.get() { return Err(1) }
        device().and(Err(704))
    }

    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        give(free, device()?.free_memory().map_err(number)? as usize)?;
        give(total, *TOTAL as usize)
    }

    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        if bytes == 0 { return Err(1) }
        give(address, uncaptured()?.allocate(bytes as u64).map_err(number)?)
    }

    fn cuMemFree_v2(address: u64) { uncaptured()?.free(address); Ok(()) }

    fn cuMemHostAlloc(memory: *mut *mut u8, bytes: usize, flags: c_uint) {
        if flags & !7 != 0 { return Err(1) }
        give(memory, uncaptured()?.pin(bytes).map_err(number)?)
    }

    fn cuMemFreeHost(memory: *mut u8) { uncaptured()?.unpin(memory); Ok(()) }

    fn cuStreamCreate(stream: *mut u64, flags: c_uint) {
        if flags > 1 { return Err(1) }
        give(stream, uncaptured()?.create_stream().map_err(number)?.0)
    }

    fn cuStreamDestroy_v2(stream: u64) { device()?.destroy_stream(Stream(stream)); Ok(()) }

    fn cuStreamSynchronize(stream: u64) { uncaptured()?.synchronize(Stream(stream)).map_err(number) }

    fn cuStreamWaitEvent(stream: u64, event: u64, flags: c_uint) {
        if flags != 0 { return Err(1) }
        device()?.wait(Stream(stream), Event(event)).map_err(number)
    }

    fn cuEventCreate(event: *mut u64, flags: c_uint) {
        if flags & !7 != 0 { return Err(1) }
        give(event, device()?.create_event().map_err(number)?.0)
    }

    fn cuEventDestroy_v2(event: u64) { device()?.destroy_event(Event(event)); Ok(()) }

    fn cuEventRecord(event: u64, stream: u64) {
        device()?.record(Event(event), Stream(stream)).map_err(number)
    }

    fn cuEventSynchronize(event: u64) { uncaptured()?.reach(Event(event)).map_err(number) }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, stream: u64) {
        device()?.write(Stream(stream), to, from, bytes).map_err(number)
    }

    fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, stream: u64) {
        device()?.read(Stream(stream), to, from, bytes).map_err(number)
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) {
        device()?.copy(Stream(stream), to, from, bytes as u64).map_err(number)
    }

    fn cuMemcpyPeerAsync(to: u64, to_context: u64, from: u64, from_context: u64, bytes: usize, stream: u64) {
        let devices = 1..=DEVICES.len() as u64;
        if !devices.contains(&to_context) || !devices.contains(&from_context) { return Err(201) }
        device()?.copy(Stream(stream), to, from, bytes as u64).map_err(number)
    }

    fn cuModuleLoadDataEx(
        module: *mut u64, image: *const c_char, count: c_uint, options: *const c_uint, values: *const *mut c_void,
    ) {
        uncaptured()?;
        let log = error_log(std::slice::from_raw_parts(options, count as usize), values)?;
        let ptx = CStr::from_ptr(image).to_string_lossy().into_owned();
        compile(&ptx, log)?;
        let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = modules.keys().max().unwrap_or(&0) + 1;
        modules.insert(handle, ptx);
        give(module, handle)
    }

    fn cuModuleUnload(module: u64) {
        let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        modules.remove(&module).map(drop).ok_or(1)
    }

    fn cuModuleGetFunction(function: *mut u64, module: u64, name: *const c_char) {
        let modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        let (ptx, name) = (modules.get(&module).ok_or(1u32)?, CStr::from_ptr(name));
        let entry = format!(".entry {}(", name.to_str().map_err(|_| 1u32)?);
        if !ptx.contains(&entry) || !streams::has_kernel(name) { return Err(500) }
        let mut kernels = KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
        kernels.push(name.to_owned());
        give(function, kernels.len() as u64)
    }

    fn cuLaunchKernel(
        function: u64, x: c_uint, y: c_uint, z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared: c_uint, stream: u64, arguments: *const *const u8, extra: *const c_void,
    ) {
        if !extra.is_null() { return Err(1) }
        let kernels = KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
        let name = kernels.get(function.wrapping_sub(1) as usize).ok_or(1u32)?;
        let driver = device()?;
        let kernel = driver.kernel(Module(0), &name.to_string_lossy()).map_err(number)?;
        let argument = std::slice::from_raw_parts(*arguments, streams::argument_bytes(name));
        let shape = Shape { grid: [x, y, z], block: [block_x, block_y, block_z], shared };
        driver.launch(Stream(stream), kernel, &shape, argument).map_err(number)
    }

    fn cuStreamBeginCapture_v2(stream: u64, mode: c_uint) {
        if mode > 2 { return Err(1) }
        uncaptured()?.begin_capture(Stream(stream)).map_err(number)?;
        CAPTURES.set(Some(stream));
        Ok(())
    }

    fn cuStreamEndCapture(stream: u64, graph: *mut u64) {
        if CAPTURES.take() != Some(stream) { return Err(1) }
        give(graph, device()?.end_capture(Stream(stream)).map_err(number)?.0)
    }

    fn cuGraphInstantiateWithFlags(ready: *mut u64, graph: u64, flags: c_ulonglong) {
        if flags != 0 { return Err(1) }
        give(ready, streams::streams().copy_captured(graph).map_err(number)?)
    }

    fn cuGraphDestroy(graph: u64) { device()?.destroy_captured(Captured(graph)); Ok(()) }

    fn cuGraphExecDestroy(ready: u64) { device()?.destroy_captured(Captured(ready)); Ok(()) }

    fn cuGraphLaunch(ready: u64, stream: u64) {
        device()?.replay(Stream(stream), Captured(ready)).map_err(number)
    }

    fn cuGetErrorName(error: c_uint, name: *mut *const c_char) { give(name, kept(asked::described(error).0)?) }

    fn cuGetErrorString(error: c_uint, words: *mut *const c_char) { give(words, kept(asked::described(error).1)?) }
}
