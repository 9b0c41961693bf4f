//! Stop strings in a text that arrives in pieces.

/// Bytes that are held without taking more memory: longer than pieces of text are.
const ROOM: usize = 1 << 10;

/// What may be printed after a piece has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Printable<'a> {
    /// Text that no stop string can reach any more.
    pub text: &'a str,
    /// The stop string that was hit: the text ends before it.
    pub stop: Option<&'a str>,
}

/// Finds the first stop string to be completed, wherever the text is cut into pieces; of several that end at the same place
/// the longest. What may be the beginning of one is held back.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    /// What was printed last, then what is held back.
    buffer: String,
    printed: usize,
    hit: Option<usize>,
}

impl StopStrings {
    /// Looks for any of `stops`; empty ones are ignored.
    pub fn new(stops: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut stops: Vec<String> = stops
            .into_iter()
            .map(Into::into)
            .filter(|stop| !stop.is_empty())
            .collect();
        stops.sort_by_key(|stop| std::cmp::Reverse(stop.len()));
        Self {
            stops,
            buffer: String::with_capacity(ROOM),
            ..Self::default()
        }
    }

    /// Takes the next piece of text. After a stop string was hit there is nothing more to print.
    pub fn push(&mut self, piece: &str) -> Printable<'_> {
        self.buffer.drain(..self.printed);
        self.printed = 0;
        if self.hit.is_none() {
            let seen = self.buffer.len();
            self.buffer.push_str(piece);
            self.advance(seen);
        }
        self.printable()
    }

    /// The text that was held back, when the generation ends without a stop string.
    pub fn finish(&mut self) -> &str {
        self.buffer.drain(..self.printed);
        self.printed = self.buffer.len();
        &self.buffer
    }

    /// Decides what of the buffer may be printed; the first `seen` bytes end no stop string.
    fn advance(&mut self, seen: usize) {
        match self.first_completed(seen) {
            Some((stop, start)) => {
                self.hit = Some(stop);
                self.buffer.truncate(start);
                self.printed = start;
            }
            None => self.printed = self.buffer.len() - self.held_back(),
        }
    }

    /// The stop string that ends first after `seen` bytes, and where it starts.
    fn first_completed(&self, seen: usize) -> Option<(usize, usize)> {
        (seen + 1..=self.buffer.len()).find_map(|end| {
            let text = &self.buffer.as_bytes()[..end];
            let stop = self.stops.iter().position(|stop| text.ends_with(stop.as_bytes()))?;
            Some((stop, end - self.stops[stop].len()))
        })
    }

    /// Bytes at the end that begin a stop string. Both are UTF-8, so they start at a character.
    fn held_back(&self) -> usize {
        let text = self.buffer.as_bytes();
        let longest = self.stops.first().map_or(0, |stop| stop.len() - 1).min(text.len());
        let begins = |length: &usize| {
            let end = &text[text.len() - length..];
            self.stops.iter().any(|stop| stop.as_bytes().starts_with(end))
        };
        (1..=longest).rev().find(begins).unwrap_or(0)
    }

    fn printable(&self) -> Printable<'_> {
        Printable {
            text: &self.buffer[..self.printed],
            stop: self.hit.map(|stop| self.stops[stop].as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// All that is printed, and the stop string.
    fn run<'a>(stops: &[&str], pieces: impl IntoIterator<Item = &'a str>) -> (String, Option<String>) {
        let mut strings = StopStrings::new(stops.iter().copied());
        let mut printed = String::new();
        let mut hit = None;
        for piece in pieces {
            let Printable { text, stop } = strings.push(piece);
            printed.push_str(text);
            hit = stop.map(str::to_owned);
        }
        printed.push_str(strings.finish());
        (printed, hit)
    }

    #[rstest]
    #[case::in_one_piece(&["end"], &["the end."], "the ", Some("end"))]
    #[case::over_pieces(&["end"], &["the e", "n", "d."], "the ", Some("end"))]
    #[case::a_beginning_that_leads_nowhere(&["end"], &["the en", "emy"], "the enemy", None)]
    #[case::a_beginning_at_the_end(&["end"], &["the en"], "the en", None)]
    #[case::a_beginning_inside_a_beginning(&["aab"], &["aa", "ab"], "a", Some("aab"))]
    #[case::the_first_to_be_complete(&["abcd", "bc"], &["xabcd"], "xa", Some("bc"))]
    #[case::the_longest_at_one_end(&["b", "ab"], &["xab"], "x", Some("ab"))]
    #[case::characters_of_several_bytes(&["→é"], &["ö→", "è→é!"], "ö→è", Some("→é"))]
    #[case::characters_that_share_bytes(&["é"], &["è"], "è", None)]
    #[case::nothing_after_a_stop(&["."], &["a.", "b.", "c"], "a", Some("."))]
    #[case::no_stop_strings(&[], &["a", "b"], "ab", None)]
    #[case::empty_ones_are_ignored(&[""], &["a", "b"], "ab", None)]
    fn text_ends_before_a_stop_string(
        #[case] stops: &[&str],
        #[case] pieces: &[&str],
        #[case] printed: &str,
        #[case] stop: Option<&str>,
    ) {
        assert_eq!(
            run(stops, pieces.iter().copied()),
            (printed.to_owned(), stop.map(str::to_owned))
        );
    }

    #[test]
    fn only_a_possible_beginning_is_held_back() {
        let mut strings = StopStrings::new(["<end>"]);
        assert_eq!(strings.push("a <en").text, "a ");
        assert_eq!(strings.push("d").text, "");
        assert_eq!(strings.push("<").text, "<end");
        assert_eq!(strings.push("x").text, "<x");
        assert_eq!(strings.push("<").text, "");
        assert_eq!(strings.finish(), "<");
        assert_eq!(strings.finish(), "", "it is printed once");
    }

    /// Tries every stop string at every character, the slow way.
    fn naive(stops: &[String], text: &str) -> (String, Option<String>) {
        let ends = |end: &usize| {
            stops
                .iter()
                .any(|stop| !stop.is_empty() && text[..*end].ends_with(stop.as_str()))
        };
        let boundaries = (1..=text.len()).filter(|&end| text.is_char_boundary(end));
        let Some(end) = boundaries.into_iter().find(|end| ends(end)) else {
            return (text.to_owned(), None);
        };
        let hit = stops
            .iter()
            .filter(|stop| text[..end].ends_with(stop.as_str()))
            .max_by_key(|stop| stop.len())
            .unwrap();
        (text[..end - hit.len()].to_owned(), Some(hit.clone()))
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(
            stops in prop::collection::vec("[abé→]{0,4}", 0..4),
            pieces in prop::collection::vec("[abcé→]{0,5}", 0..12),
        ) {
            let stops_str: Vec<&str> = stops.iter().map(String::as_str).collect();
            prop_assert_eq!(run(&stops_str, pieces.iter().map(String::as_str)), naive(&stops, &pieces.concat()));
        }

        #[test]
        fn what_is_printed_early_is_as_much_as_can_be(
            stop in "[ab]{1,5}",
            text in "[ab]{0,12}",
        ) {
            let mut strings = StopStrings::new([stop.as_str()]);
            let Printable { text: printed, stop: hit } = strings.push(&text);
            if hit.is_none() {
                let held = &text[printed.len()..];
                prop_assert!(held.is_empty() || stop.starts_with(held));
                let longer = (0..printed.len()).find(|&start| stop.starts_with(&text[start..]));
                prop_assert_eq!(longer, None);
            }
        }
    }
}
