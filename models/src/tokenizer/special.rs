//! Pieces that are matched whole in the text, before anything is merged.

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, MatchKind};

/// A stretch of text to be tokenized, or a piece that was found in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Segment<'t> {
    Text(&'t str),
    Piece(u32),
}

/// Finds the leftmost pieces, the longest of those that start together.
#[derive(Debug)]
pub(super) struct Matcher {
    automaton: Option<AhoCorasick>,
    ids: Vec<u32>,
}

impl Matcher {
    /// Each piece with its id. Empty pieces, and none at all, are fine.
    pub(super) fn new<'p>(pieces: impl Iterator<Item = (u32, &'p [u8])>) -> Result<Self, BuildError> {
        let (ids, texts): (Vec<u32>, Vec<&[u8]>) = pieces.filter(|(_, text)| !text.is_empty()).unzip();
        // A table a state would make one long piece of a hostile file cost gigabytes.
        let mut builder = AhoCorasick::builder();
        builder
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::ContiguousNFA));
        let automaton = (!ids.is_empty()).then(|| builder.build(texts)).transpose()?;
        Ok(Self { automaton, ids })
    }

    /// `text` in order as pieces and what lies between them; no text is empty.
    pub(super) fn segments<'t>(&self, text: &'t str) -> Vec<Segment<'t>> {
        let mut segments = Vec::new();
        let mut done = 0;
        for found in self.automaton.iter().flat_map(|automaton| automaton.find_iter(text)) {
            push_text(&mut segments, &text[done..found.start()]);
            segments.push(Segment::Piece(self.ids[found.pattern().as_usize()]));
            done = found.end();
        }
        push_text(&mut segments, &text[done..]);
        segments
    }
}

fn push_text<'t>(segments: &mut Vec<Segment<'t>>, text: &'t str) {
    if !text.is_empty() {
        segments.push(Segment::Text(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_of_those_that_start_together_is_taken() {
        let matcher = Matcher::new([(1, &b"<a>"[..]), (2, b"<a>!"), (3, b""), (4, b"a")].into_iter()).unwrap();
        let found = matcher.segments("x<a>!<a>é");
        assert_eq!(
            found,
            [
                Segment::Text("x"),
                Segment::Piece(2),
                Segment::Piece(1),
                Segment::Text("é")
            ]
        );
    }

    #[test]
    fn without_pieces_the_text_is_one_segment() {
        let matcher = Matcher::new(std::iter::empty()).unwrap();
        assert_eq!(matcher.segments("x y"), [Segment::Text("x y")]);
        assert_eq!(matcher.segments(""), []);
    }
}
