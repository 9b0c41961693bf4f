//! What a plugin says, before anybody reads it or computes with it.

use backend_api::{BackendError, Result, contract::Outcome};

/// Characters of a plugin's words that are kept.
const MOST_CHARACTERS: usize = 4000;

/// A plugin's words as one line that does nothing to a terminal: control characters become spaces, and what is beyond
/// a few thousand characters is cut off.
pub fn words(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut kept: String = text.chars().take(MOST_CHARACTERS).map(plain).collect();
    if kept.len() < text.len() {
        kept.push('…');
    }
    kept
}

/// The result of a plugin's function, an error's message as [`words`].
pub fn told<T>(outcome: Outcome<T>) -> Result<T> {
    outcome.into_result().map_err(|error| BackendError {
        message: words(&error.message).into(),
        ..error
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_do_nothing_to_a_terminal() {
        assert_eq!(words("all\tis\x1b[31m red\r\n"), "all is [31m red  ");
        assert_eq!(words("größer als 0"), "größer als 0");
    }

    #[test]
    fn endless_words_are_cut_off() {
        let error: Result<()> = told(Err(BackendError::failed("ä".repeat(1 << 20))).into());
        let message = error.unwrap_err().message.to_string();
        assert_eq!(message.chars().count(), MOST_CHARACTERS + 1);
        assert!(message.ends_with("ä…"));
    }
}
