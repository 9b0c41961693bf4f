//! Writing GGUF files: for small models made by programs, and for changed copies of existing ones.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, BufWriter, Write};
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
    data: Cow<'a, [u8]>,
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
        found: usize,
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
            let data = Cow::Borrowed(gguf.data(tensor));
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
        let (kind, data, dims) = (kind.into(), data.into(), dims.to_vec());
        let name = name.to_owned();
        if name.len() > 63 {
            return Err(WriteError::LongName { name });
        }
        let expected = bytes(&dims, kind);
        if expected != Some(data.len() as u64) {
            return Err(WriteError::Length {
                name,
                dims,
                kind,
                expected,
                found: data.len(),
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
        let Ok(()) = self.emit(|bytes| {
            file.extend_from_slice(bytes);
            Ok::<(), Infallible>(())
        });
        file
    }

    /// Writes the file to `path`.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        self.emit(|bytes| file.write_all(bytes))?;
        file.flush()
    }

    /// Hands the file to `put`, piece by piece.
    fn emit<E>(&self, mut put: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let alignment = self.alignment();
        let header = self.header();
        let data = self.tensors.values().map(|tensor| tensor.data.as_ref());
        for piece in iter::once(header.as_slice()).chain(data) {
            put(piece)?;
            put(&vec![0; piece.len().next_multiple_of(alignment) - piece.len()])?;
        }
        Ok(())
    }

    fn alignment(&self) -> usize {
        let alignment = self.metadata.get("general.alignment").and_then(Value::integer);
        alignment
            .and_then(|alignment| usize::try_from(alignment).ok())
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
        let mut offset = 0;
        for (name, tensor) in &self.tensors {
            put_string(&mut out, name);
            put(&mut out, (tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|size| put(&mut out, size.to_le_bytes()));
            put(&mut out, tensor.kind.id().to_le_bytes());
            put(&mut out, (offset as u64).to_le_bytes());
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
