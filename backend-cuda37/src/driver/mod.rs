//! What the plugin asks of a driver. There are two: NVIDIA's (`cuda`), and the emulation that tests run on.
//!
//! Handles are numbers whose meaning is the driver's own; [`crate::resources`] owns them. All functions may be called
//! from any thread.

#[cfg(feature = "driver")]
pub mod cuda;

use backend_api::Result;

/// An address in a device's memory.
pub type Address = u64;

/// Defines handles of a driver.
macro_rules! handle {
    ($($(#[$meta:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(pub u64);
    )+};
}

handle!(
    /// An ordered stream of work.
    Stream,
    /// A point in a stream's work.
    Event,
    /// A loaded module of kernels.
    Module,
    /// A kernel of a loaded module.
    Kernel,
    /// Launches that were captured, ready to be launched together.
    Captured,
);

/// A device as a driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The maker's name of it.
    pub name: String,
    /// Compute capability × 10: 37 is 3.7.
    pub capability: u32,
    /// Bytes of memory.
    pub total: u64,
}

/// How often a kernel runs side by side, and what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory a block.
    pub shared: u32,
}

/// Where devices come from.
pub trait Platform: Send + Sync + 'static {
    /// The name of the backend.
    const NAME: &'static str;

    /// The devices that are here; the error says in words what is missing.
    fn devices() -> Result<Vec<Facts>, String>;

    /// Bytes of a device's memory that are free now, as far as that can be known; `device` is an index into
    /// [`Platform::devices`].
    fn free(device: u32) -> Option<u64>;

    /// The score of a machine whose best device has this compute capability (× 10).
    fn score(capability: u32) -> f32;

    /// Opens the device with this index into [`Platform::devices`].
    ///
    /// # Errors
    /// The driver's.
    fn open(device: u32) -> Result<Box<dyn Driver>>;
}

/// An open device. Every function fails with the driver's own words; those that start work may report the failure of
/// earlier work.
///
/// # Safety
/// The unsafe functions ask that handles are this driver's and alive, that addresses with their lengths lie inside of
/// live allocations, and that host memory stays valid until the stream has passed the work.
#[allow(clippy::missing_safety_doc)] // it stands above, once for all
pub trait Driver: Send + Sync {
    /// Bytes of device memory at a multiple of 256; `bytes` is not 0.
    fn allocate(&self, bytes: u64) -> Result<Address>;
    /// Gives memory back.
    unsafe fn free(&self, address: Address);
    /// Bytes of device memory that are free now.
    fn free_memory(&self) -> Result<u64>;

    /// `bytes` bytes of host memory that the device reaches by itself.
    fn pin(&self, bytes: usize) -> Result<*mut u8>;
    /// Gives pinned memory back.
    unsafe fn unpin(&self, memory: *mut u8);

    /// A new stream.
    fn create_stream(&self) -> Result<Stream>;
    /// Ends a stream.
    unsafe fn destroy_stream(&self, stream: Stream);
    /// Returns when the stream's work is done.
    unsafe fn synchronize(&self, stream: Stream) -> Result<()>;

    /// A new event, which counts as reached.
    fn create_event(&self) -> Result<Event>;
    /// Ends an event.
    unsafe fn destroy_event(&self, event: Event);
    /// The event is reached once the stream's work so far is done.
    unsafe fn record(&self, event: Event, stream: Stream) -> Result<()>;
    /// Holds the stream's later work until the event, of any device, is reached.
    unsafe fn wait(&self, stream: Stream, event: Event) -> Result<()>;
    /// Returns when the event is reached.
    unsafe fn reach(&self, event: Event) -> Result<()>;

    /// Copies from pinned host memory, in the stream's order.
    unsafe fn write(&self, stream: Stream, to: Address, from: *const u8, bytes: usize) -> Result<()>;
    /// Copies to pinned host memory, in the stream's order.
    unsafe fn read(&self, stream: Stream, to: *mut u8, from: Address, bytes: usize) -> Result<()>;
    /// Copies within the device, in the stream's order.
    unsafe fn copy(&self, stream: Stream, to: Address, from: Address, bytes: u64) -> Result<()>;
    /// Copies to the memory of another device of the platform, in the stream's order.
    unsafe fn copy_to(&self, other: &dyn Driver, stream: Stream, to: Address, from: Address, bytes: u64) -> Result<()>;
    /// What [`Driver::copy_to`] has to know of the other device.
    fn context(&self) -> u64;

    /// Loads a module, by its name and source.
    fn load(&self, name: &str, ptx: &str) -> Result<Module>;
    /// Unloads a module.
    unsafe fn unload(&self, module: Module);
    /// A kernel by its name.
    unsafe fn kernel(&self, module: Module, name: &str) -> Result<Kernel>;
    /// Starts a kernel with one argument of these bytes, which are copied.
    unsafe fn launch(&self, stream: Stream, kernel: Kernel, shape: &Shape, argument: &[u8]) -> Result<()>;

    /// Lets the stream's next launches be captured instead of started.
    unsafe fn begin_capture(&self, stream: Stream) -> Result<()>;
    /// The launches since [`Driver::begin_capture`], which has succeeded.
    unsafe fn end_capture(&self, stream: Stream) -> Result<Captured>;
    /// Starts captured launches.
    unsafe fn replay(&self, stream: Stream, captured: Captured) -> Result<()>;
    /// Forgets captured launches.
    unsafe fn destroy_captured(&self, captured: Captured);
}
