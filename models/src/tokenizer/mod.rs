//! Tokenizers, from a file's `tokenizer.ggml.*` metadata.
//!
//! Two kinds are known: byte-level byte pair encoding (`gpt2`), with the patterns of [`Pattern`], and
//! SentencePiece's byte pair encoding with scores and byte fallback (`llama`).
//!
//! Loading and merging are written here: the usual library wants every piece and merge as a string
//! of its own, which makes large vocabularies slow to load, and it has no merging by score. The example
//! `tokenizer_speed` measures both.

mod byte_level;
mod decode;
mod error;
mod merge;
mod pattern;
mod pieces;
mod sentence_piece;
mod special;
mod vocabulary;

pub use decode::{Controls, Decoder, escape, unescape};
pub use error::{NoSuchToken, TokenizerError};
pub use pattern::Pattern;
pub use vocabulary::Kind;

use byte_level::ByteLevel;
use merge::Merger;
use pieces::{Index, Pieces};
use sentence_piece::SentencePiece;
use special::{Matcher, Segment};
use vocabulary::{ADD_BOS, ADD_EOS, BOS, EOS, Model, Vocabulary};

use crate::gguf::Gguf;

/// Whether control pieces are recognised in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// They are: the text is a rendered prompt.
    Parse,
    /// They are not: the text is content, and whatever it spells is only text.
    Plain,
}

/// Pieces by these names end generation in every vocabulary that has them.
const ENDS: &[&str] = &[
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "<EOT>",
];

/// What ends generation in the harmony format; `<|end|>` only ends one of several messages there.
const HARMONY_ENDS: &[&str] = &["<|return|>", "<|call|>", "<|endoftext|>"];

/// Turns text into token ids and back.
#[derive(Debug)]
pub struct Tokenizer {
    index: Index,
    pieces: Pieces,
    kinds: Vec<Kind>,
    algorithm: Algorithm,
    /// Finds user-defined pieces.
    plain: Matcher,
    /// Finds user-defined, control and unknown pieces.
    parsing: Matcher,
    bos: Option<u32>,
    eos: Option<u32>,
    ends: Vec<u32>,
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
}

#[derive(Debug)]
enum Algorithm {
    ByteLevel(ByteLevel),
    SentencePiece(SentencePiece),
}

impl Tokenizer {
    /// The tokenizer of `gguf`. `pattern` is used instead of what `tokenizer.ggml.pre` says; architectures
    /// whose files cannot be trusted there give it, and it means nothing to SentencePiece vocabularies.
    ///
    /// Fails, naming file and key, when a needed key is missing, arrays differ in length, an id lies outside
    /// the vocabulary, a merge names a piece that is not there, or the model or pattern is unknown.
    pub fn from_gguf(gguf: &Gguf, pattern: Option<Pattern>) -> Result<Self, TokenizerError> {
        let vocabulary = Vocabulary::read(gguf)?;
        let index = Index::new(vocabulary.tokens.clone());
        let mut adds_bos = true;
        let algorithm = match vocabulary.model {
            Model::ByteLevel => {
                let pattern = byte_level::choose_pattern(&vocabulary, pattern)?;
                adds_bos = pattern.adds_bos();
                Algorithm::ByteLevel(ByteLevel::new(&vocabulary, &index, pattern)?)
            }
            Model::SentencePiece => Algorithm::SentencePiece(SentencePiece::new(&vocabulary)?),
        };
        if let Some(byte) = algorithm.unspellable() {
            return Err(TokenizerError::Unspellable {
                file: vocabulary.file,
                byte,
            });
        }
        let pieces = read_pieces(&vocabulary);
        Ok(Self {
            plain: matcher(&vocabulary, &pieces, |kind| kind == Kind::UserDefined)?,
            parsing: matcher(&vocabulary, &pieces, |kind| {
                kind == Kind::UserDefined || kind.is_hidden()
            })?,
            ends: read_ends(&vocabulary, &index),
            add_bos: wanted(&vocabulary, ADD_BOS, vocabulary.add_bos, adds_bos, BOS, vocabulary.bos)?,
            add_eos: wanted(&vocabulary, ADD_EOS, vocabulary.add_eos, false, EOS, vocabulary.eos)?,
            add_space_prefix: vocabulary.add_space_prefix,
            bos: vocabulary.bos,
            eos: vocabulary.eos,
            kinds: vocabulary.kinds,
            index,
            pieces,
            algorithm,
        })
    }

    /// The tokens of `text`, without BOS or EOS.
    ///
    /// User-defined pieces are always matched whole, control pieces only with [`Special::Parse`]; where
    /// several match, the leftmost, and the longest of those.
    pub fn encode(&self, text: &str, special: Special) -> Vec<u32> {
        let matcher = match special {
            Special::Parse => &self.parsing,
            Special::Plain => &self.plain,
        };
        let mut merger = Merger::default();
        let mut tokens = Vec::with_capacity(text.len() / 3);
        // SentencePiece sees what stands between control pieces as texts of their own.
        let mut begins = true;
        for segment in matcher.segments(text) {
            let hidden = matches!(segment, Segment::Piece(id) if self.kinds[id as usize].is_hidden());
            match segment {
                Segment::Text(text) => self.encode_text(text, begins, &mut merger, &mut tokens),
                Segment::Piece(id) => {
                    if begins && !hidden {
                        self.encode_text("", true, &mut merger, &mut tokens);
                    }
                    tokens.push(id);
                }
            }
            begins = hidden;
        }
        tokens
    }

    fn encode_text(&self, text: &str, begins: bool, merger: &mut Merger, tokens: &mut Vec<u32>) {
        match &self.algorithm {
            Algorithm::ByteLevel(model) => model.encode(text, &self.index, &self.kinds, merger, tokens),
            Algorithm::SentencePiece(model) => {
                model.encode(text, begins && self.add_space_prefix, &self.index, merger, tokens);
            }
        }
    }

    /// The text of `tokens`; bytes that are no UTF-8 become U+FFFD. The space that
    /// [`Tokenizer::adds_space_prefix`] put before a text is taken away again.
    ///
    /// Fails for an id outside the vocabulary.
    pub fn decode(&self, tokens: &[u32], controls: Controls) -> Result<String, NoSuchToken> {
        let mut decoder = Decoder::new(controls);
        let mut text = String::new();
        let mut begins = self.add_space_prefix;
        for &token in tokens {
            let start = text.len();
            decoder.push(self, token, &mut text)?;
            let hidden = self.kind(token).is_hidden();
            if begins && !hidden && text[start..].starts_with(' ') {
                text.remove(start);
            }
            begins = hidden && self.add_space_prefix;
        }
        decoder.finish(&mut text);
        Ok(text)
    }

    /// The bytes that `token` stands for; a control piece is spelled out.
    ///
    /// Fails for an id outside the vocabulary.
    pub fn piece(&self, token: u32) -> Result<&[u8], NoSuchToken> {
        let missing = NoSuchToken {
            id: token,
            size: self.vocabulary_size(),
        };
        self.pieces.get(token as usize).ok_or(missing)
    }

    /// [`Tokenizer::piece`] through [`escape`].
    ///
    /// Fails for an id outside the vocabulary.
    pub fn piece_escaped(&self, token: u32) -> Result<String, NoSuchToken> {
        self.piece(token).map(escape)
    }

    /// What `token` is for; ids outside the vocabulary are [`Kind::Unused`].
    pub fn kind(&self, token: u32) -> Kind {
        self.kinds.get(token as usize).copied().unwrap_or(Kind::Unused)
    }

    /// The token that the file spells `spelling` (`<|im_end|>`, `Ġthe`, `▁the`).
    pub fn token(&self, spelling: &str) -> Option<u32> {
        self.index.find(spelling)
    }

    /// How many pieces there are; ids are below that.
    pub fn vocabulary_size(&self) -> usize {
        self.pieces.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether a text is to begin with [`Tokenizer::bos`], which then exists.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether a text is to end with [`Tokenizer::eos`], which then exists.
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }

    /// Whether a SentencePiece vocabulary puts a space before each text.
    pub fn adds_space_prefix(&self) -> bool {
        self.add_space_prefix
    }

    /// The tokens that end generation, ascending.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Whether `token` ends generation.
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.binary_search(&token).is_ok()
    }
}

impl Algorithm {
    fn unspellable(&self) -> Option<u8> {
        match self {
            Algorithm::ByteLevel(model) => model.unspellable(),
            Algorithm::SentencePiece(model) => model.unspellable(),
        }
    }
}

fn read_pieces(vocabulary: &Vocabulary<'_>) -> Pieces {
    let append = match vocabulary.model {
        Model::ByteLevel => byte_level::append_piece,
        Model::SentencePiece => sentence_piece::append_piece,
    };
    let mut pieces = Pieces::default();
    for (piece, &kind) in vocabulary.tokens.iter().zip(&vocabulary.kinds) {
        pieces.push_with(|bytes| append(piece, kind, bytes));
    }
    pieces
}

fn matcher(
    vocabulary: &Vocabulary<'_>,
    pieces: &Pieces,
    wanted: impl Fn(Kind) -> bool,
) -> Result<Matcher, TokenizerError> {
    let ids = (0u32..)
        .zip(&vocabulary.kinds)
        .filter(|&(_, &kind)| wanted(kind))
        .map(|(id, _)| id);
    Matcher::new(ids.map(|id| (id, pieces.get(id as usize).unwrap_or_default()))).map_err(|error| {
        TokenizerError::Specials {
            file: vocabulary.file.clone(),
            reason: error.to_string(),
        }
    })
}

/// In the harmony format EOS and EOT are not trusted: files name `<|end|>` there.
fn read_ends(vocabulary: &Vocabulary<'_>, index: &Index) -> Vec<u32> {
    let special = |id: &u32| matches!(vocabulary.kinds[*id as usize], Kind::Control | Kind::UserDefined);
    let named = |names: &[&str]| names.iter().filter_map(|name| index.find(name)).collect::<Vec<_>>();
    let harmony = ["<|return|>", "<|call|>"].iter().all(|name| index.find(name).is_some());
    let mut ends = named(if harmony { HARMONY_ENDS } else { ENDS });
    if !harmony {
        ends.retain(special);
        ends.extend(vocabulary.eos.iter().chain(&vocabulary.other_ends));
    }
    ends.sort_unstable();
    ends.dedup();
    ends
}

/// Whether a token is to be added: as the file says, or by `default` where there is such a token.
fn wanted(
    vocabulary: &Vocabulary<'_>,
    key: &'static str,
    said: Option<bool>,
    default: bool,
    id_key: &'static str,
    id: Option<u32>,
) -> Result<bool, TokenizerError> {
    if said == Some(true) && id.is_none() {
        return Err(TokenizerError::NothingToAdd {
            file: vocabulary.file.clone(),
            key,
            id_key,
        });
    }
    Ok(said.unwrap_or(default) && id.is_some())
}
