//! Metadata: keys in file order, and typed access to their values.

use std::borrow::Cow;
use std::sync::Arc;

use indexmap::IndexMap;
use indexmap::map::Entry as Slot;

use super::error::{Fault, GgufError, quoted};
use super::meaning::meaning;
use super::reader::Reader;
use super::strings::Strings;
use super::value::{Array, Value};

/// The keys and values of a file.
#[derive(Clone, Debug)]
pub struct Metadata {
    file: Arc<str>,
    entries: IndexMap<String, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// Where the value stands in the file.
    offset: u64,
    value: Value,
}

impl Metadata {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// All keys and values in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), &entry.value))
    }

    /// The path of the file, or the name that its bytes were given: for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn read(file: &Arc<str>, reader: &mut Reader, count: u64) -> Result<Metadata, GgufError> {
        let mut entries = IndexMap::new();
        for index in 0..count {
            let start = reader.offset();
            let key = reader
                .string()
                .map_err(|e| e.within(|| format!("name of key {index}")))?;
            let offset = reader.offset();
            let value = Value::read(reader).map_err(|e| e.key(&key))?;
            match entries.entry(key) {
                Slot::Vacant(slot) => slot.insert(Entry { offset, value }),
                Slot::Occupied(slot) => return Err(reader.error(start, Fault::Duplicate).key(slot.key())),
            };
        }
        Ok(Metadata {
            file: file.clone(),
            entries,
        })
    }

    /// An error about the value of `key`.
    pub(super) fn error(&self, key: &str, fault: Fault) -> GgufError {
        let error = GgufError::new(&self.file, fault).key(key).hinted(self.hint(key));
        match self.entries.get(key) {
            Some(entry) => error.at(entry.offset),
            None => error,
        }
    }

    /// What a key says, and where it stands instead, if it stands under another architecture's prefix.
    fn hint(&self, key: &str) -> Option<String> {
        let meaning = meaning(key).map(|meaning| format!("it says {meaning}"));
        let own = |key: &str| key.split_once('.').map(|(_, own)| own.to_owned());
        let elsewhere = |other: &&String| own(key).is_some() && own(key) == own(other);
        let other = match self.get(key) {
            None => self.entries.keys().find(elsewhere),
            Some(_) => None,
        };
        let other = other.map(|other| format!("the file has {}", quoted(other)));
        let hints: Vec<String> = meaning.into_iter().chain(other).collect();
        (!hints.is_empty()).then(|| hints.join("; "))
    }

    /// An error for a value that is no good for what it is used for, though of the right type: it says what is
    /// there and what was `expected`, such as `a head count of at least 1`.
    pub fn unexpected(&self, key: &str, expected: &'static str) -> GgufError {
        let found = match self.get(key) {
            Some(Value::String(text)) => quoted(text),
            Some(value) => value.describe(),
            None => return self.error(key, Fault::Missing),
        };
        self.error(key, Fault::WrongType { expected, found })
    }

    fn optional<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        match self.get(key) {
            Some(value) => read(value).map(Some).ok_or_else(|| self.unexpected(key, expected)),
            None => Ok(None),
        }
    }
}

macro_rules! getters {
    ($($(#[$doc:meta])* $plain:ident, $opt:ident -> $type:ty, $expected:literal, $read:expr;)*) => {
        impl Metadata {$(
            $(#[$doc])*
            ///
            /// An error where the key is missing or its value is something else.
            pub fn $plain(&self, key: &str) -> Result<$type, GgufError> {
                self.$opt(key)?.ok_or_else(|| self.error(key, Fault::Missing))
            }

            $(#[$doc])*
            ///
            /// `None` where the key is missing, an error where its value is something else.
            pub fn $opt(&self, key: &str) -> Result<Option<$type>, GgufError> {
                self.optional(key, $expected, $read)
            }
        )*}
    };
}

getters! {
    /// A string.
    string, opt_string -> &str, "a string", |value| match value {
        Value::String(text) => Some(text.as_str()),
        _ => None,
    };
    /// An integer of any type that fits u32.
    u32, opt_u32 -> u32, "an integer that fits u32", |value| value.integer()?.try_into().ok();
    /// An integer of any type that fits i32.
    i32, opt_i32 -> i32, "an integer that fits i32", |value| value.integer()?.try_into().ok();
    /// An integer of any type that fits u64.
    u64, opt_u64 -> u64, "an integer that fits u64", |value| value.integer()?.try_into().ok();
    /// A floating-point number of either type, as f32.
    f32, opt_f32 -> f32, "a floating-point number", |value| match value {
        Value::F32(number) => Some(*number),
        Value::F64(number) => Some(*number as f32),
        _ => None,
    };
    /// A bool.
    bool, opt_bool -> bool, "a bool", |value| match value {
        Value::Bool(truth) => Some(*truth),
        _ => None,
    };
    /// An array of strings.
    strings, opt_strings -> &Strings, "an array of strings", |value| match value {
        Value::Array(Array::String(strings)) => Some(strings),
        _ => None,
    };
    /// An array of f32.
    f32s, opt_f32s -> &[f32], "an array of f32", |value| match value {
        Value::Array(Array::F32(numbers)) => Some(numbers.as_slice()),
        _ => None,
    };
    /// An array of bools.
    bools, opt_bools -> &[bool], "an array of bools", |value| match value {
        Value::Array(Array::Bool(truths)) => Some(truths.as_slice()),
        _ => None,
    };
    /// An array of integers of any type that all fit u32.
    u32s, opt_u32s -> Cow<'_, [u32]>, "an array of integers that fit u32", |value| match value {
        Value::Array(Array::U32(numbers)) => Some(Cow::Borrowed(numbers.as_slice())),
        Value::Array(array) => array.integers().map(Cow::Owned),
        _ => None,
    };
    /// An array of integers of any type that all fit i32.
    i32s, opt_i32s -> Cow<'_, [i32]>, "an array of integers that fit i32", |value| match value {
        Value::Array(Array::I32(numbers)) => Some(Cow::Borrowed(numbers.as_slice())),
        Value::Array(array) => array.integers().map(Cow::Owned),
        _ => None,
    };
}
