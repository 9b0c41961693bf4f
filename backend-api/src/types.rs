//! The element and block types of tensors, by GGUF's numbers.

/// A tensor's element type or block format. The numbers are GGUF's; they are open, so a graph carries the
/// number itself (`u32`) and [`Type::from_id`] says whether this version knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
#[allow(non_camel_case_types, missing_docs)] // the names are the format's own
pub enum Type {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    IQ4_NL = 20,
    IQ4_XS = 23,
    I32 = 26,
    BF16 = 30,
    MXFP4 = 39,
}

impl Type {
    /// Every type that a graph may contain.
    pub const ALL: [Type; 17] = [
        Type::F32,
        Type::F16,
        Type::BF16,
        Type::Q4_0,
        Type::Q4_1,
        Type::Q5_0,
        Type::Q5_1,
        Type::Q8_0,
        Type::Q2_K,
        Type::Q3_K,
        Type::Q4_K,
        Type::Q5_K,
        Type::Q6_K,
        Type::IQ4_NL,
        Type::IQ4_XS,
        Type::MXFP4,
        Type::I32,
    ];

    /// The types that a weight matrix may have: all but I32.
    pub const WEIGHTS: &'static [Type] = Self::ALL.split_at(16).0;

    /// The types of a cache pool.
    pub const CACHE: [Type; 4] = [Type::F32, Type::F16, Type::Q8_0, Type::Q4_0];

    /// The type with GGUF's number `id`, if a graph may contain it.
    pub fn from_id(id: u32) -> Option<Type> {
        Type::ALL.into_iter().find(|t| t.id() == id)
    }

    /// GGUF's number of this type.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The name as in GGUF: `Q4_K`.
    pub fn name(self) -> &'static str {
        match self {
            Type::F32 => "F32",
            Type::F16 => "F16",
            Type::BF16 => "BF16",
            Type::Q4_0 => "Q4_0",
            Type::Q4_1 => "Q4_1",
            Type::Q5_0 => "Q5_0",
            Type::Q5_1 => "Q5_1",
            Type::Q8_0 => "Q8_0",
            Type::Q2_K => "Q2_K",
            Type::Q3_K => "Q3_K",
            Type::Q4_K => "Q4_K",
            Type::Q5_K => "Q5_K",
            Type::Q6_K => "Q6_K",
            Type::IQ4_NL => "IQ4_NL",
            Type::IQ4_XS => "IQ4_XS",
            Type::MXFP4 => "MXFP4",
            Type::I32 => "I32",
        }
    }

    /// Values in one block: 1 for plain element types.
    pub const fn block_values(self) -> usize {
        match self {
            Type::F32 | Type::F16 | Type::BF16 | Type::I32 => 1,
            Type::Q4_0 | Type::Q4_1 | Type::Q5_0 | Type::Q5_1 | Type::Q8_0 | Type::IQ4_NL | Type::MXFP4 => 32,
            Type::Q2_K | Type::Q3_K | Type::Q4_K | Type::Q5_K | Type::Q6_K | Type::IQ4_XS => 256,
        }
    }

    /// Bytes of one block (or element).
    pub const fn block_bytes(self) -> usize {
        match self {
            Type::F32 | Type::I32 => 4,
            Type::F16 | Type::BF16 => 2,
            Type::MXFP4 => 17,
            Type::Q4_0 | Type::IQ4_NL => 18,
            Type::Q4_1 => 20,
            Type::Q5_0 => 22,
            Type::Q5_1 => 24,
            Type::Q8_0 => 34,
            Type::Q2_K => 84,
            Type::Q3_K => 110,
            Type::IQ4_XS => 136,
            Type::Q4_K => 144,
            Type::Q5_K => 176,
            Type::Q6_K => 210,
        }
    }

    /// Whether values come in blocks with shared scales.
    pub const fn is_quantized(self) -> bool {
        self.block_values() > 1
    }

    /// Bytes of a row of `values` values; `None` where the block does not divide it or the size overflows.
    pub fn row_bytes(self, values: u64) -> Option<u64> {
        let block = self.block_values() as u64;
        values
            .is_multiple_of(block)
            .then(|| (values / block).checked_mul(self.block_bytes() as u64))?
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
