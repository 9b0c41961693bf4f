//! The tables of operations: shapes, aliasing and parameter words of each.

use crate::{
    operations::{Gate, Operation, PickMode, Precision, RopeLayout, UnaryKind, Window},
    types::Type,
};

/// What a tensor is to an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// f32, dimension 0 dense.
    Values,
    /// f32, any stride.
    Strided,
    /// i32, dimension 0 dense.
    Ids,
    /// A weight of any type, in whole rows.
    Weight,
    /// A weight of any type, in whole rows, or f32 of any stride.
    Table,
    /// A part of the cache.
    Pool,
    /// f32, f16, bf16 or i32, any stride.
    Source,
    /// f32, f16, bf16 or i32, dimension 0 dense.
    Converted,
}

use Kind::{Converted, Ids, Pool, Source, Strided, Table, Values, Weight};

impl Kind {
    pub(super) fn types(self) -> &'static [Type] {
        match self {
            Values | Strided => &[Type::F32],
            Ids => &[Type::I32],
            Weight | Table => Type::WEIGHTS,
            Pool => &Type::CACHE,
            Source | Converted => &[Type::F32, Type::F16, Type::BF16, Type::I32],
        }
    }
}

/// For each input, then for the output: its kind and a letter for each dimension. One letter is one size throughout a
/// node; `?` lets the dimension be 1 instead, `*` stands for any size, and dimensions that have no letter are 1. Only
/// those of [`SYMBOLIC`] may be symbolic.
pub(super) fn shapes(operation: Operation) -> &'static [(Kind, &'static str)] {
    match operation {
        Operation::Rows => &[(Table, "d N"), (Ids, "a b c"), (Values, "d a b c")],
        Operation::Product => &[(Values, "K T"), (Weight, "K M"), (Values, "M T")],
        Operation::ExpertProduct => &[(Values, "K k? T"), (Weight, "K M n"), (Ids, "k T"), (Values, "M k T")],
        Operation::RmsNorm => &[(Values, "d a b c"), (Values, "d"), (Values, "d a b c")],
        Operation::Rope => &[(Values, "D h T"), (Ids, "T"), (Values, "f"), (Values, "D h T")],
        Operation::CacheStore => &[(Values, "D h T"), (Ids, "T"), (Pool, "D P h g")],
        Operation::Attention => &[
            (Values, "D H T"),
            (Pool, "D P h g"),
            (Pool, "V P h g"),
            (Ids, "T"),
            (Ids, "s"),
            (Ids, "B S"),
            (Values, "H"),
            (Values, "V H T"),
        ],
        Operation::Add | Operation::Mul => &[(Values, "d a b c"), (Strided, "d a? b? c?"), (Values, "d a b c")],
        Operation::Unary => &[(Values, "a b c e"), (Values, "a b c e")],
        Operation::Gated => &[(Values, "d a b c"), (Values, "d a b c"), (Values, "d a b c")],
        Operation::TopK => &[(Values, "n T"), (Ids, "k T")],
        Operation::Pick => &[(Values, "n T"), (Ids, "k T"), (Values, "k T")],
        Operation::Combine => &[
            (Values, "d I T"),
            (Values, "I J T"),
            (Values, "d J T"),
            (Values, "d J T"),
        ],
        Operation::RmsMatch => &[(Values, "d m T"), (Values, "d 1 T"), (Values, "d m T")],
        Operation::Sparsify => &[(Values, "d T"), (Values, "d T")],
        Operation::Copy => &[(Source, "a b c e"), (Converted, "a b c e")],
        Operation::ProductAdd => &[
            (Values, "K T"),
            (Weight, "K M"),
            (Strided, "M"),
            (Values, "M T"),
            (Values, "M T"),
        ],
        Operation::Products => &[
            (Values, "K T"),
            (Weight, "K M"),
            (Strided, "M"),
            (Weight, "K O"),
            (Strided, "O"),
            (Weight, "K Q"),
            (Strided, "Q"),
            (Weight, "K U"),
            (Strided, "U"),
            (Values, "* T"),
        ],
        Operation::GatedProduct => &[
            (Values, "K T"),
            (Weight, "K M"),
            (Weight, "K M"),
            (Strided, "M"),
            (Strided, "M"),
            (Values, "M T"),
        ],
        Operation::ExpertProductAdd => &[
            (Values, "K k? T"),
            (Weight, "K M n"),
            (Ids, "k T"),
            (Strided, "M n"),
            (Values, "M k T"),
        ],
        Operation::GatedExpertProduct => &[
            (Values, "K k? T"),
            (Weight, "K M n"),
            (Weight, "K M n"),
            (Ids, "k T"),
            (Strided, "M n"),
            (Strided, "M n"),
            (Values, "M k T"),
        ],
        Operation::NormAdd => &[
            (Values, "d a? b? c?"),
            (Values, "d"),
            (Values, "d a b c"),
            (Values, "d a b c"),
        ],
        Operation::NormRope => &[
            (Values, "D h T"),
            (Values, "D"),
            (Ids, "T"),
            (Values, "f"),
            (Values, "D h T"),
        ],
        Operation::MixCoefficients => &[
            (Values, "d T"),
            (Values, "d"),
            (Weight, "d n"),
            (Weight, "n m"),
            (Values, "m T"),
        ],
    }
}

/// The letters whose dimension may be symbolic: columns, the further dimensions, and the rows of a table.
pub(super) const SYMBOLIC: &str = "TabceN";

/// The inputs that the output may be the same view as.
pub(super) fn in_place(operation: Operation) -> &'static [&'static str] {
    match operation {
        Operation::Add | Operation::Mul => &["a"],
        Operation::RmsNorm | Operation::Rope | Operation::Unary => &["x"],
        Operation::RmsMatch | Operation::Sparsify | Operation::NormRope => &["x"],
        Operation::Gated => &["g", "u"],
        Operation::Combine => &["base"],
        Operation::ProductAdd => &["r"],
        Operation::NormAdd => &["r", "x"],
        _ => &[],
    }
}

/// What a parameter word may be.
pub(super) enum Word {
    /// A number by its bits.
    Number,
    /// Any u32.
    Count,
    /// A value of an enumeration.
    Choice(&'static str, fn(u32) -> bool),
}

const PRECISION: Word = Word::Choice("precision", |w| Precision::from_word(w).is_some());
const LAYOUT: Word = Word::Choice("layout", |w| RopeLayout::from_word(w).is_some());
const WINDOW: Word = Word::Choice("window", |w| Window::from_word(w).is_some());
const UNARY: Word = Word::Choice("function", |w| UnaryKind::from_word(w).is_some());
const GATE: Word = Word::Choice("gate", |w| Gate::from_word(w).is_some());
const MODE: Word = Word::Choice("mode", |w| PickMode::from_word(w).is_some());

/// The parameter words in order; all later ones are 0.
pub(super) fn parameters(operation: Operation) -> &'static [Word] {
    use Word::{Count, Number};
    match operation {
        Operation::Product | Operation::ExpertProduct => &[PRECISION],
        Operation::ProductAdd | Operation::Products | Operation::ExpertProductAdd => &[PRECISION],
        Operation::Rows | Operation::RmsNorm | Operation::NormAdd => &[Number],
        Operation::Combine | Operation::RmsMatch | Operation::Sparsify => &[Number],
        Operation::Rope => &[LAYOUT, Number],
        Operation::Attention => &[Number, Number, WINDOW, Count, Number, Count, PRECISION],
        Operation::Add | Operation::MixCoefficients => &[Number, Number],
        Operation::Unary => &[UNARY, Number, Number],
        Operation::Gated => &[GATE, Number, Number],
        Operation::Pick => &[MODE, Number],
        Operation::GatedProduct | Operation::GatedExpertProduct => &[PRECISION, GATE, Number, Number],
        Operation::NormRope => &[Number, LAYOUT, Number],
        Operation::CacheStore | Operation::Mul | Operation::TopK | Operation::Copy => &[],
    }
}
