//! Model files with one fault each.

use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use host::model::LoadedModel;
use models::gguf::{Gguf, GgufWriter, TensorInfo, Value};

/// The model `name` among the fixtures.
pub fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    fixtures.join(format!("{name}.gguf"))
}

/// All models among the fixtures.
pub fn files() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let entries = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let all = entries(fixtures.clone()).chain(entries(fixtures.join("families")));
    let mut files: Vec<PathBuf> = all
        .filter(|path| path.extension().is_some_and(|e| e == "gguf"))
        .collect();
    files.sort();
    files
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    NoTensor,
    OtherShape,
    NoKey,
    OtherValue,
}

/// A change of a file.
pub struct Fault {
    pub change: Change,
    /// The tensor or the key.
    pub name: String,
    /// The change in words.
    pub what: String,
}

impl Fault {
    fn new(change: Change, name: &str, what: String) -> Fault {
        let name = name.to_owned();
        Fault { change, name, what }
    }
}

/// A model file.
pub struct File {
    bytes: Vec<u8>,
    pub gguf: Gguf,
}

impl File {
    pub fn open(path: &Path) -> File {
        File {
            bytes: fs::read(path).unwrap(),
            gguf: Gguf::open(path).unwrap(),
        }
    }

    /// Hands every fault to `take`, with what loading says.
    pub fn each_fault(&self, mut take: impl FnMut(Fault, Result<(), String>)) {
        for info in self.gguf.tensors() {
            let at = self.position(&info.name);
            let fault = Fault::new(Change::NoTensor, &info.name, format!("without tensor {}", info.name));
            // under a name that nobody asks for
            take(fault, self.patched(at, b"~"));
            for axis in 0..info.rank as usize {
                let Some(size) = smaller(info, axis) else { continue };
                let what = format!("tensor {} with {size} in dimension {axis}", info.name);
                let sizes = at + info.name.len() + 4;
                let loaded = self.patched(sizes + 8 * axis, &size.to_le_bytes());
                take(Fault::new(Change::OtherShape, &info.name, what), loaded);
            }
        }
        for (key, value) in self.gguf.metadata().iter() {
            let loaded = self.rewritten(|copy| {
                copy.remove(key);
            });
            take(Fault::new(Change::NoKey, key, format!("without key {key}")), loaded);
            for other in others(value) {
                let what = format!("key {key} as {other:?}");
                let loaded = self.rewritten(|copy| {
                    copy.set(key, other);
                });
                take(Fault::new(Change::OtherValue, key, what), loaded);
            }
        }
    }

    /// Where the file has the string `name`.
    fn position(&self, name: &str) -> usize {
        let pattern = [&(name.len() as u64).to_le_bytes(), name.as_bytes()].concat();
        let found = self.bytes.windows(pattern.len()).position(|window| window == pattern);
        found.unwrap() + 8
    }

    /// Loads the file with other bytes at `at`.
    fn patched(&self, at: usize, patch: &[u8]) -> Result<(), String> {
        let mut bytes = self.bytes.clone();
        bytes[at..at + patch.len()].copy_from_slice(patch);
        load(bytes)
    }

    /// Loads a copy of the file with changes.
    pub fn rewritten<'a>(&'a self, change: impl FnOnce(&mut GgufWriter<'a>)) -> Result<(), String> {
        let mut copy = GgufWriter::copy_of(&self.gguf);
        change(&mut copy);
        load(copy.to_bytes())
    }
}

/// A smaller size that the tensor's type allows.
fn smaller(info: &TensorInfo, axis: usize) -> Option<u64> {
    let unit = if axis == 0 { info.kind.block_values() as u64 } else { 1 };
    info.dims[axis].checked_sub(unit).filter(|&size| size > 0)
}

/// An array where `value` is none, none where it is one, and something of another kind.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(_) => vec![7u32.into(), "text".into()],
        Value::String(_) => vec![vec!["text".to_owned()].into(), 7u32.into()],
        Value::Bool(_) => vec![vec![true].into(), "text".into()],
        Value::F32(_) | Value::F64(_) => vec![vec![1f32].into(), "text".into()],
        _ => vec![vec![1u32].into(), "text".into()],
    }
}

/// Loads everything of a file but its weights' values.
pub fn load(bytes: Vec<u8>) -> Result<(), String> {
    let loaded = catch_unwind(|| {
        let file = Gguf::from_bytes("model.gguf", bytes).map_err(|error| error.to_string())?;
        LoadedModel::of(file).map(|_| ()).map_err(|error| error.to_string())
    });
    loaded.unwrap_or_else(|_| panic!("loading panicked"))
}
