//! gemma3: norms before and after each block and on each head, windowed layers with a global one now and then, each of
//! the two kinds with its own rotation.

use super::{Architecture, Config, Gate, Keys, LoadError, Network, Rope, Weights, gemma2::gemma};

pub(super) const ARCHITECTURE: Architecture = Architecture::decoder(&["gemma3"], gemma3);

/// Layer i is global when i + 1 is a multiple of this, where the file does not say.
const GLOBAL_PERIOD: u32 = 6;
/// ε, which Ollama's older files do not say.
const EPSILON: f32 = 1e-6;
/// Files with so many layers (4B, 12B, 27B) and no scaling key mean a linear factor of 8 on global layers.
const SCALED_DEPTHS: [usize; 3] = [34, 48, 62];
const DEPTH_OF_27B: usize = 62;

fn gemma3(keys: &Keys, _: &Weights) -> Result<Config, LoadError> {
    let heads = keys.heads(Some(256))?;
    let windows = keys.windows(GLOBAL_PERIOD, None)?;
    let (local, global) = ropes(keys, windows.len(), heads.head_dim)?;
    let plain = Config::new(keys, heads, global, Network::gated(keys, Gate::GeluTanh)?)?;
    Ok(Config {
        epsilon: Some(EPSILON),
        head_norms: true,
        local_rope: Some(local),
        softcap: keys.softcap("final_logit_softcapping")?,
        ..gemma(plain, windows, DEPTH_OF_27B)
    })
}

/// The rotations of local and of global layers; scaling applies to the global ones alone.
fn ropes(keys: &Keys, depth: usize, head_dim: u32) -> Result<(Rope, Rope), LoadError> {
    let (local, global) = rope_bases(keys)?;
    let unsaid = keys.opt_string("rope.scaling.type")?.is_none() && keys.opt_f32("rope.scaling.factor")?.is_none();
    let global = if unsaid && SCALED_DEPTHS.contains(&depth) {
        Rope::linear(global, head_dim, 8.0)
    } else {
        Rope::from_keys(keys, global, head_dim)?
    };
    Ok((Rope::linear(local, head_dim, 1.0), global))
}

/// θ of local and of global layers; the second names are those of Ollama's older files.
pub(super) fn rope_bases(keys: &Keys) -> Result<(f32, f32), LoadError> {
    let local = keys.rope_base(&["rope.freq_base_swa", "rope.local.freq_base"], 10_000.0)?;
    let global = keys.rope_base(&["rope.freq_base", "rope.global.freq_base"], 1_000_000.0)?;
    Ok((local, global))
}
