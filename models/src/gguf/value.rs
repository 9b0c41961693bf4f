//! Metadata values: thirteen types, numbered as in the file.

use super::error::{Fault, GgufError};
use super::reader::Reader;
use super::strings::Strings;

/// The type of a value or of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)] // the names are the format's own
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    const ALL: [(ValueType, &str); 13] = [
        (ValueType::U8, "u8"),
        (ValueType::I8, "i8"),
        (ValueType::U16, "u16"),
        (ValueType::I16, "i16"),
        (ValueType::U32, "u32"),
        (ValueType::I32, "i32"),
        (ValueType::F32, "f32"),
        (ValueType::Bool, "bool"),
        (ValueType::String, "string"),
        (ValueType::Array, "array"),
        (ValueType::U64, "u64"),
        (ValueType::I64, "i64"),
        (ValueType::F64, "f64"),
    ];

    /// The name: `u32`, `string`.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Self, GgufError> {
        let offset = reader.offset();
        let id: u32 = reader.number()?;
        let known = Self::ALL.get(id as usize);
        known
            .map(|known| known.0)
            .ok_or_else(|| reader.error(offset, Fault::ValueType(id)))
    }
}

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the names are the format's own
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array of values of one type; arrays do not nest.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the names are the format's own
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Strings),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl Value {
    /// The value's type.
    pub fn kind(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// The value of any of the integer types.
    pub fn integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(v) => v.into(),
            Value::I8(v) => v.into(),
            Value::U16(v) => v.into(),
            Value::I16(v) => v.into(),
            Value::U32(v) => v.into(),
            Value::I32(v) => v.into(),
            Value::U64(v) => v.into(),
            Value::I64(v) => v.into(),
            _ => return None,
        })
    }

    /// What it is, in the words of a message: `u32 7`, `a string`, `an array of 12 f32`.
    pub(super) fn describe(&self) -> String {
        match self {
            Value::String(_) => "a string".into(),
            Value::Array(array) => format!("an array of {} {}", array.len(), array.kind().name()),
            Value::Bool(v) => format!("bool {v}"),
            Value::F32(v) => format!("f32 {v}"),
            Value::F64(v) => format!("f64 {v}"),
            other => format!("{} {}", other.kind().name(), other.integer().unwrap_or_default()),
        }
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Value, GgufError> {
        Ok(match ValueType::read(reader)? {
            ValueType::U8 => Value::U8(reader.number()?),
            ValueType::I8 => Value::I8(reader.number()?),
            ValueType::U16 => Value::U16(reader.number()?),
            ValueType::I16 => Value::I16(reader.number()?),
            ValueType::U32 => Value::U32(reader.number()?),
            ValueType::I32 => Value::I32(reader.number()?),
            ValueType::F32 => Value::F32(reader.number()?),
            ValueType::Bool => Value::Bool(reader.bool()?),
            ValueType::String => Value::String(reader.string()?),
            ValueType::Array => Value::Array(Array::read(reader)?),
            ValueType::U64 => Value::U64(reader.number()?),
            ValueType::I64 => Value::I64(reader.number()?),
            ValueType::F64 => Value::F64(reader.number()?),
        })
    }
}

impl Array {
    /// The elements' type.
    pub fn kind(&self) -> ValueType {
        match self {
            Array::U8(_) => ValueType::U8,
            Array::I8(_) => ValueType::I8,
            Array::U16(_) => ValueType::U16,
            Array::I16(_) => ValueType::I16,
            Array::U32(_) => ValueType::U32,
            Array::I32(_) => ValueType::I32,
            Array::F32(_) => ValueType::F32,
            Array::Bool(_) => ValueType::Bool,
            Array::String(_) => ValueType::String,
            Array::U64(_) => ValueType::U64,
            Array::I64(_) => ValueType::I64,
            Array::F64(_) => ValueType::F64,
        }
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(v) => v.len(),
            Array::I8(v) => v.len(),
            Array::U16(v) => v.len(),
            Array::I16(v) => v.len(),
            Array::U32(v) => v.len(),
            Array::I32(v) => v.len(),
            Array::F32(v) => v.len(),
            Array::Bool(v) => v.len(),
            Array::String(v) => v.len(),
            Array::U64(v) => v.len(),
            Array::I64(v) => v.len(),
            Array::F64(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as another integer type; `None` where they are no integers or one does not fit.
    pub fn integers<T: TryFrom<i128>>(&self) -> Option<Vec<T>> {
        fn fit<S: Copy + Into<i128>, T: TryFrom<i128>>(values: &[S]) -> Option<Vec<T>> {
            values.iter().map(|&v| T::try_from(v.into()).ok()).collect()
        }
        match self {
            Array::U8(v) => fit(v),
            Array::I8(v) => fit(v),
            Array::U16(v) => fit(v),
            Array::I16(v) => fit(v),
            Array::U32(v) => fit(v),
            Array::I32(v) => fit(v),
            Array::U64(v) => fit(v),
            Array::I64(v) => fit(v),
            _ => None,
        }
    }

    fn read(reader: &mut Reader) -> Result<Array, GgufError> {
        let offset = reader.offset();
        let kind = ValueType::read(reader)?;
        let count = reader.number()?;
        Ok(match kind {
            ValueType::U8 => Array::U8(reader.numbers(count)?),
            ValueType::I8 => Array::I8(reader.numbers(count)?),
            ValueType::U16 => Array::U16(reader.numbers(count)?),
            ValueType::I16 => Array::I16(reader.numbers(count)?),
            ValueType::U32 => Array::U32(reader.numbers(count)?),
            ValueType::I32 => Array::I32(reader.numbers(count)?),
            ValueType::F32 => Array::F32(reader.numbers(count)?),
            ValueType::Bool => Array::Bool(read_bools(reader, count)?),
            ValueType::String => Array::String(Strings::read(reader, count)?),
            ValueType::Array => return Err(reader.error(offset, Fault::NestedArray)),
            ValueType::U64 => Array::U64(reader.numbers(count)?),
            ValueType::I64 => Array::I64(reader.numbers(count)?),
            ValueType::F64 => Array::F64(reader.numbers(count)?),
        })
    }
}

fn read_bools(reader: &mut Reader, count: u64) -> Result<Vec<bool>, GgufError> {
    reader.check_left(reader.offset(), "the array", count, 1)?;
    (0..count).map(|_| reader.bool()).collect()
}

macro_rules! from {
    ($($variant:ident $type:ty),* $(,)?) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Value::$variant(value)
            }
        }

        impl From<Vec<$type>> for Value {
            fn from(values: Vec<$type>) -> Self {
                Value::Array(Array::$variant(values.into_iter().collect()))
            }
        }
    )*};
}

from!(U8 u8, I8 i8, U16 u16, I16 i16, U32 u32, I32 i32, F32 f32, Bool bool, String String, U64 u64, I64 i64, F64 f64);

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::String(value.to_owned())
    }
}

impl From<Strings> for Value {
    fn from(strings: Strings) -> Self {
        Value::Array(Array::String(strings))
    }
}
