//! Text that arrives in pieces, broken into lines between words.

use unicode_width::UnicodeWidthChar;

/// Columns between the stops of a tab.
const TAB: usize = 8;

/// Breaks lines before the words that do not fit. A word is held back until it is complete, so nothing that is printed
/// moves; a word longer than a line is broken where the line ends, and wide characters (Chinese, Japanese) are words of
/// their own.
#[derive(Debug, Default)]
pub struct Wrap {
    /// Columns of a line; `None` for lines without end.
    width: Option<usize>,
    /// Where the cursor is.
    column: usize,
    /// Blanks before the word, which are dropped where a line is broken.
    blanks: String,
    word: String,
    word_width: usize,
    /// Whether an escape sequence has begun, which takes no room.
    escape: bool,
}

/// A text without what could do something to a terminal.
pub fn plain(text: &str) -> String {
    let shown = text.chars().filter(|&c| c != '\r');
    let harmless = |c: char| match c {
        '\n' | '\t' => c,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    shown.map(harmless).collect()
}

impl Wrap {
    /// Lines of `width` columns from here on; `None` breaks nothing.
    pub fn resize(&mut self, width: Option<usize>) {
        self.width = width.filter(|&width| width > 0);
    }

    /// Whether something stands on the line.
    pub fn is_within_line(&self) -> bool {
        self.column > 0 || !self.blanks.is_empty() || !self.word.is_empty()
    }

    /// Appends to `out` what can be printed once `piece` has arrived. Escape sequences of colours may be part of it.
    pub fn push(&mut self, piece: &str, out: &mut String) {
        if self.width.is_none() {
            self.flush(out);
        }
        for c in piece.chars() {
            match c {
                '\n' => self.end_line(out),
                ' ' | '\t' => self.blank(c, out),
                '\x1b' => self.escape_with(c),
                _ if self.escape => self.escape_with(c),
                _ => self.letter(c, out),
            }
        }
        if self.width.is_none() {
            self.flush(out);
        }
    }

    /// Appends what was held back.
    pub fn flush(&mut self, out: &mut String) {
        self.end_word(out);
        self.column = self.after(&self.blanks);
        out.push_str(&self.blanks);
        self.blanks.clear();
    }

    fn end_line(&mut self, out: &mut String) {
        self.end_word(out);
        // blanks at the end of a line may be too many for it, and are not seen
        self.blanks.clear();
        self.column = 0;
        out.push('\n');
    }

    fn blank(&mut self, c: char, out: &mut String) {
        self.end_word(out);
        self.blanks.push(c);
    }

    fn escape_with(&mut self, c: char) {
        self.word.push(c);
        self.escape = !c.is_ascii_alphabetic();
    }

    fn letter(&mut self, c: char, out: &mut String) {
        let width = c.width().unwrap_or(0);
        if width > 1 {
            self.end_word(out);
        }
        let most = self.width.unwrap_or(usize::MAX);
        if self.word_width + width > most {
            self.end_word(out);
        }
        self.word.push(c);
        self.word_width += width;
        if width > 1 {
            self.end_word(out);
        }
    }

    /// Prints the word that is held, on a new line if it must.
    fn end_word(&mut self, out: &mut String) {
        if self.word_width == 0 {
            out.push_str(&self.word);
            self.word.clear();
            return;
        }
        let start = self.after(&self.blanks);
        if self.width.is_some_and(|width| start + self.word_width > width) && start > 0 {
            out.push('\n');
            self.column = self.word_width;
        } else {
            out.push_str(&self.blanks);
            self.column = start + self.word_width;
        }
        self.blanks.clear();
        out.push_str(&self.word);
        self.word.clear();
        self.word_width = 0;
    }

    /// The column after these blanks.
    fn after(&self, blanks: &str) -> usize {
        blanks.chars().fold(self.column, |column, c| match c {
            '\t' => (column / TAB + 1) * TAB,
            _ => column + 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn wrapped<'a>(width: Option<usize>, pieces: impl IntoIterator<Item = &'a str>) -> String {
        let (mut wrap, mut out) = (Wrap::default(), String::new());
        wrap.resize(width);
        pieces.into_iter().for_each(|piece| wrap.push(piece, &mut out));
        wrap.flush(&mut out);
        out
    }

    #[rstest]
    #[case::fits("a bc", "a bc")]
    #[case::to_the_last_column("ab cdefg hi", "ab cdefg\nhi")]
    #[case::between_words("abcd efgh ij", "abcd\nefgh ij")]
    #[case::lines_of_the_text("ab\n\ncd ef", "ab\n\ncd ef")]
    #[case::a_long_word("abcdefghijkl", "abcdefgh\nijkl")]
    #[case::a_long_word_after_another("ab cdefghijkl", "ab\ncdefghij\nkl")]
    #[case::indentation("  abc\n    def", "  abc\n    def")]
    #[case::blanks_at_a_break("abcdef   gh", "abcdef\ngh")]
    #[case::wide_characters("日本語日本語", "日本語日\n本語")]
    #[case::marks_that_take_no_room("e\u{301}e\u{301}e\u{301}e\u{301} abcd", "e\u{301}e\u{301}e\u{301}e\u{301}\nabcd")]
    #[case::tabs("a\tbc", "a\nbc")]
    #[case::colours(
        "\x1b[2mabc\x1b[0m\x1b[2mdef\x1b[0m\x1b[2m ghij\x1b[0m",
        "\x1b[2mabc\x1b[0m\x1b[2mdef\x1b[0m\x1b[2m\nghij\x1b[0m"
    )]
    #[case::a_colour_between_blanks("abcdefg \x1b[2m hi", "abcdefg\x1b[2m\nhi")]
    fn lines_of_eight_columns(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(wrapped(Some(8), [text]), expected);
    }

    #[test]
    fn nothing_in_a_text_does_something_to_the_terminal() {
        assert_eq!(
            plain("a\x1b[2Jb\u{9b}\x07\r\n\tc"),
            "a\u{fffd}[2Jb\u{fffd}\u{fffd}\n\tc"
        );
    }

    #[test]
    fn without_a_width_nothing_is_broken_and_nothing_held_back() {
        let (mut wrap, mut out) = (Wrap::default(), String::new());
        wrap.push("a long line of ", &mut out);
        wrap.push("wor", &mut out);
        assert_eq!(out, "a long line of wor");
    }

    #[test]
    fn a_new_width_holds_from_the_next_word_on() {
        let (mut wrap, mut out) = (Wrap::default(), String::new());
        wrap.resize(Some(20));
        wrap.push("aaaa bbbb cccc ", &mut out);
        wrap.resize(Some(10));
        wrap.push("dddd eeee ffff ", &mut out);
        assert_eq!(out, "aaaa bbbb cccc\ndddd eeee\nffff");
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter_and_no_word_is_split(
            words in prop::collection::vec("[a-zé]{1,9}", 0..20),
            width in 9usize..30,
            cuts in prop::collection::vec(1usize..7, 1..8),
        ) {
            let text = words.join(" ");
            let letters: Vec<char> = text.chars().collect();
            let (mut pieces, mut rest, mut cut) = (Vec::new(), &letters[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let at = rest.len().min(*cut.next().unwrap());
                pieces.push(rest[..at].iter().collect::<String>());
                rest = &rest[at..];
            }
            let out = wrapped(Some(width), pieces.iter().map(String::as_str));
            prop_assert_eq!(&out, &wrapped(Some(width), [&text[..]]));
            prop_assert_eq!(out.split_whitespace().collect::<Vec<_>>(), words);
            prop_assert!(out.lines().all(|line| line.chars().count() <= width));
        }
    }
}
