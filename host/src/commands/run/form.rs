//! The form that an answer is to have, from the command line.

use std::{fs, path::Path};

use anyhow::{Context, anyhow};

use crate::{
    cli::{Form, RunArgs},
    conversation::Turn,
    model::LoadedModel,
    structured::Format,
};

/// The form that is asked for, if any. An error names the option and its file.
pub fn of(args: &RunArgs, model: &LoadedModel) -> anyhow::Result<Option<Format>> {
    let text =
        |option: &str, file: &Path| fs::read_to_string(file).with_context(|| format!("--{option} {}", file.display()));
    let (option, format) = if let Some(Form::Json) = args.format {
        (
            "format json".to_owned(),
            model.formats().and_then(|formats| formats.json()),
        )
    } else if let Some(file) = &args.json_schema {
        let schema = text("json-schema", file)?;
        let format = model.formats().and_then(|formats| formats.schema(&schema));
        (format!("json-schema {}", file.display()), format)
    } else if let Some(file) = &args.grammar {
        let grammar = text("grammar", file)?;
        let format = model.formats().and_then(|formats| formats.grammar(&grammar));
        (format!("grammar {}", file.display()), format)
    } else {
        return Ok(None);
    };
    format.map(Some).map_err(|error| anyhow!("--{option}: {error}"))
}

/// Warns of an answer that was cut before it was complete.
pub fn tell_incomplete(turn: &Turn) {
    if let Some(reason) = turn.incomplete() {
        tracing::warn!("the answer is not complete in the form that was asked for: {reason}");
    }
}
