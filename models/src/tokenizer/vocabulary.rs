//! What a file says of its tokenizer, read and checked but not yet made ready for use.

use super::TokenizerError;
use crate::gguf::{Gguf, Strings};

/// What a piece is for, as in `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Normal,
    /// Stands for text that has no piece.
    Unknown,
    /// Directs the model, like BOS or the end of a turn.
    Control,
    /// Text that is always matched whole.
    UserDefined,
    /// A place that was left free.
    Unused,
    /// One byte, for characters that have no piece.
    Byte,
}

impl Kind {
    fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            // 0 is "undefined" in files written before types were known.
            0 | 1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => return None,
        })
    }

    /// Whether a text is shown without it.
    pub(super) fn is_hidden(self) -> bool {
        matches!(self, Kind::Control | Kind::Unknown)
    }
}

/// The two ways of tokenizing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Model {
    /// `gpt2`: words cut by a pattern, bytes merged by rank.
    ByteLevel,
    /// `llama`: characters merged by the score of the result, bytes for what has no piece.
    SentencePiece,
}

pub(super) const MODEL: &str = "tokenizer.ggml.model";
pub(super) const PRE: &str = "tokenizer.ggml.pre";
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(super) const TYPES: &str = "tokenizer.ggml.token_type";
pub(super) const SCORES: &str = "tokenizer.ggml.scores";
pub(super) const MERGES: &str = "tokenizer.ggml.merges";
pub(super) const BOS: &str = "tokenizer.ggml.bos_token_id";
pub(super) const EOS: &str = "tokenizer.ggml.eos_token_id";
pub(super) const EOT: &str = "tokenizer.ggml.eot_token_id";
pub(super) const EOM: &str = "tokenizer.ggml.eom_token_id";
pub(super) const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
pub(super) const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
pub(super) const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
pub(super) const EOS_IDS: &str = "tokenizer.ggml.eos_token_ids";
pub(super) const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";

/// A file's `tokenizer.ggml.*`: every id is in the vocabulary, every array as long as it.
#[derive(Debug)]
pub(super) struct Vocabulary<'g> {
    pub(super) file: String,
    pub(super) model: Model,
    pub(super) pre: Option<&'g str>,
    pub(super) tokens: &'g Strings,
    pub(super) kinds: Vec<Kind>,
    /// Empty for byte-level vocabularies.
    pub(super) scores: &'g [f32],
    /// Absent for SentencePiece vocabularies.
    pub(super) merges: Option<&'g Strings>,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    /// EOT, EOM and the like: what ends generation beside EOS.
    pub(super) other_ends: Vec<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) add_bos: Option<bool>,
    pub(super) add_eos: Option<bool>,
    pub(super) add_space_prefix: bool,
}

impl<'g> Vocabulary<'g> {
    pub(super) fn read(gguf: &'g Gguf) -> Result<Self, TokenizerError> {
        let file = gguf.name();
        let metadata = gguf.metadata();
        let model = read_model(&file, metadata.string(MODEL)?)?;
        let tokens = metadata.strings(TOKENS)?;
        let (scores, merges) = match model {
            Model::ByteLevel => (&[][..], Some(metadata.strings(MERGES)?)),
            Model::SentencePiece => (metadata.f32s(SCORES)?, None),
        };
        if model == Model::SentencePiece {
            check_length(&file, SCORES, scores.len(), tokens.len())?;
        }
        let id = |key| -> Result<Option<u32>, TokenizerError> {
            let id = metadata.opt_u32(key)?;
            id.map(|id| check_id(&file, key, id, tokens.len())).transpose()
        };
        let mut other_ends: Vec<u32> = [id(EOT)?, id(EOM)?].into_iter().flatten().collect();
        for &end in metadata.opt_u32s(EOS_IDS)?.as_deref().unwrap_or_default() {
            other_ends.push(check_id(&file, EOS_IDS, end, tokens.len())?);
        }
        Ok(Self {
            model,
            pre: metadata.opt_string(PRE)?,
            kinds: read_kinds(gguf, &file, model, tokens.len())?,
            scores,
            merges,
            bos: id(BOS)?,
            eos: id(EOS)?,
            other_ends,
            unknown: id(UNKNOWN)?,
            add_bos: metadata.opt_bool(ADD_BOS)?,
            add_eos: metadata.opt_bool(ADD_EOS)?,
            add_space_prefix: metadata
                .opt_bool(ADD_SPACE_PREFIX)?
                .unwrap_or(model == Model::SentencePiece),
            tokens,
            file,
        })
    }
}

fn read_model(file: &str, name: &str) -> Result<Model, TokenizerError> {
    match name {
        "gpt2" => Ok(Model::ByteLevel),
        "llama" => Ok(Model::SentencePiece),
        _ => Err(TokenizerError::Unknown {
            file: file.to_owned(),
            key: MODEL,
            found: name.to_owned(),
            known: "`gpt2`, `llama`".to_owned(),
        }),
    }
}

fn read_kinds(gguf: &Gguf, file: &str, model: Model, expected: usize) -> Result<Vec<Kind>, TokenizerError> {
    let numbers = match model {
        // Without types no byte could be told from text.
        Model::SentencePiece => gguf.metadata().i32s(TYPES)?,
        Model::ByteLevel => match gguf.metadata().opt_i32s(TYPES)? {
            Some(numbers) => numbers,
            None => return Ok(vec![Kind::Normal; expected]),
        },
    };
    check_length(file, TYPES, numbers.len(), expected)?;
    let kind = |(index, &number): (usize, &i32)| {
        Kind::from_number(number).ok_or_else(|| TokenizerError::Entry {
            file: file.to_owned(),
            key: TYPES,
            index,
            found: number.to_string(),
            reason: "a type is a number from 0 to 6",
        })
    };
    numbers.iter().enumerate().map(kind).collect()
}

fn check_length(file: &str, key: &'static str, found: usize, expected: usize) -> Result<(), TokenizerError> {
    if found == expected {
        return Ok(());
    }
    Err(TokenizerError::Length {
        file: file.to_owned(),
        key,
        found,
        expected,
    })
}

fn check_id(file: &str, key: &'static str, id: u32, size: usize) -> Result<u32, TokenizerError> {
    if (id as usize) < size {
        return Ok(id);
    }
    Err(TokenizerError::OutsideVocabulary {
        file: file.to_owned(),
        key,
        id,
        size,
    })
}
