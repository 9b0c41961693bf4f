//! Why a plugin cannot be used.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use backend_api::BackendError;

use super::{elf::ElfError, load::LoadError, trust::Untrusted};

/// Why a plugin cannot be used. The messages are for `host backends`, which names the file beside them.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Others than the user could have made or changed the file.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// The file is no shared library that can be loaded here.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The library was refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The child process that asks for the score could not be used.
    #[error("its score could not be asked for in a process of its own: {}: {error}", .program.display())]
    Probe {
        /// The program that was to ask.
        program: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// The child process that asked for the score did not survive it.
    #[error(
        "the process that asked for its score ended with {status}{}",
        .said.as_ref().map(|said| format!(" ({said})")).unwrap_or_default()
    )]
    Died {
        /// How it ended.
        status: ExitStatus,
        /// The last line that it wrote to standard error.
        said: Option<String>,
    },
    /// The child process that asked for the score was ended.
    #[error("it gave no score within {} s", .0.as_secs_f32())]
    TooSlow(Duration),
    /// The child process gave no answer.
    #[error("the process that asked for its score gave no answer")]
    NoAnswer,
    /// What the plugin's own child process reported.
    #[error("{0}")]
    Reported(String),
    /// The score failed.
    #[error("its score failed: {0}")]
    Score(BackendError),
    /// The score is infinite or not a number.
    #[error("its score is {0}, expected a finite number")]
    ScoreValue(f32),
    /// The list of devices failed.
    #[error("its list of devices failed: {0}")]
    Devices(BackendError),
    /// It has a score, and no device.
    #[error("it lists no devices")]
    NoDevices,
    /// Two of its devices could not be told apart.
    #[error("it lists two devices with number {0}")]
    SameDevice(u32),
    /// No device has so much.
    #[error("it says that its device {device} has {bytes} bytes of memory, more than there can be")]
    Memory {
        /// The device's number.
        device: u32,
        /// What it has, by its own words.
        bytes: u64,
    },
}

/// Why plugins could not be looked for.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The folder that the user named cannot be read.
    #[error("--plugins {}: {error}; expected a folder with backends (.so files)", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
}
