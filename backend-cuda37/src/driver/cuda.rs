//! NVIDIA's driver, through cudarc.

use std::{ffi::CString, mem::MaybeUninit, ptr, sync::OnceLock};

use backend_api::{BackendError, Result, error::Code};
use cudarc::driver::{
    result::{self, DriverError},
    sys::{self, CUresult},
};

use super::{Address, Captured, Driver, Event, Facts, Kernel, Module, Platform, Shape, Stream};

/// The oldest driver's CUDA version that has all that is called: 11.4, driver 470, the last one for the K80.
const LEAST_VERSION: i32 = 11040;

/// Bytes of what the driver's compiler says of a module at most.
const LOG: usize = 2048;

/// NVIDIA's devices.
pub struct Cuda;

impl Platform for Cuda {
    const NAME: &'static str = "cuda37";

    fn devices() -> Result<Vec<Facts>, String> {
        started().clone()?;
        let count = result::device::get_count().map_err(|e| words(&e))?;
        if count == 0 {
            return Err(NO_DEVICE.into());
        }
        (0..count).map(facts).collect()
    }

    fn free(device: u32) -> Option<u64> {
        // a device that another process has for itself tells nothing: opening it will say so
        Open::new(device as i32).ok()?.free_bytes().ok()
    }

    fn score(capability: u32) -> f32 {
        // above 100: memory of its own, a host's own processors stay below
        100.0 + capability as f32
    }

    fn open(device: u32) -> Result<Box<dyn Driver>> {
        started().clone().map_err(BackendError::failed)?;
        Ok(Box::new(Open::new(device as i32)?))
    }
}

const NO_DEVICE: &str = "no CUDA device";

/// Starts the driver, once a process; what stands in the way is told in words.
fn started() -> &'static Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    STARTED.get_or_init(|| {
        // SAFETY: loads a library by a fixed name. Anything else would panic where there is none.
        if !unsafe { sys::is_culib_present() } {
            return Err("libcuda.so.1 not found".into());
        }
        let mut version = 0;
        // SAFETY: writes the version, which outlives the call; may be called before `cuInit`.
        unsafe { sys::cuDriverGetVersion(&mut version) }
            .result()
            .map_err(|e| words(&e))?;
        if version < LEAST_VERSION {
            return Err(format!(
                "the driver is too old: it has CUDA {}, at least {} (driver 470) is needed",
                cuda(version),
                cuda(LEAST_VERSION)
            ));
        }
        result::init().map_err(|e| words(&e))
    })
}

/// 11040 as 11.4.
fn cuda(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// A driver's error in words.
fn words(error: &DriverError) -> String {
    if error.0 == CUresult::CUDA_ERROR_NO_DEVICE {
        return NO_DEVICE.into();
    }
    let name = error.error_name().map(|name| name.to_string_lossy().into_owned());
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
    match (name, text) {
        (Ok(name), Ok(text)) => format!("{name}: {text}"),
        _ => format!("CUDA error {}", error.0 as u32),
    }
}

/// What a host is told of an error, so that it knows what may help.
fn code(error: CUresult) -> Code {
    match error {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Code::OutOfMemory,
        // those of a driver that cannot compile for the device, whatever the module
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
        | CUresult::CUDA_ERROR_JIT_COMPILER_NOT_FOUND
        | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | CUresult::CUDA_ERROR_JIT_COMPILATION_DISABLED => Code::Unsupported,
        // those that spoil a context
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
        | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
        | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUresult::CUDA_ERROR_INVALID_PC
        | CUresult::CUDA_ERROR_LAUNCH_FAILED
        | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
        | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
        | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
        | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | CUresult::CUDA_ERROR_UNKNOWN => Code::DeviceLost,
        _ => Code::Failed,
    }
}

fn failed(what: &str) -> impl Fn(DriverError) -> BackendError {
    move |error| BackendError::new(code(error.0), format!("{what}: {}", words(&error)))
}

/// What a compiler wrote into its log, in one line; empty where that is nothing.
fn logged(log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[..end]);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

fn facts(ordinal: i32) -> Result<Facts, String> {
    let read = || -> Result<Facts, DriverError> {
        let device = result::device::get(ordinal)?;
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        // SAFETY: the device was given out by the driver.
        let (major, minor, total) = unsafe {
            (
                result::device::get_attribute(device, MAJOR)?,
                result::device::get_attribute(device, MINOR)?,
                result::device::total_mem(device)? as u64,
            )
        };
        Ok(Facts {
            name: result::device::get_name(device)?,
            capability: (major * 10 + minor) as u32,
            total,
        })
    };
    read().map_err(|e| format!("device {ordinal}: {}", words(&e)))
}

/// A device whose primary context is in use.
struct Open {
    device: sys::CUdevice,
    ordinal: i32,
    context: sys::CUcontext,
}

// SAFETY: the driver's functions may be called from any thread, and each call sets its context first.
unsafe impl Send for Open {}
// SAFETY: as above.
unsafe impl Sync for Open {}

impl Open {
    fn new(ordinal: i32) -> Result<Open> {
        let failed = failed("opening the device");
        let device = result::device::get(ordinal).map_err(&failed)?;
        // SAFETY: the device was given out by the driver; the context is given back when the value is dropped.
        let context = unsafe { result::primary_ctx::retain(device) };
        let context = context.map_err(failed)?;
        Ok(Open {
            device,
            ordinal,
            context,
        })
    }

    fn free_bytes(&self) -> Result<u64, DriverError> {
        self.enter()?;
        Ok(result::mem_get_info()?.0 as u64)
    }

    /// Makes the context this thread's.
    fn enter(&self) -> Result<(), DriverError> {
        // SAFETY: the context is retained as long as `self`.
        unsafe { result::ctx::set_current(self.context) }
    }

    /// Runs a call of the driver in the device's context.
    fn call<T>(&self, what: &str, f: impl FnOnce() -> Result<T, DriverError>) -> Result<T> {
        self.enter().and_then(|()| f()).map_err(failed(what))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: it was retained by `new`. What the driver says of it helps nobody any more.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

fn stream(stream: Stream) -> sys::CUstream {
    stream.0 as sys::CUstream
}

fn event(event: Event) -> sys::CUevent {
    event.0 as sys::CUevent
}

// Each unsafe block below passes on handles, addresses and memory for which the trait's callers vouch.
impl Driver for Open {
    fn allocate(&self, bytes: u64) -> Result<Address> {
        let what = "allocating device memory";
        // SAFETY: 0 bytes are not asked for; the memory is the caller's.
        self.call(what, || unsafe { result::malloc_sync(bytes as usize) })
    }

    unsafe fn free(&self, address: Address) {
        // SAFETY: the caller's promise.
        let _ = self.call("freeing device memory", || unsafe { result::free_sync(address) });
    }

    fn free_memory(&self) -> Result<u64> {
        self.free_bytes().map_err(failed("asking for free memory"))
    }

    fn pin(&self, bytes: usize) -> Result<*mut u8> {
        let portable = sys::CU_MEMHOSTALLOC_PORTABLE;
        // SAFETY: the memory is the caller's.
        let memory = self.call("pinning host memory", || unsafe {
            result::malloc_host(bytes, portable)
        });
        Ok(memory?.cast())
    }

    unsafe fn unpin(&self, memory: *mut u8) {
        // SAFETY: the caller's promise.
        let _ = self.call("unpinning host memory", || unsafe { result::free_host(memory.cast()) });
    }

    fn create_stream(&self) -> Result<Stream> {
        let created = self.call("creating a stream", || {
            result::stream::create(result::stream::StreamKind::NonBlocking)
        });
        Ok(Stream(created? as u64))
    }

    unsafe fn destroy_stream(&self, handle: Stream) {
        // SAFETY: the caller's promise.
        let _ = self.call("ending a stream", || unsafe { result::stream::destroy(stream(handle)) });
    }

    unsafe fn synchronize(&self, handle: Stream) -> Result<()> {
        // SAFETY: the caller's promise.
        self.call("the device's work", || unsafe {
            result::stream::synchronize(stream(handle))
        })
    }

    fn create_event(&self) -> Result<Event> {
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let created = self.call("creating an event", || result::event::create(flags));
        Ok(Event(created? as u64))
    }

    unsafe fn destroy_event(&self, handle: Event) {
        // SAFETY: the caller's promise.
        let _ = self.call("ending an event", || unsafe { result::event::destroy(event(handle)) });
    }

    unsafe fn record(&self, handle: Event, on: Stream) -> Result<()> {
        // SAFETY: the caller's promise.
        self.call("recording an event", || unsafe {
            result::event::record(event(handle), stream(on))
        })
    }

    unsafe fn wait(&self, on: Stream, handle: Event) -> Result<()> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: the caller's promise.
        self.call("waiting for an event", || unsafe {
            result::stream::wait_event(stream(on), event(handle), flags)
        })
    }

    unsafe fn reach(&self, handle: Event) -> Result<()> {
        // SAFETY: the caller's promise.
        self.call("the device's work", || unsafe {
            result::event::synchronize(event(handle))
        })
    }

    unsafe fn write(&self, on: Stream, to: Address, from: *const u8, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        self.call("copying to the device", || unsafe {
            sys::cuMemcpyHtoDAsync_v2(to, from.cast(), bytes, stream(on)).result()
        })
    }

    unsafe fn read(&self, on: Stream, to: *mut u8, from: Address, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        self.call("copying from the device", || unsafe {
            sys::cuMemcpyDtoHAsync_v2(to.cast(), from, bytes, stream(on)).result()
        })
    }

    unsafe fn copy(&self, on: Stream, to: Address, from: Address, bytes: u64) -> Result<()> {
        // SAFETY: the caller's promise.
        self.call("copying on the device", || unsafe {
            result::memcpy_dtod_async(to, from, bytes as usize, stream(on))
        })
    }

    unsafe fn copy_to(&self, other: &dyn Driver, on: Stream, to: Address, from: Address, bytes: u64) -> Result<()> {
        let context = other.context() as sys::CUcontext;
        if context == self.context {
            // SAFETY: the caller's promise; parts of one device share its context.
            return unsafe { self.copy(on, to, from, bytes) };
        }
        // SAFETY: the other device is open, so its context is alive. The driver says that access is there already, or that
        // there is none: then it copies through pinned memory of its own.
        let _ = self.call("reaching another device", || unsafe {
            sys::cuCtxEnablePeerAccess(context, 0).result()
        });
        // SAFETY: the caller's promise.
        self.call("copying to another device", || unsafe {
            result::memcpy_peer_async(context, to, self.context, from, bytes as usize, stream(on))
        })
    }

    fn context(&self) -> u64 {
        self.context as u64
    }

    fn load(&self, name: &str, ptx: &str) -> Result<Module> {
        let damaged = |_| BackendError::failed(format!("module {name} holds a 0"));
        let source = CString::new(ptx).map_err(damaged)?;
        let mut log = [0; LOG];
        let mut options = [
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        let mut values = [log.as_mut_ptr().cast(), ptr::without_provenance_mut(log.len())];
        let mut module = ptr::null_mut();
        // SAFETY: the source ends with 0; it, the log and the options outlive the call.
        let load = || unsafe {
            let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
            sys::cuModuleLoadDataEx(&mut module, source.as_ptr().cast(), 2, options, values).result()
        };
        let what = format!("loading module {name} on device {}", self.ordinal);
        match (self.call(&what, load), logged(&log)) {
            (Ok(()), _) => Ok(Module(module as u64)),
            (Err(error), said) if said.is_empty() => Err(error),
            (Err(error), said) => Err(BackendError::new(error.code(), format!("{error} ({said})"))),
        }
    }

    unsafe fn unload(&self, module: Module) {
        // SAFETY: the caller's promise.
        let _ = self.call("unloading a module", || unsafe {
            result::module::unload(module.0 as sys::CUmodule)
        });
    }

    unsafe fn kernel(&self, module: Module, name: &str) -> Result<Kernel> {
        let spelled = CString::new(name).map_err(|_| BackendError::failed(format!("kernel {name:?} holds a 0")))?;
        // SAFETY: the caller's promise.
        let found = self.call(&format!("kernel {name}"), || unsafe {
            result::module::get_function(module.0 as sys::CUmodule, spelled)
        });
        Ok(Kernel(found? as u64))
    }

    unsafe fn launch(&self, on: Stream, kernel: Kernel, shape: &Shape, argument: &[u8]) -> Result<()> {
        let [grid, block] = [shape.grid, shape.block].map(|[x, y, z]| (x, y, z));
        let mut arguments = [argument.as_ptr().cast_mut().cast()];
        let function = kernel.0 as sys::CUfunction;
        // SAFETY: the caller's promise; the driver copies the argument before it returns.
        self.call("launching a kernel", || unsafe {
            result::launch_kernel(function, grid, block, shape.shared, stream(on), &mut arguments)
        })
    }

    unsafe fn begin_capture(&self, on: Stream) -> Result<()> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the caller's promise.
        self.call("capturing", || unsafe {
            result::stream::begin_capture(stream(on), mode)
        })
    }

    unsafe fn end_capture(&self, on: Stream) -> Result<Captured> {
        // SAFETY: the caller's promise; the graph is destroyed once it was instantiated.
        let captured = self.call("capturing", || unsafe {
            let graph = result::stream::end_capture(stream(on))?;
            let mut ready = MaybeUninit::uninit();
            let made = sys::cuGraphInstantiateWithFlags(ready.as_mut_ptr(), graph, 0).result();
            let _ = result::graph::destroy(graph);
            made?;
            Ok(ready.assume_init())
        });
        Ok(Captured(captured? as u64))
    }

    unsafe fn replay(&self, on: Stream, captured: Captured) -> Result<()> {
        // SAFETY: the caller's promise.
        self.call("launching what was captured", || unsafe {
            result::graph::launch(captured.0 as sys::CUgraphExec, stream(on))
        })
    }

    unsafe fn destroy_captured(&self, captured: Captured) {
        // SAFETY: the caller's promise.
        let _ = self.call("forgetting what was captured", || unsafe {
            result::graph::exec_destroy(captured.0 as sys::CUgraphExec)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_tell_a_host_what_may_help() {
        use CUresult::*;
        for (error, expected) in [
            (CUDA_ERROR_OUT_OF_MEMORY, Code::OutOfMemory),
            (CUDA_ERROR_UNSUPPORTED_PTX_VERSION, Code::Unsupported),
            (CUDA_ERROR_NO_BINARY_FOR_GPU, Code::Unsupported),
            (CUDA_ERROR_JIT_COMPILER_NOT_FOUND, Code::Unsupported),
            (CUDA_ERROR_LAUNCH_FAILED, Code::DeviceLost),
            (CUDA_ERROR_ECC_UNCORRECTABLE, Code::DeviceLost),
            // faults of this library
            (CUDA_ERROR_INVALID_PTX, Code::Failed),
            (CUDA_ERROR_NOT_FOUND, Code::Failed),
        ] {
            assert_eq!(code(error), expected, "{error:?}");
        }
    }

    #[test]
    fn what_a_compiler_says_is_told_in_one_line() {
        let log = b"ptxas input, line 5; error   : Unknown symbol 'x'\n\nptxas fatal   : aborted\n\0rest";
        assert_eq!(
            logged(log),
            "ptxas input, line 5; error   : Unknown symbol 'x'; ptxas fatal   : aborted"
        );
        assert_eq!(logged(&[0; 8]), "");
        assert_eq!(logged(b"cut without an end"), "cut without an end");
    }
}
