//! Checked reading of little-endian numbers and strings.

use std::sync::Arc;

use super::error::{Fault, GgufError};

/// A position in a file's bytes. What it returns was copied out of them, so a mapped file that changes
/// meanwhile cannot undo a check.
pub(super) struct Reader<'a> {
    file: &'a Arc<str>,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(file: &'a Arc<str>, bytes: &'a [u8]) -> Self {
        Reader { file, bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub fn offset(&self) -> u64 {
        self.at as u64
    }

    /// Bytes that remain.
    pub fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// An error at byte `offset`.
    pub fn error(&self, offset: u64, fault: Fault) -> GgufError {
        GgufError::new(self.file, fault).at(offset)
    }

    /// The next `count` bytes.
    pub fn take(&mut self, what: &'static str, count: u64) -> Result<&'a [u8], GgufError> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(count).ok().and_then(|count| rest.get(..count));
        let taken = taken.ok_or_else(|| self.beyond_end(self.offset(), what, count))?;
        self.at += taken.len();
        Ok(taken)
    }

    /// The next number.
    pub fn number<T: Number>(&mut self) -> Result<T, GgufError> {
        T::read(self)
    }

    /// The next `count` numbers.
    pub fn numbers<T: Number>(&mut self, count: u64) -> Result<Vec<T>, GgufError> {
        let size = count.saturating_mul(size_of::<T>() as u64);
        Ok(T::decode(self.take("the array", size)?))
    }

    /// A bool: one byte, 0 or 1.
    pub fn bool(&mut self) -> Result<bool, GgufError> {
        match self.number::<u8>()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.error(self.offset() - 1, Fault::Bool(other))),
        }
    }

    /// A signed count of things that take `least` bytes each or more, so that it bounds what is allocated for them.
    pub fn count(&mut self, what: &'static str, least: u64) -> Result<u64, GgufError> {
        let offset = self.offset();
        let value: i64 = self.number()?;
        let count = u64::try_from(value).map_err(|_| self.error(offset, Fault::Negative { what, value }))?;
        self.check_left(offset, what, count, least)?;
        Ok(count)
    }

    /// An error at `offset` unless `count` things of `least` bytes can still follow.
    pub fn check_left(&self, offset: u64, what: &'static str, count: u64, least: u64) -> Result<(), GgufError> {
        let needs = count.saturating_mul(least);
        if needs > self.left() {
            Err(self.beyond_end(offset, what, needs))
        } else {
            Ok(())
        }
    }

    /// A string: u64 length, bytes.
    pub fn string(&mut self) -> Result<String, GgufError> {
        let length = self.number()?;
        let offset = self.offset();
        let bytes = self.take("the string", length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| self.error(offset, Fault::NotUtf8 { index: None }))
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let chunk = self.bytes[self.at..].first_chunk::<N>();
        let chunk = *chunk.ok_or_else(|| self.beyond_end(self.offset(), "the value", N as u64))?;
        self.at += N;
        Ok(chunk)
    }

    fn beyond_end(&self, offset: u64, what: &'static str, needs: u64) -> GgufError {
        self.error(
            offset,
            Fault::BeyondEnd {
                what,
                needs,
                left: self.left(),
            },
        )
    }
}

/// A number as it stands in the file.
pub(super) trait Number: Sized {
    fn read(reader: &mut Reader) -> Result<Self, GgufError>;
    fn decode(bytes: &[u8]) -> Vec<Self>;
}

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl Number for $type {
            fn read(reader: &mut Reader) -> Result<Self, GgufError> {
                reader.chunk().map(<$type>::from_le_bytes)
            }

            fn decode(bytes: &[u8]) -> Vec<Self> {
                bytes.as_chunks().0.iter().map(|chunk| <$type>::from_le_bytes(*chunk)).collect()
            }
        }
    )*};
}

numbers!(u8 i8 u16 i16 u32 i32 f32 u64 i64 f64);
