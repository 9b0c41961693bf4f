//! `host tokenize`: the tokens of a text.

use std::{
    io::{Read, Write, stdin},
    process::ExitCode,
};

use anyhow::Context;
use models::tokenizer::{Special, Tokenizer};
use serde::Serialize;

use crate::{cli::TokenizeArgs, model};

#[derive(Serialize)]
struct Tokens {
    tokens: Vec<u32>,
    pieces: Vec<String>,
}

/// Writes the tokens of a text: a line each, or JSON.
pub fn run(args: &TokenizeArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let tokenizer = model::tokenizer(&model::open_file(Some(&args.model))?)?;
    let text = match args.text.as_str() {
        "-" => read_input()?,
        text => text.to_owned(),
    };
    let mut tokens = tokenizer.encode(&text, Special::Parse);
    if args.bos {
        tokens.insert(
            0,
            tokenizer
                .bos()
                .context("--bos: this vocabulary has no token that begins a text")?,
        );
    }
    let pieces = pieces(&tokenizer, &tokens)?;
    if args.json {
        serde_json::to_writer(&mut *out, &Tokens { tokens, pieces })?;
        writeln!(out)?;
    } else {
        for (token, piece) in tokens.iter().zip(pieces) {
            writeln!(out, "{token:>6}  {piece:?}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn pieces(tokenizer: &Tokenizer, tokens: &[u32]) -> anyhow::Result<Vec<String>> {
    tokens
        .iter()
        .map(|&token| Ok(tokenizer.piece_escaped(token)?))
        .collect()
}

/// All of standard input, as UTF-8.
pub fn read_input() -> anyhow::Result<String> {
    let mut text = String::new();
    stdin().read_to_string(&mut text).context("reading standard input")?;
    Ok(text)
}
