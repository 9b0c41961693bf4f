//! Where a sequence's last tokens stood before.

/// Tokens that must agree, the more the better.
const LENGTHS: [usize; 3] = [4, 3, 2];

/// The places of n-grams in a sequence: for each n the newest place of each. Tables have a fixed size: n-grams that share an
/// entry drive each other out, and what is found is compared with the tokens.
#[derive(Debug)]
pub struct Ngrams {
    /// For each length: where the token after the n-gram stands; 0 for none.
    tables: [Vec<u32>; LENGTHS.len()],
}

impl Ngrams {
    /// For sequences of up to `context` tokens.
    pub fn new(context: usize) -> Ngrams {
        let entries = (2 * context).next_power_of_two();
        Ngrams {
            tables: LENGTHS.map(|_| vec![0; entries]),
        }
    }

    /// Takes the last n-grams of `tokens` in, and finds the longest of them that stood before: where the token after it
    /// is, and how many tokens agree. What was taken in of tokens that are no longer there is not found.
    pub fn follow(&mut self, tokens: &[u32]) -> Option<(usize, usize)> {
        let mut found = None;
        for (table, length) in self.tables.iter_mut().zip(LENGTHS) {
            let Some(start) = tokens.len().checked_sub(length) else {
                continue;
            };
            let last = &tokens[start..];
            let entry = hash(last) as usize & (table.len() - 1);
            let place = std::mem::replace(&mut table[entry], tokens.len() as u32) as usize;
            let stood = (length..tokens.len()).contains(&place) && tokens[place - length..place] == *last;
            found = found.or(stood.then_some((place, length)));
        }
        found
    }
}

/// Mixes the tokens by a multiplication each (the constant is the golden ratio in 64 bits).
fn hash(tokens: &[u32]) -> u64 {
    let mix = |hash: u64, &token: &u32| {
        (hash ^ u64::from(token))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(29)
    };
    tokens.iter().fold(0, mix)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn last(tokens: &[u32]) -> Option<(usize, usize)> {
        let mut ngrams = Ngrams::new(64);
        let found = (1..=tokens.len()).map(|end| ngrams.follow(&tokens[..end]));
        found.last().flatten()
    }

    #[test]
    fn the_longest_agreement_is_found_and_of_equals_the_newest() {
        assert_eq!(last(&[1, 2, 3, 4, 9, 3, 4, 8, 1, 2, 3, 4]), Some((4, 4)));
        assert_eq!(last(&[1, 2, 7, 1, 2, 8, 1, 2]), Some((5, 2)));
        assert_eq!(last(&[5, 5, 5]), Some((2, 2)));
        assert_eq!(last(&[1, 2, 3, 1]), None);
        assert_eq!(last(&[]), None);
    }

    #[test]
    fn what_was_cut_off_is_not_found() {
        let mut ngrams = Ngrams::new(64);
        let tokens = [1, 2, 3, 4, 5, 6];
        (1..=6).for_each(|end| assert_eq!(ngrams.follow(&tokens[..end]), None));
        assert_eq!(ngrams.follow(&[1, 2, 9, 5, 6]), None);
        assert_eq!(ngrams.follow(&[1, 2, 9, 5, 6, 1, 2]), Some((2, 2)));
    }

    proptest! {
        #[test]
        fn what_is_found_stands_there(tokens in prop::collection::vec(0u32..4, 0..120)) {
            let mut ngrams = Ngrams::new(128);
            for end in 1..=tokens.len() {
                let tokens = &tokens[..end];
                let before = |length: usize| {
                    let last = &tokens[end.checked_sub(length)?..];
                    (length..end).rev().find(|&place| tokens[place - length..place] == *last)
                };
                match ngrams.follow(tokens) {
                    Some((place, length)) => prop_assert_eq!(before(length), Some(place)),
                    // entries are shared, but not by so few
                    None => prop_assert_eq!(before(2), None),
                }
            }
        }
    }
}
