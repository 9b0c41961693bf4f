//! What can be wrong with a GGUF file, and how it is told.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::tensor::TypeFault;

/// Why a GGUF file was refused: the file, the byte at which the fault was seen, the key or tensor, and the fault.
///
/// Its text is meant for a terminal; where something helps, a second line gives a hint.
#[derive(Debug, thiserror::Error)]
pub struct GgufError {
    file: Arc<str>,
    offset: Option<u64>,
    context: Option<Box<str>>,
    hint: Option<Box<str>>,
    fault: Fault,
}

impl GgufError {
    pub(super) fn new(file: &Arc<str>, fault: Fault) -> Self {
        GgufError {
            file: file.clone(),
            offset: None,
            context: None,
            hint: None,
            fault,
        }
    }

    pub(super) fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    pub(super) fn within(mut self, context: impl FnOnce() -> String) -> Self {
        self.context = Some(context().into());
        self
    }

    pub(super) fn key(self, key: &str) -> Self {
        self.within(|| format!("key {}", quoted(key)))
    }

    pub(super) fn tensor(self, name: &str) -> Self {
        self.within(|| format!("tensor {}", quoted(name)))
    }

    /// The path of the file, or the name that its bytes were given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Where in the file the fault was seen, in bytes; `None` for what has no place (a key that is missing).
    pub fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// What is wrong.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// Adds what helps to understand the fault.
    pub(super) fn hinted(mut self, hint: Option<String>) -> Self {
        self.hint = hint.map(Into::into);
        self
    }

    /// What the user can do about it, or what helps to understand it.
    pub fn hint(&self) -> Option<String> {
        let own = || self.hint.as_deref().map(str::to_owned);
        self.fault.hint().or_else(own)
    }
}

impl fmt::Display for GgufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        if let Some(offset) = self.offset {
            write!(f, "byte {offset}: ")?;
        }
        if let Some(context) = &self.context {
            write!(f, "{context}: ")?;
        }
        write!(f, "{}", self.fault)?;
        match self.hint() {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// The fault alone, without its place.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each variant's text says what it is
pub enum Fault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not a regular file")]
    NotAFile,
    #[error("not a GGUF file: it begins with \"{}\", not with \"GGUF\"", .0.escape_ascii())]
    Magic([u8; 4]),
    #[error("the version reads {0:#010x}: the file is byte-swapped (big-endian), which is not supported")]
    ByteSwapped(u32),
    #[error("GGUF version {0} is not supported; versions 2 and 3 are")]
    Version(u32),
    #[error("the {what} is negative ({value})")]
    Negative { what: &'static str, value: i64 },
    #[error("{what}: at least {needs} bytes are needed, but only {left} remain in the file")]
    BeyondEnd { what: &'static str, needs: u64, left: u64 },
    #[error("{0} overflows")]
    Overflow(&'static str),
    #[error("it appears twice")]
    Duplicate,
    #[error("value type {0} does not exist")]
    ValueType(u32),
    #[error("an array of arrays, which GGUF does not allow")]
    NestedArray,
    #[error("{0} is not a bool (0 or 1)")]
    Bool(u8),
    #[error("{} is not UTF-8", match .index { Some(i) => format!("string {i} of the array"), None => "the string".into() })]
    NotUtf8 { index: Option<usize> },
    #[error("an alignment of {0} is not a power of two")]
    Alignment(u64),
    #[error("the name has {0} bytes; tensor names have fewer than 64")]
    LongName(u64),
    #[error("{0} dimensions; tensors have at most 4")]
    Rank(u32),
    #[error(transparent)]
    TensorType(#[from] TypeFault),
    #[error("rows of {values} values, which is not a multiple of the {block} values of a {kind} block")]
    PartialBlock {
        values: u64,
        block: u64,
        kind: &'static str,
    },
    #[error("its offset {offset} is not a multiple of the alignment {alignment}")]
    Misaligned { offset: u64, alignment: u64 },
    #[error("its data overlap those of tensor {}", quoted(.other))]
    Overlap { other: String },
    #[error("missing")]
    Missing,
    #[error("{found}, where {expected} is expected")]
    WrongType { expected: &'static str, found: String },
    #[error("part {} of {count} of a split model; loading starts from the first part", .no + 1)]
    OtherPart { no: u32, count: u32, first: Option<String> },
    #[error("{0}")]
    Split(String),
    #[error("the file changed while it was opened: {before} bytes long, then {after}")]
    LengthChanged { before: u64, after: u64 },
}

impl Fault {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Fault::Magic(_) => "this loads GGUF files; safetensors and PyTorch files must be converted first",
            Fault::BeyondEnd { .. } => "the file may be cut short: compare its length with the original's",
            Fault::Version(1) => "convert the model again with a current converter",
            Fault::ByteSwapped(_) => "get the little-endian file, or convert the model again",
            Fault::Split(_) => "all parts of a split model stand in one folder, under the names they were made with",
            Fault::LengthChanged { .. } => "wait until the download or copy has finished",
            Fault::OtherPart { first: Some(first), .. } => return Some(format!("open {first}")),
            Fault::TensorType(fault) => fault.hint()?,
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// `text` in quotes, without control characters, and cut where it is too long for a message.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 100;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}
