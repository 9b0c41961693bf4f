//! Rows of weights of block types, as they lie on the device.
//!
//! A file has the blocks of a row one after the other, each with its scales, at addresses that no word begins at. On the
//! device a row is two planes, and rows begin `pitch` bytes apart, a multiple of 16:
//!
//! ```text
//! row:  [ codes: blocks × CODES bytes ][ meta: blocks × META bytes ][ zeros up to pitch ]
//! ```
//!
//! `blocks.rs` says what a block's codes and its meta are. Element types lie as in the file, and so do parts of the cache.

mod blocks;
#[cfg(test)]
mod tests;

use backend_api::{
    BackendError, Result,
    graph::{Graph, Role, Tensor},
    types::Type,
};

/// Rows begin at multiples of this.
pub const ALIGNMENT: u64 = 16;

/// Rows of one block type and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    ty: Type,
    blocks: usize,
    file: usize,
    pitch: usize,
}

/// Bytes of codes and of meta that a block has on the device; `None` for types that have no blocks.
const fn sizes(ty: Type) -> Option<(usize, usize)> {
    Some(match ty {
        Type::Q4_0 | Type::IQ4_NL => (16, 2),
        Type::Q4_1 => (16, 4),
        Type::Q5_0 => (20, 2),
        Type::Q5_1 => (20, 4),
        Type::Q8_0 => (32, 2),
        Type::Q2_K => (64, 20),
        Type::Q3_K => (96, 16),
        Type::Q4_K => (128, 16),
        Type::Q5_K => (160, 16),
        Type::Q6_K => (192, 20),
        Type::IQ4_XS => (128, 8),
        Type::MXFP4 => (16, 1),
        Type::F32 | Type::F16 | Type::BF16 | Type::I32 => return None,
    })
}

impl Rows {
    /// Rows of `values` values; nothing for element types.
    ///
    /// # Errors
    /// `Invalid` where the block does not divide the row, or its size overflows.
    pub fn new(ty: Type, values: u32) -> Result<Option<Rows>> {
        let Some((codes, meta)) = sizes(ty) else {
            return Ok(None);
        };
        let sizes = || {
            let file = usize::try_from(ty.row_bytes(values.into())?).ok()?;
            let blocks = values as usize / ty.block_values();
            let pitch = blocks.checked_mul(codes + meta)?;
            Some(Rows {
                ty,
                blocks,
                file,
                // the kernels' places within a row have 32 bits
                pitch: pitch
                    .checked_next_multiple_of(ALIGNMENT as usize)
                    .filter(|pitch| u32::try_from(*pitch).is_ok())?,
            })
        };
        let wrong = || {
            BackendError::invalid(format!(
                "{values} values are no row of {ty}: blocks have {}, and a row less than 4 GiB",
                ty.block_values()
            ))
        };
        sizes().ok_or_else(wrong).map(Some)
    }

    /// Rows of a weight; nothing where it is of an element type.
    ///
    /// # Errors
    /// As [`Rows::new`], and `Invalid` for unknown types.
    pub fn of(weight: &Tensor) -> Result<Option<Rows>> {
        let unknown = || BackendError::invalid(format!("a weight of type {}, which is not known", weight.ty));
        Rows::new(weight.kind().ok_or_else(unknown)?, weight.dims[0])
    }

    /// Bytes of a row in the file.
    pub fn file(&self) -> usize {
        self.file
    }

    /// Bytes from one row to the next on the device.
    pub fn pitch(&self) -> usize {
        self.pitch
    }

    /// Bytes on the device of so many bytes of the file, from the start of a row; `None` where they are no whole rows, or
    /// too many.
    pub fn on_device(&self, bytes: u64) -> Option<u64> {
        let row = self.file as u64;
        let rows = bytes.is_multiple_of(row).then(|| bytes.checked_div(row).unwrap_or(0))?;
        rows.checked_mul(self.pitch as u64)
    }

    /// As [`Rows::on_device`]; `what` is said to be no whole rows.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn whole(&self, what: &str, bytes: u64) -> Result<u64> {
        self.on_device(bytes).ok_or_else(|| {
            BackendError::invalid(format!(
                "{what} {bytes} bytes are no whole rows: a row of {} takes {}",
                self.ty, self.file
            ))
        })
    }

    /// Arranges whole rows: bytes as in the file to bytes as on the device, of which none is left as it was.
    ///
    /// # Errors
    /// `Invalid` where `file` is no whole rows, or `device` has not just as many.
    pub fn arrange(&self, file: &[u8], device: &mut [u8]) -> Result<()> {
        let bytes = self.whole("data of", file.len() as u64)?;
        if bytes != device.len() as u64 {
            let (given, there) = (file.len(), device.len());
            let message = format!("{given} bytes of rows of {} take {bytes} bytes, not {there}", self.ty);
            return Err(BackendError::invalid(message));
        }
        let (from, to) = (file, device);
        match self.ty {
            Type::Q4_0 => self.each(from, to, blocks::as_in_the_file::<18, 16, 2>),
            Type::Q4_1 => self.each(from, to, blocks::as_in_the_file::<20, 16, 4>),
            Type::Q5_0 => self.each(from, to, blocks::q5::<22, 2>),
            Type::Q5_1 => self.each(from, to, blocks::q5::<24, 4>),
            Type::Q4_K => self.each(from, to, blocks::q4_k),
            Type::MXFP4 => self.each(from, to, blocks::mxfp4),
            Type::Q8_0 => self.each(from, to, blocks::q8_0),
            Type::IQ4_NL => self.each(from, to, blocks::iq4_nl),
            Type::IQ4_XS => self.each(from, to, blocks::iq4_xs),
            Type::Q2_K => self.each(from, to, blocks::q2_k),
            Type::Q3_K => self.each(from, to, blocks::q3_k),
            Type::Q5_K => self.each(from, to, blocks::q5_k),
            Type::Q6_K => self.each(from, to, blocks::q6_k),
            Type::F32 | Type::F16 | Type::BF16 | Type::I32 => to.copy_from_slice(from),
        }
        Ok(())
    }

    fn each<const B: usize, const C: usize, const M: usize>(
        &self,
        file: &[u8],
        device: &mut [u8],
        block: impl Fn(&[u8; B], &mut [u8; C], &mut [u8; M]),
    ) {
        const { assert!(B > 0 && C > 0 && M > 0) };
        if self.blocks == 0 {
            return;
        }
        for (from, to) in file.chunks_exact(self.file).zip(device.chunks_exact_mut(self.pitch)) {
            let (codes, rest) = to.split_at_mut(self.blocks * C);
            let (meta, zeros) = rest.split_at_mut(self.blocks * M);
            let planes = codes.as_chunks_mut().0.iter_mut().zip(meta.as_chunks_mut().0);
            for (from, (codes, meta)) in from.as_chunks().0.iter().zip(planes) {
                block(from, codes, meta);
            }
            zeros.fill(0);
        }
    }

    fn place(&self, tensor: &Tensor) -> Result<Placed> {
        let whole = |what: &str, bytes: u64| {
            self.on_device(bytes).ok_or_else(|| {
                BackendError::unsupported(format!(
                    "a view of a weight of {} with {what} of {bytes} bytes, where rows take {}",
                    self.ty, self.file
                ))
            })
        };
        let wrong = || BackendError::invalid("a weight of unknown size");
        let mut placed = *tensor;
        placed.offset = whole("an offset", tensor.offset)?;
        for i in (1..4).filter(|&i| tensor.dims[i] > 1) {
            let stride = u64::try_from(tensor.strides[i]).map_err(|_| wrong())?;
            placed.strides[i] = i64::try_from(whole("a stride", stride)?).map_err(|_| wrong())?;
        }
        let bytes = whole("an extent", tensor.extent().ok_or_else(wrong)?)?;
        let end = placed.offset.checked_add(bytes).ok_or_else(wrong)?;
        Ok(Placed { tensor: placed, end })
    }
}

/// A tensor as it lies on the device, and where in its buffer it ends there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// With the offset and the strides of dimensions 1 to 3 in bytes of the device.
    pub tensor: Tensor,
    /// The offset of the end.
    pub end: u64,
}

/// A tensor of a graph where it is a weight of a block type, else nothing.
///
/// # Errors
/// `Unsupported` where it does not begin with a row, where its strides are no whole rows, or where it is a constant, which
/// nobody arranges; `Invalid` where the sizes overflow.
pub fn placed(graph: &Graph<'_>, tensor: &Tensor) -> Result<Option<Placed>> {
    let role = graph
        .buffers
        .get(tensor.buffer as usize)
        .and_then(|buffer| Role::from_id(buffer.role));
    let rows = match role {
        Some(Role::Weight | Role::Constant) => Rows::of(tensor)?,
        _ => None,
    };
    match rows {
        Some(_) if role == Some(Role::Constant) => Err(BackendError::unsupported("a constant of a block type")),
        Some(rows) => rows.place(tensor).map(Some),
        None => Ok(None),
    }
}
