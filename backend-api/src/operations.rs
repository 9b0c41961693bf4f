//! The operations that a graph may contain: their numbers, inputs and parameter words.
//!
//! What each of them computes is in `reference`. 17 primitives cover the served architectures; the composites are fused
//! forms, each defined by its decomposition into primitives, and never required of a backend.

/// An operation. The numbers are part of the contract and open: a backend refuses those it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Operation {
    /// Rows of a table by ids.
    Rows = 1,
    /// Weights times activations.
    Product = 2,
    /// Weights of chosen experts times activations.
    ExpertProduct = 3,
    /// Root-mean-square normalization.
    RmsNorm = 4,
    /// Rotary position embedding.
    Rope = 5,
    /// Writing keys or values to the cache.
    CacheStore = 6,
    /// Attention over the cache.
    Attention = 7,
    /// α·(a + β·b).
    Add = 8,
    /// a·b.
    Mul = 9,
    /// out·f(in·x).
    Unary = 10,
    /// Activation of a gate times the up projection.
    Gated = 11,
    /// Indices of the largest entries.
    TopK = 12,
    /// Entries by ids, scaled or as probabilities.
    Pick = 13,
    /// Linear combinations of a few vectors a token.
    Combine = 14,
    /// Rescaling to another tensor's root mean square.
    RmsMatch = 15,
    /// Zeroing all but the largest entries, by mean and deviation.
    Sparsify = 16,
    /// Copying with conversion.
    Copy = 17,
    /// [`Operation::Product`], bias and residual.
    ProductAdd = 101,
    /// Up to four products of one input.
    Products = 102,
    /// Gate and up products and [`Operation::Gated`].
    GatedProduct = 103,
    /// [`Operation::ExpertProduct`] and bias.
    ExpertProductAdd = 104,
    /// Gate and up products of chosen experts and [`Operation::Gated`].
    GatedExpertProduct = 105,
    /// [`Operation::RmsNorm`] and residual.
    NormAdd = 106,
    /// [`Operation::RmsNorm`] and [`Operation::Rope`].
    NormRope = 107,
    /// gemma3n's router of streams.
    MixCoefficients = 108,
}

use Operation::*;

impl Operation {
    /// Every operation, primitives first.
    pub const ALL: [Operation; 25] = [
        Rows,
        Product,
        ExpertProduct,
        RmsNorm,
        Rope,
        CacheStore,
        Attention,
        Add,
        Mul,
        Unary,
        Gated,
        TopK,
        Pick,
        Combine,
        RmsMatch,
        Sparsify,
        Copy,
        ProductAdd,
        Products,
        GatedProduct,
        ExpertProductAdd,
        GatedExpertProduct,
        NormAdd,
        NormRope,
        MixCoefficients,
    ];

    /// The operation with number `id`.
    pub fn from_id(id: u32) -> Option<Operation> {
        Operation::ALL.into_iter().find(|o| o.id() == id)
    }

    /// The number in [`crate::graph::Node::operation`].
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// Whether it is defined by a decomposition into primitives.
    pub const fn is_composite(self) -> bool {
        self.id() > 100
    }

    /// The name in tables and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Rows => "rows",
            Product => "product",
            ExpertProduct => "expert_product",
            RmsNorm => "rms_norm",
            Rope => "rope",
            CacheStore => "cache_store",
            Attention => "attention",
            Add => "add",
            Mul => "mul",
            Unary => "unary",
            Gated => "gated",
            TopK => "top_k",
            Pick => "pick",
            Combine => "combine",
            RmsMatch => "rms_match",
            Sparsify => "sparsify",
            Copy => "copy",
            ProductAdd => "product_add",
            Products => "products",
            GatedProduct => "gated_product",
            ExpertProductAdd => "expert_product_add",
            GatedExpertProduct => "gated_expert_product",
            NormAdd => "norm_add",
            NormRope => "norm_rope",
            MixCoefficients => "mix_coefficients",
        }
    }

    /// The names of the inputs, in order; those that may be absent end in `?`.
    pub const fn inputs(self) -> &'static [&'static str] {
        match self {
            Rows => &["table", "ids"],
            Product => &["x", "w"],
            ExpertProduct => &["x", "w", "ids"],
            RmsNorm => &["x", "w?"],
            Rope => &["x", "positions", "freq"],
            CacheStore => &["x", "slots"],
            Attention => &["q", "k", "v", "positions", "starts", "table", "sinks?"],
            Add | Mul => &["a", "b"],
            Unary | Sparsify | Copy | TopK => &["x"],
            Gated => &["g", "u"],
            Pick => &["x", "ids"],
            Combine => &["x", "c?", "base?"],
            RmsMatch => &["x", "ref"],
            ProductAdd => &["x", "w", "b?", "r?"],
            Products => &["x", "w1", "b1?", "w2?", "b2?", "w3?", "b3?", "w4?", "b4?"],
            GatedProduct => &["x", "wg", "wu", "bg?", "bu?"],
            ExpertProductAdd => &["x", "w", "ids", "b"],
            GatedExpertProduct => &["x", "wg", "wu", "ids", "bg?", "bu?"],
            NormAdd => &["x", "w", "r"],
            NormRope => &["x", "w", "positions", "freq"],
            MixCoefficients => &["x", "w", "a", "f"],
        }
    }
}

/// Defines an enumeration that stands in a parameter word.
macro_rules! word_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum $name { $($(#[$vmeta])* $variant = $value),+ }

        impl $name {
            /// The meaning of a parameter word; `None` where this version does not know it.
            pub fn from_word(word: u32) -> Option<$name> {
                match word { $($value => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

word_enum! {
    /// How exact a product or attention must be.
    Precision {
        /// The class that the operands' types give.
        OfType = 0,
        /// As exact as f32 arithmetic, whatever the types.
        Exact = 1,
    }
}

word_enum! {
    /// Which entries `rope` rotates together; n entries are rotated.
    RopeLayout {
        /// j and j + n/2 (NeoX).
        Halves = 0,
        /// 2j and 2j + 1.
        Pairs = 1,
    }
}

word_enum! {
    /// What a position sees.
    Window {
        /// Every earlier position.
        Full = 0,
        /// The last W positions, its own included.
        Sliding = 1,
        /// The positions since the last multiple of W.
        Chunked = 2,
    }
}

word_enum! {
    /// The function of `unary`.
    UnaryKind {
        /// x.
        Identity = 0,
        /// tanh x.
        Tanh = 1,
    }
}

word_enum! {
    /// The function of `gated`.
    Gate {
        /// g/(1+e^−g)·u.
        Silu = 0,
        /// ½g(1 + tanh(√(2/π)(g + 0.044715g³)))·u.
        GeluTanh = 1,
        /// g′/(1+e^(−α·g′))·(u′ + 1), g′ = min(g, limit), u′ = clamp(u, ±limit).
        SwigluOai = 2,
    }
}

word_enum! {
    /// What `pick` does with the entries.
    PickMode {
        /// scale·v.
        Scale = 0,
        /// scale·softmax over the picked ones.
        SoftmaxPicked = 1,
        /// scale·softmax over all.
        SoftmaxAll = 2,
    }
}

/// The parameter words of each operation: indices into [`crate::graph::Node::params`].
#[allow(missing_docs)] // each name is that of the formula in the reference
pub mod word {
    pub mod rows {
        pub const SCALE: usize = 0;
    }
    /// Of every product.
    pub mod product {
        pub const PRECISION: usize = 0;
    }
    pub mod rms_norm {
        pub const EPSILON: usize = 0;
    }
    pub mod rope {
        pub const LAYOUT: usize = 0;
        pub const MAGNITUDE: usize = 1;
    }
    pub mod attention {
        pub const SCALE: usize = 0;
        pub const SOFTCAP: usize = 1;
        pub const WINDOW_KIND: usize = 2;
        pub const WINDOW: usize = 3;
        pub const BETA: usize = 4;
        pub const SPAN: usize = 5;
        pub const PRECISION: usize = 6;
    }
    pub mod add {
        pub const ALPHA: usize = 0;
        pub const BETA: usize = 1;
    }
    pub mod unary {
        pub const KIND: usize = 0;
        pub const IN: usize = 1;
        pub const OUT: usize = 2;
    }
    pub mod gated {
        pub const KIND: usize = 0;
        pub const ALPHA: usize = 1;
        pub const LIMIT: usize = 2;
    }
    pub mod pick {
        pub const MODE: usize = 0;
        pub const SCALE: usize = 1;
    }
    pub mod combine {
        pub const C0: usize = 0;
    }
    pub mod rms_match {
        pub const FLOOR: usize = 0;
    }
    pub mod sparsify {
        pub const S: usize = 0;
    }
    /// Of `gated_product` and `gated_expert_product`.
    pub mod gated_product {
        pub const PRECISION: usize = 0;
        pub const KIND: usize = 1;
        pub const ALPHA: usize = 2;
        pub const LIMIT: usize = 3;
    }
    pub mod norm_rope {
        pub const EPSILON: usize = 0;
        pub const LAYOUT: usize = 1;
        pub const MAGNITUDE: usize = 2;
    }
    pub mod mix_coefficients {
        pub const EPSILON: usize = 0;
        pub const IN: usize = 1;
    }
}
