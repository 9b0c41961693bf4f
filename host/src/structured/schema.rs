//! JSON schemas: what is added to them, and what is said of those that cannot be used.

use serde_json::{Map, Value as Json};

use super::FormatError;

/// Where a schema says how it is to be read; the name is llguidance's.
const OPTIONS: &str = "x-guidance";
const SPACE: &str = "whitespace_pattern";

/// White space where JSON allows any: none, a space, or a line break with what indents the next line. Without a bound a
/// model could go on with spaces for ever.
const BOUNDED_SPACE: &str = r" |\n( {0,32}|\t{0,16})";

/// The schema, with bounded white space unless it says itself how much there may be.
pub(super) fn with_bounded_space(schema: Json) -> Json {
    let mut schema = match schema {
        Json::Bool(true) => Map::new(),
        Json::Object(schema) => schema,
        other => return other,
    };
    let options = schema.entry(OPTIONS).or_insert_with(|| Json::Object(Map::new()));
    if let Some(options) = options.as_object_mut()
        && !options.contains_key("whitespace_flexible")
    {
        options.entry(SPACE).or_insert_with(|| BOUNDED_SPACE.into());
    }
    Json::Object(schema)
}

/// The error for what llguidance says of a schema.
pub(super) fn error(reason: String) -> FormatError {
    let hints = [
        (
            "Unimplemented keys",
            "leave the keyword out and check answers for it, or have it ignored: \"x-guidance\": {\"lenient\": true} in \
             the schema",
        ),
        (
            "oneOf constraints",
            "write anyOf, or have it read so: \"x-guidance\": {\"coerce_one_of\": true} in the schema",
        ),
        (
            "$ref",
            "references are to be within the schema, such as \"#/$defs/NAME\"",
        ),
        ("Unsatisfiable", "no answer could be right"),
    ];
    let hint = hints.iter().find(|(sign, _)| reason.contains(sign));
    FormatError::Schema {
        hint: hint.map(|(_, hint)| *hint),
        reason,
    }
}
