//! Tensor records and the types that they may have.

use backend_api::types::Type;

/// A tensor's type in a file: what a graph may contain, and what only files have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the format's own
pub enum TensorType {
    /// A type of graphs, with the same number.
    Known(Type),
    /// Id 4 in older Ollama files: MXFP4 with byte j of a block holding values 2j (low nibble) and 2j + 1 (high).
    Mxfp4Old,
    I8,
    I16,
    I64,
    F64,
}

impl TensorType {
    /// The type with GGUF's number `id`; where it is not served, why.
    pub fn from_id(id: u32) -> Result<TensorType, TypeFault> {
        match id {
            4 => Ok(TensorType::Mxfp4Old),
            24 => Ok(TensorType::I8),
            25 => Ok(TensorType::I16),
            27 => Ok(TensorType::I64),
            28 => Ok(TensorType::F64),
            _ => Type::from_id(id)
                .map(TensorType::Known)
                .ok_or_else(|| TypeFault::of(id)),
        }
    }

    /// GGUF's number.
    pub const fn id(self) -> u32 {
        match self {
            TensorType::Known(kind) => kind.id(),
            TensorType::Mxfp4Old => 4,
            TensorType::I8 => 24,
            TensorType::I16 => 25,
            TensorType::I64 => 27,
            TensorType::F64 => 28,
        }
    }

    /// The name as in GGUF.
    pub fn name(self) -> &'static str {
        match self {
            TensorType::Known(kind) => kind.name(),
            TensorType::Mxfp4Old => "MXFP4 (older order)",
            TensorType::I8 => "I8",
            TensorType::I16 => "I16",
            TensorType::I64 => "I64",
            TensorType::F64 => "F64",
        }
    }

    /// Values in one block: 1 for plain element types.
    pub const fn block_values(self) -> usize {
        match self {
            TensorType::Known(kind) => kind.block_values(),
            TensorType::Mxfp4Old => Type::MXFP4.block_values(),
            _ => 1,
        }
    }

    /// Bytes of one block (or element).
    pub const fn block_bytes(self) -> usize {
        match self {
            TensorType::Known(kind) => kind.block_bytes(),
            TensorType::Mxfp4Old => Type::MXFP4.block_bytes(),
            TensorType::I8 => 1,
            TensorType::I16 => 2,
            TensorType::I64 | TensorType::F64 => 8,
        }
    }

    /// Bytes of a tensor `[dims[0], …]` (fastest first); `None` where blocks do not divide a row or the size overflows.
    pub fn bytes(self, dims: [u64; 4]) -> Option<u64> {
        let block = self.block_values() as u64;
        let row = dims[0]
            .is_multiple_of(block)
            .then(|| (dims[0] / block).checked_mul(self.block_bytes() as u64))??;
        dims[1..].iter().try_fold(row, |bytes, &size| bytes.checked_mul(size))
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl From<Type> for TensorType {
    fn from(kind: Type) -> Self {
        TensorType::Known(kind)
    }
}

/// Why a tensor type is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // each variant's text says what it is
pub enum TypeFault {
    #[error("type {0} is not served yet")]
    NotServed(&'static str),
    #[error("type {0} was retired from GGUF")]
    Retired(&'static str),
    #[error("type {0} is for activations and has no place in a file")]
    Activations(&'static str),
    #[error("type id {0} is unknown")]
    Unknown(u32),
}

impl TypeFault {
    fn of(id: u32) -> TypeFault {
        match id {
            5 => TypeFault::Retired("Q4_3"),
            9 => TypeFault::Activations("Q8_1"),
            15 => TypeFault::Activations("Q8_K"),
            16 => TypeFault::NotServed("IQ2_XXS"),
            17 => TypeFault::NotServed("IQ2_XS"),
            18 => TypeFault::NotServed("IQ3_XXS"),
            19 => TypeFault::NotServed("IQ1_S"),
            21 => TypeFault::NotServed("IQ3_S"),
            22 => TypeFault::NotServed("IQ2_S"),
            29 => TypeFault::NotServed("IQ1_M"),
            31 => TypeFault::Retired("Q4_0_4_4"),
            32 => TypeFault::Retired("Q4_0_4_8"),
            33 => TypeFault::Retired("Q4_0_8_8"),
            34 => TypeFault::NotServed("TQ1_0"),
            35 => TypeFault::NotServed("TQ2_0"),
            36 => TypeFault::Retired("IQ4_NL_4_4"),
            37 => TypeFault::Retired("IQ4_NL_4_8"),
            38 => TypeFault::Retired("IQ4_NL_8_8"),
            40 => TypeFault::NotServed("NVFP4"),
            _ => TypeFault::Unknown(id),
        }
    }

    pub(super) fn hint(self) -> Option<&'static str> {
        match self {
            TypeFault::NotServed(_) => {
                Some("get the model in another quantization: Q4_K_M, IQ4_XS or Q8_0, for example")
            }
            TypeFault::Retired(_) => Some("get the model in Q4_0, or convert it again with a current converter"),
            TypeFault::Activations(_) | TypeFault::Unknown(_) => None,
        }
    }
}

/// Where a tensor stands and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name, such as `blk.0.attn_q.weight`: unique in the model, under 64 bytes.
    pub name: String,
    /// Sizes, fastest first; 1 beyond the rank. Their product fits i64.
    pub dims: [u64; 4],
    /// How many sizes the file gives, 0 to 4.
    pub rank: u32,
    /// Element type or block format.
    pub kind: TensorType,
    /// Which of [`files`](super::Gguf::files) holds the data.
    pub file: usize,
    /// Where the data start in that file, in bytes: a multiple of the file's alignment.
    pub offset: u64,
    /// Length of the data; `offset + bytes` lies within the file.
    pub bytes: u64,
}

impl TensorInfo {
    /// The sizes that the file gives, fastest first.
    pub fn shape(&self) -> &[u64] {
        &self.dims[..self.rank as usize]
    }

    /// How many values there are.
    pub fn values(&self) -> u64 {
        self.dims.iter().product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_that_is_read_keeps_its_number() {
        let read: Vec<u32> = (0..1000)
            .filter(|&id| TensorType::from_id(id).is_ok_and(|t| t.id() == id))
            .collect();
        let expected = [
            0, 1, 2, 3, 4, 6, 7, 8, 10, 11, 12, 13, 14, 20, 23, 24, 25, 26, 27, 28, 30, 39,
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn sizes_follow_the_blocks() {
        let q4_k = TensorType::Known(Type::Q4_K);
        assert_eq!(q4_k.bytes([512, 3, 1, 2]), Some(2 * 144 * 3 * 2));
        assert_eq!(q4_k.bytes([128, 1, 1, 1]), None);
        assert_eq!(TensorType::Mxfp4Old.bytes([64, 1, 1, 1]), Some(34));
        assert_eq!(TensorType::F64.bytes([u64::MAX / 4, 1, 1, 1]), None);
    }
}
