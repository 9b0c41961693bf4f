//! The fixture models and what the reference implementations say of them.

use std::{fs, path::Path, path::PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;

/// A model of `tests/fixtures/`.
pub struct Fixture {
    /// Its file's name without the extension.
    pub name: &'static str,
    json: Value,
}

impl Fixture {
    /// The model with this name.
    pub fn named(name: &'static str) -> Fixture {
        let text = fs::read_to_string(file(name, "json")).expect("the model's JSON file");
        let json = serde_json::from_str(&text).expect("JSON");
        Fixture { name, json }
    }

    /// The GGUF file: the one that `model` names beside the description, or that of the same name.
    pub fn path(&self) -> String {
        let path = match self.json["model"].as_str() {
            Some(model) => file(self.name, "json").with_file_name(model),
            None => file(self.name, "gguf"),
        };
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// The context that the reference is for, where that makes a difference.
    pub fn context(&self) -> Option<u64> {
        self.json["context"].as_u64()
    }

    /// The prompt's tokens, BOS included.
    pub fn prompt(&self) -> Vec<u32> {
        self.tokens("prompt_tokens")
    }

    /// The tokens of the prompt that the greedy continuation starts from.
    pub fn greedy_prompt(&self) -> Vec<u32> {
        let length = self.json["greedy_from"].as_u64().expect("a number");
        self.prompt()[..length as usize].to_vec()
    }

    /// The greedy continuation: each token, and how far its logit lies above the second-best.
    pub fn greedy(&self) -> Vec<(u32, f64)> {
        let margins = self.json["greedy_margins"].as_array().expect("a list").iter();
        let margins = margins.map(|margin| margin.as_f64().expect("a number"));
        self.tokens("greedy_tokens").into_iter().zip(margins).collect()
    }

    /// The texts of `tokenize` with their tokens.
    pub fn texts(&self) -> Vec<(String, Vec<u32>)> {
        let cases = self.json["tokenize"].as_array().expect("a list").iter();
        let text = |case: &Value| case["text"].as_str().expect("a text").to_owned();
        cases.map(|case| (text(case), tokens(&case["tokens"]))).collect()
    }

    /// The reference's logits at every position of the prompt, or at those of [`Fixture::rows`].
    pub fn logits(&self) -> Logits {
        Logits::read(&file(self.name, "safetensors"))
    }

    /// The positions of the prompt whose logits are kept, where they are not all.
    pub fn rows(&self) -> Vec<usize> {
        self.tokens("rows").into_iter().map(|row| row as usize).collect()
    }

    fn tokens(&self, key: &str) -> Vec<u32> {
        tokens(&self.json[key])
    }
}

/// A list of token ids.
pub fn tokens(list: &Value) -> Vec<u32> {
    let ids = list.as_array().expect("a list of tokens").iter();
    ids.map(|id| id.as_u64().expect("a token") as u32).collect()
}

fn file(name: &str, extension: &str) -> PathBuf {
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    fixtures.join(name).with_extension(extension)
}

/// Logits `[V]` of each position.
#[derive(Clone, Debug, PartialEq)]
pub struct Logits(pub Vec<Vec<f32>>);

impl Logits {
    /// The tensor `logits` of a safetensors file.
    pub fn read(path: &Path) -> Logits {
        let bytes = fs::read(path).expect("a file of logits");
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let logits = tensors.tensor("logits").expect("the tensor `logits`");
        let columns = logits.shape()[1];
        let values = logits
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let values: Vec<f32> = values.collect();
        Logits(values.chunks(columns).map(<[f32]>::to_vec).collect())
    }

    /// Σ(a − b)² / Σb² of each row, the mean over the rows.
    pub fn error_from(&self, reference: &Logits) -> f64 {
        assert_eq!(self.0.len(), reference.0.len());
        let rows = self.0.iter().zip(&reference.0);
        rows.map(|(a, b)| normalized_error(a, b)).sum::<f64>() / self.0.len() as f64
    }

    /// The logits of these positions.
    pub fn of(&self, rows: &[usize]) -> Logits {
        Logits(rows.iter().map(|&row| self.0[row].clone()).collect())
    }

    /// The largest |a − b|.
    pub fn largest_difference(&self, reference: &Logits) -> f64 {
        let values = self.0.iter().flatten().zip(reference.0.iter().flatten());
        values.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
    }

    /// The likeliest token of a position.
    pub fn likeliest(&self, position: usize) -> u32 {
        let row = self.0[position].iter().enumerate();
        let best = row.max_by(|(_, a), (_, b)| a.total_cmp(b));
        best.expect("a vocabulary").0 as u32
    }
}

fn normalized_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let difference: f64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| square(f64::from(*a) - f64::from(*b)))
        .sum();
    difference / b.iter().map(|b| square(f64::from(*b))).sum::<f64>()
}
