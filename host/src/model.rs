//! A model ready to be planned: its file, its architecture, its tokenizer and its chat template.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use models::{
    architecture::Model,
    error::LoadError,
    gguf::{Gguf, GgufError},
    template::{ChatTemplate, TemplateError},
    tokenizer::{Pattern, Tokenizer, TokenizerError},
};

use crate::{
    dialect::Dialect,
    loading,
    structured::{FormatError, Formats},
};

/// The name that stands for the model in the program itself.
pub const EMBEDDED: &str = "embedded";

/// Bytes at an address that every element type can be read from.
#[repr(C, align(64))]
struct Aligned<B: ?Sized>(B);

static EMBEDDED_BYTES: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/fixtures/gemma3-q8_0.gguf"
)));

/// Why a model was refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each says itself what it is
pub enum ModelError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(
        "there is no file {0:?}\nhint: the first argument is a GGUF file, or `embedded` for the model in the program: \
         host run embedded {0:?}"
    )]
    NoFile(String),
    #[error(
        "{file}: the tokenizer has {pieces} pieces, but the model's logits tell only {logits} tokens apart: the rows of token_embd.weight"
    )]
    Vocabulary { file: String, pieces: usize, logits: u32 },
}

/// Opens a GGUF file, or the embedded model where `model` is none or [`EMBEDDED`].
pub fn open_file(model: Option<&str>) -> Result<Gguf, ModelError> {
    match model {
        None | Some(EMBEDDED) => Ok(Gguf::from_static("(embedded model)", &EMBEDDED_BYTES.0)?),
        Some(path) if !Path::new(path).exists() => Err(ModelError::NoFile(path.into())),
        Some(path) => Ok(Gguf::open(Path::new(path))?),
    }
}

/// The tokenizer of a file; vocabulary-only files have one too. gpt-oss files cannot be trusted in `tokenizer.ggml.pre`,
/// and Ollama's of mistral3 do not say it.
pub fn tokenizer(file: &Gguf) -> Result<Tokenizer, ModelError> {
    let architecture = file.metadata().opt_string("general.architecture")?.unwrap_or_default();
    let said = file.metadata().opt_string("tokenizer.ggml.pre")?;
    let pattern = match (architecture, said) {
        ("gpt-oss" | "gptoss", _) => Some(Pattern::O200k),
        ("mistral3", None | Some("default")) => Some(Pattern::Tekken),
        _ => None,
    };
    Ok(Tokenizer::from_gguf(file, pattern)?)
}

/// A model that can be planned and run.
pub struct LoadedModel {
    /// The file.
    pub file: Arc<Gguf>,
    /// Its architecture.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template, if the file has one.
    pub template: Option<ChatTemplate>,
    /// How it is spoken to.
    pub dialect: Dialect,
    formats: OnceLock<Result<Formats, FormatError>>,
}

impl LoadedModel {
    /// Opens and checks everything but the weights' values, which are brought into memory meanwhile.
    pub fn open(model: Option<&str>) -> Result<LoadedModel, ModelError> {
        let file = Arc::new(open_file(model)?);
        loading::prefetch(&file);
        LoadedModel::of(file)
    }

    /// Checks everything of an open file but the weights' values.
    pub fn of(file: impl Into<Arc<Gguf>>) -> Result<LoadedModel, ModelError> {
        let file = file.into();
        let model = Model::load(&file)?;
        let unread = model.unread(&file);
        if let Some(first) = unread.first() {
            tracing::warn!(
                "{}: {} tensors of its layers are not read, such as {first}: this may be a variant of the architecture that is \
                 not served, and its answers wrong",
                file.name(),
                unread.len()
            );
        }
        let tokenizer = tokenizer(&file)?;
        if tokenizer.vocabulary_size() > model.vocabulary() as usize {
            return Err(ModelError::Vocabulary {
                file: file.name(),
                pieces: tokenizer.vocabulary_size(),
                logits: model.vocabulary(),
            });
        }
        let template = ChatTemplate::from_gguf(&file)?;
        let dialect = Dialect::of(&tokenizer, template.as_ref());
        Ok(LoadedModel {
            file,
            model,
            tokenizer,
            template,
            dialect,
            formats: OnceLock::new(),
        })
    }

    /// The forms that its answers can be held to, made when they are first asked for.
    pub fn formats(&self) -> Result<&Formats, FormatError> {
        let formats = self.formats.get_or_init(|| Formats::new(&self.tokenizer));
        formats.as_ref().map_err(Clone::clone)
    }
}
