//! The one error that crosses the boundary.

use abi_stable::{StableAbi, std_types::RString};

/// What kind of failure a [`BackendError`] is. The numbers are part of the contract; unknown ones read as `Failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// Anything that has no code of its own.
    Failed = 1,
    /// The operation, type, shape or parameter is not served by this backend: the host takes another.
    Unsupported = 2,
    /// The device has not enough memory: the host may try another plan.
    OutOfMemory = 3,
    /// The host broke the contract: an unknown handle, a range outside a buffer, a malformed graph.
    Invalid = 4,
    /// The device is gone or unusable: the host hands over to another.
    DeviceLost = 5,
    /// The plugin panicked; its state may be inconsistent.
    Panicked = 6,
}

/// A failure in a plugin: a [`Code`] and a sentence for the person who reads it.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BackendError {
    /// A number of [`Code`].
    pub code: u32,
    /// What went wrong, with the numbers that matter.
    pub message: RString,
}

/// The result of everything in the contract.
pub type Result<T, E = BackendError> = std::result::Result<T, E>;

impl BackendError {
    /// An error of kind `code`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        BackendError {
            code: code as u32,
            message: message.into().into(),
        }
    }

    /// A failure without a code of its own.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::Failed, message)
    }

    /// A refusal: `message` says what is not served.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Code::Unsupported, message)
    }

    /// A breach of the contract by the caller.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// The device's memory does not suffice.
    pub fn out_of_memory(message: impl Into<String>) -> Self {
        Self::new(Code::OutOfMemory, message)
    }

    /// The kind of failure.
    pub fn code(&self) -> Code {
        match self.code {
            2 => Code::Unsupported,
            3 => Code::OutOfMemory,
            4 => Code::Invalid,
            5 => Code::DeviceLost,
            6 => Code::Panicked,
            _ => Code::Failed,
        }
    }

    /// Whether this is a refusal rather than a fault.
    pub fn is_refusal(&self) -> bool {
        self.code() == Code::Unsupported
    }
}
