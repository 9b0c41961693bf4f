//! What a device owns: memory, streams, events, captured launches. Each goes back to the driver when it is dropped.

use std::sync::Arc;

use backend_api::{BackendError, Result};

use crate::driver::{Address, Captured, Driver, Event, Stream};

/// An allocation in device memory.
pub struct Memory {
    driver: Arc<dyn Driver>,
    address: Address,
    bytes: u64,
}

impl Memory {
    /// `bytes` bytes of the device's memory; none are taken for 0.
    pub fn allocate(driver: &Arc<dyn Driver>, bytes: u64) -> Result<Memory> {
        let address = if bytes == 0 { 0 } else { driver.allocate(bytes)? };
        Ok(Memory {
            driver: driver.clone(),
            address,
            bytes,
        })
    }

    /// Bytes in it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The address of `offset`, from which `bytes` bytes lie within the allocation.
    pub fn at(&self, offset: u64, bytes: u64) -> Result<Address> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(self.address + offset),
            _ => Err(BackendError::invalid(format!(
                "bytes {offset} to {offset} + {bytes} lie outside a buffer of {} bytes",
                self.bytes
            ))),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: the allocation is this value's own.
            unsafe { self.driver.free(self.address) };
        }
    }
}

/// Defines an owner of a driver's handle.
macro_rules! owned {
    ($(#[$meta:meta])* $name:ident($handle:ident), $destroy:ident) => {
        $(#[$meta])*
        pub struct $name {
            driver: Arc<dyn Driver>,
            handle: $handle,
        }

        impl $name {
            /// The driver's handle, alive as long as this value.
            pub fn handle(&self) -> $handle {
                self.handle
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: the handle is this value's own.
                unsafe { self.driver.$destroy(self.handle) };
            }
        }
    };
}

owned!(
    /// An ordered stream of work.
    Queue(Stream),
    destroy_stream
);
owned!(
    /// A point in a queue's work.
    Mark(Event),
    destroy_event
);
owned!(
    /// Captured launches.
    Recording(Captured),
    destroy_captured
);

impl Queue {
    /// A new queue.
    pub fn new(driver: &Arc<dyn Driver>) -> Result<Queue> {
        let handle = driver.create_stream()?;
        Ok(Queue {
            driver: driver.clone(),
            handle,
        })
    }

    /// Returns when its work is done.
    pub fn synchronize(&self) -> Result<()> {
        // SAFETY: the stream is alive.
        unsafe { self.driver.synchronize(self.handle) }
    }
}

impl Mark {
    /// A new event.
    pub fn new(driver: &Arc<dyn Driver>) -> Result<Mark> {
        let handle = driver.create_event()?;
        Ok(Mark {
            driver: driver.clone(),
            handle,
        })
    }

    /// Is reached once the queue's work so far is done.
    pub fn record(&self, queue: &Queue) -> Result<()> {
        // SAFETY: both are alive.
        unsafe { self.driver.record(self.handle, queue.handle) }
    }

    /// Returns when it is reached.
    pub fn reach(&self) -> Result<()> {
        // SAFETY: the event is alive.
        unsafe { self.driver.reach(self.handle) }
    }
}

impl Recording {
    /// What `launch` launches on the queue, captured. Where that fails nothing was launched.
    pub fn of(driver: &Arc<dyn Driver>, queue: &Queue, launch: impl FnOnce() -> Result<()>) -> Result<Recording> {
        // SAFETY: the queue is alive, and its user is this thread alone.
        unsafe { driver.begin_capture(queue.handle)? };
        let launched = launch();
        // SAFETY: the capture has begun above.
        let captured = unsafe { driver.end_capture(queue.handle) };
        let recording = captured.map(|handle| Recording {
            driver: driver.clone(),
            handle,
        });
        launched.and(recording)
    }
}
