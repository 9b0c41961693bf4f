//! What the benchmarks share: cases are a type and an instruction set.

use std::sync::OnceLock;

use backend_api::{abi_stable::std_types::RStr, contract::HostServices, types::Type};
use backend_cpu::kernel_set::{KernelSet, Kernels};

extern "C" fn ignore(_: u32, _: RStr<'_>, _: RStr<'_>) {}

/// A host that logs nothing.
pub fn services() -> HostServices {
    HostServices {
        log: ignore,
        level: 0,
        reserved: 0,
        reserved2: [0; 6],
    }
}

/// The sets that this machine has, by the names of their counters.
fn sets() -> &'static [(&'static str, Kernels)] {
    static SETS: OnceLock<Vec<(&str, Kernels)>> = OnceLock::new();
    SETS.get_or_init(|| {
        let mut sets = Vec::new();
        for set in KernelSet::ALL.into_iter().filter(|s| s.is_available()) {
            let kernels = Kernels::forced(set).expect("available");
            sets.push((set.name(), kernels.without_vnni()));
            if kernels.vnni() {
                sets.push(("avx512vnni", kernels));
            }
        }
        sets
    })
}

/// Each of these types with each set.
pub fn cases(types: &[Type]) -> impl Iterator<Item = String> {
    let names = sets().iter().map(|s| s.0);
    types
        .iter()
        .flat_map(move |ty| names.clone().map(move |set| format!("{ty} {set}")))
}

/// The type and the set of a case.
pub fn chosen(case: &str) -> (Type, Kernels) {
    let (ty, set) = case.split_once(' ').expect("type and set");
    let ty = Type::ALL.into_iter().find(|t| t.name() == ty).expect("a type");
    let (_, kernels) = sets().iter().find(|s| s.0 == set).expect("a set");
    (ty, *kernels)
}
