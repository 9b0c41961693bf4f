//! Vocabularies of any size that tokenize text: bytes, then every combination of two and three letters and digits.

use models::gguf::GgufWriter;

/// How a vocabulary makes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SentencePiece, as gemma's.
    SentencePiece,
    /// Byte-level BPE with this `pre`.
    ByteLevel(&'static str),
}

/// The kinds of tokens in `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

const LETTERS: &[u8; 62] = b"etaoinshrdlcumwfgypbvkjxqzETAOINSHRDLCUMWFGYPBVKJXQZ0123456789";

/// Sets all keys of a vocabulary of `size` tokens; `special` are its control tokens, the first of which ends an answer.
pub fn set(writer: &mut GgufWriter, kind: Kind, size: usize, special: &[&str]) {
    let mut tokens = Tokens::default();
    match kind {
        Kind::SentencePiece => tokens.sentence_piece(size - special.len()),
        Kind::ByteLevel(_) => tokens.byte_level(size - special.len()),
    }
    let end = tokens.pieces.len() as u32;
    special
        .iter()
        .for_each(|piece| tokens.add((*piece).to_owned(), CONTROL));
    writer.set("tokenizer.ggml.tokens", tokens.pieces);
    writer.set("tokenizer.ggml.token_type", tokens.kinds);
    match kind {
        Kind::SentencePiece => {
            let scores: Vec<f32> = (0..size).map(|i| -(i as f32)).collect();
            writer.set("tokenizer.ggml.model", "llama");
            writer.set("tokenizer.ggml.pre", "default");
            writer.set("tokenizer.ggml.scores", scores);
            writer.set("tokenizer.ggml.bos_token_id", 2u32);
            writer.set("tokenizer.ggml.unknown_token_id", 3u32);
            writer.set("tokenizer.ggml.add_bos_token", true);
            writer.set("tokenizer.ggml.add_space_prefix", false);
        }
        Kind::ByteLevel(pre) => {
            writer.set("tokenizer.ggml.model", "gpt2");
            writer.set("tokenizer.ggml.pre", pre);
            writer.set("tokenizer.ggml.merges", tokens.merges);
            writer.set("tokenizer.ggml.add_bos_token", false);
        }
    }
    writer.set("tokenizer.ggml.eos_token_id", end);
}

#[derive(Default)]
struct Tokens {
    pieces: Vec<String>,
    kinds: Vec<i32>,
    merges: Vec<String>,
}

impl Tokens {
    fn add(&mut self, piece: String, kind: i32) {
        self.pieces.push(piece);
        self.kinds.push(kind);
    }

    fn sentence_piece(&mut self, size: usize) {
        for (piece, kind) in [
            ("<pad>", CONTROL),
            ("<eos>", CONTROL),
            ("<bos>", CONTROL),
            ("<unk>", UNKNOWN),
        ] {
            self.add(piece.to_owned(), kind);
        }
        (0..=255u8).for_each(|byte| self.add(format!("<0x{byte:02X}>"), BYTE));
        self.add("▁".to_owned(), NORMAL);
        (b' ' + 1..=b'~').for_each(|byte| self.add(char::from(byte).to_string(), NORMAL));
        self.combine(size, '▁');
    }

    fn byte_level(&mut self, size: usize) {
        // bytes that are no printable character of Latin-1 stand 256 higher, as GPT-2 has it
        let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let mut above = (256..).filter_map(char::from_u32);
        for byte in 0..=255u8 {
            let piece = if printable(byte) {
                Some(char::from(byte))
            } else {
                above.next()
            };
            self.add(piece.unwrap_or('\u{fffd}').to_string(), NORMAL);
        }
        self.combine(size, 'Ġ');
    }

    /// Adds combinations of the space and letters, shorter ones first, until there are `size` tokens.
    fn combine(&mut self, size: usize, space: char) {
        let ends = LETTERS.iter().map(|&letter| char::from(letter));
        let mut shorter: Vec<String> = std::iter::once(space).chain(ends.clone()).map(String::from).collect();
        while self.pieces.len() < size {
            let mut longer = Vec::new();
            for (left, right) in shorter
                .iter()
                .flat_map(|left| ends.clone().map(move |right| (left, right)))
            {
                if self.pieces.len() == size {
                    return;
                }
                let piece = format!("{left}{right}");
                self.merges.push(format!("{left} {right}"));
                self.add(piece.clone(), NORMAL);
                longer.push(piece);
            }
            shorter = longer;
        }
    }
}
