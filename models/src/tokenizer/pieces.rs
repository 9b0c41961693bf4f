//! The bytes of many pieces in one allocation, and finding a piece by its spelling.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::gguf::Strings;

/// What each token stands for in a text, one after another; the index is the token id.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Pieces {
    /// Appends the piece that `write` adds to the end of the buffer; it must not touch what is there.
    pub(super) fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }
}

/// Token ids by spelling.
#[derive(Debug)]
pub(super) struct Index {
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    strings: Strings,
    longest: usize,
}

impl Index {
    /// Where several strings are equal, the first keeps the name.
    pub(super) fn new(strings: Strings) -> Self {
        let hasher = DefaultHashBuilder::default();
        let mut table = HashTable::with_capacity(strings.len());
        let hash = |id: &u32| hasher.hash_one(strings.get(*id as usize));
        for (id, string) in (0u32..).zip(strings.iter()) {
            let same = |other: &u32| strings.get(*other as usize) == Some(string);
            table.entry(hasher.hash_one(Some(string)), same, hash).or_insert(id);
        }
        let longest = strings.iter().map(str::len).max().unwrap_or(0);
        Self {
            table,
            hasher,
            strings,
            longest,
        }
    }

    pub(super) fn find(&self, spelling: &str) -> Option<u32> {
        if spelling.len() > self.longest {
            return None;
        }
        let same = |id: &u32| self.strings.get(*id as usize) == Some(spelling);
        self.table.find(self.hasher.hash_one(Some(spelling)), same).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_found_by_their_spelling_and_the_first_of_equals_wins() {
        let index = Index::new(Strings::from_iter(["a", "", "bc", "a"]));
        assert_eq!(index.find("a"), Some(0));
        assert_eq!(index.find(""), Some(1));
        assert_eq!(index.find("bc"), Some(2));
        assert_eq!(index.find("b"), None);
        assert_eq!(index.find("bcd"), None);
    }

    #[test]
    fn pieces_keep_their_bytes() {
        let mut pieces = Pieces::default();
        for piece in [&b"a"[..], b"", b"\xffb"] {
            pieces.push_with(|bytes| bytes.extend_from_slice(piece));
        }
        let all: Vec<_> = (0..4).map(|index| pieces.get(index)).collect();
        assert_eq!(all, [Some(&b"a"[..]), Some(b""), Some(b"\xffb"), None]);
    }
}
