//! JSON as Python's `json.dumps` writes it: the same values, other white space and other floats.

use std::io::{self, Write};

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};

/// The `tojson` filter of chat templates: `json.dumps(value, ensure_ascii, indent, separators, sort_keys)`,
/// with `ensure_ascii` false unless asked for, and nothing escaped for HTML.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(Error::new(
            ErrorKind::UndefinedError,
            "undefined is not JSON serializable",
        ));
    }
    let indent = read_indent(options.get("indent")?)?;
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let style = Style {
        separators: read_separators(options.get("separators")?, indent.is_some())?,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent,
        level: 0,
        filled: false,
    };
    options.assert_all_used()?;
    write(value, sort_keys, style)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("not JSON serializable: {error}")))
}

fn write(value: &Value, sort_keys: bool, style: Style) -> Result<String, serde_json::Error> {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, style);
    if sort_keys {
        let mut value = serde_json::to_value(value)?;
        value.sort_all_objects();
        value.serialize(&mut serializer)?;
    } else {
        value.serialize(&mut serializer)?;
    }
    String::from_utf8(out).map_err(serde::ser::Error::custom)
}

/// A number of spaces, or the indentation itself.
fn read_indent(indent: Option<Value>) -> Result<Option<String>, Error> {
    const WIDEST: usize = 80;
    let Some(indent) = indent.filter(|indent| !indent.is_none()) else {
        return Ok(None);
    };
    if let Some(text) = indent.as_str() {
        return Ok(Some(text.to_owned()));
    }
    Ok(Some(" ".repeat(usize::try_from(indent)?.min(WIDEST))))
}

fn read_separators(pair: Option<Value>, indented: bool) -> Result<[String; 2], Error> {
    let Some(pair) = pair.filter(|pair| !pair.is_none()) else {
        return Ok([if indented { "," } else { ", " }.to_owned(), ": ".to_owned()]);
    };
    let pair: Vec<String> = pair.try_iter()?.map(|separator| separator.to_string()).collect();
    pair.try_into()
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, "`separators` takes two strings"))
}

struct Style {
    /// Between items, and between a key and its value.
    separators: [String; 2],
    ascii: bool,
    indent: Option<String>,
    level: usize,
    /// Whether the innermost open array or object has anything in it.
    filled: bool,
}

impl Style {
    fn open<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level += 1;
        self.filled = false;
        out.write_all(bracket)
    }

    fn close<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level -= 1;
        if self.filled {
            self.new_line(out)?;
        }
        self.filled = true;
        out.write_all(bracket)
    }

    fn item<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(self.separators[0].as_bytes())?;
        }
        self.filled = true;
        self.new_line(out)
    }

    fn new_line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        match &self.indent {
            Some(indent) => write!(out, "\n{}", indent.repeat(self.level)),
            None => Ok(()),
        }
    }
}

impl Formatter for Style {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.separators[1].as_bytes())
    }

    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, number: f64) -> io::Result<()> {
        out.write_all(float(number).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, text: &str) -> io::Result<()> {
        if !self.ascii {
            return out.write_all(text.as_bytes());
        }
        for character in text.chars() {
            match character {
                ' '..='~' => write!(out, "{character}")?,
                _ => character
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .try_for_each(|unit| write!(out, "\\u{unit:04x}"))?,
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, out: &mut W, escape: CharEscape) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(out, escape)
    }
}

/// As `repr(float)`: the shortest digits, with an exponent of two digits or more below 1e-4 and from 1e16 on.
fn float(number: f64) -> String {
    let scientific = format!("{number:e}");
    match scientific
        .split_once('e')
        .map(|(digits, exponent)| (digits, exponent.parse::<i32>()))
    {
        Some((digits, Ok(exponent))) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => format!("{number:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dumps(json: &str, options: Vec<(&str, Value)>) -> String {
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        tojson(&Value::from_serialize(value), options.into_iter().collect()).unwrap()
    }

    #[test]
    fn spacing_is_pythons() {
        let json = r#"{"b":[1,{},[]],"a":"<é\n\u0001\">'"}"#;
        assert_eq!(dumps(json, vec![]), r#"{"b": [1, {}, []], "a": "<é\n\u0001\">'"}"#);
        let indented = "{\n  \"b\": [\n    1,\n    {},\n    []\n  ],\n  \"a\": \"<é\\n\\u0001\\\">'\"\n}";
        assert_eq!(dumps(json, vec![("indent", 2.into())]), indented);
        assert_eq!(dumps("[]", vec![("indent", 2.into())]), "[]");
    }

    #[test]
    fn options_are_those_of_json_dumps() {
        let json = r#"{"b":[1,2],"a":"é😁"}"#;
        let separators = Value::from(vec![",", ":"]);
        assert_eq!(
            dumps(json, vec![("separators", separators)]),
            r#"{"b":[1,2],"a":"é😁"}"#
        );
        let sorted = dumps(json, vec![("sort_keys", true.into()), ("ensure_ascii", true.into())]);
        assert_eq!(sorted, r#"{"a": "\u00e9\ud83d\ude01", "b": [1, 2]}"#);
        assert_eq!(dumps("[1]", vec![("indent", "\t".into())]), "[\n\t1\n]");
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let written = [1.0, 0.1, 0.0001, 0.00001, 1.5e-7, 1e15, 1e16, 1.25e300, -0.0].map(float);
        assert_eq!(
            written,
            [
                "1.0",
                "0.1",
                "0.0001",
                "1e-05",
                "1.5e-07",
                "1000000000000000.0",
                "1e+16",
                "1.25e+300",
                "-0.0"
            ]
        );
    }

    #[test]
    fn what_is_undefined_is_an_error() {
        assert!(tojson(&Value::UNDEFINED, Kwargs::from_iter(Vec::<(&str, Value)>::new())).is_err());
    }
}
