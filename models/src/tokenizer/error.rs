//! What can be wrong with a file's tokenizer.

use crate::gguf::GgufError;

/// A vocabulary that cannot be used; each names the file and the metadata key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// An array that has not one entry a piece.
    #[error("{file}: `{key}` has {found} entries, but `tokenizer.ggml.tokens` has {expected}")]
    Length {
        /// The file.
        file: String,
        /// The metadata key.
        key: &'static str,
        /// Entries found.
        found: usize,
        /// Pieces in the vocabulary.
        expected: usize,
    },
    /// A token id that names no piece.
    #[error("{file}: `{key}` is {id}, but the vocabulary ends at {last}", last = size.saturating_sub(1))]
    OutsideVocabulary {
        /// The file.
        file: String,
        /// The metadata key.
        key: &'static str,
        /// The id.
        id: u32,
        /// Pieces in the vocabulary.
        size: usize,
    },
    /// A token that is to be added to every text, but that is not named.
    #[error("{file}: `{key}` is true, but `{id_key}` is missing")]
    NothingToAdd {
        /// The file.
        file: String,
        /// The metadata key.
        key: &'static str,
        /// The key that would name the token.
        id_key: &'static str,
    },
    /// A value that is none of those known.
    #[error("{file}: `{key}` is `{found}`; known are {known}")]
    Unknown {
        /// The file.
        file: String,
        /// The metadata key.
        key: &'static str,
        /// What the file says.
        found: String,
        /// What is understood.
        known: String,
    },
    /// Words cannot be cut without a pattern.
    #[error("{file}: `tokenizer.ggml.pre` is missing; it names how words are cut, one of {known}")]
    NoPattern {
        /// The file.
        file: String,
        /// What is understood.
        known: String,
    },
    /// An entry of an array that makes no sense.
    #[error("{file}: `{key}`[{index}] is `{found}`: {reason}")]
    Entry {
        /// The file.
        file: String,
        /// The metadata key.
        key: &'static str,
        /// Index into the array.
        index: usize,
        /// The entry.
        found: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A vocabulary that could not spell some text, and has no piece for what it cannot spell.
    #[error(
        "{file}: `tokenizer.ggml.tokens` has no piece for byte 0x{byte:02X}, and no `tokenizer.ggml.unknown_token_id` stands in for it"
    )]
    Unspellable {
        /// The file.
        file: String,
        /// The first byte that has no piece.
        byte: u8,
    },
    /// Pieces to be matched whole that are too many or too long for a matcher.
    #[error("{file}: `tokenizer.ggml.tokens`: cannot match its control pieces: {reason}")]
    Specials {
        /// The file.
        file: String,
        /// What the matcher says.
        reason: String,
    },
    /// A key that is missing or of another type.
    #[error(transparent)]
    Gguf(#[from] GgufError),
}

/// A token id that the vocabulary does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("token {id} is outside the vocabulary of {size} pieces")]
pub struct NoSuchToken {
    /// The id asked for.
    pub id: u32,
    /// Pieces in the vocabulary.
    pub size: usize,
}
