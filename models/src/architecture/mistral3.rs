//! mistral3 (Ministral 3): a llama whose scores grow with the logarithm of the position, in steps of the context that it
//! was first trained for.

use super::{Architecture, Config, Keys, LoadError, Weights, llama::llama};
use crate::graph::builder::Temperature;

pub(super) const ARCHITECTURE: Architecture = Architecture::decoder(&["mistral3"], mistral3);

fn mistral3(keys: &Keys, weights: &Weights) -> Result<Config, LoadError> {
    let temperature = temperature(keys)?;
    Ok(llama(keys, weights)?.with(|llama| llama.temperature = temperature))
}

fn temperature(keys: &Keys) -> Result<Option<Temperature>, LoadError> {
    let beta = keys.first_f32(&["attention.temperature_scale", "rope.scaling_beta"])?;
    let Some((_, beta)) = beta.filter(|&(_, beta)| beta != 0.0) else {
        return Ok(None);
    };
    let span = keys.size("rope.scaling.original_context_length")?;
    Ok(Some(Temperature { beta, span }))
}
