//! The decoder that most architectures are: layers of attention and a feed-forward network, each with a norm before it
//! and added to what came in. An architecture's file says in a [`Config`] what is particular to it.

use backend_api::operations::{Gate, PickMode};

use super::{
    Builder, CacheLayout, Id,
    blocks::{Attention, Ends, FeedForward},
    builder::{Attend, Temperature},
    experts::{ExpertGate, Experts, Mixture},
    rope::Rope,
};
use crate::{
    error::LoadError,
    keys::{Heads, Keys},
    names::Names,
    weights::{Block, Linear, Weight, Weights},
};

/// What is particular to an architecture.
#[derive(Clone, Debug)]
pub struct Config {
    /// d: values a token.
    pub width: u32,
    /// Factor on the embeddings.
    pub embedding_scale: f32,
    /// ε of the norms, where files may not say.
    pub epsilon: Option<f32>,
    /// How attention is divided.
    pub heads: Heads,
    /// Whether each head of queries and keys is normalized, by `attn_q_norm` and `attn_k_norm`.
    pub head_norms: bool,
    /// The matrices that must have biases; others take theirs where the file has it.
    pub biased: &'static [&'static str],
    /// The rotation of queries and keys.
    pub rope: Rope,
    /// The rotation in layers with a window, if they have their own.
    pub local_rope: Option<Rope>,
    /// The rotation of graphs for more than so many tokens a sequence.
    pub long_rope: Option<(u32, Rope)>,
    /// For each layer, its window in tokens.
    pub windows: Vec<Option<u32>>,
    /// Factor on the scores of attention.
    pub score_scale: f32,
    /// c of a softcap c·tanh(·/c) on them; 0 for none.
    pub score_softcap: f32,
    /// How they grow with the position.
    pub temperature: Option<Temperature>,
    /// The whole names of one more logit a head, where attention has it.
    pub sinks: &'static [&'static str],
    /// The names of the norm before the feed-forward network.
    pub network_norm: &'static [&'static str],
    /// The feed-forward network.
    pub network: Network,
    /// The names of norms on what attention and the network give, before it is added.
    pub post_norms: Option<[&'static str; 2]>,
    /// c of a softcap on the logits; 0 for none.
    pub softcap: f32,
}

/// A layer's feed-forward network.
#[derive(Clone, Copy, Debug)]
pub enum Network {
    /// Down(gate(Wg·h) ⊙ (Wu·h)).
    Gated {
        /// The gate.
        gate: Gate,
        /// f: hidden values.
        hidden: u32,
    },
    /// Several of them, of which a router chooses. What they give is added as it is, without a norm.
    Experts(Mixture),
}

impl Network {
    /// One network of `feed_forward_length` hidden values.
    pub fn gated(keys: &Keys, gate: Gate) -> Result<Network, LoadError> {
        let hidden = keys.size("feed_forward_length")?;
        Ok(Network::Gated { gate, hidden })
    }

    /// `expert_count` networks of which `expert_used_count` serve a token, with `hidden` values each. Their weights are
    /// normalized over those that serve, unless `expert_weights_norm` says no, and multiplied by `expert_weights_scale`.
    pub fn experts(keys: &Keys, hidden: u32, gate: ExpertGate) -> Result<Network, LoadError> {
        let (count, used) = keys.experts()?;
        let weights = match keys.opt_bool("expert_weights_norm")? {
            None | Some(true) => PickMode::SoftmaxPicked,
            Some(false) => PickMode::SoftmaxAll,
        };
        Ok(Network::Experts(Mixture {
            count,
            used,
            hidden,
            gate,
            weights,
            scale: keys.positive_f32("expert_weights_scale")?.unwrap_or(1.0),
            in_turn: false,
        }))
    }

    /// The same, in files where rows of gates and ups take turns in a tensor that holds both.
    pub fn in_turn(self) -> Network {
        match self {
            Network::Experts(mixture) => Network::Experts(Mixture {
                in_turn: true,
                ..mixture
            }),
            gated => gated,
        }
    }
}

impl Config {
    /// The decoder that others are variants of: every layer attends to all tokens, scores are scaled by 1/√hd, norms
    /// stand before attention and the network alone.
    pub fn new(keys: &Keys, heads: Heads, rope: Rope, network: Network) -> Result<Config, LoadError> {
        Ok(Config {
            width: keys.size("embedding_length")?,
            embedding_scale: 1.0,
            epsilon: None,
            heads,
            head_norms: false,
            biased: &[],
            rope,
            local_rope: None,
            long_rope: None,
            windows: vec![None; keys.layers()? as usize],
            score_scale: 1.0 / (heads.head_dim as f32).sqrt(),
            score_softcap: 0.0,
            temperature: None,
            sinks: &[],
            network_norm: &["ffn_norm"],
            network,
            post_norms: None,
            softcap: 0.0,
        })
    }

    /// As [`Config::new`], with d / H values a head where the file does not say, and the rotation of `rope.freq_base`
    /// (10000 where the file does not say) and `rope.scaling.*`.
    pub fn usual(keys: &Keys, network: Network) -> Result<Config, LoadError> {
        let heads = keys.heads(None)?;
        let base = keys.rope_base(&["rope.freq_base"], 10_000.0)?;
        Config::new(keys, heads, Rope::from_keys(keys, base, heads.head_dim)?, network)
    }

    /// [`Config::usual`] with a gated network.
    pub fn gated(keys: &Keys, gate: Gate) -> Result<Config, LoadError> {
        Config::usual(keys, Network::gated(keys, gate)?)
    }

    /// This one, but for what `change` changes.
    pub fn with(mut self, change: impl FnOnce(&mut Config)) -> Config {
        change(&mut self);
        self
    }

    /// The factor on scores that takes d / H for the values of a head.
    pub fn scale_by_width(&self) -> f32 {
        1.0 / ((self.width / self.heads.heads) as f32).sqrt()
    }
}

/// A decoder with its weights.
pub struct Decoder {
    config: Config,
    ends: Ends,
    layers: Vec<Layer>,
}

struct Layer {
    attn_norm: Weight,
    attention: Attention,
    sinks: Option<Weight>,
    post_attention_norm: Option<Weight>,
    network_norm: Weight,
    network: LayerNetwork,
}

enum LayerNetwork {
    Gated(FeedForward, Gate, Option<Weight>),
    Experts(Experts),
}

impl Decoder {
    /// Finds the weights of what `config` describes.
    pub fn load(config: Config, keys: &Keys, weights: &Weights) -> Result<Decoder, LoadError> {
        let ends = Ends::load(keys, weights, config.width, config.epsilon)?;
        let layers = (0..config.windows.len() as u32).map(|i| Layer::load(&weights.block(i, config.biased), &config));
        Ok(Decoder {
            layers: layers.collect::<Result<_, _>>()?,
            ends,
            config,
        })
    }

    /// The cache that it needs.
    pub fn cache(&self) -> CacheLayout {
        let Heads { kv_heads, head_dim, .. } = self.config.heads;
        let mut cache = CacheLayout::default();
        for window in &self.config.windows {
            cache.push(*window, kv_heads, head_dim);
        }
        cache
    }

    /// What stands before and after the layers.
    pub fn ends(&self) -> &Ends {
        &self.ends
    }

    /// Adds all operations, from the embedding to the logits.
    pub fn build(&self, g: &mut Builder) {
        let mut x = g.embed(&self.ends.embedding, self.config.embedding_scale);
        for i in 0..self.layers.len() {
            g.layer(Some(i));
            x = self.layer(g, i, x);
        }
        self.ends.logits(g, x, self.config.softcap);
    }

    fn layer(&self, g: &mut Builder, i: usize, x: Id) -> Id {
        let (layer, epsilon) = (&self.layers[i], self.ends.epsilon);
        let last = i + 1 == self.layers.len();
        let (rope, attend) = (self.rope(g, i), self.attend(g, i));
        let h = g.rms_norm(x, Some(&layer.attn_norm), epsilon);
        let a = layer.attention.build(g, h, rope, epsilon, &attend, last);
        let x = if last { g.wanted(x) } else { x };
        let x = self.add(g, a, &layer.attention.output, &layer.post_attention_norm, x);
        let h = g.rms_norm(x, Some(&layer.network_norm), epsilon);
        match &layer.network {
            LayerNetwork::Experts(experts) => experts.build(g, h, x),
            LayerNetwork::Gated(network, gate, post_norm) => {
                let f = network.build(g, h, *gate);
                self.add(g, f, &network.down, post_norm, x)
            }
        }
    }

    /// x + W·y, or x + rms(W·y)·norm, in x's place.
    fn add(&self, g: &mut Builder, y: Id, linear: &Linear, norm: &Option<Weight>, x: Id) -> Id {
        match norm {
            None => g.product_add(y, linear, Some(x)),
            Some(norm) => {
                let y = g.linear(y, linear);
                g.norm_add(y, norm, x, self.ends.epsilon)
            }
        }
    }

    fn rope(&self, g: &Builder, i: usize) -> &Rope {
        let config = &self.config;
        match (&config.local_rope, &config.long_rope) {
            (Some(rope), _) if config.windows[i].is_some() => rope,
            (_, Some((context, rope))) if g.context() > *context => rope,
            _ => &config.rope,
        }
    }

    fn attend(&self, g: &mut Builder, i: usize) -> Attend {
        Attend {
            layer: i,
            scale: self.config.score_scale,
            softcap: self.config.score_softcap,
            window: self.config.windows[i],
            temperature: self.config.temperature,
            sinks: self.layers[i].sinks.as_ref().map(|sinks| g.weight(sinks)),
        }
    }
}

impl Layer {
    fn load(block: &Block, config: &Config) -> Result<Layer, LoadError> {
        let (d, heads) = (config.width, config.heads);
        let [post_attention, post_network] = match config.post_norms {
            Some(names) => names.map(Some),
            None => [None; 2],
        };
        let norm = |name: Option<&str>| name.map(|name| block.vector(name, d)).transpose();
        Ok(Layer {
            attn_norm: block.vector("attn_norm", d)?,
            attention: Attention::load(block, d, heads, config.head_norms)?,
            sinks: match config.sinks {
                [] => None,
                names => Some(block.vector_named(Names::any(names), heads.heads)?),
            },
            post_attention_norm: norm(post_attention)?,
            network_norm: block.vector(Names::any(config.network_norm), d)?,
            network: match &config.network {
                Network::Experts(mixture) => LayerNetwork::Experts(Experts::load(block, d, mixture)?),
                Network::Gated { gate, hidden } => {
                    let network = FeedForward::load(block, d, *hidden)?;
                    LayerNetwork::Gated(network, *gate, norm(post_network)?)
                }
            },
        })
    }
}
