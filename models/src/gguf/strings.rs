//! Arrays of strings: a vocabulary has up to 262,144 of them, so they share one allocation.

use super::error::{Fault, GgufError};
use super::reader::Reader;

/// An array of strings, stored as one text and the ends of its pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings {
    text: String,
    /// Each on a character boundary of `text`, ascending.
    ends: Vec<usize>,
}

impl Strings {
    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// String `index`, if there are that many.
    pub fn get(&self, index: usize) -> Option<&str> {
        (index < self.len()).then(|| self.piece(index))
    }

    /// All strings in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator + Clone {
        (0..self.len()).map(|index| self.piece(index))
    }

    /// Appends a string.
    pub fn push(&mut self, string: &str) {
        self.text.push_str(string);
        self.ends.push(self.text.len());
    }

    fn piece(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[index]]
    }

    /// Reads `count` strings. They are checked where they were copied to, all at once: a character that two
    /// strings share would pass for UTF-8, hence the check of the boundaries.
    pub(super) fn read(reader: &mut Reader, count: u64) -> Result<Strings, GgufError> {
        let first = reader.offset();
        reader.check_left(first, "the array", count, 8)?;
        let mut text = Vec::new();
        let mut ends = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let length = reader.number()?;
            text.extend_from_slice(reader.take("a string of the array", length)?);
            ends.push(text.len());
        }
        let not_utf8 = |index: usize| {
            let offset = first + 8 * (index as u64 + 1) + index.checked_sub(1).map_or(0, |i| ends[i] as u64);
            reader.error(offset, Fault::NotUtf8 { index: Some(index) })
        };
        let text = String::from_utf8(text).map_err(|e| {
            let valid = e.utf8_error().valid_up_to();
            not_utf8(ends.partition_point(|&end| end <= valid))
        })?;
        match ends.iter().position(|&end| !text.is_char_boundary(end)) {
            Some(index) => Err(not_utf8(index)),
            None => Ok(Strings { text, ends }),
        }
    }
}

impl<S: AsRef<str>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut all = Strings::default();
        strings.into_iter().for_each(|string| all.push(string.as_ref()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_in_order() {
        let strings = Strings::from_iter(["a", "", "żółw"]);
        assert_eq!(strings.len(), 3);
        assert_eq!(strings.iter().rev().collect::<Vec<_>>(), ["żółw", "", "a"]);
        assert_eq!((strings.get(1), strings.get(3)), (Some(""), None));
    }
}
