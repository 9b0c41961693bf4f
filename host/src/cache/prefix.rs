//! The tokens that a sequence holds.

/// The tokens whose keys and values are cached for a sequence, so that a new prompt can reuse the part it shares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    tokens: Vec<u32>,
}

impl Prefix {
    /// The tokens, from position 0.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Makes room for `tokens` tokens in all, so that recording them allocates nothing.
    pub fn reserve(&mut self, tokens: usize) {
        self.tokens.reserve(tokens.saturating_sub(self.tokens.len()));
    }

    /// Records tokens that follow.
    pub fn extend(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }

    /// Forgets all but the first `length` tokens.
    pub fn truncate(&mut self, length: usize) {
        self.tokens.truncate(length);
    }

    /// How many tokens at the beginning agree with those of `prompt`.
    pub fn common(&self, prompt: &[u32]) -> usize {
        self.tokens
            .iter()
            .zip(prompt)
            .take_while(|(ours, theirs)| ours == theirs)
            .count()
    }

    /// How many tokens of `prompt` need no evaluation: as [`Prefix::common`], but the last token of the prompt is always
    /// evaluated, since its logits are wanted.
    pub fn reusable(&self, prompt: &[u32]) -> usize {
        self.common(prompt).min(prompt.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_prompt_reuses_the_tokens_it_shares_except_its_last() {
        let mut prefix = Prefix::default();
        prefix.extend(&[1, 2, 3]);
        prefix.extend(&[4]);
        assert_eq!(prefix.reusable(&[1, 2, 9, 4, 5]), 2);
        assert_eq!(prefix.reusable(&[1, 2, 3, 4, 5]), 4);
        assert_eq!((prefix.common(&[1, 2, 3, 4]), prefix.reusable(&[1, 2, 3, 4])), (4, 3));
        assert_eq!((prefix.common(&[]), prefix.reusable(&[])), (0, 0));
        prefix.truncate(1);
        assert_eq!(prefix.tokens(), [1]);
        assert_eq!(prefix.common(&[1, 2, 3]), 1);
    }
}
