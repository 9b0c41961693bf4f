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

use backend_api::operations::Gate;

pub use crate::model::Model;

use crate::{
    error::LoadError,
    graph::{
        Builder, CacheLayout,
        blocks::Ends,
        decoder::{Config, Decoder, Network},
        experts::ExpertGate,
        rope::Rope,
    },
    keys::Keys,
    weights::Weights,
};

/// What an architecture's file hands out.
pub(crate) struct Architecture {
    /// The names that `general.architecture` has for it; its keys have any of them as prefix.
    pub(crate) names: &'static [&'static str],
    /// Tokens of a step, unless the user says otherwise or less saves memory.
    pub(crate) batch: u32,
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

    /// The one that `general.architecture` names.
    pub(crate) fn named(name: &str) -> Option<&'static Architecture> {
        LIST.iter().find(|a| a.names.contains(&name))
    }

    pub(crate) fn load(&self, keys: &Keys, weights: &Weights) -> Result<Loaded, LoadError> {
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
pub(crate) trait Layers: Send + Sync {
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
pub(crate) struct Loaded {
    pub(crate) layers: Box<dyn Layers>,
    pub(crate) cache: CacheLayout,
    pub(crate) vocabulary: u32,
    pub(crate) context: u32,
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

/// The names of all architectures that are served.
pub fn known() -> Vec<&'static str> {
    LIST.iter().flat_map(|a| a.names).copied().collect()
}
