//! Prompts that reuse what a model said, spelled as it said it.

use models::tokenizer::{Kind, Tokenizer};

/// `prompt`, with the tokens of `cached` in place of those at its beginning that spell the same text.
///
/// A text has many spellings, and a model may choose another one than the tokenizer does. The prompt of the next turn
/// would then leave the cached tokens in the middle of an answer. Tokens are replaced up to the last place where both
/// spellings end a token; special tokens must be the same themselves, whatever they look like.
pub fn respelled(tokenizer: &Tokenizer, cached: &[u32], prompt: &[u32]) -> Vec<u32> {
    let (taken, replaced) = same_text(tokenizer, cached, prompt);
    [&cached[..taken], &prompt[replaced..]].concat()
}

/// How many tokens of each spell the same text.
fn same_text(tokenizer: &Tokenizer, cached: &[u32], prompt: &[u32]) -> (usize, usize) {
    let (mut ours, mut theirs) = (Spelling::new(tokenizer, cached), Spelling::new(tokenizer, prompt));
    let mut same = (0, 0);
    loop {
        if ours.rest.is_empty() && theirs.rest.is_empty() {
            same = (ours.read, theirs.read);
            let (our, their) = (cached.get(ours.read), prompt.get(theirs.read));
            if our.is_some() && our == their {
                (ours.read, theirs.read) = (ours.read + 1, theirs.read + 1);
                continue;
            }
        }
        if !ours.fill() || !theirs.fill() {
            return same;
        }
        let common = ours.rest.len().min(theirs.rest.len());
        if ours.rest[..common] != theirs.rest[..common] {
            return same;
        }
        ours.rest = &ours.rest[common..];
        theirs.rest = &theirs.rest[common..];
    }
}

/// Tokens, read as the bytes that they stand for.
struct Spelling<'a> {
    tokenizer: &'a Tokenizer,
    tokens: &'a [u32],
    read: usize,
    /// What is left of the token that was read last.
    rest: &'a [u8],
}

impl<'a> Spelling<'a> {
    fn new(tokenizer: &'a Tokenizer, tokens: &'a [u32]) -> Spelling<'a> {
        Spelling {
            tokenizer,
            tokens,
            read: 0,
            rest: &[],
        }
    }

    /// Reads on where nothing is left. `false` where no text comes next.
    fn fill(&mut self) -> bool {
        if self.rest.is_empty() {
            let next = self.tokens.get(self.read).copied();
            let text = next.filter(|&token| !matches!(self.tokenizer.kind(token), Kind::Control | Kind::Unknown));
            self.rest = text.and_then(|token| self.tokenizer.piece(token).ok()).unwrap_or(&[]);
            self.read += 1;
        }
        !self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use models::tokenizer::Special;

    use super::*;
    use crate::model::{open_file, tokenizer};

    fn embedded() -> Tokenizer {
        tokenizer(&open_file(None).unwrap()).unwrap()
    }

    /// The tokens of a text, letter by letter: no tokenizer would choose them.
    fn letters(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        let letter = |letter: char| tokenizer.token(&letter.to_string()).unwrap();
        text.chars().map(letter).collect()
    }

    #[test]
    fn an_answer_is_kept_as_it_was_spelled() {
        let tokenizer = embedded();
        let encode = |text: &str| tokenizer.encode(text, Special::Parse);
        let said = [encode("<start_of_turn>model\n"), letters(&tokenizer, "Good")].concat();
        let next = encode("<end_of_turn>\n<start_of_turn>user\nNight");
        let prompt = encode("<start_of_turn>model\nGood<end_of_turn>\n<start_of_turn>user\nNight");
        assert_ne!(prompt, [&said[..], &next].concat());
        assert_eq!(respelled(&tokenizer, &said, &prompt), [said, next].concat());
    }

    #[test]
    fn another_text_is_spelled_anew_from_the_last_place_where_both_end_a_token() {
        let tokenizer = embedded();
        let encode = |text: &str| tokenizer.encode(text, Special::Parse);
        let prompt = encode("<start_of_turn>user\nGood morrow");
        for said in [
            "<start_of_turn>user\nGood night",
            "<start_of_turn>model\nGood",
            "",
            "Good",
        ] {
            assert_eq!(respelled(&tokenizer, &encode(said), &prompt), prompt, "{said:?}");
        }
        assert!(respelled(&tokenizer, &prompt, &[]).is_empty());
        // no place in the middle of the prompt's tokens
        let cut = letters(&tokenizer, "Goo");
        assert_eq!(
            respelled(&tokenizer, &cut, &encode("Good morrow")),
            encode("Good morrow")
        );
    }

    #[test]
    fn a_special_token_is_never_taken_for_its_spelling() {
        let tokenizer = embedded();
        let special = tokenizer.encode("a<end_of_turn>b", Special::Parse);
        let spelled = tokenizer.encode("a<end_of_turn>b", Special::Plain);
        assert_eq!(respelled(&tokenizer, &spelled, &special), special);
        assert_eq!(respelled(&tokenizer, &special, &spelled), spelled);
    }
}
