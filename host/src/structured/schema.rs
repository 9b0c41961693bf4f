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

/// What is said of a schema that was not read.
pub(super) fn unread(error: serde_json::Error) -> FormatError {
    let text = error.to_string();
    match text.strip_prefix("recursion limit exceeded") {
        Some(place) => FormatError::Schema {
            reason: format!("it is nested too deeply{place}"),
            hint: Some("name its parts in \"$defs\" and refer to them"),
        },
        None => FormatError::NotJson(text),
    }
}

/// Keywords with which several schemas describe one object together: each knows a part of its properties.
const COMBINING: [&str; 8] = [
    "allOf",
    "dependentSchemas",
    "dependencies",
    "else",
    "if",
    "not",
    "then",
    "unevaluatedProperties",
];
/// Keywords that say something of properties which are not named.
const OF_OTHERS: [&str; 5] = [
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "anyOf",
    "oneOf",
];

/// The schema, in which objects have no properties but those that are named, unless it says something of others: what is
/// asked for, where the letter allows a model to go on with properties of its own. What it accepts, the schema accepts. One
/// in which several schemas describe one object stays as it is.
pub(super) fn with_named_properties(mut schema: Json) -> Json {
    if !combines(&schema) {
        close(&mut schema);
    }
    schema
}

fn combines(schema: &Json) -> bool {
    match schema {
        Json::Array(members) => members.iter().any(combines),
        Json::Object(node) => {
            let referring = node.contains_key("$ref") && node.contains_key("properties");
            referring || COMBINING.iter().any(|key| node.contains_key(*key)) || node.values().any(combines)
        }
        _ => false,
    }
}

/// Closes every object in a schema. Names of properties may be those of keywords, so places are told from them.
fn close(schema: &mut Json) {
    let Some(node) = schema.as_object_mut() else { return };
    let closes = names_all_required(node) && !OF_OTHERS.iter().any(|key| node.contains_key(*key));
    // alternatives within an object know a part of its properties
    let alternatives = if node.contains_key("properties") {
        &[][..]
    } else {
        &["anyOf", "oneOf"]
    };
    for (keyword, value) in node.iter_mut() {
        match keyword.as_str() {
            "properties" | "patternProperties" | "$defs" | "definitions" => {
                value
                    .as_object_mut()
                    .into_iter()
                    .flat_map(Map::values_mut)
                    .for_each(close);
            }
            "items" | "additionalProperties" | "additionalItems" if value.is_object() => close(value),
            "items" | "prefixItems" => value.as_array_mut().into_iter().flatten().for_each(close),
            keyword if alternatives.contains(&keyword) => value.as_array_mut().into_iter().flatten().for_each(close),
            _ => {}
        }
    }
    if closes {
        node.insert("additionalProperties".into(), false.into());
    }
}

/// Whether an object names properties, and among them all that it requires.
fn names_all_required(node: &Map<String, Json>) -> bool {
    let Some(properties) = node.get("properties").and_then(Json::as_object) else {
        return false;
    };
    let mut required = node.get("required").and_then(Json::as_array).into_iter().flatten();
    required.all(|name| name.as_str().is_some_and(|name| properties.contains_key(name)))
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

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::of_named_properties(
        json!({"properties": {"a": {}}}),
        json!({"properties": {"a": {}}, "additionalProperties": false})
    )]
    #[case::within_another(
        json!({"items": {"properties": {"items": {"properties": {}}}}}),
        json!({"items": {
            "properties": {"items": {"properties": {}, "additionalProperties": false}},
            "additionalProperties": false
        }})
    )]
    #[case::among_alternatives(
        json!({"anyOf": [{"properties": {"a": {}}}, {"type": "null"}]}),
        json!({"anyOf": [{"properties": {"a": {}}, "additionalProperties": false}, {"type": "null"}]})
    )]
    fn objects_are_closed(#[case] schema: Json, #[case] closed: Json) {
        assert_eq!(with_named_properties(schema), closed);
    }

    #[rstest]
    #[case::without_names(json!({"type": "object"}))]
    #[case::that_says_so(json!({"properties": {"a": {}}, "additionalProperties": true}))]
    #[case::that_requires_others(json!({"properties": {"a": {}}, "required": ["b"]}))]
    #[case::with_patterns(json!({"properties": {"a": {}}, "patternProperties": {"^b": {}}}))]
    #[case::described_in_parts(json!({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}))]
    #[case::with_alternatives_for_a_part(json!({"properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}}]}))]
    #[case::that_adds_to_another(
        json!({"$defs": {"x": {"properties": {"a": {}}}}, "$ref": "#/$defs/x", "properties": {"b": {}}})
    )]
    fn others_stay_open(#[case] schema: Json) {
        assert_eq!(with_named_properties(schema.clone()), schema);
    }
}
