//! Methods of Python's strings that the Jinja library's Python compatibility leaves out.

use minijinja::value::from_args;
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// Calls `method` of a value that has none of its own.
pub(super) fn call(state: &State, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    match value.as_str().and_then(|text| call_string(text, method, arguments)) {
        Some(result) => result,
        None => pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

fn call_string(text: &str, method: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
    let with =
        |make: &dyn Fn(&str) -> Result<Value, Error>| from_args(arguments).and_then(|(part,): (&str,)| make(part));
    Some(match method {
        "removeprefix" => with(&|prefix| Ok(text.strip_prefix(prefix).unwrap_or(text).into())),
        "removesuffix" => with(&|suffix| Ok(text.strip_suffix(suffix).unwrap_or(text).into())),
        "partition" => with(&|part| Ok(three(text.split_once(part), part, [text, "", ""]))),
        "rpartition" => with(&|part| Ok(three(text.rsplit_once(part), part, ["", "", text]))),
        "index" => with(&|part| position(text, text.find(part))),
        "rindex" => with(&|part| position(text, text.rfind(part))),
        "zfill" => from_args(arguments).map(|(width,): (usize,)| fill(text, width).into()),
        "rsplit" => from_args(arguments).and_then(|(part, most)| rsplit(text, part, most)),
        _ => return None,
    })
}

fn three(halves: Option<(&str, &str)>, part: &str, otherwise: [&str; 3]) -> Value {
    halves
        .map_or(otherwise, |(left, right)| [left, part, right])
        .into_iter()
        .collect()
}

/// Python counts characters.
fn position(text: &str, at: Option<usize>) -> Result<Value, Error> {
    let at = at.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "substring not found"))?;
    Ok(text[..at].chars().count().into())
}

/// Zeros go between the sign and the digits. More than any number needs are not written.
fn fill(text: &str, width: usize) -> String {
    const WIDEST: usize = 1000;
    let zeros = "0".repeat(width.min(WIDEST).saturating_sub(text.chars().count()));
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    format!("{}{zeros}{digits}", &text[..text.len() - digits.len()])
}

/// At most `most` cuts from the right, or all if it is negative; at white space if no `part` is given.
fn rsplit(text: &str, part: Option<&str>, most: Option<i64>) -> Result<Value, Error> {
    if part == Some("") {
        return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
    }
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let mut rest = if part.is_none() { text.trim() } else { text };
    let mut parts = Vec::new();
    while let Some((left, right)) = cut(rest, part).filter(|_| parts.len() < most) {
        parts.push(right);
        rest = left;
    }
    if part.is_some() || !rest.is_empty() {
        parts.push(rest);
    }
    Ok(parts.into_iter().rev().collect())
}

fn cut<'t>(text: &'t str, part: Option<&str>) -> Option<(&'t str, &'t str)> {
    match part {
        Some(part) => text.rsplit_once(part),
        None => text
            .rsplit_once(char::is_whitespace)
            .map(|(left, right)| (left.trim_end(), right)),
    }
}
