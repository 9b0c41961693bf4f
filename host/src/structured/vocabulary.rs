//! The texts of a model's tokens, as a trie.

use std::sync::Arc;

use models::tokenizer::{Kind, Tokenizer};
use toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};

use super::FormatError;

/// Bytes of a token at most; longer ones are never chosen. The trie counts the levels to go up in 10 bits.
const LONGEST: usize = 1 << 10;
/// The trie counts its nodes in 22 bits.
const MOST_BYTES: usize = (1 << 22) - 1;
/// The trie has 24 bits for a token.
const MOST_TOKENS: usize = (1 << 24) - 2;
/// A byte that is part of no UTF-8. The trie takes it for the mark of a special token.
const MARK: u8 = TokTrie::SPECIAL_TOKEN_MARKER;

/// Tokens that are text, by their bytes. What ends an answer is one more token, behind all others, whatever tokens a model
/// has for that: where the trie's end is allowed, each of them is.
#[derive(Clone)]
pub(super) struct Vocabulary {
    environment: TokEnv,
    /// The tokens that are text.
    texts: Arc<SimpleVob>,
}

impl Vocabulary {
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Vocabulary, FormatError> {
        let mut words: Vec<Vec<u8>> = (0..tokenizer.vocabulary_size() as u32)
            .map(|token| text(tokenizer, token).unwrap_or_default().to_vec())
            .collect();
        let bytes: usize = words.iter().map(Vec::len).sum();
        if words.len() > MOST_TOKENS || bytes > MOST_BYTES {
            let tokens = words.len();
            return Err(FormatError::Vocabulary(format!(
                "its {tokens} tokens have {bytes} bytes; at most {MOST_TOKENS} and {MOST_BYTES} are possible"
            )));
        }
        let end = words.len() as u32;
        words.push(vec![MARK, MARK]);
        let trie = TokTrie::from(&TokRxInfo::new(end + 1, end), &words);
        let mut texts = trie.alloc_token_set();
        let tokens = (0..end).zip(&words).filter(|(_, word)| !word.is_empty());
        tokens.for_each(|(token, _)| texts.allow_token(token));
        Ok(Vocabulary {
            environment: Arc::new(ApproximateTokEnv::new(trie)),
            texts: Arc::new(texts),
        })
    }

    /// What grammars are compiled for.
    pub(super) fn environment(&self) -> &TokEnv {
        &self.environment
    }

    /// The tokens that are text.
    pub(super) fn texts(&self) -> &SimpleVob {
        &self.texts
    }

    /// Tokens that have these bytes, one way or another.
    pub(super) fn tokens(&self, text: &str) -> Vec<u32> {
        self.environment.tok_trie().greedy_tokenize(text.as_bytes())
    }
}

/// The bytes of a token that an answer may have: neither of one that directs the model, nor of a place left free, nor
/// such that no text has.
fn text(tokenizer: &Tokenizer, token: u32) -> Option<&[u8]> {
    let is_text = match tokenizer.kind(token) {
        Kind::Normal | Kind::UserDefined | Kind::Byte => !tokenizer.is_end(token),
        Kind::Control | Kind::Unknown | Kind::Unused => false,
    };
    let bytes = tokenizer.piece(token).ok().filter(|_| is_text)?;
    (bytes.len() < LONGEST && !bytes.contains(&MARK)).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, path::Path};

    use models::{
        gguf::Gguf,
        tokenizer::{Controls, Decoder},
    };
    use rstest::rstest;

    use super::*;

    fn tokenizer(name: &str) -> Tokenizer {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        let file = Gguf::open(&fixtures.join(name)).unwrap();
        crate::model::tokenizer(&file).unwrap()
    }

    /// What the decoder prints of a token that stands between two others; nothing of one that completes no character.
    fn printed(tokenizer: &Tokenizer, token: u32) -> String {
        let (mut decoder, mut text) = (Decoder::new(Controls::Hide), String::new());
        decoder.push(tokenizer, token, &mut text).unwrap();
        text
    }

    #[rstest]
    #[case::byte_level("qwen2-q8_0.gguf")]
    #[case::sentence_piece("gemma3-q8_0.gguf")]
    #[case::harmony("gptoss-q8_0.gguf")]
    #[case::llama("vocab/llama-bpe.gguf")]
    #[case::qwen("vocab/qwen2.gguf")]
    fn a_token_is_allowed_by_the_bytes_that_it_prints(#[case] file: &str) {
        let tokenizer = tokenizer(file);
        let vocabulary = Vocabulary::new(&tokenizer).unwrap();
        let trie = vocabulary.environment().tok_trie();
        let mut texts = 0;
        for token in 0..tokenizer.vocabulary_size() as u32 {
            let (bytes, printed) = (trie.token(token), printed(&tokenizer, token));
            let complete = std::str::from_utf8(bytes).is_ok();
            if bytes.is_empty() {
                assert!(!vocabulary.texts().is_allowed(token));
            } else if complete {
                assert_eq!(printed.as_bytes(), bytes, "token {token}");
            } else {
                assert_eq!(bytes, tokenizer.piece(token).unwrap(), "token {token}");
            }
            texts += usize::from(!bytes.is_empty());
        }
        assert_eq!(vocabulary.texts().num_set(), texts);
        assert!(texts > tokenizer.vocabulary_size() / 2, "{texts}");
    }

    #[rstest]
    #[case::byte_level("qwen2-q8_0.gguf")]
    #[case::sentence_piece("gemma3-q8_0.gguf")]
    #[case::harmony("gptoss-q8_0.gguf")]
    #[case::llama("vocab/llama-bpe.gguf")]
    fn tokens_that_direct_the_model_are_no_text(#[case] file: &str) {
        let tokenizer = tokenizer(file);
        let vocabulary = Vocabulary::new(&tokenizer).unwrap();
        let tokens = 0..tokenizer.vocabulary_size() as u32;
        let directs = |token: &u32| {
            tokenizer.is_end(*token) || matches!(tokenizer.kind(*token), Kind::Control | Kind::Unknown | Kind::Unused)
        };
        let directing: Vec<u32> = tokens.filter(directs).collect();
        assert!(directing.len() > 1);
        assert!(directing.iter().all(|&token| !vocabulary.texts().is_allowed(token)));
        assert!(
            directing
                .iter()
                .all(|&token| vocabulary.environment().tok_trie().token(token).is_empty())
        );
    }

    #[rstest]
    #[case::byte_level("qwen2-q8_0.gguf")]
    #[case::sentence_piece("gemma3-q8_0.gguf")]
    fn every_byte_of_a_text_has_a_token(#[case] file: &str) {
        let vocabulary = Vocabulary::new(&tokenizer(file)).unwrap();
        let trie = vocabulary.environment().tok_trie();
        let single: HashSet<u8> = (0..trie.vocab_size() as u32)
            .filter_map(|token| match trie.token(token) {
                [byte] => Some(*byte),
                _ => None,
            })
            .collect();
        let parts_of_characters = (0..=0xF4u8).filter(|byte| !matches!(byte, 0xC0 | 0xC1));
        let missing: Vec<u8> = parts_of_characters.filter(|byte| !single.contains(byte)).collect();
        assert_eq!(missing, Vec::<u8>::new());
    }

    #[test]
    fn a_space_before_a_word_is_a_space() {
        let tokenizer = tokenizer("gemma3-q8_0.gguf");
        let vocabulary = Vocabulary::new(&tokenizer).unwrap();
        let trie = vocabulary.environment().tok_trie();
        let token = tokenizer.token("▁the").expect("a common word");
        assert_eq!(trie.token(token), b" the");
        let byte = tokenizer.token("<0x0A>").expect("a byte");
        assert_eq!(trie.token(byte), b"\n");
    }
}
