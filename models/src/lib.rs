//! Models: GGUF files, tokenizers, chat templates, and the graphs of the architectures.

pub mod gguf;
pub mod template;
pub mod tokenizer;
