//! The program `host`.

use std::{
    io::{self, IsTerminal, Write, stderr},
    process::ExitCode,
};

use clap::Parser;
use host::{cli::Cli, commands, environment, log, terminal::wrap::plain as harmless};

fn main() -> ExitCode {
    models::gguf::guard::install_sigbus_handler();
    let cli = Cli::parse();
    log::init(cli.log.as_deref());
    match commands::run(cli.command) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Whether the reader of our output went away, as `head` does: no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref().map(io::Error::kind);
        let json = cause.downcast_ref().and_then(serde_json::Error::io_error_kind);
        io.or(json) == Some(io::ErrorKind::BrokenPipe)
    })
}

fn report(error: &anyhow::Error) {
    let colors = environment::colors(stderr().is_terminal());
    let (red, plain) = if colors { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    // standard error may be gone too; there is nobody left to tell
    let _ = writeln!(stderr(), "{red}error{plain}: {}", harmless(&format!("{error:#}")));
}
