//! Buffers, which are vectors of bytes, and the tensors that lie in them.

use std::{
    ops::Range,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use backend_api::{
    BackendError, Result,
    contract::{Binding, BufferId},
    decode::decode_row,
    encode::encode_row,
    graph::Tensor,
    plugin::Handles,
    types::Type,
};

/// Bytes that the device has. The host plans with this number and allocates no more, so it had better be kept.
pub const CAPACITY: u64 = 4 << 30;

/// All buffers of the device.
pub struct Memory {
    // `Handles` gives out numbers that are never used twice, so a stale handle is an error and not somebody else's data.
    buffers: Handles<RwLock<Vec<u8>>>,
    used: AtomicU64,
}

impl Memory {
    pub fn new() -> Self {
        Memory {
            buffers: Handles::new("buffer"),
            used: AtomicU64::new(0),
        }
    }

    /// A buffer of `bytes` bytes, 0 too.
    pub fn allocate(&self, bytes: u64) -> Result<BufferId> {
        let with = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= CAPACITY);
        let no_room = |used| BackendError::out_of_memory(format!("{bytes} bytes beside {used} of {CAPACITY}"));
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, with)
            .map_err(no_room)?;
        match zeros(bytes) {
            Some(buffer) => Ok(BufferId(self.buffers.insert(RwLock::new(buffer)))),
            None => Err(no_room(self.used.fetch_sub(bytes, Ordering::Relaxed) - bytes)),
        }
    }

    pub fn free(&self, buffer: BufferId) -> Result<()> {
        let buffer = self.buffers.remove(buffer.0)?;
        let bytes = buffer.read().unwrap_or_else(PoisonError::into_inner).len();
        self.used.fetch_sub(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    pub fn available(&self) -> u64 {
        CAPACITY - self.used.load(Ordering::Relaxed)
    }

    /// Fills `data` from the bytes at `offset`.
    pub fn read(&self, buffer: BufferId, offset: u64, data: &mut [u8]) -> Result<()> {
        let buffer = self.buffers.get(buffer.0)?;
        let bytes = buffer.read().unwrap_or_else(PoisonError::into_inner);
        data.copy_from_slice(&bytes[range(bytes.len(), offset, data.len())?]);
        Ok(())
    }

    /// Puts `data` at `offset`.
    pub fn write(&self, buffer: BufferId, offset: u64, data: &[u8]) -> Result<()> {
        let buffer = self.buffers.get(buffer.0)?;
        let mut bytes = buffer.write().unwrap_or_else(PoisonError::into_inner);
        let range = range(bytes.len(), offset, data.len())?;
        bytes[range].copy_from_slice(data);
        Ok(())
    }
}

/// Zeros, or nothing where the system has no memory for them: there, `vec!` would end the whole process.
fn zeros(bytes: u64) -> Option<Vec<u8>> {
    let bytes = usize::try_from(bytes).ok()?;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(bytes).ok()?;
    buffer.resize(bytes, 0);
    Some(buffer)
}

/// `count` bytes from `offset` of a buffer of `length`. The host vouches for what it binds, but a mistake must end in an
/// error.
fn range(length: usize, offset: u64, count: usize) -> Result<Range<usize>> {
    let start = usize::try_from(offset).ok();
    let range = start.and_then(|start| Some(start..start.checked_add(count)?));
    range
        .filter(|range| range.end <= length)
        .ok_or_else(|| BackendError::invalid(format!("{count} bytes from {offset} of a buffer of {length}")))
}

/// Indices of dimensions 1 to 3: they name a row, which is all of dimension 0.
pub type Row = [usize; 3];

/// A tensor and the memory that it lies in.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    pub memory: &'a Memory,
    pub binding: Binding,
    pub tensor: Tensor,
    pub ty: Type,
    /// The dimensions in this step: the tensor's own hold the maximum.
    pub dims: [usize; 4],
}

impl Operand<'_> {
    pub fn rows(&self) -> impl Iterator<Item = Row> + use<> {
        let [_, n1, n2, n3] = self.dims;
        (0..n1 * n2 * n3).map(move |i| [i % n1, i / n1 % n2, i / n1 / n2])
    }

    /// A contiguous tensor as one long row. The stride of a dimension of 1 may be anything, so it is set anew.
    pub fn flat(&self) -> Self {
        let mut flat = *self;
        flat.dims = [self.dims.iter().product(), 1, 1, 1];
        flat.tensor.strides[0] = self.ty.block_bytes() as i64;
        flat
    }

    /// Where a row begins in the buffer that is bound. Tensors are views: only strides tell where things lie.
    fn start(&self, row: Row) -> u64 {
        let along = row.iter().zip(&self.tensor.strides[1..]);
        let along = along.map(|(&i, &stride)| if i > 0 { i as u64 * stride as u64 } else { 0 });
        self.binding.offset + self.tensor.offset + along.sum::<u64>()
    }

    /// The values of a row. Blocks (single values, where the type has none) may lie apart: `copy` takes such views.
    pub fn read(&self, row: Row) -> Result<Vec<f32>> {
        let (length, bytes) = (self.ty.block_values(), self.ty.block_bytes());
        let last = self.dims[0] / length - 1;
        let stride = if last > 0 { self.tensor.strides[0] as usize } else { 0 };
        let mut raw = vec![0; last * stride + bytes];
        self.memory.read(self.binding.buffer, self.start(row), &mut raw)?;
        let mut values = vec![0.0; self.dims[0]];
        for (i, block) in values.chunks_exact_mut(length).enumerate() {
            decode_row(self.ty, &raw[i * stride..][..bytes], block)?;
        }
        Ok(values)
    }

    /// Puts the values of a row in their places; those of an output lie side by side.
    pub fn write(&self, row: Row, values: &[f32]) -> Result<()> {
        let mut raw = vec![0; values.len() * self.ty.block_bytes()];
        encode_row(self.ty, values, &mut raw)?;
        self.memory.write(self.binding.buffer, self.start(row), &raw)
    }
}
