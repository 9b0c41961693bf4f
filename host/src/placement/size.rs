//! Sizes as people write them.

/// Bytes in `11441MiB`, `2 GiB`, `1.5g`, `500MB` or `4096`: MB and its like are powers of 1000, MiB and M of 1024.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text
        .find(|c: char| c != '.' && !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim().to_ascii_lowercase());
    let number: f64 = number.parse().map_err(|_| expected(text))?;
    let factor = match unit.as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024.0 * 1024.0,
        "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(expected(text)),
    };
    let bytes = number * factor;
    match bytes < (1u64 << 46) as f64 {
        true => Ok(bytes as u64),
        false => Err(format!("{text:?} is more than any device has")),
    }
}

fn expected(text: &str) -> String {
    format!("{text:?} is no size; expected a number with a unit, such as 11441MiB or 2GiB")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::parse;

    #[rstest]
    #[case("11441MiB", 11441 << 20)]
    #[case("2 GiB", 2 << 30)]
    #[case("1.5g", 3 << 29)]
    #[case("500MB", 500_000_000)]
    #[case("64k", 65536)]
    #[case("4096", 4096)]
    fn sizes_are_read(#[case] text: &str, #[case] bytes: u64) {
        assert_eq!(parse(text), Ok(bytes));
    }

    #[rstest]
    #[case("", "is no size")]
    #[case("GiB", "is no size")]
    #[case("2GiBs", "is no size")]
    #[case("1.2.3M", "is no size")]
    #[case("-1M", "is no size")]
    #[case("900TiB", "more than any device has")]
    fn others_are_refused(#[case] text: &str, #[case] why: &str) {
        assert!(parse(text).unwrap_err().contains(why));
    }
}
