//! The commands, one file each.

pub mod backends;
pub mod bench;
pub mod check;
pub mod inspect;
pub mod logits;
pub mod plan;
pub mod run;
pub mod tokenize;

use std::{
    io::{IsTerminal, Write, stdout},
    process::ExitCode,
};

use clap::CommandFactory;

use crate::cli::{Cli, Command};

/// Carries out a command.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    let mut out = stdout().lock();
    match command {
        Command::Run(args) => run::run(&args, &mut out),
        Command::Logits(args) => logits::run(&args),
        Command::Tokenize(args) => tokenize::run(&args, &mut out),
        Command::Plan(args) => plan::run(&args, &mut out),
        Command::Bench(args) => bench::run(&args, &mut out),
        Command::Check(args) => check::run(&args, &mut out),
        Command::Inspect(args) => inspect::run(&args, &mut out),
        Command::Backends(args) => {
            let terminal = stdout().is_terminal();
            backends::run(
                backends::Options {
                    plugins: args.plugins,
                    json: args.json,
                    terminal,
                },
                &mut out,
            )
        }
        Command::Completions { shell } => completions(shell, &mut out),
        Command::ProbePlugin { path } => backends::probe_plugin(path, &mut out),
    }
}

fn completions(shell: clap_complete::Shell, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    // written to memory first: the generator panics where its output is closed
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "host", &mut script);
    out.write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
