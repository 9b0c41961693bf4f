//! An architecture's metadata keys, without their prefix.

use std::cell::RefCell;

use crate::gguf::{Gguf, GgufError, Metadata, Value};

/// Metadata of one architecture: `keys.u32("block_count")` reads `qwen2.block_count`.
pub struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'a str,
    others: &'static [&'static str],
    tensors: usize,
    /// Sizes that were asked for and are not there.
    absent: RefCell<Vec<String>>,
}

/// How attention is divided into heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// H: query heads.
    pub heads: u32,
    /// Hkv: heads of keys and values; they divide H.
    pub kv_heads: u32,
    /// hd: values a head, an even number; hd·H fits i32.
    pub head_dim: u32,
}

impl<'a> Keys<'a> {
    /// The keys of `file` under `prefix`, or under one of `others` where they are not there.
    pub fn new(file: &'a Gguf, prefix: &'a str, others: &'static [&'static str]) -> Self {
        Keys {
            metadata: file.metadata(),
            prefix,
            others,
            tensors: file.tensors().len(),
            absent: RefCell::default(),
        }
    }

    fn full(&self, key: &str) -> String {
        let under = |prefix: &str| format!("{prefix}.{key}");
        let others = self.others.iter().map(|prefix| under(prefix));
        let mut spelled = std::iter::once(under(self.prefix)).chain(others);
        let there = spelled.find(|full| self.metadata.get(full).is_some());
        there.unwrap_or_else(|| under(self.prefix))
    }

    /// A size: an integer of at least 1.
    pub fn size(&self, key: &str) -> Result<u32, GgufError> {
        self.positive(key, self.metadata.u32(&self.full(key))?)
    }

    /// A size under the first of `names` that is there.
    pub fn any_size(&self, names: [&str; 2]) -> Result<u32, GgufError> {
        match self.opt_size(names[0])? {
            None if self.metadata.get(&self.full(names[1])).is_some() => self.size(names[1]),
            None => self.size(names[0]),
            Some(size) => Ok(size),
        }
    }

    /// A size that may be absent.
    pub fn opt_size(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.opt_number(key)?.map(|n| self.positive(key, n)).transpose()
    }

    fn opt_number(&self, key: &str) -> Result<Option<u32>, GgufError> {
        let number = self.metadata.opt_u32(&self.full(key))?;
        if number.is_none() {
            self.absent.borrow_mut().push(self.full(key));
        }
        Ok(number)
    }

    /// The sizes that were asked for and that the file does not say, in words; nothing where it says all.
    pub fn absent(&self) -> Option<String> {
        let mut absent = self.absent.borrow().clone();
        absent.sort();
        absent.dedup();
        (!absent.is_empty()).then(|| format!("the file does not have {}", absent.join(", ")))
    }

    fn positive(&self, key: &str, value: u32) -> Result<u32, GgufError> {
        self.require(value > 0, key, "at least 1")?;
        Ok(value)
    }

    fn require(&self, holds: bool, key: &str, expected: &'static str) -> Result<(), GgufError> {
        if holds {
            Ok(())
        } else {
            Err(self.unexpected(key, expected))
        }
    }

    /// An integer from 0.
    pub fn number(&self, key: &str) -> Result<u32, GgufError> {
        self.metadata.u32(&self.full(key))
    }

    /// An integer from 0; 0 where the key is absent.
    pub fn number_or_zero(&self, key: &str) -> Result<u32, GgufError> {
        Ok(self.opt_number(key)?.unwrap_or(0))
    }

    /// A bool that may be absent.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.metadata.opt_bool(&self.full(key))
    }

    /// `a` · `b`, sizes of which `key` is one: it fits i32.
    pub fn product(&self, key: &str, a: u32, b: u32) -> Result<u32, GgufError> {
        let product = a.checked_mul(b).filter(|&product| i32::try_from(product).is_ok());
        product.ok_or_else(|| self.unexpected(key, "a size that fits i32 over all layers"))
    }

    /// A size for each layer: one number for all, or an array of one each.
    pub fn sizes(&self, key: &str, layers: u32) -> Result<Vec<u32>, GgufError> {
        let Some(Value::Array(_)) = self.metadata.get(&self.full(key)) else {
            return Ok(vec![self.size(key)?; layers as usize]);
        };
        let sizes = self.metadata.u32s(&self.full(key))?;
        let each = sizes.len() == layers as usize && sizes.iter().all(|&size| size > 0);
        self.require(each, key, "one size a layer, each at least 1")?;
        Ok(sizes.into_owned())
    }

    /// A number for each layer; infinite ones too.
    pub fn per_layer_f32(&self, key: &str, layers: u32) -> Result<&'a [f32], GgufError> {
        let numbers = self.metadata.f32s(&self.full(key))?;
        let each = numbers.len() == layers as usize && numbers.iter().all(|number| !number.is_nan());
        self.require(each, key, "one number a layer")?;
        Ok(numbers)
    }

    /// How many layers there are: `block_count`. Each has tensors, so a file's tensors bound what is made for the layers.
    pub fn layers(&self) -> Result<u32, GgufError> {
        let key = "block_count";
        let layers = self.size(key)?;
        self.require(
            layers as usize <= self.tensors,
            key,
            "no more layers than the file has tensors",
        )?;
        Ok(layers)
    }

    /// `attention.head_count`, `head_count_kv` and `key_length`; `value_length` is the same. A file without
    /// `key_length` means `usual` values a head, or `embedding_length` / H.
    pub fn heads(&self, usual: Option<u32>) -> Result<Heads, GgufError> {
        let [count, kv_count, length] = [
            "attention.head_count",
            "attention.head_count_kv",
            "attention.key_length",
        ];
        let (d, heads) = (self.size("embedding_length")?, self.size(count)?);
        self.require(heads <= d, count, "no more heads than embedding_length")?;
        let kv_heads = self.opt_size(kv_count)?.unwrap_or(heads);
        self.require(
            heads.is_multiple_of(kv_heads),
            kv_count,
            "a number that divides attention.head_count",
        )?;
        let (said, key) = match self.opt_size(length)? {
            Some(said) => (Some(said), length),
            None => (usual, count),
        };
        let head_dim = said.unwrap_or(d / heads);
        let values = self.opt_size("attention.value_length")?.unwrap_or(head_dim);
        self.require(
            values == head_dim,
            "attention.value_length",
            "the same as attention.key_length",
        )?;
        self.require(head_dim.is_multiple_of(2), key, "heads of an even number of values")?;
        let rows = head_dim.checked_mul(heads).filter(|&rows| i32::try_from(rows).is_ok());
        self.require(rows.is_some(), key, "heads whose values together fit i32")?;
        Ok(Heads {
            heads,
            kv_heads,
            head_dim,
        })
    }

    /// n: `rope.dimension_count`, an even number of a head's values; all of them where the file does not say.
    pub fn rotated_dims(&self, head_dim: u32) -> Result<u32, GgufError> {
        let key = "rope.dimension_count";
        let dims = self.opt_size(key)?.unwrap_or(head_dim);
        let fits = dims.is_multiple_of(2) && dims <= head_dim;
        self.require(fits, key, "an even number, at most attention.key_length")?;
        Ok(dims)
    }

    /// `expert_count` and `expert_used_count`: how many experts a layer has, and how many serve a token. Backends serve up
    /// to 512 and 16.
    pub fn experts(&self) -> Result<(u32, u32), GgufError> {
        let (count, used) = ("expert_count", "expert_used_count");
        let (n, k) = (self.size(count)?, self.size(used)?);
        self.require(n <= 512, count, "at most 512 experts")?;
        self.require(k <= n.min(16), used, "no more than expert_count, and at most 16")?;
        Ok((n, k))
    }

    /// A norm's ε: a number from 0; `usual`, if there is one, where the key is absent.
    pub fn epsilon(&self, key: &str, usual: Option<f32>) -> Result<f32, GgufError> {
        let epsilon = match (self.opt_f32(key)?, usual) {
            (Some(epsilon), _) => epsilon,
            (None, Some(usual)) => usual,
            (None, None) => self.f32(key)?,
        };
        self.require(epsilon >= 0.0, key, "a number from 0")?;
        Ok(epsilon)
    }

    /// Refuses models whose tokens see later ones: they embed texts and do not continue them.
    pub fn causal(&self) -> Result<(), GgufError> {
        let key = "attention.causal";
        let causal = self.metadata.opt_bool(&self.full(key))?.unwrap_or(true);
        self.require(causal, key, "true: a model that continues texts")
    }

    /// c of a softcap c·tanh(·/c): a number from 0, and 0 where the key is absent, for none.
    pub fn softcap(&self, key: &str) -> Result<f32, GgufError> {
        self.softcap_or(key, 0.0)
    }

    /// As [`Keys::softcap`], but `usual` where the key is absent.
    pub fn softcap_or(&self, key: &str, usual: f32) -> Result<f32, GgufError> {
        let softcap = self.opt_f32(key)?.unwrap_or(usual);
        self.require(softcap >= 0.0, key, "a number from 0")?;
        Ok(softcap)
    }

    /// θ of a rotation: the first of `keys` that is there, or `usual`. A number above 1, so that frequencies fall.
    pub fn rope_base(&self, keys: &[&str], usual: f32) -> Result<f32, GgufError> {
        for key in keys {
            if let Some(base) = self.opt_f32(key)? {
                self.require(base > 1.0, key, "a number above 1")?;
                return Ok(base);
            }
        }
        Ok(usual)
    }

    /// A finite number.
    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        self.finite(key, self.metadata.f32(&self.full(key))?)
    }

    /// A finite number that may be absent.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        let number = self.metadata.opt_f32(&self.full(key))?;
        number.map(|number| self.finite(key, number)).transpose()
    }

    fn finite(&self, key: &str, number: f32) -> Result<f32, GgufError> {
        self.require(number.is_finite(), key, "a finite number")?;
        Ok(number)
    }

    /// A number above 0 that may be absent.
    pub fn positive_f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        let number = self.opt_f32(key)?;
        self.require(number.is_none_or(|number| number > 0.0), key, "a number above 0")?;
        Ok(number)
    }

    /// The first of `names` that is there, and its finite number.
    pub fn first_f32<'n>(&self, names: &[&'n str]) -> Result<Option<(&'n str, f32)>, GgufError> {
        for &name in names {
            if let Some(number) = self.opt_f32(name)? {
                return Ok(Some((name, number)));
            }
        }
        Ok(None)
    }

    /// The first of `names` that is there, or the first of all.
    pub fn there<'n>(&self, names: &[&'n str]) -> &'n str {
        let there = names.iter().find(|name| self.metadata.get(&self.full(name)).is_some());
        there.or(names.first()).copied().unwrap_or_default()
    }

    /// A string that may be absent.
    pub fn opt_string(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        self.metadata.opt_string(&self.full(key))
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

    /// For each layer its window: `attention.sliding_window` where [`Keys::windowed_layers`] says so; `usual` tokens where
    /// the key is absent and the architecture allows that.
    pub fn windows(&self, period: u32, usual: Option<u32>) -> Result<Vec<Option<u32>>, GgufError> {
        let key = "attention.sliding_window";
        let window = match (self.opt_size(key)?, usual) {
            (Some(window), _) | (None, Some(window)) => window,
            (None, None) => self.size(key)?,
        };
        let windowed = self.windowed_layers(self.layers()?, period)?;
        Ok(windowed
            .into_iter()
            .map(|windowed| windowed.then_some(window))
            .collect())
    }

    /// An error about the value of `key`.
    pub fn unexpected(&self, key: &str, expected: &'static str) -> GgufError {
        self.metadata.unexpected(&self.full(key), expected)
    }
}
