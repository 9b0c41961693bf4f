//! Messages of several lines: what stands between `"""` and `"""`.

/// Begins and ends a text of several lines.
pub const MARK: &str = r#"""""#;
/// The command whose text may be quoted.
const SYSTEM: &str = "/set system";

/// What was entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Something to say to the model.
    Message(String),
    /// A command, `/` included.
    Command(String),
    /// A text that has begun and not ended.
    More,
}

/// Puts the lines of a quoted text together.
#[derive(Debug, Default)]
pub struct Quotes {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    /// The command that the text belongs to, if any.
    command: Option<&'static str>,
    text: String,
}

impl Quotes {
    /// Whether a text has begun and not ended.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Drops what has begun.
    pub fn forget(&mut self) {
        self.open = None;
    }

    /// Takes what was entered up to a press of Enter; a paste may have several lines.
    pub fn push(&mut self, entered: &str) -> Input {
        let mut open = match self.open.take() {
            Some(open) => Open {
                text: open.text + "\n" + entered,
                ..open
            },
            None => match begun(entered) {
                Some(open) => open,
                None => return plain(entered),
            },
        };
        match open.text.trim_end().strip_suffix(MARK) {
            Some(text) => {
                open.text = text.to_owned();
                open.complete()
            }
            None => {
                self.open = Some(open);
                Input::More
            }
        }
    }
}

impl Open {
    fn complete(self) -> Input {
        let text = self.text.strip_prefix('\n').unwrap_or(&self.text);
        let text = text.strip_suffix('\n').unwrap_or(text);
        match self.command {
            Some(command) => Input::Command(format!("{command} {text}")),
            None => Input::Message(text.to_owned()),
        }
    }
}

/// A text that begins here, without the mark.
fn begun(entered: &str) -> Option<Open> {
    let entered = entered.trim_start();
    let quoted = |rest: &str, command| {
        let text = rest.trim_start().strip_prefix(MARK)?.to_owned();
        Some(Open { command, text })
    };
    let after_command = entered.strip_prefix(SYSTEM);
    quoted(entered, None).or_else(|| quoted(after_command?, Some(SYSTEM)))
}

fn plain(entered: &str) -> Input {
    match entered.trim_start().starts_with('/') {
        true => Input::Command(entered.trim().to_owned()),
        false => Input::Message(entered.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn message(text: &str) -> Input {
        Input::Message(text.into())
    }

    fn command(text: &str) -> Input {
        Input::Command(text.into())
    }

    /// What the last of these lines completes.
    fn entered(lines: &[&str]) -> Input {
        let mut quotes = Quotes::default();
        let (last, first) = lines.split_last().unwrap();
        for line in first {
            assert_eq!(quotes.push(line), Input::More, "{line:?}");
            assert!(quotes.is_open());
        }
        let input = quotes.push(last);
        assert!(!quotes.is_open());
        input
    }

    #[rstest]
    #[case::a_line(&["Hello there"], message("Hello there"))]
    #[case::a_paste(&["one\ntwo"], message("one\ntwo"))]
    #[case::marks_on_lines_of_their_own(&["\"\"\"", "one", " two", "\"\"\""], message("one\n two"))]
    #[case::marks_beside_the_text(&["\"\"\"one", "two\"\"\" "], message("one\ntwo"))]
    #[case::on_one_line(&["\"\"\"one\"\"\""], message("one"))]
    #[case::all_at_once(&["\"\"\"one\ntwo\"\"\""], message("one\ntwo"))]
    #[case::empty_lines_inside(&["\"\"\"", "", "one", "", "\"\"\""], message("\none\n"))]
    #[case::a_slash_inside(&["\"\"\"/bye", "\"\"\""], message("/bye"))]
    #[case::marks_in_the_middle(&["say \"\"\" now"], message("say \"\"\" now"))]
    #[case::a_command(&[" /show info "], command("/show info"))]
    #[case::a_quoted_system_message(&["/set system \"\"\"one", "two\"\"\""], command("/set system one\ntwo"))]
    #[case::a_system_message(&["/set system one"], command("/set system one"))]
    fn lines_make_a_message(#[case] lines: &[&str], #[case] expected: Input) {
        assert_eq!(entered(lines), expected);
    }

    #[test]
    fn what_has_begun_can_be_dropped() {
        let mut quotes = Quotes::default();
        assert_eq!(quotes.push("\"\"\"one"), Input::More);
        quotes.forget();
        assert_eq!(quotes.push("two"), message("two"));
    }
}
