//! Models: GGUF files, tokenizers, chat templates, and the graphs of the architectures.

pub mod architecture;
pub mod error;
pub mod gguf;
pub mod graph;
pub mod keys;
mod model;
pub mod names;
pub mod origins;
pub mod template;
pub mod tokenizer;
mod unread;
pub mod weights;
