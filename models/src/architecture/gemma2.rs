//! gemma2: norms before and after each block, softcaps on scores and logits, a window on even layers.

use super::{Architecture, Config, Gate, Keys, LoadError, Weights};

pub(super) const ARCHITECTURE: Architecture = Architecture::decoder(&["gemma2"], gemma2);

/// What early files do not say.
const WINDOW: u32 = 4096;
const SCORE_SOFTCAP: f32 = 50.0;
const LOGIT_SOFTCAP: f32 = 30.0;

const DEPTH_OF_27B: usize = 46;

fn gemma2(keys: &Keys, _: &Weights) -> Result<Config, LoadError> {
    let usual = Config::gated(keys, Gate::GeluTanh)?;
    Ok(Config {
        score_softcap: keys.softcap_or("attn_logit_softcapping", SCORE_SOFTCAP)?,
        softcap: keys.softcap_or("final_logit_softcapping", LOGIT_SOFTCAP)?,
        ..gemma(usual, keys.windows(2, Some(WINDOW))?, DEPTH_OF_27B)
    })
}

/// What gemma2 and gemma3 share. The 27B model, known by its depth, scales scores by the embedding's share of a head.
pub(super) fn gemma(usual: Config, windows: Vec<Option<u32>>, depth_of_27b: usize) -> Config {
    Config {
        embedding_scale: (usual.width as f32).sqrt(),
        score_scale: if windows.len() == depth_of_27b {
            usual.scale_by_width()
        } else {
            usual.score_scale
        },
        windows,
        post_norms: Some(["post_attention_norm", "post_ffw_norm"]),
        ..usual
    }
}
