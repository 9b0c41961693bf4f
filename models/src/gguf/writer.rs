//! Writing GGUF files: for small models made by programs, and for changed copies of existing ones.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::iter;
use std::path::Path;

use indexmap::IndexMap;

use super::tensor::TensorType;
use super::value::{Array, Value};
use super::{Gguf, split};

/// Collects metadata and tensors, then writes them as one file of version 3, in the order in which they were set.
///
/// Data are padded to `general.alignment`, a key like any other (32 when it is absent).
#[derive(Clone, Debug, Default)]
pub struct GgufWriter<'a> {
    metadata: IndexMap<String, Value>,
    tensors: IndexMap<String, Tensor<'a>>,
}

#[derive(Clone, Debug)]
struct Tensor<'a> {
    dims: Vec<u64>,
    kind: TensorType,
    data: Data<'a>,
}

#[derive(Clone, Debug)]
enum Data<'a> {
    Bytes(Cow<'a, [u8]>),
    /// So many zeros.
    Zeros(u64),
}

impl Data<'_> {
    fn len(&self) -> u64 {
        match self {
            Data::Bytes(bytes) => bytes.len() as u64,
            Data::Zeros(count) => *count,
        }
    }
}

/// Why a tensor cannot be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each variant's text says what it is
pub enum WriteError {
    #[error("tensor {name:?}: names have fewer than 64 bytes")]
    LongName { name: String },
    #[error("tensor {name:?}: {dims:?} of {kind} are {expected:?} bytes, {found} were given")]
    Length {
        name: String,
        dims: Vec<u64>,
        kind: TensorType,
        expected: Option<u64>,
        found: u64,
    },
}

impl<'a> GgufWriter<'a> {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of `gguf` in one file: all metadata but what tells of parts, and all tensors.
    pub fn copy_of(gguf: &'a Gguf) -> Self {
        let about_parts = [split::COUNT, split::NUMBER, split::TENSORS];
        let kept = gguf.metadata().iter().filter(|(key, _)| !about_parts.contains(key));
        let tensors = gguf.tensors().iter().map(|tensor| {
            let data = Data::Bytes(Cow::Borrowed(gguf.data(tensor)));
            (
                tensor.name.clone(),
                Tensor {
                    dims: tensor.shape().to_vec(),
                    kind: tensor.kind,
                    data,
                },
            )
        });
        GgufWriter {
            metadata: kept.map(|(key, value)| (key.to_owned(), value.clone())).collect(),
            tensors: tensors.collect(),
        }
    }

    /// Sets `key`, in its old place if it is there already.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// Removes `key` if it is there.
    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.metadata.shift_remove(key);
        self
    }

    /// Sets the tensor `name`, `dims` fastest first, in its old place if it is there already; an error where the
    /// name is too long, there are more than four sizes, or `data` has another length than they give.
    pub fn tensor(
        &mut self,
        name: &str,
        dims: &[u64],
        kind: impl Into<TensorType>,
        data: impl Into<Cow<'a, [u8]>>,
    ) -> Result<&mut Self, WriteError> {
        self.insert(name, dims, kind.into(), Data::Bytes(data.into()))
    }

    /// As [`GgufWriter::tensor`], with data of zeros: a hole in the file that [`GgufWriter::write`] makes, for who fills it
    /// later or needs the header alone.
    pub fn zeros(&mut self, name: &str, dims: &[u64], kind: impl Into<TensorType>) -> Result<&mut Self, WriteError> {
        let kind = kind.into();
        let length = bytes(dims, kind).unwrap_or_default();
        self.insert(name, dims, kind, Data::Zeros(length))
    }

    fn insert(&mut self, name: &str, dims: &[u64], kind: TensorType, data: Data<'a>) -> Result<&mut Self, WriteError> {
        let (name, dims) = (name.to_owned(), dims.to_vec());
        if name.len() > 63 {
            return Err(WriteError::LongName { name });
        }
        let (expected, found) = (bytes(&dims, kind), data.len());
        if expected != Some(found) {
            return Err(WriteError::Length {
                name,
                dims,
                kind,
                expected,
                found,
            });
        }
        self.tensors.insert(name, Tensor { dims, kind, data });
        Ok(self)
    }

    /// Removes the tensor `name` if it is there.
    pub fn remove_tensor(&mut self, name: &str) -> &mut Self {
        self.tensors.shift_remove(name);
        self
    }

    /// The whole file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let Ok(()) = self.emit(|piece| {
            match piece {
                Data::Bytes(bytes) => file.extend_from_slice(bytes),
                Data::Zeros(count) => file.resize(file.len() + *count as usize, 0),
            }
            Ok::<(), Infallible>(())
        });
        file
    }

    /// Writes the file to `path`.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        self.emit(|piece| match piece {
            Data::Bytes(bytes) => file.write_all(bytes),
            Data::Zeros(count) => file.seek_relative(*count as i64),
        })?;
        let end = file.stream_position()?;
        file.into_inner()?.set_len(end)
    }

    /// Hands the file to `put`, piece by piece.
    fn emit<E>(&self, mut put: impl FnMut(&Data<'_>) -> Result<(), E>) -> Result<(), E> {
        let alignment = self.alignment();
        let header = Data::Bytes(self.header().into());
        let data = self.tensors.values().map(|tensor| &tensor.data);
        for piece in iter::once(&header).chain(data) {
            put(piece)?;
            let rest = piece.len().next_multiple_of(alignment) - piece.len();
            put(&Data::Zeros(rest))?;
        }
        Ok(())
    }

    fn alignment(&self) -> u64 {
        let alignment = self.metadata.get("general.alignment").and_then(Value::integer);
        alignment
            .and_then(|alignment| u64::try_from(alignment).ok())
            .filter(|&alignment| alignment > 0)
            .unwrap_or(32)
    }

    fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        put(&mut out, 3u32.to_le_bytes());
        put(&mut out, self.tensors.len().to_le_bytes());
        put(&mut out, self.metadata.len().to_le_bytes());
        for (key, value) in &self.metadata {
            put_string(&mut out, key);
            put_value(&mut out, value);
        }
        let mut offset = 0u64;
        for (name, tensor) in &self.tensors {
            put_string(&mut out, name);
            put(&mut out, (tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|size| put(&mut out, size.to_le_bytes()));
            put(&mut out, tensor.kind.id().to_le_bytes());
            put(&mut out, offset.to_le_bytes());
            offset = (offset + tensor.data.len()).next_multiple_of(self.alignment());
        }
        out
    }
}

fn bytes(dims: &[u64], kind: TensorType) -> Option<u64> {
    let mut all = [1; 4];
    all.get_mut(..dims.len())?.copy_from_slice(dims);
    kind.bytes(all)
}

fn put<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    out.extend_from_slice(&bytes);
}

fn put_string(out: &mut Vec<u8>, string: &str) {
    put(out, (string.len() as u64).to_le_bytes());
    out.extend_from_slice(string.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    put(out, (value.kind() as u32).to_le_bytes());
    match value {
        Value::U8(v) => put(out, v.to_le_bytes()),
        Value::I8(v) => put(out, v.to_le_bytes()),
        Value::U16(v) => put(out, v.to_le_bytes()),
        Value::I16(v) => put(out, v.to_le_bytes()),
        Value::U32(v) => put(out, v.to_le_bytes()),
        Value::I32(v) => put(out, v.to_le_bytes()),
        Value::F32(v) => put(out, v.to_le_bytes()),
        Value::Bool(v) => put(out, [u8::from(*v)]),
        Value::String(v) => put_string(out, v),
        Value::Array(v) => put_array(out, v),
        Value::U64(v) => put(out, v.to_le_bytes()),
        Value::I64(v) => put(out, v.to_le_bytes()),
        Value::F64(v) => put(out, v.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    put(out, (array.kind() as u32).to_le_bytes());
    put(out, (array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => v.iter().for_each(|v| put(out, v.to_le_bytes())),
        Array::I8(v) => v.iter().for_each(|v| put(out, v.to_le_bytes())),
        Array::U16(v) => v.iter().for_each(|v| put(out, v.to_le_bytes())),
        Array::I16(v) => v.iter().for_each(|v| put(out, v.to_le_bytes())),
        Array::U32(v) => v.iter().for_each(|v| put(out, v.to_le_bytes())),
        Array::I32(v) => v.iter().for_each(|v| put(out, v.to_le_bytes())),
        Array::F32(v) => v.iter().for_each(|v| put(out, v.to_le_bytes())),
        Array::Bool(v) => v.iter().for_each(|v| put(out, [u8::from(*v)])),
        Array::String(v) => v.iter().for_each(|v| put_string(out, v)),
        Array::U64(v) => v.iter().for_each(|v| put(out, v.to_le_bytes())),
        Array::I64(v) => v.iter().for_each(|v| put(out, v.to_le_bytes())),
        Array::F64(v) => v.iter().for_each(|v| put(out, v.to_le_bytes())),
    }
}
