//! A model whose file was checked.

use std::sync::Arc;

use crate::{
    architecture::{Architecture, Loaded, known},
    error::LoadError,
    gguf::Gguf,
    graph::{Builder, CacheLayout, Graph, Shape},
    keys::Keys,
    weights::Weights,
};

/// A model whose file was checked: every key and tensor that its architecture needs is there.
#[derive(Clone)]
pub struct Model {
    loaded: Arc<Loaded>,
    architecture: String,
    batch: u32,
}

impl Model {
    /// Reads what the architecture needs from the file.
    pub fn load(file: &Gguf) -> Result<Model, LoadError> {
        let name = file.metadata().string("general.architecture")?;
        let architecture = Architecture::named(name).ok_or_else(|| LoadError::Architecture {
            file: file.name(),
            name: name.into(),
            known: known().join(", "),
        })?;
        if file.tensors().is_empty() {
            return Err(LoadError::NoWeights { file: file.name() });
        }
        let keys = Keys::new(file, name, architecture.names);
        let loaded = architecture.load(&keys, &Weights::new(file));
        let loaded = loaded.map_err(|error| error.because(keys.absent()))?;
        Ok(Model {
            loaded: Arc::new(loaded),
            architecture: name.into(),
            batch: architecture.batch,
        })
    }

    /// What `general.architecture` says.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// V: how many tokens the logits tell apart.
    pub fn vocabulary(&self) -> u32 {
        self.loaded.vocabulary
    }

    /// The longest context that the model was trained for, in tokens.
    pub fn context(&self) -> u32 {
        self.loaded.context
    }

    /// The cache that it needs.
    pub fn cache(&self) -> &CacheLayout {
        &self.loaded.cache
    }

    /// The most tokens of a step that serve it well.
    pub fn batch(&self) -> u32 {
        self.batch
    }

    /// How many layers it has.
    pub fn layers(&self) -> usize {
        self.loaded.cache.layers.len()
    }

    /// The model as operations, for steps of this shape.
    pub fn graph(&self, shape: &Shape) -> Graph {
        let mut builder = Builder::new(shape, &self.loaded.cache);
        self.loaded.layers.build(&mut builder);
        builder.finish()
    }
}
