//! Reading GGUF files.
//!
//! A file is mapped, its header is parsed and checked as a whole, and tensors' data are slices of the map. What a
//! [`Gguf`] holds is sound: names are unique, sizes and lengths fit, every tensor lies within its file. What the
//! numbers mean is for the readers of the metadata to check.

mod error;
pub mod guard;
mod header;
mod meaning;
mod metadata;
mod reader;
mod source;
mod split;
mod strings;
mod tensor;
mod value;
mod writer;

use std::collections::HashMap;
use std::io;
use std::path::Path;

pub use error::{Fault, GgufError};
pub use metadata::Metadata;
pub use source::GgufFile;
pub use strings::Strings;
pub use tensor::{TensorInfo, TensorType, TypeFault};
pub use value::{Array, Value, ValueType};
pub use writer::{GgufWriter, WriteError};

use header::Header;
use split::Split;

/// A model's files, opened and checked.
#[derive(Debug)]
pub struct Gguf {
    files: Vec<GgufFile>,
    version: u32,
    alignment: u64,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

impl Gguf {
    /// Maps the file at `path`, and the other parts beside it where it is the first of a split model.
    ///
    /// An error names the file, the byte and the fault.
    pub fn open(path: &Path) -> Result<Gguf, GgufError> {
        let (mut gguf, split) = Gguf::read(GgufFile::map(path)?, Some(path))?;
        if let Some(split) = split {
            for number in 1..split.count {
                let part = split.path(path, number, &gguf.metadata)?;
                gguf.add_part(GgufFile::map(&part)?, &split, number)?;
            }
            split.check_tensors(&gguf.metadata, gguf.tensors.len())?;
        }
        Ok(gguf)
    }

    /// Reads a model that is part of the program. For backends to use tensors in place, `bytes` should start at a
    /// multiple of the alignment (32 by default).
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Gguf, GgufError> {
        Gguf::one(GgufFile::from_static(name, bytes))
    }

    /// Reads a model in memory; `name` stands for the path in messages.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Gguf, GgufError> {
        Gguf::one(GgufFile::from_bytes(name, bytes))
    }

    /// The path of the (first) file, or the name that its bytes were given.
    pub fn name(&self) -> String {
        self.files[0].name().to_owned()
    }

    /// The version of the format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Every tensor of the first file starts at a multiple of this many bytes; a power of two.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// The keys and values of the (first) file.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the order of the files.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.index(name).map(|index| &self.tensors[index])
    }

    /// Where the tensor called `name` stands among [`Gguf::tensors`].
    pub fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The files: one, or the parts in order.
    pub fn files(&self) -> &[GgufFile] {
        &self.files
    }

    /// Brings all mapped files into memory. What is there already costs little; it changes nothing but how fast weights are
    /// met for the first time.
    pub fn prefetch(&self) {
        self.files.iter().for_each(GgufFile::prefetch);
    }

    /// Keeps all mapped files in memory until they are closed. An error where the system does not allow it; the files can be
    /// used all the same.
    pub fn lock(&self) -> io::Result<()> {
        self.files.iter().try_for_each(GgufFile::lock)
    }

    /// The data of one of this model's tensors, `tensor.bytes` long, as the file has them.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        if tensor.bytes == 0 {
            return &[];
        }
        &self.files[tensor.file].bytes()[tensor.offset as usize..][..tensor.bytes as usize]
    }

    /// Gives the pages of memory back that hold the data of one of this model's tensors, where they are a map of a file. They
    /// are read again when they are needed.
    pub fn release(&self, tensor: &TensorInfo) {
        self.files[tensor.file].release(tensor.offset..tensor.offset + tensor.bytes);
    }

    fn one(file: GgufFile) -> Result<Gguf, GgufError> {
        match Gguf::read(file, None)? {
            (gguf, None) => Ok(gguf),
            (gguf, Some(split)) => {
                let message = format!("the first of {} parts, which cannot be found from memory", split.count);
                Err(gguf.metadata.error(split::COUNT, Fault::Split(message)))
            }
        }
    }

    /// Reads a file and what it says of other parts, whose first it must be.
    fn read(file: GgufFile, path: Option<&Path>) -> Result<(Gguf, Option<Split>), GgufError> {
        let Header {
            version,
            alignment,
            metadata,
            tensors,
        } = parse(&file, 0)?;
        let split = Split::of(&metadata)?;
        if let Some(split) = &split {
            split.check_first(&metadata, path)?;
        }
        let by_name = tensors
            .iter()
            .enumerate()
            .map(|(index, tensor)| (tensor.name.clone(), index))
            .collect();
        Ok((
            Gguf {
                files: vec![file],
                version,
                alignment,
                metadata,
                tensors,
                by_name,
            },
            split,
        ))
    }

    fn add_part(&mut self, file: GgufFile, split: &Split, number: u32) -> Result<(), GgufError> {
        let header = parse(&file, self.files.len())?;
        split.check_part(&header.metadata, number)?;
        for tensor in header.tensors {
            if self.by_name.insert(tensor.name.clone(), self.tensors.len()).is_some() {
                return Err(GgufError::new(file.shared_name(), Fault::Duplicate).tensor(&tensor.name));
            }
            self.tensors.push(tensor);
        }
        self.files.push(file);
        Ok(())
    }
}

/// Parses the header of the file numbered `number`, which must not change length meanwhile.
fn parse(file: &GgufFile, number: usize) -> Result<Header, GgufError> {
    let header = header::parse(file.shared_name(), file.bytes(), number)?;
    file.check_length()?;
    Ok(header)
}
