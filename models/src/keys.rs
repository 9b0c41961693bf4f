//! An architecture's metadata keys, without their prefix.

use crate::gguf::{Gguf, GgufError, Metadata, Value};

/// Metadata of one architecture: `keys.u32("block_count")` reads `qwen2.block_count`.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'a str,
}

impl<'a> Keys<'a> {
    /// The keys of `file` under `prefix`.
    pub fn new(file: &'a Gguf, prefix: &'a str) -> Self {
        Keys {
            metadata: file.metadata(),
            prefix,
        }
    }

    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    /// A size: an integer of at least 1.
    pub fn size(&self, key: &str) -> Result<u32, GgufError> {
        self.positive(key, self.metadata.u32(&self.full(key))?)
    }

    /// A size that may be absent.
    pub fn opt_size(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.metadata
            .opt_u32(&self.full(key))?
            .map(|n| self.positive(key, n))
            .transpose()
    }

    fn positive(&self, key: &str, value: u32) -> Result<u32, GgufError> {
        if value > 0 {
            Ok(value)
        } else {
            Err(self.unexpected(key, "at least 1"))
        }
    }

    /// A number.
    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        self.metadata.f32(&self.full(key))
    }

    /// A number that may be absent.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.metadata.opt_f32(&self.full(key))
    }

    /// A string that may be absent.
    pub fn opt_string(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        self.metadata.opt_string(&self.full(key))
    }

    /// The first of `keys` that is there, as a number.
    pub fn first_f32(&self, keys: &[&str]) -> Result<Option<f32>, GgufError> {
        keys.iter().find_map(|key| self.opt_f32(key).transpose()).transpose()
    }

    /// Which layers have a sliding window, from `attention.sliding_window_pattern`: a bool a layer (true: windowed) or
    /// a period (layer i is global when i + 1 is a multiple); `period` when the key is absent.
    pub fn windowed_layers(&self, layers: u32, period: u32) -> Result<Vec<bool>, GgufError> {
        let key = "attention.sliding_window_pattern";
        let by_period = |period: u32| (1..=layers).map(|i| !i.is_multiple_of(period)).collect();
        match self.metadata.get(&self.full(key)) {
            None => Ok(by_period(period)),
            Some(Value::Array(_)) => match self.metadata.bools(&self.full(key))? {
                pattern if pattern.len() == layers as usize => Ok(pattern.to_vec()),
                _ => Err(self.unexpected(key, "one bool a layer")),
            },
            Some(_) => Ok(by_period(self.size(key)?)),
        }
    }

    /// An error about the value of `key`.
    pub fn unexpected(&self, key: &str, expected: &'static str) -> GgufError {
        self.metadata.unexpected(&self.full(key), expected)
    }
}
