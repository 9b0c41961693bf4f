//! Lists of numbers as llama-bench takes them: `512`, `128,512`, `1-4`, `128-1024*2`, `0-2048+512`.

use std::str::FromStr;

/// Most numbers that a list may have.
const MOST: usize = 1000;

/// Numbers in the order in which they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List(pub Vec<u32>);

impl FromStr for List {
    type Err = String;

    fn from_str(text: &str) -> Result<List, String> {
        let mut all = Vec::new();
        for part in text.split(',') {
            range(part.trim(), &mut all)?;
        }
        Ok(List(all))
    }
}

/// Appends the numbers of `FIRST`, `FIRST-LAST`, `FIRST-LAST+STEP` or `FIRST-LAST*FACTOR`.
fn range(text: &str, all: &mut Vec<u32>) -> Result<(), String> {
    let Some((first, rest)) = text.split_once('-') else {
        all.push(number(text)?);
        return Ok(());
    };
    let (last, step, times) = match rest.find(['+', '*']) {
        None => (rest, 1, false),
        Some(at) => (&rest[..at], number(&rest[at + 1..])?, rest[at..].starts_with('*')),
    };
    let (mut next, last) = (u64::from(number(first)?), u64::from(number(last)?));
    if next > last {
        return Err(format!("{text:?} ends before it begins"));
    }
    let step = u64::from(step);
    if step == 0 || times && (step == 1 || next == 0) {
        return Err(format!("{text:?} never ends"));
    }
    while next <= last {
        if all.len() == MOST {
            return Err(format!("more than {MOST} numbers"));
        }
        all.push(next as u32);
        next = if times { next * step } else { next + step };
    }
    Ok(())
}

fn number(text: &str) -> Result<u32, String> {
    let number = text.parse().map_err(|_| {
        format!("{text:?} is no number; expected numbers or ranges with commas, such as 512, 1-4, 0-2048+512 or 1-8*2")
    })?;
    if number > 1 << 24 {
        Err(format!("{number} is more than {}", 1 << 24))
    } else {
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("512", &[512])]
    #[case("128,512", &[128, 512])]
    #[case("1-4", &[1, 2, 3, 4])]
    #[case("0-2048+1024", &[0, 1024, 2048])]
    #[case("1-9*2", &[1, 2, 4, 8])]
    #[case("4, 1-2", &[4, 1, 2])]
    fn lists_are_read(#[case] text: &str, #[case] numbers: &[u32]) {
        assert_eq!(text.parse::<List>().unwrap().0, numbers);
    }

    #[rstest]
    #[case("", "no number")]
    #[case("a", "no number")]
    #[case("5-4", "ends before it begins")]
    #[case("1-2+0", "never ends")]
    #[case("0-9*2", "never ends")]
    #[case("1-9*1", "never ends")]
    #[case("0-100000", "more than 1000")]
    #[case("99999999", "is more than")]
    fn others_are_refused(#[case] text: &str, #[case] reason: &str) {
        let error = text.parse::<List>().unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}
