//! Byte-level byte pair encoding (`tokenizer.ggml.model` = `gpt2`).
//!
//! Pieces are spelled in an alphabet of 256 printable characters, one a byte: bytes that are printable
//! in Latin-1 stand for themselves, the others follow from U+0100 on in order (GPT-2, `bytes_to_unicode`).

use hashbrown::HashMap;

use super::TokenizerError;
use super::merge::{Joined, Merger};
use super::pattern::{Pattern, Splitter};
use super::pieces::Index;
use super::vocabulary::{Kind, MERGES, PRE, Vocabulary};
use crate::gguf::Strings;

/// What encoding needs beside the index of the pieces.
#[derive(Debug)]
pub(super) struct ByteLevel {
    splitter: Splitter,
    whole_words: bool,
    /// The piece of each byte, or of the unknown.
    bytes: [Option<u32>; 256],
    /// Rank and result by the two ids.
    merges: HashMap<(u32, u32), Joined>,
}

impl ByteLevel {
    pub(super) fn new(vocabulary: &Vocabulary<'_>, index: &Index, pattern: Pattern) -> Result<Self, TokenizerError> {
        let mut spelling = [0; 4];
        let bytes = std::array::from_fn(|byte| {
            let spelled = letter(byte as u8).encode_utf8(&mut spelling);
            index.find(spelled).or(vocabulary.unknown)
        });
        Ok(Self {
            splitter: Splitter::new(pattern),
            whole_words: pattern.takes_whole_words(),
            bytes,
            merges: read_merges(vocabulary, index)?,
        })
    }

    /// The first byte that can be part of a text but has no piece.
    pub(super) fn unspellable(&self) -> Option<u8> {
        utf8_bytes().find(|&byte| self.bytes[usize::from(byte)].is_none())
    }

    /// Appends the tokens of `text`. `kinds` are those of the pieces in `index`.
    pub(super) fn encode(&self, text: &str, index: &Index, kinds: &[Kind], merger: &mut Merger, out: &mut Vec<u32>) {
        let mut spelled = String::new();
        for word in self.splitter.words(text) {
            if self.whole_words {
                spelled.clear();
                spelled.extend(word.bytes().map(letter));
                if let Some(id) = index.find(&spelled).filter(|&id| !kinds[id as usize].is_hidden()) {
                    out.push(id);
                    continue;
                }
            }
            self.encode_word(word, merger, out);
        }
    }

    fn encode_word(&self, word: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        merger.clear();
        word.bytes()
            .for_each(|byte| merger.push(1, self.bytes[usize::from(byte)]));
        let join = |left: Option<u32>, right: Option<u32>| self.merges.get(&(left?, right?)).copied();
        merger.run(|left, right| join(left.id, right.id));
        out.extend(merger.symbols().filter_map(|symbol| symbol.id));
    }
}

/// The pattern to use: the caller's, or the one that the file names.
pub(super) fn choose_pattern(vocabulary: &Vocabulary<'_>, wish: Option<Pattern>) -> Result<Pattern, TokenizerError> {
    let (file, known) = (vocabulary.file.clone(), Pattern::names());
    match (wish, vocabulary.pre) {
        (Some(pattern), _) => Ok(pattern),
        (None, None) => Err(TokenizerError::NoPattern { file, known }),
        (None, Some(name)) => Pattern::named(name).ok_or_else(|| TokenizerError::Unknown {
            file,
            key: PRE,
            found: name.to_owned(),
            known,
        }),
    }
}

fn read_merges(vocabulary: &Vocabulary<'_>, index: &Index) -> Result<HashMap<(u32, u32), Joined>, TokenizerError> {
    let none = Strings::default();
    let merges = vocabulary.merges.unwrap_or(&none);
    let mut known = HashMap::with_capacity(merges.len());
    let mut joined = String::new();
    for (order, merge) in (0u32..).zip(merges.iter()) {
        let entry = |reason| TokenizerError::Entry {
            file: vocabulary.file.clone(),
            key: MERGES,
            index: order as usize,
            found: merge.to_owned(),
            reason,
        };
        // A piece may begin with a space, but it never is empty.
        let space = merge
            .bytes()
            .skip(1)
            .position(|byte| byte == b' ')
            .ok_or_else(|| entry("not two pieces"))?;
        let (left, right) = (&merge[..space + 1], &merge[space + 2..]);
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let find = |piece| {
            index
                .find(piece)
                .ok_or_else(|| entry("a piece of it is not in the vocabulary"))
        };
        let id = index
            .find(&joined)
            .ok_or_else(|| entry("what it makes is not in the vocabulary"))?;
        known.entry((find(left)?, find(right)?)).or_insert(Joined { order, id });
    }
    Ok(known)
}

/// The bytes that occur in UTF-8.
pub(super) fn utf8_bytes() -> impl Iterator<Item = u8> {
    (0..=0xF4).filter(|byte| !matches!(byte, 0xC0 | 0xC1))
}

const fn is_printable(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The character that spells `byte`.
fn letter(byte: u8) -> char {
    static LETTERS: [char; 256] = letters();
    LETTERS[usize::from(byte)]
}

const fn letters() -> [char; 256] {
    let mut letters = ['\0'; 256];
    let (mut byte, mut others) = (0, 0);
    while byte < 256 {
        let plain = is_printable(byte as u8);
        letters[byte] = match char::from_u32(if plain { byte as u32 } else { 0x100 + others }) {
            Some(letter) => letter,
            None => '\0',
        };
        others += !plain as u32;
        byte += 1;
    }
    letters
}

/// The byte that `letter` spells.
fn spelled_byte(letter: char) -> Option<u8> {
    match letter as u32 {
        code @ ..0x100 => u8::try_from(code).ok().filter(|&byte| is_printable(byte)),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// Appends the bytes that a piece stands for; a piece that is not all in the alphabet stands for itself.
pub(super) fn append_piece(piece: &str, kind: Kind, out: &mut Vec<u8>) {
    let start = out.len();
    if !matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined) {
        out.extend(piece.chars().map_while(spelled_byte));
        if out.len() - start == piece.chars().count() {
            return;
        }
        out.truncate(start);
    }
    out.extend_from_slice(piece.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_its_own_letter() {
        assert_eq!(
            (letter(b'a'), letter(b' '), letter(b'\n'), letter(0xAD)),
            ('a', 'Ġ', 'Ċ', 'Ń')
        );
        for byte in 0..=255 {
            assert_eq!(spelled_byte(letter(byte)), Some(byte));
        }
        assert_eq!(spelled_byte(' '), None);
        assert_eq!(spelled_byte('一'), None);
    }

    #[test]
    fn pieces_outside_the_alphabet_are_themselves() {
        let bytes = |piece, kind| {
            let mut out = b"x".to_vec();
            append_piece(piece, kind, &mut out);
            out.split_off(1)
        };
        assert_eq!(bytes("Ġhé", Kind::Normal), b" h\xe9");
        assert_eq!(bytes("Ġh", Kind::UserDefined), "Ġh".as_bytes());
        assert_eq!(bytes("a b", Kind::Normal), b"a b");
    }
}
