//! The command line.

use std::{
    io::{IsTerminal, stdout},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use host::commands::backends;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the backends and how well each can serve here
    Backends {
        /// Folder with backends, searched first
        #[arg(long, value_name = "DIR")]
        plugins: Option<PathBuf>,
        /// Writes JSON
        #[arg(long)]
        json: bool,
    },
    #[command(hide = true)]
    ProbePlugin { path: PathBuf },
}

fn main() -> anyhow::Result<ExitCode> {
    host::log::init();
    let mut out = stdout().lock();
    let terminal = out.is_terminal();
    match Cli::parse().command {
        Command::Backends { plugins, json } => {
            let options = backends::Options {
                plugins,
                json,
                terminal,
            };
            backends::run(options, &mut out)
        }
        Command::ProbePlugin { path } => backends::probe_plugin(path, &mut out),
    }
}
