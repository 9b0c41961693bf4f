//! The commands, one file each.

pub mod inspect;
pub mod logits;
pub mod run;
pub mod tokenize;
