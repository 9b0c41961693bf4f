//! A device whose memory is the host's.

use std::{
    alloc::{self, Layout},
    collections::HashMap,
    ffi::{CStr, CString},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use backend_api::{BackendError, Result};
use backend_cuda37::driver::{Address, Captured, Driver, Event, Kernel, Module, Shape, Stream};

use crate::streams::{Launch, Work, has_kernel, streams};

/// What device memory begins at multiples of.
const ALIGNMENT: usize = 256;

/// What memory holds before it is written: NaN, and no id.
const GARBAGE: u8 = 0xff;

/// An emulated device.
pub struct Emulated {
    total: u64,
    used: AtomicU64,
    /// Device memory and pinned memory.
    allocations: Mutex<HashMap<u64, Layout>>,
    /// A kernel's handle is its place here.
    kernels: Mutex<Vec<CString>>,
}

impl Emulated {
    /// A device with `total` bytes of memory.
    pub fn new(total: u64) -> Emulated {
        Emulated {
            total,
            used: AtomicU64::new(0),
            allocations: Mutex::default(),
            kernels: Mutex::default(),
        }
    }

    fn take(&self, bytes: usize) -> Result<u64> {
        let failed = || BackendError::out_of_memory(format!("no memory for {bytes} bytes"));
        let layout = Layout::from_size_align(bytes, ALIGNMENT).map_err(|_| failed())?;
        // SAFETY: nobody asks for 0 bytes.
        let memory = unsafe { alloc::alloc(layout) };
        if memory.is_null() {
            return Err(failed());
        }
        // SAFETY: as many bytes were just allocated.
        unsafe { memory.write_bytes(GARBAGE, bytes) };
        let mut allocations = self.allocations.lock().unwrap_or_else(PoisonError::into_inner);
        allocations.insert(memory as u64, layout);
        Ok(memory as u64)
    }

    /// Gives memory back after all work that may use it; the bytes of it.
    fn give_back(&self, memory: u64) -> usize {
        streams().finish_all();
        let mut allocations = self.allocations.lock().unwrap_or_else(PoisonError::into_inner);
        allocations.remove(&memory).map_or(0, |layout| {
            // SAFETY: it was allocated with this layout, and is in the table no more.
            unsafe { alloc::dealloc(memory as *mut u8, layout) };
            layout.size()
        })
    }
}

// Handles are numbers that `streams` checks; for addresses the trait's callers vouch.
impl Driver for Emulated {
    fn allocate(&self, bytes: u64) -> Result<Address> {
        if bytes > self.free_memory()? {
            return Err(BackendError::out_of_memory(format!(
                "no device memory for {bytes} bytes"
            )));
        }
        let address = self.take(bytes as usize)?;
        self.used.fetch_add(bytes, Relaxed);
        Ok(address)
    }

    unsafe fn free(&self, address: Address) {
        self.used.fetch_sub(self.give_back(address) as u64, Relaxed);
    }

    fn free_memory(&self) -> Result<u64> {
        Ok(self.total - self.used.load(Relaxed))
    }

    fn pin(&self, bytes: usize) -> Result<*mut u8> {
        Ok(self.take(bytes)? as *mut u8)
    }

    unsafe fn unpin(&self, memory: *mut u8) {
        self.give_back(memory as u64);
    }

    fn create_stream(&self) -> Result<Stream> {
        Ok(Stream(streams().create_stream()))
    }

    unsafe fn destroy_stream(&self, stream: Stream) {
        streams().destroy_stream(stream.0);
    }

    unsafe fn synchronize(&self, stream: Stream) -> Result<()> {
        streams().finish(stream.0)
    }

    fn create_event(&self) -> Result<Event> {
        Ok(Event(streams().create_event()))
    }

    unsafe fn destroy_event(&self, event: Event) {
        streams().destroy_event(event.0);
    }

    unsafe fn record(&self, event: Event, stream: Stream) -> Result<()> {
        streams().record(event.0, stream.0)
    }

    unsafe fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        streams().wait(stream.0, event.0)
    }

    unsafe fn reach(&self, event: Event) -> Result<()> {
        streams().reach(event.0)
    }

    unsafe fn write(&self, stream: Stream, to: Address, from: *const u8, bytes: usize) -> Result<()> {
        let from = from as u64;
        streams().push(stream.0, Work::Copy { to, from, bytes })
    }

    unsafe fn read(&self, stream: Stream, to: *mut u8, from: Address, bytes: usize) -> Result<()> {
        let to = to as u64;
        streams().push(stream.0, Work::Copy { to, from, bytes })
    }

    unsafe fn copy(&self, stream: Stream, to: Address, from: Address, bytes: u64) -> Result<()> {
        let bytes = bytes as usize;
        streams().push(stream.0, Work::Copy { to, from, bytes })
    }

    unsafe fn copy_to(&self, _: &dyn Driver, stream: Stream, to: Address, from: Address, bytes: u64) -> Result<()> {
        // SAFETY: the caller's promise; all memory is the host's.
        unsafe { self.copy(stream, to, from, bytes) }
    }

    fn context(&self) -> u64 {
        0
    }

    fn load(&self, _name: &str, _ptx: &str) -> Result<Module> {
        Ok(Module(0))
    }

    unsafe fn unload(&self, _module: Module) {}

    unsafe fn kernel(&self, _module: Module, name: &str) -> Result<Kernel> {
        let spelled = CString::new(name)
            .ok()
            .filter(|name: &CString| has_kernel(name as &CStr));
        let spelled = spelled.ok_or_else(|| BackendError::failed(format!("there is no kernel {name}")))?;
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kernels.iter().position(|kernel| *kernel == spelled);
        let place = known.unwrap_or_else(|| {
            kernels.push(spelled);
            kernels.len() - 1
        });
        Ok(Kernel(place as u64))
    }

    unsafe fn launch(&self, stream: Stream, kernel: Kernel, shape: &Shape, argument: &[u8]) -> Result<()> {
        let kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_ne_bytes(word)
        };
        let launch = Launch {
            kernel: kernels[kernel.0 as usize].clone(),
            shape: *shape,
            argument: argument.chunks(8).map(word).collect(),
            bytes: argument.len(),
        };
        streams().launch(stream.0, launch)
    }

    unsafe fn begin_capture(&self, stream: Stream) -> Result<()> {
        streams().begin_capture(stream.0)
    }

    unsafe fn end_capture(&self, stream: Stream) -> Result<Captured> {
        Ok(Captured(streams().end_capture(stream.0)?))
    }

    unsafe fn replay(&self, stream: Stream, captured: Captured) -> Result<()> {
        streams().replay(stream.0, captured.0)
    }

    unsafe fn destroy_captured(&self, captured: Captured) {
        streams().destroy_captured(captured.0);
    }
}
