//! Why a model cannot be loaded.

use crate::gguf::GgufError;

/// A fault of a model file beyond its format: what the architecture asks for and the file does not have.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file itself, or one of its keys.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// An architecture that is not in the list.
    #[error("{file}: architecture {name:?} is not served\nhint: served are {known}")]
    Architecture {
        /// The model file.
        file: String,
        /// What `general.architecture` says.
        name: String,
        /// The names that are served.
        known: String,
    },
    /// No tensor at all.
    #[error("{file}: the file has no weights: a vocabulary alone cannot run\nhint: host tokenize works with it")]
    NoWeights {
        /// The model file.
        file: String,
    },
    /// A tensor that the architecture needs.
    #[error(
        "{file}: tensor {name:?} is missing; the architecture needs it as {expected}{}",
        hint(hints)
    )]
    Missing {
        /// The model file.
        file: String,
        /// The tensor's name.
        name: String,
        /// The shape that it should have.
        expected: String,
        /// Other spellings that would do, and what else helps.
        hints: Vec<String>,
    },
    /// A tensor of another shape or an unusable type.
    #[error("{file}: tensor {name:?} is {found}, where {expected} is expected{}", hint(hints))]
    Shape {
        /// The model file.
        file: String,
        /// The tensor's name.
        name: String,
        /// Its type and shape.
        found: String,
        /// What was expected.
        expected: String,
        /// Where the expected sizes come from.
        hints: Vec<String>,
    },
    /// Factors on frequencies that cannot serve.
    #[error("{file}: the numbers of tensor {name:?} are not all above 0")]
    Factors {
        /// The model file.
        file: String,
        /// The tensor's name.
        name: String,
    },
    /// A file of 2023, with a tensor for each expert.
    #[error(
        "{file}: tensor {name:?} is of one expert, where a layer's experts are expected in one tensor\nhint: files as old as \
         this have to be converted again from the original model"
    )]
    SeparateExperts {
        /// The model file.
        file: String,
        /// The tensor's name.
        name: String,
    },
}

impl LoadError {
    /// This error; one about sizes also says where they come from.
    pub fn because(mut self, reason: Option<String>) -> Self {
        if let LoadError::Shape { hints, .. } = &mut self {
            hints.extend(reason);
        }
        self
    }
}

fn hint(hints: &[String]) -> String {
    match hints {
        [] => String::new(),
        hints => format!("\nhint: {}", hints.join("; ")),
    }
}
