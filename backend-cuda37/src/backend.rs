//! The plugin: what is here, what it is worth, and the planning queries, which need neither driver nor device.

use std::{marker::PhantomData, sync::Arc};

use backend_api::{
    BackendError, Result,
    contract::{DeviceInfo, DeviceKind, HostServices, Interface, MemoryRules, OpenOptions, Score, WeightLayout, flags},
    graph::{Graph, Node, Tensor},
    measure::{self, Measure},
    plugin::{Backend, Device},
};

use crate::{
    arrange::Rows,
    device::CudaDevice,
    driver::{Driver, Facts, Platform},
    logical, ops,
};

/// Allocations take whole pages of the device.
pub const GRANULARITY: u64 = 2 << 20;

/// Bytes that the starts of activations, and the workspace, are multiples of.
pub const ALIGNMENT: u64 = 256;

/// The least compute capability, times 10.
const LEAST_CAPABILITY: u32 = 37;

/// A device with less memory has no room for a model beside the driver's own needs.
const LEAST_MEMORY: u64 = 512 << 20;

/// What is left free of a device's memory, for modules, captured launches and the driver's own.
const LEFT: u64 = 128 << 20;

/// The backend over a platform's devices.
pub struct Cuda37<P>(PhantomData<P>);

/// A device that can be used, and its index on the platform.
struct Usable {
    index: u32,
    facts: Facts,
}

impl<P: Platform> Cuda37<P> {
    /// The devices that can be used; where there are none, why not.
    fn usable() -> Result<Vec<Usable>, String> {
        let devices = P::devices()?;
        let first = devices.first().map(obstacle);
        let numbered = devices.into_iter().zip(0..);
        let usable = numbered.filter(|(facts, _)| obstacle(facts).is_none());
        let usable: Vec<Usable> = usable.map(|(facts, index)| Usable { index, facts }).collect();
        match usable.is_empty() {
            true => Err(first.flatten().unwrap_or_else(|| "no CUDA device".into())),
            false => Ok(usable),
        }
    }

    /// The devices as the host sees them: those that can be used, or parts of them that the user asked for.
    fn seen() -> Result<Vec<Usable>, String> {
        let usable = Self::usable()?;
        let Some(parts) = logical::wanted()? else {
            return Ok(usable);
        };
        let part = |i: usize| {
            let Usable { index, facts } = &usable[i % usable.len()];
            Usable {
                index: *index,
                facts: Facts {
                    total: facts.total.min(parts.bytes),
                    ..facts.clone()
                },
            }
        };
        Ok((0..parts.count).map(part).collect())
    }

    /// Opens a device as the host numbers them; and the bytes of its memory.
    pub(crate) fn driver(device: u32) -> Result<(Arc<dyn Driver>, u64)> {
        let seen = Self::seen().map_err(BackendError::failed)?;
        let missing = || BackendError::invalid(format!("there is no device {device}, but {}", seen.len()));
        let Usable { index, facts } = seen.get(device as usize).ok_or_else(missing)?;
        Ok((P::open(*index)?.into(), facts.total))
    }
}

/// Why a device cannot be used.
fn obstacle(facts: &Facts) -> Option<String> {
    let Facts {
        name,
        capability,
        total,
        ..
    } = facts;
    if *capability < LEAST_CAPABILITY {
        return Some(format!(
            "{name} has compute capability {}, at least {} is needed",
            version(*capability),
            version(LEAST_CAPABILITY)
        ));
    }
    (*total < LEAST_MEMORY).then(|| {
        let (there, least) = (total >> 20, LEAST_MEMORY >> 20);
        format!("{name} has too little memory: {there} MiB, at least {least} are needed")
    })
}

/// 37 as 3.7.
fn version(capability: u32) -> String {
    format!("{}.{}", capability / 10, capability % 10)
}

impl<P: Platform> Backend for Cuda37<P> {
    const NAME: &'static str = P::NAME;
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn score(_services: HostServices) -> Result<Score> {
        let seen = match Self::seen() {
            Ok(seen) => seen,
            Err(reason) => return Ok(Score::new(0.0, reason)),
        };
        let best = seen.iter().max_by_key(|device| device.facts.capability);
        Ok(best.map_or_else(
            || Score::new(0.0, "no CUDA device"),
            |device| {
                let Facts { name, capability, .. } = &device.facts;
                let more = match seen.len() - 1 {
                    0 => String::new(),
                    n => format!(" and {n} more"),
                };
                let reason = format!("{name}, compute capability {}{more}", version(*capability));
                Score::new(P::score(*capability), reason)
            },
        ))
    }

    fn devices(_services: HostServices) -> Result<Vec<DeviceInfo>> {
        let seen = Self::seen().unwrap_or_default();
        let free = |device: &Usable| {
            let total = device.facts.total;
            P::free(device.index).map_or(total, |free| free.saturating_sub(LEFT).min(total))
        };
        let peers = if seen.len() > 1 { flags::PEER_COPY } else { 0 };
        let info = |(device, id): (&Usable, u32)| DeviceInfo {
            id,
            kind: DeviceKind::Gpu as u32,
            name: device.facts.name.as_str().into(),
            total: device.facts.total,
            free: free(device),
            flags: peers,
            capability: device.facts.capability.into(),
            reserved: [0; 6],
        };
        Ok(seen.iter().zip(0..).map(info).collect())
    }

    fn open(services: HostServices, device: u32, _options: &OpenOptions) -> Result<Box<dyn Device>> {
        let (driver, total) = Self::driver(device)?;
        Ok(Box::new(CudaDevice::new(services, P::NAME, driver, device, total)?))
    }

    fn query(name: &str) -> Option<Interface> {
        (name == measure::NAME).then(Measure::of::<Self>)
    }

    fn supports(_device: &DeviceInfo, graph: &Graph<'_>, node: &Node) -> Result<()> {
        ops::supports(graph, node).map(|_| ())
    }

    fn workspace(_device: &DeviceInfo, graph: &Graph<'_>, node: &Node) -> Result<u64> {
        ops::supports(graph, node)?;
        ops::workspace(graph, node)
    }

    fn weight(_device: &DeviceInfo, weight: &Tensor) -> Result<WeightLayout> {
        let unknown = || BackendError::invalid("a weight of unknown type or size");
        let bytes = weight.extent().ok_or_else(unknown)?;
        Ok(WeightLayout {
            bytes: match Rows::of(weight)? {
                Some(rows) => rows.whole("a weight of", bytes)?,
                None => bytes,
            },
            alignment: ALIGNMENT,
        })
    }

    fn memory(_device: &DeviceInfo) -> Result<MemoryRules> {
        Ok(MemoryRules {
            granularity: GRANULARITY,
            alignment: ALIGNMENT,
        })
    }
}

#[cfg(test)]
mod tests {
    use abi_stable::std_types::RStr;
    use backend_api::abi_stable;

    use super::*;

    /// Devices that are told of, none of which can be opened.
    struct Told<const CASE: usize>;

    fn facts(name: &str, capability: u32, total: u64) -> Facts {
        Facts {
            name: name.into(),
            capability,
            total,
        }
    }

    impl<const CASE: usize> Platform for Told<CASE> {
        const NAME: &'static str = "told";

        fn devices() -> Result<Vec<Facts>, String> {
            let old = facts("Tesla K40m", 35, 12 << 30);
            let small = facts("GeForce GT 740M", 50, 256 << 20);
            let die = facts("Tesla K80", 37, 11441 << 20);
            match CASE {
                0 => Err("libcuda.so.1 not found".into()),
                1 => Ok(vec![]),
                2 => Ok(vec![old, small]),
                3 => Ok(vec![small]),
                _ => Ok(vec![old, die.clone(), die]),
            }
        }

        fn free(device: u32) -> Option<u64> {
            [Some(0), Some(10 << 30), None][device as usize]
        }

        fn score(capability: u32) -> f32 {
            100.0 + capability as f32
        }

        fn open(_device: u32) -> Result<Box<dyn Driver>> {
            Err(BackendError::failed("it is only told of"))
        }
    }

    extern "C" fn ignore(_: u32, _: RStr<'_>, _: RStr<'_>) {}

    const SERVICES: HostServices = HostServices {
        log: ignore,
        level: 0,
        reserved: 0,
        reserved2: [0; 6],
    };

    fn scored<const CASE: usize>() -> (f32, String) {
        let score = Cuda37::<Told<CASE>>::score(SERVICES).unwrap();
        (score.value, score.reason.into())
    }

    #[test]
    fn what_stands_in_the_way_is_told() {
        let old = "Tesla K40m has compute capability 3.5, at least 3.7 is needed";
        let small = "GeForce GT 740M has too little memory: 256 MiB, at least 512 are needed";
        assert_eq!(scored::<0>(), (0.0, "libcuda.so.1 not found".into()));
        assert_eq!(scored::<1>(), (0.0, "no CUDA device".into()));
        assert_eq!(scored::<2>(), (0.0, old.into()));
        assert_eq!(scored::<3>(), (0.0, small.into()));
        assert_eq!(
            scored::<4>(),
            (137.0, "Tesla K80, compute capability 3.7 and 1 more".into())
        );
    }

    #[test]
    fn devices_that_can_be_used_are_counted_from_0_with_what_is_free() {
        let devices = Cuda37::<Told<4>>::devices(SERVICES).unwrap();
        let told: Vec<_> = devices
            .iter()
            .map(|d| (d.id, d.capability, d.total >> 20, d.free >> 20))
            .collect();
        assert_eq!(told, [(0, 37, 11441, 10240 - 128), (1, 37, 11441, 11441)]);
        assert!(
            devices
                .iter()
                .all(|d| d.flags == flags::PEER_COPY && d.kind == DeviceKind::Gpu as u32)
        );
        assert!(Cuda37::<Told<0>>::devices(SERVICES).unwrap().is_empty());
        let missing = Cuda37::<Told<4>>::open(SERVICES, 2, &OpenOptions::default());
        assert_eq!(missing.err().unwrap().message.as_str(), "there is no device 2, but 2");
    }
}
