//! Which type each tensor of a file gets.

use backend_api::types::Type::{self, *};

/// A rule that gives each tensor its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// One type for all matrices, but Q6_K for the output projection of Q4_0 and Q5_0.
    Plain(Type),
    /// llama.cpp's `Q4_K_M`.
    Q4KM,
    /// gpt-oss's own: experts in MXFP4, the rest in Q8_0.
    Mxfp4,
}

/// What the rule looks at.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The tensor's name.
    pub name: &'a str,
    /// Its sizes, fastest first.
    pub dims: &'a [u64],
    /// Its layer, if it has one, and how many there are.
    pub layer: Option<u64>,
    /// L.
    pub layers: u64,
    /// Whether the embedding is the output projection too.
    pub tied: bool,
}

impl std::str::FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        match text.to_ascii_lowercase().as_str() {
            "q4_k_m" => Ok(Mix::Q4KM),
            "mxfp4" => Ok(Mix::Mxfp4),
            plain => {
                let known = Type::WEIGHTS.iter().find(|ty| ty.name().eq_ignore_ascii_case(plain));
                known.map(|&ty| Mix::Plain(ty)).ok_or_else(|| {
                    let names: Vec<_> = Type::WEIGHTS.iter().map(|ty| ty.name().to_lowercase()).collect();
                    format!("expected q4_k_m, mxfp4 or a type: {}", names.join(", "))
                })
            }
        }
    }
}

impl Mix {
    /// The type of a tensor. Vectors, routers and mixing coefficients stay F32, whatever the rule.
    pub fn of(self, place: &Place) -> Type {
        let Place { name, dims, .. } = *place;
        let exact = ["norm", "ffn_gate_inp", "coef", ".bias", "rope_freqs"];
        if dims.len() < 2 || exact.iter().any(|part| name.contains(part)) {
            return F32;
        }
        fitting(self.wished(place), dims[0])
    }

    fn wished(self, place: &Place) -> Type {
        let output = place.name == "output.weight" || place.tied && place.name == "token_embd.weight";
        match self {
            Mix::Plain(Q4_0 | Q5_0 | Q4_1 | Q5_1) if output => Q6_K,
            Mix::Plain(ty) => ty,
            Mix::Mxfp4 if place.name.contains("_exps") => MXFP4,
            Mix::Mxfp4 => Q8_0,
            Mix::Q4KM if output => Q6_K,
            Mix::Q4KM if place.more_bits() => Q6_K,
            Mix::Q4KM => Q4_K,
        }
    }
}

impl Place<'_> {
    /// Whether `Q4_K_M` spends more on this tensor: values and down projections of the first and last eighth of the
    /// layers, and of every third between them.
    fn more_bits(&self) -> bool {
        let Some(i) = self.layer else { return false };
        let (eighth, seven_eighths) = (self.layers / 8, 7 * self.layers / 8);
        let chosen = i < eighth || i >= seven_eighths || (i - eighth) % 3 == 2;
        chosen && ["attn_v.", "ffn_down"].iter().any(|part| self.name.contains(part))
    }
}

/// The type, or what llama.cpp falls back to where its blocks do not divide rows of `values`.
fn fitting(ty: Type, values: u64) -> Type {
    if values.is_multiple_of(ty.block_values() as u64) {
        return ty;
    }
    let smaller = match ty {
        Q2_K | Q3_K | IQ4_XS => IQ4_NL,
        Q4_K => Q5_0,
        Q5_K => Q5_1,
        Q6_K => Q8_0,
        _ => F16,
    };
    if values.is_multiple_of(smaller.block_values() as u64) {
        smaller
    } else {
        F16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(mix: &str, name: &str, layer: Option<u64>, tied: bool, width: u64) -> Type {
        let place = Place {
            name,
            dims: &[width, 64],
            layer,
            layers: 24,
            tied,
        };
        mix.parse::<Mix>().unwrap().of(&place)
    }

    #[test]
    fn q4_k_m_spends_more_where_it_matters() {
        assert_eq!(of("q4_k_m", "token_embd.weight", None, true, 512), Q6_K);
        assert_eq!(of("q4_k_m", "token_embd.weight", None, false, 512), Q4_K);
        assert_eq!(of("q4_k_m", "output.weight", None, false, 512), Q6_K);
        assert_eq!(of("q4_k_m", "blk.0.ffn_down.weight", Some(0), false, 512), Q6_K);
        assert_eq!(of("q4_k_m", "blk.3.ffn_down.weight", Some(3), false, 512), Q4_K);
        assert_eq!(of("q4_k_m", "blk.5.attn_v.weight", Some(5), false, 512), Q6_K);
        assert_eq!(of("q4_k_m", "blk.21.attn_v.weight", Some(21), false, 512), Q6_K);
        assert_eq!(of("q4_k_m", "blk.0.attn_q.weight", Some(0), false, 512), Q4_K);
    }

    #[test]
    fn rows_that_blocks_do_not_divide_fall_back() {
        assert_eq!(of("q4_k_m", "blk.0.attn_q.weight", Some(0), false, 2880), Q5_0);
        assert_eq!(of("q4_k_m", "blk.0.attn_v.weight", Some(0), false, 2880), Q8_0);
        assert_eq!(of("q8_0", "altup_router.weight", None, false, 4), F16);
    }

    #[test]
    fn experts_alone_are_mxfp4() {
        assert_eq!(of("mxfp4", "blk.0.ffn_up_exps.weight", Some(0), false, 2880), MXFP4);
        assert_eq!(of("mxfp4", "blk.0.attn_q.weight", Some(0), false, 2880), Q8_0);
        assert_eq!(of("mxfp4", "blk.0.ffn_gate_inp.weight", Some(0), false, 2880), F32);
        assert_eq!(of("mxfp4", "blk.0.attn_norm.weight", Some(0), false, 2880), F32);
    }

    #[test]
    fn an_unknown_mix_is_refused_with_the_known_ones() {
        let error = "q9".parse::<Mix>().unwrap_err();
        assert!(error.contains("q4_k_m") && error.contains("q8_0"), "{error}");
    }
}
