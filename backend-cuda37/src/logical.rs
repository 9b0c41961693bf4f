//! Devices in parts: `GRAFT_CUDA37_DEVICES=4x11441` makes four devices of 11441 MiB of those that are here, so that models
//! are divided as they would be on such cards.

use std::env;

/// The environment variable.
const VARIABLE: &str = "GRAFT_CUDA37_DEVICES";

/// The parts that the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// How many.
    pub count: usize,
    /// Bytes of memory that each of them may use at most.
    pub bytes: u64,
}

/// What the environment asks for.
///
/// # Errors
/// What is wrong with it.
pub fn wanted() -> Result<Option<Parts>, String> {
    let Some(value) = env::var_os(VARIABLE) else {
        return Ok(None);
    };
    let parts = value.to_str().and_then(parse);
    let wrong = || format!("{VARIABLE}={}: expected COUNTxMIB, such as 4x11441", value.display());
    parts.ok_or_else(wrong).map(Some)
}

fn parse(text: &str) -> Option<Parts> {
    let (count, mebibytes) = text.split_once('x')?;
    let count = count.parse().ok().filter(|count| (1..=64).contains(count))?;
    let bytes = mebibytes.parse::<u64>().ok()?.checked_mul(1 << 20)?;
    (bytes > 0).then_some(Parts { count, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_a_count_and_a_size() {
        let parts = Parts {
            count: 4,
            bytes: 11441 << 20,
        };
        assert_eq!(parse("4x11441"), Some(parts));
        for wrong in ["", "4", "x11441", "0x11441", "4x0", "4x-1", "4x18446744073709551615"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
