//! From tokens to text, a token at a time.

use super::{NoSuchToken, Tokenizer};

/// Bytes that are held without taking more memory: longer than pieces are.
const ROOM: usize = 1 << 10;

/// Whether control pieces (and the unknown piece) are part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controls {
    /// They are left out.
    Hide,
    /// They are written as they are spelled, like `<|im_end|>`.
    Show,
}

/// Turns tokens into text as they come, without ever giving out a part of a character.
///
/// Bytes that may still become a character are held back; bytes that cannot are replaced by U+FFFD,
/// one for each maximal invalid run, as `String::from_utf8_lossy` does. What it decodes continues a text:
/// the space that a SentencePiece vocabulary writes before a first word stays.
#[derive(Debug, Clone)]
pub struct Decoder {
    controls: Controls,
    held: Vec<u8>,
}

impl Decoder {
    /// A decoder that has seen nothing.
    pub fn new(controls: Controls) -> Self {
        Self {
            controls,
            held: Vec::with_capacity(ROOM),
        }
    }

    /// Appends to `text` the characters that `token` completes.
    ///
    /// Fails for an id outside the vocabulary, with nothing appended.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32, text: &mut String) -> Result<(), NoSuchToken> {
        let piece = tokenizer.piece(token)?;
        if self.controls == Controls::Show || !tokenizer.kind(token).is_hidden() {
            self.held.extend_from_slice(piece);
            self.release(text);
        }
        Ok(())
    }

    /// Ends the text: what is still held back cannot become a character any more.
    pub fn finish(&mut self, text: &mut String) {
        if !self.held.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            self.held.clear();
        }
    }

    fn release(&mut self, text: &mut String) {
        let mut kept = 0;
        let mut chunks = self.held.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            if chunks.peek().is_none() && may_go_on(chunk.invalid()) {
                kept = chunk.invalid().len();
            } else if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.held.drain(..self.held.len() - kept);
    }
}

/// Whether `bytes` begin a character that more bytes would complete.
fn may_go_on(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// A piece as a string that tells every piece from every other, for JSON and for people.
///
/// A piece that is UTF-8 is itself. A piece that is not, or that contains `\x` and two hexadecimal
/// digits, is escaped: every byte that is no part of a valid character becomes `\xNN` (lower case),
/// and every backslash is doubled. So a string is in the escaped form exactly when it contains `\x`
/// and two hexadecimal digits; [`unescape`] undoes it.
pub fn escape(piece: &[u8]) -> String {
    match std::str::from_utf8(piece) {
        Ok(text) if !has_escape(text) => text.to_owned(),
        _ => piece.utf8_chunks().map(|chunk| escape_chunk(&chunk)).collect(),
    }
}

fn escape_chunk(chunk: &std::str::Utf8Chunk<'_>) -> String {
    let invalid = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
    std::iter::once(chunk.valid().replace('\\', r"\\"))
        .chain(invalid)
        .collect()
}

/// The piece that [`escape`] wrote as `text`.
pub fn unescape(text: &str) -> Vec<u8> {
    if !has_escape(text) {
        return text.as_bytes().to_vec();
    }
    let mut piece = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, taken) = match after {
            [b'\\', ..] if *first == b'\\' => (b'\\', 2),
            [b'x', high, low, ..] if *first == b'\\' => (hex(*high, *low).unwrap_or(b'\\'), 4),
            _ => (*first, 1),
        };
        piece.push(byte);
        rest = &rest[taken..];
    }
    piece
}

fn has_escape(text: &str) -> bool {
    text.as_bytes()
        .windows(4)
        .any(|four| four.starts_with(b"\\x") && hex(four[2], four[3]).is_some())
}

pub(super) fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_pieces_that_need_it_are_escaped() {
        assert_eq!(escape("é\\n".as_bytes()), "é\\n");
        assert_eq!(escape(b"a\\\xe2\x82"), r"a\\\xe2\x82");
        assert_eq!(escape(br"\x41"), r"\\x41");
        assert_eq!(escape(br"\x4"), r"\x4");
    }

    proptest! {
        #[test]
        fn escaping_is_undone(piece in prop::collection::vec(prop::sample::select(b"\\x41a\xe2\x82\xac\xff".to_vec()), 0..12)) {
            prop_assert_eq!(unescape(&escape(&piece)), piece);
        }
    }
}
