//! The architectures: one file each, and their list.

mod gemma2;
mod gemma3;
mod gemma3n;
mod gptoss;
mod llama;
mod mistral3;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3moe;

use std::sync::Arc;

use backend_api::operations::Gate;

use crate::{
    error::LoadError,
    gguf::Gguf,
    graph::{
        Builder, CacheLayout, Graph, Shape,
        blocks::Ends,
        decoder::{Config, Decoder, Network},
        experts::ExpertGate,
        rope::Rope,
    },
    keys::Keys,
    weights::Weights,
};

/// What an architecture's file hands out.
struct Architecture {
    /// The names that `general.architecture` has for it; its keys have any of them as prefix.
    names: &'static [&'static str],
    /// Tokens of a step, unless the user says otherwise or less saves memory.
    batch: u32,
    load: Load,
}

/// The batch of architectures that name no other. A step reads each weight once, whatever its size, so that arithmetic is what
/// bounds it long before 512 tokens; beyond, activations cost memory and nothing is gained.
const USUAL_BATCH: u32 = 512;

enum Load {
    /// Reads hyper-parameters for the decoder that architectures share.
    Decoder(fn(&Keys, &Weights) -> Result<Config, LoadError>),
    /// Reads hyper-parameters and finds the weights.
    Own(fn(&Keys, &Weights) -> Result<Loaded, LoadError>),
}

impl Architecture {
    /// A variant of the decoder that architectures share, described by `config`.
    const fn decoder(
        names: &'static [&'static str],
        config: fn(&Keys, &Weights) -> Result<Config, LoadError>,
    ) -> Architecture {
        Architecture {
            names,
            batch: USUAL_BATCH,
            load: Load::Decoder(config),
        }
    }

    /// An architecture with layers of its own kind.
    const fn own(
        names: &'static [&'static str],
        load: fn(&Keys, &Weights) -> Result<Loaded, LoadError>,
    ) -> Architecture {
        Architecture {
            names,
            batch: USUAL_BATCH,
            load: Load::Own(load),
        }
    }

    /// The same with another batch.
    const fn with_batch(self, batch: u32) -> Architecture {
        Architecture { batch, ..self }
    }

    fn load(&self, keys: &Keys, weights: &Weights) -> Result<Loaded, LoadError> {
        match self.load {
            Load::Own(load) => load(keys, weights),
            Load::Decoder(config) => {
                let decoder = Decoder::load(config(keys, weights)?, keys, weights)?;
                Loaded::new(keys, decoder.cache(), decoder)
            }
        }
    }
}

/// Every architecture that is served.
const LIST: &[Architecture] = &[
    llama::ARCHITECTURE,
    mistral3::ARCHITECTURE,
    phi3::ARCHITECTURE,
    qwen2::ARCHITECTURE,
    qwen3::ARCHITECTURE,
    qwen3moe::ARCHITECTURE,
    gemma2::ARCHITECTURE,
    gemma3::ARCHITECTURE,
    gemma3n::ARCHITECTURE,
    gptoss::ARCHITECTURE,
];

/// An architecture with its hyper-parameters and weights.
trait Layers: Send + Sync {
    /// What stands before and after the layers.
    fn ends(&self) -> &Ends;

    /// Adds all operations, from the embedding to the logits.
    fn build(&self, g: &mut Builder);
}

impl Layers for Decoder {
    fn ends(&self) -> &Ends {
        Decoder::ends(self)
    }

    fn build(&self, g: &mut Builder) {
        Decoder::build(self, g);
    }
}

/// What `load` gives.
struct Loaded {
    layers: Box<dyn Layers>,
    cache: CacheLayout,
    vocabulary: u32,
    context: u32,
}

impl Loaded {
    fn new(keys: &Keys, cache: CacheLayout, layers: impl Layers + 'static) -> Result<Loaded, LoadError> {
        keys.causal()?;
        Ok(Loaded {
            cache,
            vocabulary: layers.ends().vocabulary(),
            context: keys.size("context_length")?,
            layers: Box::new(layers),
        })
    }
}

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
        let architecture = LIST
            .iter()
            .find(|a| a.names.contains(&name))
            .ok_or_else(|| LoadError::Architecture {
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

/// The names of all architectures that are served.
pub fn known() -> Vec<&'static str> {
    LIST.iter().flat_map(|a| a.names).copied().collect()
}
