//! What was probably meant.

/// Of `known` the one most like `typed`, if one is alike enough to be a slip.
pub fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let slips = |known: &&str| strsim::damerau_levenshtein(typed, known);
    let near = known.min_by_key(slips)?;
    (slips(&near) <= 1 + typed.chars().count() / 4).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_another_word_is_not() {
        let near = |typed| nearest(typed, ["/set", "/show", "/save", "/clear"].into_iter());
        assert_eq!(near("/sve"), Some("/save"));
        assert_eq!(near("/shwo"), Some("/show"));
        assert_eq!(near("/claer"), Some("/clear"));
        assert_eq!(near("/embed"), None);
    }
}
