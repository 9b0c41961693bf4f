//! Chat templates: from messages to the text of a prompt.
//!
//! Templates are Jinja as Hugging Face's libraries run it: blocks trimmed, `break` and `continue`,
//! methods of Python's strings, lists and dictionaries, `raise_exception`, `strftime_now`, a `tojson`
//! that writes what `json.dumps` writes, and `generation` blocks, which mark what a model said and have no effect here.

mod json;
mod methods;
mod repr;

use std::borrow::Cow;
use std::sync::LazyLock;

pub use jiff::civil::DateTime;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value, context};
use regex_automata::meta::Regex;
use serde_json::{Map, Value as Json};

use crate::gguf::{Gguf, GgufError};

const KEY: &str = "tokenizer.chat_template";

/// Instructions that one rendering may take: far more than a long conversation needs, and an end to
/// templates that would have none.
const FUEL: u64 = 20_000_000;

/// Why a template gave no text. Lines are those of the template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template is no valid Jinja.
    #[error("{template}: line {line}: {reason}")]
    Syntax {
        /// The file and key that it came from.
        template: String,
        /// Line in the template, from 1 on.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The template refused the messages through `raise_exception`.
    #[error("{template}: line {line}: the template refuses these messages: {message}")]
    Raised {
        /// The file and key that it came from.
        template: String,
        /// Line in the template, from 1 on.
        line: usize,
        /// The template's own words.
        message: String,
    },
    /// The template could not be carried out with these messages.
    #[error("{template}: line {line}: {reason}")]
    Render {
        /// The file and key that it came from.
        template: String,
        /// Line in the template, from 1 on.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The metadata key has another type.
    #[error(transparent)]
    Gguf(#[from] GgufError),
}

/// What a template is given.
#[derive(Debug, Clone, Default)]
pub struct Prompt<'a> {
    /// The conversation: objects with `role` and `content`, and whatever else the template knows
    /// (`tool_calls`, `name`, `thinking`…).
    pub messages: &'a [Json],
    /// Descriptions of tools (an array), if there are any.
    pub tools: Option<&'a Json>,
    /// The spelling of BOS; undefined for the template if there is none.
    pub bos_token: Option<&'a str>,
    /// The spelling of EOS; undefined for the template if there is none.
    pub eos_token: Option<&'a str>,
    /// Whether the text is to end where the model begins to speak.
    pub add_generation_prompt: bool,
    /// More variables (`enable_thinking`, `reasoning_effort`…); they go before all others.
    pub extra: Option<&'a Map<String, Json>>,
    /// What `strftime_now` takes for now; the local time if not given.
    pub now: Option<DateTime>,
}

/// A chat template, compiled.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    name: String,
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Compiles `source`; `name` says in errors where it came from.
    ///
    /// Fails when it is no valid Jinja.
    pub fn new(name: &str, source: &str) -> Result<Self, TemplateError> {
        let mut environment = environment();
        let source = without_generation_blocks(source).into_owned();
        match environment.add_template_owned(name.to_owned(), source) {
            Ok(()) => Ok(Self {
                name: name.to_owned(),
                environment,
            }),
            Err(error) => Err(TemplateError::Syntax {
                template: name.to_owned(),
                line: error.line().unwrap_or(1),
                reason: describe(&error),
            }),
        }
    }

    /// The template of `gguf` (`tokenizer.chat_template`), or `None` if it has none.
    ///
    /// Fails when the key is no string or the template no valid Jinja.
    pub fn from_gguf(gguf: &Gguf) -> Result<Option<Self>, TemplateError> {
        let source = gguf.metadata().opt_string(KEY)?;
        source
            .map(|source| Self::new(&format!("{}: `{KEY}`", gguf.name()), source))
            .transpose()
    }

    /// The text of `prompt`. It has BOS where the template writes it, so BOS is not to be added again.
    ///
    /// Fails when the template raises an exception, or uses what is not there.
    pub fn render(&self, prompt: &Prompt<'_>) -> Result<String, TemplateError> {
        let mut environment = Cow::Borrowed(&self.environment);
        if let Some(now) = prompt.now {
            environment
                .to_mut()
                .add_function("strftime_now", move |format: &str| strftime(now, format));
        }
        let render = || environment.get_template(&self.name)?.render(variables(prompt));
        render().map_err(|error| self.error(&error))
    }

    /// Whether the template reads a variable of this name that it does not set itself.
    pub fn reads(&self, variable: &str) -> bool {
        let template = self.environment.get_template(&self.name);
        template.is_ok_and(|template| template.undeclared_variables(false).contains(variable))
    }

    /// Whether `text` stands anywhere in the template's source.
    pub fn mentions(&self, text: &str) -> bool {
        let template = self.environment.get_template(&self.name);
        template.is_ok_and(|template| template.source().contains(text))
    }

    fn error(&self, error: &Error) -> TemplateError {
        let (template, line) = (self.name.clone(), error.line().unwrap_or(1));
        let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
        match causes.find_map(|cause| cause.downcast_ref::<Raised>()) {
            Some(Raised(message)) => TemplateError::Raised {
                template,
                line,
                message: message.clone(),
            },
            None => TemplateError::Render {
                template,
                line,
                reason: describe(error),
            },
        }
    }
}

/// What a template said through `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

fn describe(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

fn variables(prompt: &Prompt<'_>) -> Value {
    let extra = prompt.extra.map(Value::from_serialize).unwrap_or_default();
    let given = context! {
        messages => prompt.messages,
        tools => prompt.tools,
        documents => (),
        add_generation_prompt => prompt.add_generation_prompt,
        bos_token => prompt.bos_token.map_or(Value::UNDEFINED, Value::from),
        eos_token => prompt.eos_token.map_or(Value::UNDEFINED, Value::from),
    };
    context! { ..extra, ..given }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    minijinja_contrib::add_to_environment(&mut environment);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(methods::call);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(repr::format);
    environment.add_filter("string", |value: &Value| repr::string(value));
    environment.add_filter("tojson", json::tojson);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", |format: &str| {
        strftime(jiff::Zoned::now().datetime(), format)
    });
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    environment.add_test("iterable", |value: &Value| {
        value.kind() == ValueKind::String || value.try_iter().is_ok()
    });
    environment
}

/// Directives that are not known are left as they are, as the C library does.
fn strftime(now: DateTime, format: &str) -> Result<String, Error> {
    let config = jiff::fmt::strtime::Config::new().lenient(true);
    let time = jiff::fmt::strtime::BrokenDownTime::from(now);
    time.to_string_with_config(&config, format)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}")))
}

fn without_generation_blocks(source: &str) -> Cow<'_, str> {
    static TAG: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}").ok());
    let mut out = String::new();
    let mut done = 0;
    for tag in TAG.iter().flat_map(|regex| regex.find_iter(source)) {
        out.push_str(&source[done..tag.start()]);
        out.push_str(
            &source[tag.range()]
                .replace("endgeneration", "endif")
                .replace("generation", "if true"),
        );
        done = tag.end();
    }
    if done == 0 {
        return Cow::Borrowed(source);
    }
    out.push_str(&source[done..]);
    Cow::Owned(out)
}
