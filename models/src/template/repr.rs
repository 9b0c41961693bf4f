//! Values as Python prints them: `{{ value }}` of a list or dictionary is its `repr`.

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, Output, State, Value};

/// What `{{ value }}` writes.
pub(super) fn format(out: &mut Output, state: &State, value: &Value) -> Result<(), Error> {
    if is_container(value) {
        return Ok(out.write_str(&string(value))?);
    }
    minijinja::escape_formatter(out, state, value)
}

/// As `str(value)`.
pub(super) fn string(value: &Value) -> String {
    if !is_container(value) {
        return value.to_string();
    }
    let mut text = String::new();
    append(value, &mut text);
    text
}

/// Lists and dictionaries; objects such as namespaces print themselves.
fn is_container(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map)
}

fn append(value: &Value, out: &mut String) {
    match (value.kind(), value.as_str()) {
        (ValueKind::Seq, _) => append_items(value, ['[', ']'], out, append),
        (ValueKind::Map, _) => append_items(value, ['{', '}'], out, |key, out| {
            append(key, out);
            out.push_str(": ");
            append(&value.get_item(key).unwrap_or_default(), out);
        }),
        (_, Some(text)) => append_string(text, out),
        _ => out.push_str(&value.to_string()),
    }
}

fn append_items(value: &Value, [open, close]: [char; 2], out: &mut String, item: impl Fn(&Value, &mut String)) {
    out.push(open);
    for (index, each) in value.try_iter().into_iter().flatten().enumerate() {
        out.push_str(if index == 0 { "" } else { ", " });
        item(&each, out);
    }
    out.push(close);
}

/// In single quotes, unless the text has some and no double quotes.
fn append_string(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if character == quote => out.extend(['\\', quote]),
            // Writing to a string does not fail.
            _ if character.is_control() => drop(write!(out, "\\x{:02x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_in_containers_are_quoted_as_python_quotes_them() {
        let value = Value::from(vec!["a", "it's", "\"it's\"", "\n\\\u{1}é"]);
        assert_eq!(string(&value), r#"['a', "it's", '"it\'s"', '\n\\\x01é']"#);
        assert_eq!(string(&Value::from("it's")), "it's");
    }
}
