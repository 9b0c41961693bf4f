//! The patterns that cut a text into words before byte-level merging.
//!
//! Each is the published expression of its tokenizer. All of them end in `\s+(?!\S)|\s+`: a run of
//! white space leaves its last character to the word that follows. That lookahead is done here, so
//! that the rest needs no backtracking and costs time linear in the text.

use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input, PatternID};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+";
const SMOLLM: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+";
const LLAMA3: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+";
const O200K: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
);

/// A pre-tokenizer, named after the family that brought it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// GPT-2's.
    Gpt2,
    /// SmolLM's: GPT-2's, but digits stand alone.
    Smollm,
    /// Llama 3's: numbers in threes.
    Llama3,
    /// Phi-4's and Smaug's: cut as Llama 3's words, but always merged.
    Dbrx,
    /// Qwen 2's: digits one by one.
    Qwen2,
    /// GPT-4o's and gpt-oss's (o200k): words split where upper case follows lower case.
    O200k,
    /// Mistral's Tekken: o200k without contractions, digits one by one.
    Tekken,
}

const NAMES: &[(&str, Pattern)] = &[
    ("gpt-2", Pattern::Gpt2),
    ("gpt2", Pattern::Gpt2),
    ("phi-2", Pattern::Gpt2),
    ("smollm", Pattern::Smollm),
    ("llama-bpe", Pattern::Llama3),
    ("llama3", Pattern::Llama3),
    ("llama-v3", Pattern::Llama3),
    ("falcon3", Pattern::Llama3),
    ("pixtral", Pattern::Llama3),
    ("dbrx", Pattern::Dbrx),
    ("smaug-bpe", Pattern::Dbrx),
    ("qwen2", Pattern::Qwen2),
    ("deepseek-r1-qwen", Pattern::Qwen2),
    ("megrez", Pattern::Qwen2),
    ("gpt-4o", Pattern::O200k),
    ("llama4", Pattern::O200k),
    ("tekken", Pattern::Tekken),
];

impl Pattern {
    /// The pattern that `tokenizer.ggml.pre` names, other engines' spellings included.
    pub fn named(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|&(_, pattern)| pattern)
    }

    /// The names that [`Pattern::named`] knows, for messages.
    pub fn names() -> String {
        NAMES
            .iter()
            .map(|(name, _)| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Whether a word that is a piece is taken whole, whatever the merges would make of it.
    pub(super) fn takes_whole_words(self) -> bool {
        matches!(self, Pattern::Llama3 | Pattern::Tekken)
    }

    /// Whether texts begin with BOS when the file does not say.
    pub(super) fn adds_bos(self) -> bool {
        matches!(self, Pattern::Llama3 | Pattern::Tekken)
    }

    fn expression(self) -> &'static str {
        match self {
            Pattern::Gpt2 => GPT2,
            Pattern::Smollm => SMOLLM,
            Pattern::Llama3 | Pattern::Dbrx => LLAMA3,
            Pattern::Qwen2 => QWEN2,
            Pattern::O200k => O200K,
            Pattern::Tekken => TEKKEN,
        }
    }
}

/// A compiled [`Pattern`].
#[derive(Debug)]
pub(super) struct Splitter {
    regex: Regex,
    pattern: Pattern,
}

const SPACES: PatternID = PatternID::new_unchecked(1);

impl Splitter {
    pub(super) fn new(pattern: Pattern) -> Self {
        let regex = Regex::new_many(&[pattern.expression(), r"\s+"]);
        let regex = regex.expect("the expressions are constants, and each is compiled by a test");
        Self { regex, pattern }
    }

    /// The words of `text` in order; together they are `text`.
    pub(super) fn words<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            let (word, after) = rest.split_at(self.first(rest)?);
            rest = after;
            Some(word)
        })
    }

    fn first(&self, text: &str) -> Option<usize> {
        let first = text.chars().next()?;
        match self.regex.find(Input::new(text).anchored(Anchored::Yes)) {
            Some(found) if found.is_empty() => Some(first.len_utf8()),
            Some(found) if found.pattern() == SPACES => Some(self.spaces(text, found.end())),
            Some(found) => Some(found.end()),
            None => Some(first.len_utf8()),
        }
    }

    /// Where the white space that ends at `end` is to be cut. SmolLM sets digits apart before anything else, so that what
    /// stands before one is at an end.
    fn spaces(&self, text: &str, end: usize) -> usize {
        let before_digit = text[end..].starts_with(char::is_numeric);
        match self.pattern {
            Pattern::Smollm if before_digit => end,
            _ => leave_last(text, end),
        }
    }
}

/// Where the white space that ends at `end` is to be cut: before its last character if a word follows
/// and something remains.
fn leave_last(text: &str, end: usize) -> usize {
    let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
    if end == text.len() || end == last {
        end
    } else {
        end - last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Pattern; 7] = [
        Pattern::Gpt2,
        Pattern::Smollm,
        Pattern::Llama3,
        Pattern::Dbrx,
        Pattern::Qwen2,
        Pattern::O200k,
        Pattern::Tekken,
    ];

    fn words(pattern: Pattern, text: &str) -> Vec<&str> {
        Splitter::new(pattern).words(text).collect()
    }

    #[test]
    fn every_pattern_covers_any_text() {
        for pattern in ALL {
            for text in [
                "",
                "\0\u{300}\u{200b} ½ÀéǅʰΩ一\r\n \t x'LL\u{a0}\u{a0}y",
                "    ",
                "\n \n",
            ] {
                assert_eq!(words(pattern, text).concat(), text, "{pattern:?}");
            }
        }
    }

    #[test]
    fn the_last_space_belongs_to_the_next_word() {
        for pattern in ALL {
            assert_eq!(words(pattern, "a   b"), ["a", "  ", " b"]);
            assert_eq!(words(pattern, "a   "), ["a", "   "]);
        }
        assert_eq!(words(Pattern::Qwen2, "a \n\n  b"), ["a", " \n\n", " ", " b"]);
        assert_eq!(words(Pattern::Gpt2, "a \n\n b"), ["a", " \n\n", " b"]);
    }

    #[test]
    fn families_differ_in_numbers_and_case() {
        assert_eq!(words(Pattern::Qwen2, "1234"), ["1", "2", "3", "4"]);
        assert_eq!(words(Pattern::Llama3, "1234"), ["123", "4"]);
        assert_eq!(words(Pattern::Gpt2, "x 1234"), ["x", " 1234"]);
        assert_eq!(words(Pattern::O200k, "camelCase's"), ["camel", "Case's"]);
        assert_eq!(words(Pattern::Tekken, "Case's 12"), ["Case", "'s", " ", "1", "2"]);
    }

    /// Words as the `tokenizers` library cuts them.
    #[test]
    fn digits_stand_alone_in_smollm_with_all_spaces_before_them() {
        for (text, expected) in [
            ("a  12 b", vec!["a", "  ", "1", "2", " b"]),
            ("  7", vec!["  ", "7"]),
            ("a \n b9c", vec!["a", " \n", " b", "9", "c"]),
        ] {
            assert_eq!(words(Pattern::Smollm, text), expected, "{text:?}");
        }
    }

    #[test]
    fn names_are_those_of_other_engines() {
        for usual in ["llama-bpe", "smaug-bpe", "smollm", "tekken", "qwen2", "dbrx", "gpt-4o"] {
            assert!(Pattern::named(usual).is_some(), "{usual}");
        }
        assert!(!Pattern::Dbrx.takes_whole_words() && !Pattern::Dbrx.adds_bos());
        assert_eq!(Pattern::named("deepseek-r1-qwen"), Some(Pattern::Qwen2));
        assert_eq!(Pattern::named("llama-v3"), Some(Pattern::Llama3));
        assert_eq!(Pattern::named("default"), None);
    }
}
