//! Byte pair encoding over characters with scores (`tokenizer.ggml.model` = `llama`).
//!
//! As SentencePiece does it: spaces become U+2581, neighbours whose join is a piece are joined by the
//! highest score of the result, and characters that have no piece in the end are spelled in bytes.
//! No other normalization takes place.

use std::collections::HashMap;

use super::TokenizerError;
use super::byte_level::utf8_bytes;
use super::decode::hex;
use super::merge::{Joined, Merger};
use super::pieces::Index;
use super::vocabulary::{Kind, TOKENS, Vocabulary};

const SPACE: &str = "\u{2581}";

/// What encoding needs beside the index of the pieces.
#[derive(Debug)]
pub(super) struct SentencePiece {
    /// By id; lower is joined first. `None` for pieces that no text is merged into.
    orders: Vec<Option<u32>>,
    bytes: [Option<u32>; 256],
    unknown: Option<u32>,
    /// Pieces that merging passes through but that no token is made of.
    unused: Vec<bool>,
}

impl SentencePiece {
    pub(super) fn new(vocabulary: &Vocabulary<'_>) -> Result<Self, TokenizerError> {
        let kinds = &vocabulary.kinds;
        let order = |(&score, &kind): (&f32, &Kind)| {
            matches!(kind, Kind::Normal | Kind::UserDefined | Kind::Unused).then(|| descending(score))
        };
        let unknown = vocabulary.unknown.or_else(|| position(kinds, Kind::Unknown));
        Ok(Self {
            orders: vocabulary.scores.iter().zip(kinds).map(order).collect(),
            bytes: read_bytes(vocabulary)?,
            unknown,
            unused: kinds.iter().map(|&kind| kind == Kind::Unused).collect(),
        })
    }

    /// The first byte that can be part of a text but has no piece.
    pub(super) fn unspellable(&self) -> Option<u8> {
        utf8_bytes().find(|&byte| self.bytes[usize::from(byte)].or(self.unknown).is_none())
    }

    /// Appends the tokens of `text`, with a space before it if `prefix`.
    pub(super) fn encode(&self, text: &str, prefix: bool, index: &Index, merger: &mut Merger, out: &mut Vec<u32>) {
        let text = format!("{}{}", if prefix { SPACE } else { "" }, text.replace(' ', SPACE));
        merger.clear();
        let find = |span: &str| index.find(span).filter(|&id| self.orders[id as usize].is_some());
        let mut spelling = [0; 4];
        for character in text.chars() {
            let character = character.encode_utf8(&mut spelling);
            merger.push(character.len(), find(character));
        }
        let mut halves = HashMap::new();
        merger.run(|left, right| {
            let id = find(&text[left.start..right.start + right.len])?;
            if self.unused[id as usize] {
                halves.insert(id, left.len);
            }
            Some(Joined {
                order: self.orders[id as usize]?,
                id,
            })
        });
        let mut todo: Vec<&str> = Vec::new();
        for symbol in merger.symbols() {
            todo.push(&text[symbol.start..symbol.start + symbol.len]);
            while let Some(span) = todo.pop() {
                match find(span).map(|id| (id, halves.get(&id))) {
                    Some((_, Some(&half))) => todo.extend([&span[half..], &span[..half]]),
                    Some((id, None)) if !self.unused[id as usize] => out.push(id),
                    _ => self.append_bytes(span, out),
                }
            }
        }
    }

    /// Without a piece for each byte the whole is unknown, and unknowns in a row are one.
    fn append_bytes(&self, span: &str, out: &mut Vec<u32>) {
        let bytes: Option<Vec<u32>> = span.bytes().map(|byte| self.bytes[usize::from(byte)]).collect();
        match (bytes, self.unknown) {
            (Some(bytes), _) => out.extend(bytes),
            (None, Some(unknown)) if out.last() != Some(&unknown) => out.push(unknown),
            (None, _) => {}
        }
    }
}

fn position(kinds: &[Kind], wanted: Kind) -> Option<u32> {
    (0u32..).zip(kinds).find(|&(_, &kind)| kind == wanted).map(|(id, _)| id)
}

/// A number that is lower for higher scores.
fn descending(score: f32) -> u32 {
    let bits = score.to_bits();
    // IEEE 754: as integers, positive floats ascend and negative ones descend.
    if bits >> 31 == 0 { !bits & 0x7FFF_FFFF } else { bits }
}

fn read_bytes(vocabulary: &Vocabulary<'_>) -> Result<[Option<u32>; 256], TokenizerError> {
    let mut bytes = [None; 256];
    for (id, (piece, &kind)) in (0u32..).zip(vocabulary.tokens.iter().zip(&vocabulary.kinds)) {
        if kind == Kind::Byte {
            let byte = byte_of(piece).ok_or_else(|| TokenizerError::Entry {
                file: vocabulary.file.clone(),
                key: TOKENS,
                index: id as usize,
                found: piece.to_owned(),
                reason: "a piece of type 6 (byte) is written like <0x0A>",
            })?;
            bytes[usize::from(byte)] = Some(id);
        }
    }
    Ok(bytes)
}

fn byte_of(piece: &str) -> Option<u8> {
    match piece.as_bytes() {
        [b'<', b'0', b'x', high, low, b'>'] => hex(*high, *low),
        _ => None,
    }
}

/// Appends the bytes that a piece stands for.
pub(super) fn append_piece(piece: &str, kind: Kind, out: &mut Vec<u8>) {
    match (kind, byte_of(piece)) {
        (Kind::Byte, Some(byte)) => out.push(byte),
        (Kind::Control | Kind::Unknown, _) => out.extend_from_slice(piece.as_bytes()),
        _ => out.extend_from_slice(piece.replace(SPACE, " ").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_scores_come_first() {
        let mut scores = [-0.5, 3.0, f32::NEG_INFINITY, -7.0, 0.25, 0.0];
        scores.sort_by_key(|&score| descending(score));
        assert_eq!(scores, [3.0, 0.25, 0.0, -0.5, -7.0, f32::NEG_INFINITY]);
    }

    #[test]
    fn bytes_are_spelled_in_hexadecimal() {
        assert_eq!(byte_of("<0x0A>"), Some(10));
        assert_eq!(byte_of("<0x0G>"), None);
        assert_eq!(byte_of("<0x+A>"), None);
    }
}
