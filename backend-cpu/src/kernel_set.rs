//! Which instruction sets the kernels may use on this machine.

use std::fmt;

use backend_api::{BackendError, Result};

use crate::features;

/// The environment variable that forces a set: `scalar`, `avx2`, `avxvnni`, `avx512` or `amx`. `amx-emulated`, for tests,
/// multiplies many columns as with AMX, its tiles in plain Rust.
pub const VARIABLE: &str = "GRAFT_CPU_KERNELS";

/// Names in it beside those of [`KernelSet`].
const AMX: &str = "amx";
const EMULATED: &str = "amx-emulated";

/// A set of instructions that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KernelSet {
    /// What the target guarantees.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-VNNI, and all of [`KernelSet::Avx2`].
    AvxVnni,
    /// AVX-512 F, BW, VL and DQ, and all of [`KernelSet::Avx2`].
    Avx512,
}

impl KernelSet {
    /// Every set, the weakest first.
    pub const ALL: [KernelSet; 4] = [
        KernelSet::Scalar,
        KernelSet::Avx2,
        KernelSet::AvxVnni,
        KernelSet::Avx512,
    ];

    /// The name in the environment variable and in counters.
    pub const fn name(self) -> &'static str {
        match self {
            KernelSet::Scalar => "scalar",
            KernelSet::Avx2 => "avx2",
            KernelSet::AvxVnni => "avxvnni",
            KernelSet::Avx512 => "avx512",
        }
    }

    /// Whether processor and operating system allow it.
    pub fn is_available(self) -> bool {
        match self {
            KernelSet::Scalar => true,
            KernelSet::Avx2 => has_avx2(),
            KernelSet::AvxVnni => has_avxvnni(),
            KernelSet::Avx512 => has_avx512(),
        }
    }
}

impl fmt::Display for KernelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            KernelSet::Scalar => "plain instructions",
            KernelSet::Avx2 => "AVX2",
            KernelSet::AvxVnni => "AVX-VNNI",
            KernelSet::Avx512 => "AVX-512",
        })
    }
}

/// What multiplies tiles of bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiles {
    /// AMX.
    Instructions,
    /// Plain Rust in their place.
    Emulated,
}

/// The set that a device uses, checked against the machine when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    set: KernelSet,
    vnni: bool,
    vbmi: bool,
    tiles: Option<Tiles>,
}

impl Kernels {
    /// The set that was selected, or that the environment forces, or the best one that this machine allows.
    pub fn detect() -> Result<Kernels> {
        if let Some(selected) = features::selected() {
            return Ok(selected);
        }
        match std::env::var(VARIABLE) {
            Ok(name) => Kernels::named(&name),
            Err(std::env::VarError::NotPresent) => Ok(Kernels::best()),
            Err(std::env::VarError::NotUnicode(_)) => Err(unknown("(not text)")),
        }
    }

    /// The best set that this machine allows.
    pub fn best() -> Kernels {
        let set = KernelSet::ALL.into_iter().rev().find(|s| s.is_available());
        let kernels = Kernels::of(set.unwrap_or(KernelSet::Scalar));
        kernels.with_amx().unwrap_or(kernels)
    }

    fn of(set: KernelSet) -> Kernels {
        let vnni = set == KernelSet::Avx512 && has_vnni();
        Kernels {
            set,
            vnni,
            vbmi: vnni && has_vbmi(),
            tiles: None,
        }
    }

    /// A certain set; refused where this machine lacks it.
    pub fn forced(set: KernelSet) -> Result<Kernels> {
        if !set.is_available() {
            return Err(lacking(&set.to_string(), set.name()));
        }
        Ok(Kernels::of(set))
    }

    /// The same set with AMX, where it has VNNI and this machine has AMX.
    pub fn with_amx(self) -> Option<Kernels> {
        let tiles = Some(Tiles::Instructions);
        (self.vnni && has_amx()).then_some(Kernels { tiles, ..self })
    }

    /// The same set with tiles in plain Rust; for tests.
    pub fn with_emulated_tiles(self) -> Kernels {
        let tiles = (self.set != KernelSet::Scalar).then_some(Tiles::Emulated);
        Kernels { tiles, ..self }
    }

    /// The same set without VNNI.
    pub fn without_vnni(self) -> Kernels {
        Kernels {
            vnni: false,
            vbmi: false,
            tiles: None,
            ..self
        }
    }

    /// The same set without VBMI.
    pub fn without_vbmi(self) -> Kernels {
        Kernels { vbmi: false, ..self }
    }

    /// The set with this name; refused where this machine lacks it.
    pub fn named(name: &str) -> Result<Kernels> {
        match name {
            AMX => return Kernels::best().with_amx().ok_or_else(|| lacking("AMX", AMX)),
            EMULATED => return Ok(Kernels::best().with_emulated_tiles()),
            _ => {}
        }
        let set = KernelSet::ALL.into_iter().find(|s| s.name() == name);
        Kernels::forced(set.ok_or_else(|| unknown(name))?)
    }

    /// The set. That it is here was checked, so its kernels may be called.
    pub fn set(self) -> KernelSet {
        self.set
    }

    /// Whether AVX-512 VNNI may be used as well; never without [`KernelSet::Avx512`].
    pub fn vnni(self) -> bool {
        self.vnni
    }

    /// Whether AVX-512 VBMI may be used as well; never without VNNI.
    pub fn vbmi(self) -> bool {
        self.vbmi
    }

    /// What multiplies tiles, if anything does. Instructions were found on this machine, beside VNNI; what stands in for them
    /// takes more than [`KernelSet::Scalar`].
    pub fn tiles(self) -> Option<Tiles> {
        self.tiles
    }
}

impl fmt::Display for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tiles = match self.tiles {
            None => "",
            Some(Tiles::Instructions) => " and AMX",
            Some(Tiles::Emulated) => " and emulated AMX",
        };
        write!(f, "{}{}{tiles}", self.set, if self.vnni { " with VNNI" } else { "" })
    }
}

fn unknown(name: &str) -> BackendError {
    BackendError::unsupported(format!(
        "{VARIABLE}={name} is none of scalar, avx2, avxvnni, avx512, amx"
    ))
}

fn lacking(what: &str, name: &str) -> BackendError {
    BackendError::unsupported(format!("this machine has no {what}, which {VARIABLE}={name} asks for"))
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avxvnni() -> bool {
    has_avx2() && is_x86_feature_detected!("avxvnni")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
}

#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    is_x86_feature_detected!("avx512vnni")
}

#[cfg(target_arch = "x86_64")]
fn has_vbmi() -> bool {
    is_x86_feature_detected!("avx512vbmi")
}

#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    crate::product::amx::is_available()
}

#[cfg(not(target_arch = "x86_64"))]
fn has_amx() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avxvnni() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_vnni() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_vbmi() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_set_is_refused_by_name() {
        let error = Kernels::named("sse9").unwrap_err();
        assert!(error.message.contains("sse9") && error.message.contains("avx512"));
    }

    #[test]
    fn the_best_set_is_available_and_scalar_always_is() {
        assert!(Kernels::best().set().is_available());
        assert_eq!(Kernels::named("scalar").unwrap().set(), KernelSet::Scalar);
    }

    #[test]
    fn no_set_of_this_machine_is_better_than_the_best() {
        let best = Kernels::best();
        assert!(
            KernelSet::ALL
                .into_iter()
                .all(|set| !set.is_available() || set <= best.set())
        );
        assert_eq!(best.vnni(), best.set() == KernelSet::Avx512 && has_vnni());
    }

    #[test]
    fn vnni_comes_with_avx512_alone() {
        for set in KernelSet::ALL.into_iter().filter(|s| s.is_available()) {
            let kernels = Kernels::forced(set).unwrap();
            assert!(!kernels.vnni() || kernels.set() == KernelSet::Avx512);
        }
    }
}
