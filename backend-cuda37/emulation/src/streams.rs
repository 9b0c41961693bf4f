//! The work of all streams, and when it is done.

use std::{
    collections::{HashMap, VecDeque},
    ffi::{CStr, CString, c_char, c_void},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use backend_api::{BackendError, Result};
use backend_cuda37::driver::Shape;

unsafe extern "C" {
    fn emu_launch(
        kernel: *const c_char,
        grid: *const u32,
        block: *const u32,
        shared_bytes: u32,
        args: *const c_void,
        args_bytes: usize,
        seed: u32,
    ) -> *const c_char;
    fn emu_args_bytes(kernel: *const c_char) -> usize;
}

/// Whether there is a kernel of this name.
pub fn has_kernel(name: &CStr) -> bool {
    argument_bytes(name) > 0
}

/// Bytes of a kernel's argument; 0 where there is no such kernel.
pub fn argument_bytes(name: &CStr) -> usize {
    // SAFETY: the name ends with 0.
    unsafe { emu_args_bytes(name.as_ptr()) }
}

/// A launch with all that it needs.
#[derive(Clone)]
pub struct Launch {
    pub kernel: CString,
    pub shape: Shape,
    /// Words, so that 64-bit values lie where they may.
    pub argument: Vec<u64>,
    pub bytes: usize,
}

impl Launch {
    fn run(&self, seed: u32) -> Result<()> {
        let Shape { grid, block, shared } = self.shape;
        let (name, argument) = (self.kernel.as_ptr(), self.argument.as_ptr().cast());
        // SAFETY: all of it outlives the call; the kernel checks the argument's size, and who launched vouches for the
        // addresses in it.
        let fault = unsafe { emu_launch(name, grid.as_ptr(), block.as_ptr(), shared, argument, self.bytes, seed) };
        if fault.is_null() {
            return Ok(());
        }
        // SAFETY: words that end with 0, valid until this thread's next launch.
        let words = unsafe { CStr::from_ptr(fault) }.to_string_lossy();
        let kernel = self.kernel.to_string_lossy();
        Err(BackendError::failed(format!("kernel {kernel}: {words}")))
    }
}

/// Something that a stream does in its order.
pub enum Work {
    /// Copies memory; the addresses are the host's.
    Copy {
        to: u64,
        from: u64,
        bytes: usize,
    },
    Launch(Launch),
    /// Reaches a recording of an event.
    Record {
        event: u64,
        recording: u64,
    },
    /// Waits for a recording of an event.
    Wait {
        event: u64,
        recording: u64,
    },
}

#[derive(Default)]
struct Stream {
    work: VecDeque<Work>,
    /// Launches of a capture that has begun.
    capture: Option<Vec<Launch>>,
    /// The first failure; what follows it is not done.
    failure: Option<BackendError>,
}

/// A point in some stream: how often it was recorded, and in which stream last.
#[derive(Default)]
struct Event {
    recorded: u64,
    reached: u64,
    stream: u64,
}

/// All streams of the process, of all devices.
#[derive(Default)]
pub struct Streams {
    next: u64,
    streams: HashMap<u64, Stream>,
    events: HashMap<u64, Event>,
    captured: HashMap<u64, Vec<Launch>>,
    launches: u32,
}

/// The streams of the process.
pub fn streams() -> MutexGuard<'static, Streams> {
    static STREAMS: LazyLock<Mutex<Streams>> = LazyLock::new(Mutex::default);
    STREAMS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unknown(what: &str) -> BackendError {
    BackendError::invalid(format!("there is no such {what}"))
}

impl Streams {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn create_stream(&mut self) -> u64 {
        let number = self.number();
        self.streams.insert(number, Stream::default());
        number
    }

    pub fn destroy_stream(&mut self, stream: u64) {
        let _ = self.finish(stream);
        self.streams.remove(&stream);
    }

    pub fn create_event(&mut self) -> u64 {
        let number = self.number();
        self.events.insert(number, Event::default());
        number
    }

    pub fn destroy_event(&mut self, event: u64) {
        let _ = self.reach(event);
        self.events.remove(&event);
    }

    fn stream(&mut self, stream: u64) -> Result<&mut Stream> {
        self.streams.get_mut(&stream).ok_or_else(|| unknown("stream"))
    }

    /// Adds work to a stream that is not being captured.
    pub fn push(&mut self, stream: u64, work: Work) -> Result<()> {
        let stream = self.stream(stream)?;
        match &stream.capture {
            Some(_) => Err(BackendError::failed("only launches can be captured")),
            None => {
                stream.work.push_back(work);
                Ok(())
            }
        }
    }

    pub fn launch(&mut self, stream: u64, launch: Launch) -> Result<()> {
        let stream = self.stream(stream)?;
        match &mut stream.capture {
            Some(capture) => capture.push(launch),
            None => stream.work.push_back(Work::Launch(launch)),
        }
        Ok(())
    }

    pub fn record(&mut self, event: u64, stream: u64) -> Result<()> {
        let known = self.events.get_mut(&event).ok_or_else(|| unknown("event"))?;
        known.recorded += 1;
        known.stream = stream;
        let recording = known.recorded;
        self.push(stream, Work::Record { event, recording })
    }

    pub fn wait(&mut self, stream: u64, event: u64) -> Result<()> {
        let recording = self.events.get(&event).ok_or_else(|| unknown("event"))?.recorded;
        self.push(stream, Work::Wait { event, recording })
    }

    /// Does the work that an event's last recording stands for.
    pub fn reach(&mut self, event: u64) -> Result<()> {
        let recording = self.events.get(&event).ok_or_else(|| unknown("event"))?.recorded;
        self.reach_recording(event, recording)
    }

    fn reach_recording(&mut self, event: u64, recording: u64) -> Result<()> {
        loop {
            let Some(known) = self.events.get(&event) else {
                return Ok(());
            };
            let (reached, stream) = (known.reached, known.stream);
            if reached >= recording {
                return Ok(());
            }
            self.step(stream)?;
        }
    }

    /// Does all of a stream's work.
    pub fn finish(&mut self, stream: u64) -> Result<()> {
        while !self.stream(stream)?.work.is_empty() {
            self.step(stream)?;
        }
        let stream = self.stream(stream)?;
        stream.failure.clone().map_or(Ok(()), Err)
    }

    /// Does all work of all streams.
    pub fn finish_all(&mut self) {
        let all: Vec<u64> = self.streams.keys().copied().collect();
        for stream in all {
            let _ = self.finish(stream);
        }
    }

    /// Does the next of a stream's work. After a failure only events are reached.
    fn step(&mut self, number: u64) -> Result<()> {
        let stream = self.stream(number)?;
        let failed = stream.failure.is_some();
        let work = stream.work.pop_front();
        let work = work.ok_or_else(|| BackendError::failed("an event was waited for that nothing reaches"))?;
        let done = match work {
            Work::Record { event, recording } => {
                if let Some(event) = self.events.get_mut(&event) {
                    event.reached = event.reached.max(recording);
                }
                Ok(())
            }
            Work::Wait { event, recording } => self.reach_recording(event, recording),
            _ if failed => Ok(()),
            Work::Copy { to, from, bytes } => {
                // SAFETY: who added the work vouched for both places until it is done; they may overlap.
                unsafe { (to as *mut u8).copy_from(from as *const u8, bytes) };
                Ok(())
            }
            Work::Launch(launch) => {
                self.launches = self.launches.wrapping_add(1);
                launch.run(self.launches)
            }
        };
        if let Err(failure) = done {
            self.stream(number)?.failure.get_or_insert(failure);
        }
        Ok(())
    }

    pub fn begin_capture(&mut self, stream: u64) -> Result<()> {
        self.stream(stream)?.capture = Some(Vec::new());
        Ok(())
    }

    pub fn end_capture(&mut self, stream: u64) -> Result<u64> {
        let capture = self.stream(stream)?.capture.take();
        let launches = capture.ok_or_else(|| BackendError::invalid("no capture has begun"))?;
        let number = self.number();
        self.captured.insert(number, launches);
        Ok(number)
    }

    pub fn replay(&mut self, stream: u64, captured: u64) -> Result<()> {
        let launches = self.captured.get(&captured).ok_or_else(|| unknown("capture"))?;
        let launches = launches.clone();
        let stream = self.stream(stream)?;
        stream.work.extend(launches.into_iter().map(Work::Launch));
        Ok(())
    }

    /// The same launches under another number.
    pub fn copy_captured(&mut self, captured: u64) -> Result<u64> {
        let launches = self.captured.get(&captured).ok_or_else(|| unknown("capture"))?;
        let launches = launches.clone();
        let number = self.number();
        self.captured.insert(number, launches);
        Ok(number)
    }

    pub fn destroy_captured(&mut self, captured: u64) {
        self.captured.remove(&captured);
    }
}
